//! Makes one plan for each GPU or for the node: which work may continue, and the steps in order.
//!
//! Each rule has its own action. Two rules about one GPU can contradict each other ("other work may continue", "drain
//! the work"), or one can require a reboot that a process of another finding blocks. If several findings require an
//! action, the strongest one leads, the texts of the others refer to the plan, and the steps are listed once.

use crate::evidence;
use crate::evidence::Label;
use crate::finding::Plan;
use crate::finding::{ITS_PLAN, PLAN_FOR_NODE, PLAN_OF_GPU};
use crate::input::node::{Gpu, Node};
use crate::rule::{Draft, InPlan};
use syringe_core::classification::{ActionCode, Severity};

/// Maximum number of process ids in a step.
const SHOWN: usize = 4;

/// Makes the plans, and adapts the texts of the drafts to them.
pub(crate) fn make_plans(node: &Node<'_>, drafts: &mut [Draft]) -> Vec<Plan> {
    if urgent(drafts).any(|draft| draft.action == ActionCode::DrainAndReboot) {
        return of_node(node, drafts).into_iter().collect();
    }
    let mut plans: Vec<(Gpu, Plan)> = Vec::new();
    for gpu in &node.gpus {
        plans.extend(of_gpu(gpu, drafts).map(|plan| (gpu.clone(), plan)));
    }
    grouped(plans, &node.name)
}

/// Returns the drafts that require an action now.
fn urgent(drafts: &[Draft]) -> impl Iterator<Item = &Draft> {
    drafts.iter().filter(|draft| draft.severity > Severity::Info && draft.action >= ActionCode::RestartPod)
}

fn is_reset(action: ActionCode) -> bool {
    matches!(action, ActionCode::ResetGpu | ActionCode::DrainAndReset)
}

/// Makes the plan of a node that needs a reboot. This plan includes the resets of its GPUs.
fn of_node(node: &Node<'_>, drafts: &mut [Draft]) -> Option<Plan> {
    let findings = ids(urgent(drafts));
    if urgent(drafts).count() < 2 {
        return None;
    }
    let reboots = || urgent(drafts).filter(|draft| draft.action == ActionCode::DrainAndReboot);
    let mut gone: Vec<&Draft> = reboots().filter(|draft| draft.rule.in_plan == InPlan::PowerCycle).collect();
    let stuck: Vec<String> = reboots()
        .filter(|draft| draft.rule.in_plan == InPlan::UnkillableProcess)
        .filter_map(|draft| draft.scope.pid)
        .map(|pid| pid.to_string())
        .collect();
    let mut steps = vec!["Cordon {node}.".to_owned()];
    let name = &node.name;
    steps.push(if stuck.is_empty() {
        "Drain {node}.".to_owned()
    } else {
        format!("Drain {{node}}. Do not wait for pid {}: no signal ends it.", evidence::some(&stuck, SHOWN))
    });
    steps.push(
        match (gone.is_empty(), stuck.is_empty()) {
            (false, true) => {
                "Power-cycle {node}: a reset or a plain reboot may not bring back a GPU that fell off the bus."
            }
            (true, true) => "Reboot {node}.",
            (_, false) => {
                "Power-cycle {node} (BMC): a plain reboot can wait forever for a process that no signal ends."
            }
        }
        .to_owned(),
    );
    let verb = if gone.is_empty() && stuck.is_empty() { "reboot" } else { "power-cycle" };
    let places = |wanted: fn(&Draft) -> bool| -> Vec<Label> {
        urgent(drafts).filter(|draft| wanted(draft) && draft.names_gpu()).map(Draft::label).collect()
    };
    let reset = distinct(places(|draft| is_reset(draft.action)));
    if !reset.is_empty() {
        steps.push(format!("{} needs no separate reset: the {verb} resets it.", evidence::gpus(&reset)));
    }
    steps.extend(afterwards(&places));
    let returned = places(|draft| draft.action == ActionCode::ContactVendor);
    gone.retain(|draft| !returned.iter().any(|(index, _)| index.is_some() && *index == draft.scope.gpu));
    if !gone.is_empty() {
        let gpus = distinct(gone.iter().map(|draft| draft.label()).collect());
        steps.push(format!("If {} falls off the bus again, return it (RMA).", evidence::gpus(&gpus)));
    }
    let affected = distinct(places(|draft| draft.severity >= Severity::Critical));
    let before_plan = before_drain(node, &affected);
    let what = format!("the {verb} of {{node}}");
    refer_to_plan(drafts.iter_mut(), ActionCode::DrainAndReboot, &what, verb);
    let steps = steps.into_iter().map(|step| step.replace("{node}", name)).collect();
    let subject = name.clone();
    Some(Plan { subject, action: ActionCode::DrainAndReboot, before_plan, steps, findings, addresses: Vec::new() })
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
    let cabling = distinct(places(|draft| draft.action == ActionCode::CheckCabling));
    if !cabling.is_empty() {
        steps.push(format!(
            "While the node is down, check seating, power, cooling and cables of {}.",
            evidence::gpus(&cabling)
        ));
    }
    let vendor = distinct(places(|draft| draft.action == ActionCode::ContactVendor));
    if !vendor.is_empty() {
        steps.push(format!("Run the NVIDIA field diagnostic on {} and return it (RMA).", evidence::gpus(&vendor)));
    }
    steps
}

/// Makes the plan of a GPU that must be reset or returned.
fn of_gpu(gpu: &Gpu, drafts: &mut [Draft]) -> Option<Plan> {
    let of_it = |draft: &&Draft| draft.is_on(gpu);
    let findings = ids(urgent(drafts).filter(of_it));
    let of_gpu = || urgent(drafts).filter(of_it);
    let returned = of_gpu().any(|draft| draft.action == ActionCode::ContactVendor);
    let reset = of_gpu().any(|draft| is_reset(draft.action));
    let watches = |draft: &Draft| draft.action == ActionCode::Watch && draft.severity > Severity::Info;
    let other_text =
        drafts.iter().any(|draft| draft.is_on(gpu) && (draft.action == ActionCode::RestartPod || watches(draft)));
    if !(reset || returned) || (findings.len() < 2 && !other_text) {
        return None;
    }
    let contained = of_gpu().any(|draft| draft.rule.in_plan == InPlan::OtherWorkContinues);
    let worst = of_gpu().map(|draft| draft.severity).max()?;
    let may_go_on = contained && worst < Severity::Fatal;
    let before_plan = if may_go_on {
        "Restart the affected application. Other work on {gpu} may continue until the drain; do not schedule new work on it."
    } else {
        "Do not schedule new work on {gpu}, and stop its running work now. Work on other GPUs of {node} may continue."
    };
    let mut steps = vec!["Cordon {node}, so that {gpu} gets no new work.".to_owned()];
    if reset {
        steps.push(if may_go_on {
            "Reset {gpu} when its work has finished, at the latest at the next drain.".to_owned()
        } else {
            "Stop the work on {gpu}, then reset {gpu}.".to_owned()
        });
        steps.push("If the reset fails or a process does not end, drain and power-cycle {node}.".to_owned());
    }
    if of_gpu().any(|draft| draft.action == ActionCode::CheckCabling) {
        steps.push("When {node} is drained, check seating, power, cooling and cables of {gpu}.".to_owned());
    }
    if returned {
        steps.push("Drain {node}, run the NVIDIA field diagnostic on {gpu} and return it (RMA).".to_owned());
    }
    let action = if returned { ActionCode::ContactVendor } else { ActionCode::DrainAndReset };
    let adapted = drafts.iter_mut().filter(|draft| draft.is_on(gpu));
    refer_to_plan(adapted, action, &format!("{PLAN_OF_GPU} {{gpu}}"), "reset");
    let (subject, before_plan) = ("{gpu}".to_owned(), before_plan.to_owned());
    Some(Plan { subject, action, before_plan, steps, findings, addresses: Vec::new() })
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
            action if is_reset(action) && lead == ActionCode::DrainAndReboot => {
                format!("No separate reset: {what} includes it. Until then do not schedule new work on {{gpu}}.")
            }
            ActionCode::DrainAndReboot if draft.severity > Severity::Info => {
                format!("Cordon and drain {{node}}, then {verb} it, as described in {PLAN_FOR_NODE} {{node}}.")
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
        let Plan { subject, action, before_plan, steps, findings, .. } = plan;
        let steps = steps.into_iter().map(fill).collect();
        let addresses = gpus.into_iter().filter_map(|gpu| gpu.pci).collect();
        Plan { subject: fill(subject), action, before_plan: fill(before_plan), steps, findings, addresses }
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
