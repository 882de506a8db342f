//! `of_gpu`: makes the plan of one GPU that must be reset, inspected or returned, from the findings about it.

use crate::conclusion::plan::consequences::{
    if_pod_deleted, needs_cooling_before, only_cools, results, return_step, rma, stuck, work_urgency,
};
use crate::conclusion::plan::{
    OTHER_WORK, SHOWN, first_steps, further, ids, inspects_gpu, is_first_step, is_only, needs_of, needs_plan,
    of_near_devices, refer_to_plan, steps_after, steps_before, support_cases, updates, urgent, wants, wants_reset,
};
use crate::evidence;
use crate::evidence::Label;
use crate::finding::{PLAN_OF_GPU, Plan, Urgency};
use crate::input::node::{Gpu, Node};
use crate::input::processes::{are_all_listed, is_service};
use crate::rule::{Draft, InPlan};
use syringe_core::action_rules::reset_needs::ResetGroup;
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::processes::GpuProcess;

/// Makes the plan of a GPU that must be reset, inspected or returned.
pub(super) fn of_gpu(node: &Node<'_>, gpu: &Gpu, drafts: &mut [Draft]) -> Option<Plan> {
    let of_it = |draft: &&Draft| draft.is_on(gpu);
    let own = || urgent(drafts).filter(of_it);
    let planned = || own().filter(|draft| needs_plan(draft));
    let findings = ids(own());
    let worst = planned().map(|draft| draft.severity).max()?;
    let returned = own().any(|draft| wants(draft, ActionCode::ContactVendor));
    let reset = own().any(wants_reset);
    let watches = |draft: &Draft| draft.action == ActionCode::Watch && draft.severity > Severity::Info;
    let other_text =
        drafts.iter().any(|draft| draft.is_on(gpu) && (draft.action == ActionCode::RestartPod || watches(draft)));
    let several = findings.len() > 1 || other_text;
    if worst < Severity::Critical && !(several && (reset || returned)) {
        return None;
    }
    // A reset does not cool a GPU. An urgent check of the cooling does not make a reset urgent that can wait.
    let urgency = work_urgency(planned());
    let cooling_now = needs_cooling_before(planned(), urgency);
    let needs = needs_of(node, gpu).filter(|_| reset);
    let group = needs.as_ref().and_then(|needs| group(node, gpu, &needs.group));
    let inspects_first = drafts.iter().any(|draft| is_first_step(draft) && inspects_gpu(draft));
    let heat = planned().all(|draft| draft.action == ActionCode::CheckCooling);
    let is_hot = |gpu: &Gpu| urgent(drafts).any(|draft| draft.is_on(gpu) && only_cools(draft));
    let others = if node.answering().all(is_hot) { "nodes" } else { "GPUs" };
    let waits_for_nothing = group.is_none() && is_unused(node, gpu);
    let contained = own().any(|draft| draft.rule.in_plan == InPlan::OtherWorkContinues);
    let mut before_plan = match urgency {
        Urgency::Now | Urgency::WhenJobsEnd if waits_for_nothing => format!(
            "No program uses {{gpu}} now, so the plan needs to wait for nothing. Do not schedule new work on it.{}",
            holders(node, gpu)
        ),
        Urgency::Now if heat => {
            format!("Move the work on {{gpu}} to other {others}, if some are free: the work is slow there.")
        }
        Urgency::Now => {
            format!(
                "Do not schedule new work on {{gpu}}, and stop its running work now.{}",
                if group.is_some() { OTHER_WORK_UNTIL_RESET } else { OTHER_WORK }
            )
        }
        Urgency::WhenJobsEnd if contained => {
            "Restart the affected application. Other work on {gpu} may continue until the \
            drain; do not schedule new work on it."
                .to_owned()
        }
        Urgency::WhenJobsEnd => {
            "Work on {gpu} may continue until the drain; do not schedule new work on it.".to_owned()
        }
        Urgency::NextMaintenance => "Running and new work on {gpu} may continue until the maintenance.".to_owned(),
    };
    let mut steps = Vec::new();
    if cooling_now {
        before_plan.insert_str(
            0,
            &format!(
                "Only the check of the cooling is urgent: move the work on {{gpu}} to other {others}, if some are free. The other steps can \
                 wait. "
            ),
        );
        steps.push("Now: check airflow, fans, coolant and inlet temperature of {node} near {gpu}.".to_owned());
    }
    if urgency > Urgency::NextMaintenance && !heat && !node.kubernetes.is_cordoned() {
        steps.push("Cordon {node}, so that {gpu} gets no new work.".to_owned());
    }
    // Steps that come before the reset, such as deleting MIG devices. If a finding has such steps, those of the reset
    // rules are omitted, because both have the same purpose.
    let further = further(own(), ActionCode::DrainAndReset);
    steps.extend(first_steps(drafts));
    if reset {
        let before = needs.iter().flat_map(|needs| &needs.before).filter(|_| further.is_empty());
        steps.extend(before.cloned());
        steps.extend(further);
        let starts_fabric =
            drafts.iter().any(|draft| is_first_step(draft) && draft.rule.in_plan == InPlan::StartsFabricManager);
        steps.extend(group.as_ref().and_then(|group| group.before.clone()).filter(|_| !starts_fabric));
        let mut repairs = steps_before(drafts.iter().filter(of_it));
        repairs.retain(|step| !steps.contains(step));
        steps.append(&mut repairs);
        let target = group.as_ref().map_or("{gpu}", |group| group.target.as_str());
        let together = group.as_ref().map_or("", |group| group.why);
        steps.push(match urgency {
            Urgency::Now | Urgency::WhenJobsEnd if waits_for_nothing => {
                format!("Reset {target}: no program uses it now.")
            }
            Urgency::Now => format!("Stop the work on {target}, then reset {target}{together}."),
            Urgency::WhenJobsEnd => {
                format!("Reset {target}{together} when its work has finished, at the latest at the next drain.")
            }
            Urgency::NextMaintenance => format!("Reset {target}{together} at the next maintenance of {{node}}."),
        });
        steps.push("If the reset fails or a process does not end, drain and power-cycle {node}.".to_owned());
        steps.extend(steps_after(own()));
    } else {
        steps.extend(further);
    }
    if heat {
        steps.push("Check airflow, fans, coolant and inlet temperature of {node} near {gpu}.".to_owned());
    } else if !inspects_first && own().any(|draft| inspects_gpu(draft) && !(cooling_now && only_cools(draft))) {
        steps.push("When {node} is drained, check seating, power, cooling and cables of {gpu}.".to_owned());
    }
    steps.extend(of_near_devices(own()));
    steps.extend(updates(own()));
    steps.extend(support_cases(drafts.iter().filter(of_it)));
    if returned {
        steps.push(format!("Drain {{node}}. {}", return_step(own(), "{gpu}")));
    }
    let action = match (returned, reset) {
        _ if cooling_now => ActionCode::CheckCooling,
        (true, _) => ActionCode::ContactVendor,
        (false, true) => ActionCode::DrainAndReset,
        (false, false) => planned().max_by_key(|draft| draft.severity)?.action,
    };
    let stuck = stuck(drafts, |draft| draft.is_on(gpu));
    let if_pod_deleted = if heat { String::new() } else { if_pod_deleted(&stuck, urgency) };
    let (results, rma) = (results(node, gpu, drafts), rma(own()));
    let adapted = drafts.iter_mut().filter(|draft| draft.is_on(gpu) && !is_only(draft, findings.len(), action));
    refer_to_plan(adapted, action, &format!("{PLAN_OF_GPU} {{gpu}}"), "reset");
    Some(Plan {
        subject: "{gpu}".to_owned(),
        action,
        urgency: if cooling_now { Urgency::Now } else { urgency },
        before_plan,
        steps,
        if_pod_deleted,
        results,
        rma,
        findings,
        addresses: Vec::new(),
    })
}

/// Returns whether NVML lists no program on the GPU except services of the node.
fn is_unused(node: &Node<'_>, gpu: &Gpu) -> bool {
    let uses = |process: &GpuProcess| process.uses.iter().any(|one| Some(one.gpu) == gpu.index);
    let mut processes = node.processes().into_iter().flat_map(|section| &section.processes);
    are_all_listed(node) && node.is_readable(gpu) && !processes.any(|process| uses(process) && !is_service(process))
}

/// Returns a sentence with the pods to which the kubelet has allocated the GPU.
fn holders(node: &Node<'_>, gpu: &Gpu) -> String {
    let mut pods: Vec<String> =
        node.allocations_of(gpu).map(|allocation| node.name_of_pod(&allocation.pod_uid)).collect();
    pods.dedup();
    if pods.is_empty() { String::new() } else { format!(" It is allocated to pod {}.", evidence::some(&pods, SHOWN)) }
}

const OTHER_WORK_UNTIL_RESET: &str = " Work on other GPUs of {node} may continue until the reset, which includes them.";

/// The GPUs that must be reset together with a GPU.
struct Together {
    /// Names of all GPUs of the group.
    target: String,
    why: &'static str,
    /// A step that makes a reset of the GPU alone possible.
    before: Option<String>,
}

fn group(node: &Node<'_>, gpu: &Gpu, group: &ResetGroup) -> Option<Together> {
    let all = |peers: &[u32]| {
        let indices = peers.iter().copied().chain(gpu.index);
        let labels: Vec<Label> = indices.filter_map(|index| Some((Some(index), node.gpu(index)?.label()))).collect();
        evidence::gpus(&labels)
    };
    match group {
        ResetGroup::Alone | ResetGroup::Unknown => None,
        ResetGroup::WithFabricManager { peers, .. } => Some(Together {
            target: "{gpu}".to_owned(),
            why: "",
            before: Some(format!(
                "Start nvidia-fabricmanager on {{node}}: without it, {} can only be reset together.",
                all(peers)
            )),
        }),
        ResetGroup::Together(peers) => Some(Together {
            target: all(peers),
            why: " together: NVLink connects them, and on this architecture none can be reset alone",
            before: None,
        }),
    }
}
