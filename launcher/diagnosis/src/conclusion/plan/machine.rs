//! `adapt`: adapts actions and plans to a virtual machine, to a node that another system repairs, and to a node that is
//! being removed.
//!
//! The rules assume a physical machine that no other system repairs. This module replaces their texts for other
//! machines.

use crate::conclusion::plan::consequences::{only_cools, urgency};
use crate::conclusion::plan::demands::{asks_for_inspection, demands};
use crate::conclusion::plan::needs_plan;
use crate::evidence;
use crate::finding::{Plan, Urgency};
use crate::input::boards;
use crate::input::decisions;
use crate::input::node::Node;
use crate::rule::{Draft, InPlan};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kubernetes::lifecycle::{Decision, DecisionKind};

/// Phrases about a physical machine, and the phrases for a virtual machine. A reboot of a virtual machine does not cut
/// the power of its GPUs.
const OF_VIRTUAL: [(&str, &str); 15] = [
    (" (BMC)", ""),
    (
        "check power and firmware, then contact the vendor",
        "stop and start the machine, so that it runs on another host",
    ),
    ("return it (RMA)", "let the operator of its host replace it"),
    ("return the GPU (RMA)", "let the operator of its host replace the GPU"),
    ("Return it (RMA)", "Let the operator of its host replace it"),
    (" (RMA)", " (through the operator of its host)"),
    ("check its seating and power", "stop and start the machine, so that it runs on another host"),
    ("off and on, not a plain reboot", "off and on, not a reboot from inside"),
    ("rain and power-cycle", "rain, then stop and start"),
    ("a power cycle", "a stop and start of the machine"),
    ("power-cycled", "stopped and started"),
    ("Power-cycle", "Stop and start"),
    ("power-cycle", "stop and start"),
    ("Restart the virtual machine", "Stop and start the virtual machine"),
    ("restart the virtual machine", "stop and start the virtual machine"),
];

/// Phrases about a reset, and the phrases for a virtual GPU. Only the host can reset a virtual GPU.
const OF_VIRTUAL_GPU: [(&str, &str); 3] = [
    ("then reset ", "then let the operator of the host reset "),
    ("and reset it", "and let the operator of the host reset it"),
    ("Reset GPU", "Let the operator of the host reset GPU"),
];

/// Phrases about a virtual machine, and the phrases for a physical machine.
const OF_PHYSICAL: [(&str, &str); 2] =
    [("Restart the virtual machine", "Reboot the node"), ("restart the virtual machine", "reboot the node")];

/// Phrases in steps that only the operator of the host can carry out.
const OF_HOST: [&str; 6] = ["top and start", "seating", "cables", "operator of its host", "power supply", "reseat"];

/// Adapts the texts of drafts and plans.
pub(super) fn adapt(node: &Node<'_>, drafts: &mut [Draft], plans: &mut [Plan]) {
    let leaves = drafts.iter().any(|draft| draft.rule.in_plan == InPlan::NodeLeaves);
    if let Some(left) = decisions::running(node).map(Left::Repair).or_else(|| leaves.then_some(Left::Removal)) {
        drafts.iter_mut().filter(|draft| interrupts(draft)).for_each(|draft| leave(draft, &left));
        plans.iter_mut().for_each(|plan| leave_plan(node, plan, &left));
    }
    let words: &[(&str, &str)] = match (boards::is_virtual_machine(node), boards::is_bare_metal(node)) {
        (true, _) => &OF_VIRTUAL,
        (false, true) => &OF_PHYSICAL,
        (false, false) => &[],
    };
    let has_virtual_gpu = node
        .answering()
        .any(|gpu| node.inventory_of(gpu).is_some_and(|gpu| gpu.virtualization_mode.as_deref() == Some("vgpu")));
    let of_gpu: &[(&str, &str)] = if has_virtual_gpu { &OF_VIRTUAL_GPU } else { &[] };
    let replace = |text: &mut String| {
        *text = words.iter().chain(of_gpu).fold(std::mem::take(text), |text, (from, to)| text.replace(from, to));
    };
    for draft in drafts.iter_mut() {
        if boards::is_virtual_machine(node) {
            of_virtual_machine(draft);
        }
        std::iter::once(&mut draft.advice).chain(draft.further.iter_mut().map(|(_, text)| text)).for_each(replace);
    }
    for plan in plans.iter_mut() {
        plan.steps.iter_mut().chain([&mut plan.before_plan, &mut plan.if_pod_deleted]).for_each(replace);
        let of_host = || plan.steps.iter().any(|step| OF_HOST.iter().any(|words| step.contains(words)));
        if boards::is_virtual_machine(node) && of_host() {
            plan.steps.retain(|step| !asks_for_inspection(step));
            let words = "The node is a virtual machine. Stop and start it with its hypervisor or cloud. Let the \
                         operator of its host check or replace hardware.";
            plan.steps.push(words.to_owned());
        }
    }
}

/// Replaces an inspection of the hardware: the user of a virtual machine cannot reach the hardware.
fn of_virtual_machine(draft: &mut Draft) {
    if draft.severity == Severity::Info || draft.advice.starts_with("No ") {
        return;
    }
    draft.advice = match draft.action {
        ActionCode::CheckCooling => {
            "Move the work on {gpu} to another machine, and let the operator of the host of {node} check the cooling of {gpu}."
        }
        ActionCode::CheckCabling if draft.names_gpu() => {
            "Move the work off {gpu}, then stop and start {node}, so that it runs on another host. Let the operator of its host check slot, \
             cables and power of {gpu}."
        }
        _ => return,
    }
    .to_owned();
}

/// Returns whether the action of a draft would interfere with a repair by another system.
fn interrupts(draft: &Draft) -> bool {
    let demanded = || draft.texts().any(|text| demands(text).next().is_some());
    draft.severity > Severity::Info && !only_cools(draft) && (needs_plan(draft) || demanded())
}

/// Why the user does not repair a node.
enum Left<'a> {
    /// Another system repairs or maintains the node.
    Repair(&'a Decision),
    /// The node is being removed.
    Removal,
}

impl Left<'_> {
    /// Returns what the user does in place of an action that interrupts work.
    fn advice(&self) -> String {
        let Self::Repair(repair) = self else {
            return "{node} is being removed. Do not repair it. If its machine stays in use, diagnose the machine \
                    again before work starts on it."
                .to_owned();
        };
        let verb = if repair.kind == DecisionKind::Maintenance { "maintains" } else { "repairs" };
        format!(
            "{} {verb} {{node}}. Leave the repair to this system. When it has finished, diagnose {{node}} again.",
            evidence::data(&repair.owner)
        )
    }

    /// Returns the steps that replace those of a plan.
    fn steps(&self, name: &str) -> Vec<String> {
        let Self::Repair(repair) = self else { return vec![self.advice().replace("{node}", name)] };
        let owner = evidence::data(&repair.owner);
        let next = if repair.next.is_empty() { String::new() } else { format!(": {}", evidence::reason(&repair.next)) };
        vec![
            format!(
                "Leave the repair of {name} to {owner} ({}{next}). A reset or reboot at the same time can disrupt this repair.",
                evidence::name(&repair.signal)
            ),
            format!("When {owner} has finished, diagnose {name} again. If there is a new plan, follow it."),
        ]
    }
}

/// Replaces the action of a draft if the node is left to another system: the user only stops the work.
fn leave(draft: &mut Draft, left: &Left<'_>) {
    let stop = match (urgency(draft), draft.names_gpu() && draft.noun == "GPU") {
        (Urgency::Now, true) => "Stop the work on {gpu} of {node} now. ",
        (Urgency::Now, false) => "Stop the affected work on {node} now. ",
        _ => "",
    };
    draft.advice = format!("{stop}{}", left.advice());
    draft.action = ActionCode::Watch;
    draft.further.clear();
    draft.step_after = None;
}

/// Replaces the steps of a plan that interrupt work.
fn leave_plan(node: &Node<'_>, plan: &mut Plan, left: &Left<'_>) {
    let is_of_cooling =
        |step: &String| ["Now: check", "Check airflow", "Check the cooling"].iter().any(|one| step.starts_with(one));
    let only_cooling = plan.action == ActionCode::CheckCooling;
    if only_cooling && !plan.steps.iter().any(|step| demands(step).next().is_some()) {
        return;
    }
    plan.steps.retain(is_of_cooling);
    plan.steps.extend(left.steps(&node.name));
    let until = if matches!(left, Left::Removal) { "until the removal" } else { "until the repair" };
    plan.before_plan = plan.before_plan.replace("until the reset, which includes them", until);
    if !only_cooling {
        plan.action = ActionCode::Watch;
    }
}
