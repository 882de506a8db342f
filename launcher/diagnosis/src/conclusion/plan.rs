//! Makes one plan for each GPU, or for the node: how urgent it is, which work may continue, and the steps in order.
//!
//! Each rule has its own action. Two rules about one GPU can contradict each other ("other work may continue", "drain
//! the work"), or one can require a reboot that a process of another finding blocks. A plan joins the actions of all findings
//! about its GPUs: the strongest one leads, actions that it does not include remain steps, and the texts of the findings refer
//! to the plan. The rules of the reset itself (`syringe_core::action_rules`) say which GPUs are reset together, what must be
//! done before, and whether a reset is sufficient.

use crate::evidence;
use crate::evidence::Label;
use crate::finding::{ITS_PLAN, PLAN_FOR_NODE, PLAN_OF_GPU};
use crate::finding::{Plan, Rma, Urgency};
use crate::input::node::{Gpu, Node};
use crate::input::processes::is_service;
use crate::rule::{Draft, InPlan};
use syringe_core::action_rules::reset_needs::{ResetGroup, ResetNeeds, needs};
use syringe_core::classification::{ActionCode, Class, Severity};

/// Maximum number of process ids in a step.
const SHOWN: usize = 4;

/// Makes the plans, and adapts the texts of the drafts to them.
pub(crate) fn make_plans(node: &Node<'_>, drafts: &mut [Draft]) -> Vec<Plan> {
    if let Some(whole) = whole(node, drafts) {
        return vec![of_node(node, drafts, whole)];
    }
    let mut plans: Vec<(Gpu, Plan)> = Vec::new();
    for gpu in &node.gpus {
        plans.extend(of_gpu(node, gpu, drafts).map(|plan| (gpu.clone(), plan)));
    }
    grouped(plans, &node.name)
}

/// Returns the drafts that require an action.
fn urgent(drafts: &[Draft]) -> impl Iterator<Item = &Draft> {
    let is_idle = |action| matches!(action, ActionCode::None | ActionCode::Watch);
    drafts.iter().filter(move |draft| draft.severity > Severity::Info && !draft.actions().all(is_idle))
}

fn is_reset(action: ActionCode) -> bool {
    matches!(action, ActionCode::ResetGpu | ActionCode::DrainAndReset)
}

fn wants(draft: &Draft, action: ActionCode) -> bool {
    draft.actions().any(|one| one == action)
}

fn wants_reset(draft: &Draft) -> bool {
    draft.actions().any(is_reset)
}

/// Returns whether the draft is the only finding of a plan: then its text has no other action to contradict.
fn is_only(draft: &Draft, findings: usize) -> bool {
    findings == 1 && draft.severity > Severity::Info && needs_plan(draft)
}

/// Returns whether the action is carried out at the machine.
fn is_inspection(action: ActionCode) -> bool {
    matches!(action, ActionCode::CheckCabling | ActionCode::CheckCooling)
}

/// Returns whether the action interrupts the work on a GPU or on the node, so that it needs a plan.
fn needs_plan(draft: &Draft) -> bool {
    let interrupts = |action| {
        let returns = action == ActionCode::ContactVendor;
        is_reset(action) || is_inspection(action) || returns || action == ActionCode::DrainAndReboot
    };
    draft.actions().any(interrupts)
}

/// Returns how urgent the actions of a draft are.
fn urgency(draft: &Draft) -> Urgency {
    let continues = matches!(draft.rule.in_plan, InPlan::OtherWorkContinues | InPlan::WorkContinues);
    let at_the_machine = draft.action == ActionCode::CheckCabling;
    match draft.severity {
        Severity::Info | Severity::Warning => Urgency::NextMaintenance,
        Severity::Critical if continues || at_the_machine => Urgency::WhenJobsEnd,
        Severity::Critical | Severity::Fatal => Urgency::Now,
    }
}

fn rma<'a>(drafts: impl Iterator<Item = &'a Draft>) -> Rma {
    let of = |draft: &Draft| match draft.rule.class {
        _ if wants(draft, ActionCode::ContactVendor) => Rma::Yes,
        Class::Hardware if draft.severity >= Severity::Critical => Rma::IfRepeated,
        _ => Rma::No,
    };
    drafts.map(of).max().unwrap_or_default()
}

/// A plan for the whole node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whole {
    Reboot,
    /// Resets all GPUs and NVSwitches together.
    ResetAll,
}

/// Returns whether a finding requires a plan for the whole node.
fn whole(node: &Node<'_>, drafts: &[Draft]) -> Option<Whole> {
    let worst = urgent(drafts).filter(|draft| needs_plan(draft)).map(|draft| draft.severity).max()?;
    if worst < Severity::Critical && urgent(drafts).count() < 2 {
        return None;
    }
    let resets = || urgent(drafts).filter(|draft| wants_reset(draft) && draft.severity >= Severity::Critical);
    if urgent(drafts).any(|draft| wants(draft, ActionCode::DrainAndReboot)) || why_not_reset(node, drafts).is_some() {
        return Some(Whole::Reboot);
    }
    // A switch, or a device that no section lists.
    resets().any(|draft| !node.gpus.iter().any(|gpu| draft.is_on(gpu))).then_some(Whole::ResetAll)
}

fn needs_of(node: &Node<'_>, gpu: &Gpu) -> Option<ResetNeeds> {
    needs(node.report, gpu.uuid.as_deref()?)
}

/// Returns the first GPU that should be reset, but for which only a reboot is sufficient, with the reason.
fn why_not_reset(node: &Node<'_>, drafts: &[Draft]) -> Option<(Label, String)> {
    let reset = |gpu: &&Gpu| {
        let mut own = urgent(drafts).filter(|draft| draft.is_on(gpu) && draft.severity >= Severity::Critical);
        own.any(wants_reset)
    };
    node.gpus.iter().filter(reset).find_map(|gpu| Some(((gpu.index, gpu.label()), needs_of(node, gpu)?.reboot?)))
}

/// Makes the plan of a node that must be rebooted, or whose GPUs are all reset. This plan includes the resets of its GPUs.
fn of_node(node: &Node<'_>, drafts: &mut [Draft], whole: Whole) -> Plan {
    let findings = ids(urgent(drafts));
    let reboots = || urgent(drafts).filter(|draft| wants(draft, ActionCode::DrainAndReboot));
    let mut gone: Vec<&Draft> = reboots().filter(|draft| draft.rule.in_plan == InPlan::PowerCycle).collect();
    let stuck: Vec<String> = stuck(drafts, |_| true);
    let mut steps = vec!["Cordon {node}.".to_owned()];
    let name = &node.name;
    steps.push(if stuck.is_empty() {
        "Drain {node}.".to_owned()
    } else {
        format!("Drain {{node}}. Do not wait for pid {}: no signal ends it.", evidence::some(&stuck, SHOWN))
    });
    let why = if reboots().next().is_none() { why_not_reset(node, drafts) } else { None };
    steps.extend(why.map(|((_, gpu), why)| format!("A reset of {gpu} is not sufficient: {why}.")));
    steps.push(
        match (whole, gone.is_empty(), stuck.is_empty()) {
            (Whole::Reboot, false, true) => {
                "Power-cycle {node}: a reset or a plain reboot may not bring back a GPU that fell off the bus."
            }
            (Whole::Reboot, true, true) => "Reboot {node}.",
            (Whole::ResetAll, _, true) => {
                "Reset all GPUs and NVSwitches of {node} together (nvidia-smi --gpu-reset), or reboot {node}."
            }
            (_, _, false) => {
                "Power-cycle {node} (BMC): a plain reboot can wait forever for a process that no signal ends."
            }
        }
        .to_owned(),
    );
    let (lead, verb) = match whole {
        Whole::ResetAll if stuck.is_empty() => (ActionCode::DrainAndReset, "reset"),
        _ if gone.is_empty() && stuck.is_empty() => (ActionCode::DrainAndReboot, "reboot"),
        _ => (ActionCode::DrainAndReboot, "power-cycle"),
    };
    let places = |wanted: fn(&Draft) -> bool| -> Vec<Label> {
        urgent(drafts).filter(|draft| wanted(draft) && draft.names_gpu()).map(Draft::label).collect()
    };
    let reset = distinct(places(wants_reset));
    if !reset.is_empty() && whole == Whole::Reboot {
        steps.push(format!("{} needs no separate reset: the {verb} resets it.", evidence::gpus(&reset)));
    }
    steps.extend(afterwards(&places));
    let returned = places(|draft| wants(draft, ActionCode::ContactVendor));
    gone.retain(|draft| !returned.iter().any(|(index, _)| index.is_some() && *index == draft.scope.gpu));
    if !gone.is_empty() {
        let gpus = distinct(gone.iter().map(|draft| draft.label()).collect());
        steps.push(format!("If {} falls off the bus again, return it (RMA).", evidence::gpus(&gpus)));
    }
    steps.extend(further(urgent(drafts), lead));
    let affected = distinct(places(|draft| draft.severity >= Severity::Critical));
    let before_plan = before_drain(node, &affected);
    let urgency = urgent(drafts).filter(|draft| needs_plan(draft)).map(urgency).max().unwrap_or_default();
    let suspect: Vec<&Gpu> = node.gpus.iter().filter(|gpu| !results(node, gpu, drafts).is_empty()).collect();
    let results = suspect.iter().map(|gpu| results(node, gpu, drafts).replace("{gpu}", &gpu.label()));
    let results = results.collect::<Vec<_>>().join(" ");
    let if_pod_deleted = if_pod_deleted(&stuck, urgency);
    let rma = rma(urgent(drafts));
    let what = format!("the {verb} of {{node}}");
    let adapted = drafts.iter_mut().filter(|draft| !is_only(draft, findings.len()));
    refer_to_plan(adapted, lead, &what, verb);
    let fill = |text: String| text.replace("{node}", name);
    Plan {
        subject: name.clone(),
        action: lead,
        urgency,
        before_plan,
        steps: steps.into_iter().map(fill).collect(),
        if_pod_deleted: fill(if_pod_deleted),
        results,
        rma,
        findings,
        addresses: Vec::new(),
    }
}

/// Returns the pids of processes that no signal ends, of the drafts that `of` selects.
fn stuck(drafts: &[Draft], of: impl Fn(&Draft) -> bool) -> Vec<String> {
    let unkillable = |draft: &&Draft| draft.rule.in_plan == InPlan::UnkillableProcess && of(draft);
    urgent(drafts).filter(unkillable).filter_map(|draft| draft.scope.pid).map(|pid| pid.to_string()).collect()
}

/// Returns the steps for actions that the lead does not include, other than those that the plan has steps for.
fn further<'a>(drafts: impl Iterator<Item = &'a Draft>, lead: ActionCode) -> Vec<String> {
    let all = drafts.flat_map(|draft| &draft.further);
    let own = all.filter(|(action, _)| !lead.includes(*action) && !is_inspection(*action));
    let own = own.filter(|(action, _)| *action != ActionCode::ContactVendor);
    let mut steps: Vec<String> = own.map(|(_, advice)| advice.clone()).collect();
    steps.dedup();
    steps
}

/// Returns what happens to a pod on the GPUs of a plan that is deleted before.
fn if_pod_deleted(stuck: &[String], urgency: Urgency) -> String {
    match (stuck, urgency) {
        ([_, ..], _) => {
            let pids = evidence::some(stuck, SHOWN);
            format!("The pod of pid {pids} stays in Terminating: no signal ends the process, only a power cycle does.")
        }
        ([], Urgency::Now) => {
            "The next pod on {node} can get the same GPU and fail, too: cordon {node} before you delete a pod."
                .to_owned()
        }
        ([], _) => String::new(),
    }
}

/// Returns which results of the work on a GPU can be trusted. Empty if the errors do not concern results.
fn results(node: &Node<'_>, gpu: &Gpu, drafts: &[Draft]) -> String {
    let of_gpu = |effect| urgent(drafts).find(|draft| draft.rule.in_plan == effect && draft.is_on(gpu));
    if let Some(draft) = of_gpu(InPlan::ResultsSuspect) {
        let since = draft.since.map(|since| format!(" from {} on", evidence::time(since))).unwrap_or_default();
        let users = users(node, gpu);
        let users = if users.is_empty() { String::new() } else { format!(" ({})", evidence::some(&users, SHOWN)) };
        return format!(
            "Do not use what programs on {{gpu}}{users} computed{since}; use a checkpoint from before. Programs on other GPUs \
             are affected only if they took data from it."
        );
    }
    match of_gpu(InPlan::OtherWorkContinues) {
        Some(_) => {
            "Only the program that used the bad memory lost its work; other results are not affected.".to_owned()
        }
        None => String::new(),
    }
}

/// Returns the programs on a GPU now: `pid 7 'python3' of ml/train-0`.
fn users(node: &Node<'_>, gpu: &Gpu) -> Vec<String> {
    let all = node.processes().into_iter().flat_map(|section| &section.processes);
    let on_gpu =
        all.filter(|process| process.uses.iter().any(|usage| Some(usage.gpu) == gpu.index) && !is_service(process));
    let named = on_gpu.map(|process| {
        let pod = process.pod_uid.as_deref().and_then(|uid| node.pod_name(uid));
        let pod = pod.map(|pod| format!(" of {pod}")).unwrap_or_default();
        format!("{}{pod}", evidence::process(process))
    });
    named.collect()
}

/// Returns which work may continue until the drain.
fn before_drain(node: &Node<'_>, affected: &[Label]) -> String {
    let name = &node.name;
    if affected.is_empty() || node.listed().count() <= affected.len() {
        return format!("Do not schedule new work on {name}; the drain ends the running work.");
    }
    format!(
        "Work that does not use {} may continue until the drain. Stop jobs that use it now. Do not schedule new work on \
         {name}.",
        evidence::gpus(affected)
    )
}

/// Returns the steps for hardware repairs, which come last.
fn afterwards(places: &dyn Fn(fn(&Draft) -> bool) -> Vec<Label>) -> Vec<String> {
    let mut steps = Vec::new();
    let cabling = distinct(places(|draft| draft.actions().any(is_inspection)));
    if !cabling.is_empty() {
        steps.push(format!(
            "While the node is down, check seating, power, cooling and cables of {}.",
            evidence::gpus(&cabling)
        ));
    }
    let vendor = distinct(places(|draft| wants(draft, ActionCode::ContactVendor)));
    if !vendor.is_empty() {
        steps.push(format!("Run the NVIDIA field diagnostic on {} and return it (RMA).", evidence::gpus(&vendor)));
    }
    steps
}

/// Makes the plan of a GPU that must be reset, inspected or returned.
fn of_gpu(node: &Node<'_>, gpu: &Gpu, drafts: &mut [Draft]) -> Option<Plan> {
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
    let urgency = planned().map(urgency).max()?;
    let needs = needs_of(node, gpu).filter(|_| reset);
    let group = needs.as_ref().and_then(|needs| group(node, gpu, &needs.group));
    let heat = planned().all(|draft| draft.action == ActionCode::CheckCooling);
    let contained = own().any(|draft| draft.rule.in_plan == InPlan::OtherWorkContinues);
    let mut before_plan = match urgency {
        Urgency::Now if heat => {
            "Move the work on {gpu} to other GPUs, if there are free ones; it runs slowly.".to_owned()
        }
        Urgency::Now => {
            "Do not schedule new work on {gpu}, and stop its running work now. Work on other GPUs of {node} may \
            continue"
                .to_owned()
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
    if urgency == Urgency::Now && !heat {
        before_plan.push_str(if group.is_some() { " until the reset, which includes them." } else { "." });
    }
    let mut steps = Vec::new();
    if urgency > Urgency::NextMaintenance && !heat {
        steps.push("Cordon {node}, so that {gpu} gets no new work.".to_owned());
    }
    // Steps that come before the reset, such as deleting MIG devices. A step of a finding has the same purpose as that of the
    // reset rules.
    let further = further(own(), ActionCode::DrainAndReset);
    if reset {
        let before = needs.iter().flat_map(|needs| &needs.before).filter(|_| further.is_empty());
        steps.extend(before.cloned());
        steps.extend(further);
        steps.extend(group.as_ref().and_then(|group| group.before.clone()));
        let target = group.as_ref().map_or("{gpu}", |group| group.target.as_str());
        let together = group.as_ref().map_or("", |group| group.why);
        steps.push(match urgency {
            Urgency::Now => format!("Stop the work on {target}, then reset {target}{together}."),
            Urgency::WhenJobsEnd => {
                format!("Reset {target}{together} when its work has finished, at the latest at the next drain.")
            }
            Urgency::NextMaintenance => format!("Reset {target}{together} at the next maintenance of {{node}}."),
        });
        steps.push("If the reset fails or a process does not end, drain and power-cycle {node}.".to_owned());
    } else {
        steps.extend(further);
    }
    if heat {
        steps.push("Check airflow, fans, coolant and inlet temperature of {node} near {gpu}.".to_owned());
    } else if own().any(|draft| draft.actions().any(is_inspection)) {
        steps.push("When {node} is drained, check seating, power, cooling and cables of {gpu}.".to_owned());
    }
    if returned {
        steps.push("Drain {node}, run the NVIDIA field diagnostic on {gpu} and return it (RMA).".to_owned());
    }
    let action = match (returned, reset) {
        (true, _) => ActionCode::ContactVendor,
        (false, true) => ActionCode::DrainAndReset,
        (false, false) => planned().max_by_key(|draft| draft.severity)?.action,
    };
    let stuck = stuck(drafts, |draft| draft.is_on(gpu));
    let if_pod_deleted = if heat { String::new() } else { if_pod_deleted(&stuck, urgency) };
    let (results, rma) = (results(node, gpu, drafts), rma(own()));
    let adapted = drafts.iter_mut().filter(|draft| draft.is_on(gpu) && !is_only(draft, findings.len()));
    refer_to_plan(adapted, action, &format!("{PLAN_OF_GPU} {{gpu}}"), "reset");
    Some(Plan {
        subject: "{gpu}".to_owned(),
        action,
        urgency,
        before_plan,
        steps,
        if_pod_deleted,
        results,
        rma,
        findings,
        addresses: Vec::new(),
    })
}

/// The GPUs that are reset together with a GPU.
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

/// Adapts the texts of the drafts, so that none of them contradicts the plan.
fn refer_to_plan<'a>(drafts: impl Iterator<Item = &'a mut Draft>, lead: ActionCode, what: &str, verb: &str) {
    for draft in drafts {
        let text = match draft.action {
            // A fault of an application still needs attention; the plan names the work that may continue.
            ActionCode::RestartPod if draft.severity == Severity::Info => {
                format!(
                    "Check the log of the application; this does not indicate a fault of {{gpu}}. Otherwise follow {what}."
                )
            }
            ActionCode::RestartPod => format!("Stop the work of the pod and start it elsewhere; then follow {what}."),
            ActionCode::Watch if draft.severity > Severity::Info && draft.scope.gpu.is_some() => {
                format!("No separate action: follow {what}.")
            }
            action if is_reset(action) && !what.starts_with(PLAN_OF_GPU) => {
                let until = " Until then do not schedule new work on {gpu}.";
                let until = if draft.severity >= Severity::Critical { until } else { "" };
                format!("No separate reset: {what} includes it.{until}")
            }
            ActionCode::DrainAndReboot if draft.severity > Severity::Info => {
                format!("Cordon and drain {{node}}, then {verb} it, as described in {PLAN_FOR_NODE} {{node}}.")
            }
            action if is_reset(action) && draft.severity == Severity::Warning => {
                format!("Reset {{gpu}} of {{node}}, as described in {ITS_PLAN}.")
            }
            action if is_reset(action) && draft.severity > Severity::Info => {
                format!("Do not schedule new work on {{gpu}} of {{node}} and reset it, as described in {ITS_PLAN}.")
            }
            _ => continue,
        };
        if is_reset(draft.action) || draft.action == ActionCode::DrainAndReboot {
            draft.action = if lead == ActionCode::DrainAndReboot { lead } else { draft.action };
        }
        draft.advice = text;
        // The plan has steps for these.
        draft.further.clear();
    }
}

/// Merges identical plans of several GPUs.
fn grouped(plans: Vec<(Gpu, Plan)>, node: &str) -> Vec<Plan> {
    let mut groups: Vec<(Plan, Vec<Gpu>)> = Vec::new();
    for (gpu, plan) in plans {
        match groups.iter_mut().find(|(first, _)| *first == plan) {
            Some((_, gpus)) => gpus.push(gpu),
            None => groups.push((plan, vec![gpu])),
        }
    }
    let named = |(plan, gpus): (Plan, Vec<Gpu>)| {
        let labels: Vec<Label> = gpus.iter().map(|gpu| (gpu.index, gpu.label())).collect();
        let names = evidence::gpus(&labels);
        let fill = |text: String| text.replace("{gpu}", &names).replace("{node}", node);
        Plan {
            subject: fill(plan.subject),
            before_plan: fill(plan.before_plan),
            steps: plan.steps.into_iter().map(fill).collect(),
            if_pod_deleted: fill(plan.if_pod_deleted),
            results: fill(plan.results),
            addresses: gpus.into_iter().filter_map(|gpu| gpu.pci).collect(),
            ..plan
        }
    };
    groups.into_iter().map(named).collect()
}

fn ids<'a>(drafts: impl Iterator<Item = &'a Draft>) -> Vec<String> {
    let mut ids: Vec<String> = drafts.map(|draft| draft.rule.id.to_owned()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn distinct(mut labels: Vec<Label>) -> Vec<Label> {
    labels.sort_unstable();
    labels.dedup();
    // A finding about a process may have the index of the GPU without its address. The longer name is used for both.
    let full: Vec<u32> = labels.iter().filter(|(_, text)| text.contains('(')).filter_map(|(index, _)| *index).collect();
    labels.retain(|(index, text)| text.contains('(') || !index.is_some_and(|index| full.contains(&index)));
    labels
}
