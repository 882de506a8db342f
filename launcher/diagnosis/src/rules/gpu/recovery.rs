//! Rules about the recovery action that the driver recommends, in NVML (since R570) and in Xid 154 (since R565).
//! `refine`: joins the recommendation with another finding about the GPU.
//!
//! If there is another finding about the GPU, the recommendation is joined with its action, and the stronger action
//! remains. Otherwise, the recommendation is a separate finding.

use crate::evidence;
use crate::input::node::{Gpu, Node};
use crate::input::xids::recommends_recovery;
use crate::rule::{Draft, InPlan, NVML_DOC, Rule, rules};
use syringe_core::classification::Severity;
use syringe_core::facts::ecc::RecoveryAction;
use syringe_core::facts::kernel_log::KernelEvent;

rules! {
    RESET: "recovery-gpu-reset" Critical Hardware NVML_DOC, "The driver recommends: GPU reset",
        DrainAndReset "Move the workloads off {gpu} of {node}, then reset {gpu}.",
        means "The driver recommends a reset of the GPU.",
        reads "ecc.recovery_action, xid: 154", depth 2;
    REBOOT: "recovery-node-reboot" Fatal Hardware NVML_DOC, "The driver recommends: node reboot",
        DrainAndReboot "Cordon, drain and reboot {node}. A reset of {gpu} is not sufficient.",
        means "The driver recommends a reboot of the node.",
        reads "ecc.recovery_action, xid: 154", depth 2;
    BUS_RESET: "recovery-bus-reset" Critical Hardware NVML_DOC, "The driver recommends: bus reset",
        DrainAndReboot "Cordon, drain and reboot {node}. A reset of {gpu} is not sufficient, and a bus reset affects \
            all devices on that bus.",
        means "The driver recommends a reset of the bus of the GPU.",
        reads "ecc.recovery_action, xid: 154", depth 2;
    DRAIN_RESET: "recovery-drain-and-reset" Critical Hardware NVML_DOC, "The driver recommends: drain and reset",
        DrainAndReset "Do not schedule new work on {gpu} of {node}, let unaffected work finish, then reset {gpu}.",
        means "The driver recommends starting no new work on the GPU, and then resetting the GPU.",
        reads "ecc.recovery_action, xid: 154", in_plan WorkContinues, depth 2;
    DRAIN_P2P: "recovery-drain-p2p" Warning Fabric NVML_DOC, "The driver recommends: drain peer-to-peer traffic",
        DrainAndReset "Stop the peer-to-peer workloads on {gpu} of {node} and check again. If the recommendation \
            remains, reset the GPU.",
        means "The driver recommends stopping work that uses peer-to-peer transfers.",
        reads "ecc.recovery_action, xid: 154", depth 2;
    IMEX: "recovery-imex" Critical Fabric NVML_DOC, "The driver recommends: recover the IMEX domain",
        UpdateSoftware "Restart nvidia-imex on all nodes of this IMEX domain, including {node}.",
        means "The driver recommends recovering the IMEX domain of the node.",
        reads "ecc.recovery_action, xid: 154", depth 2;
    CONTRADICTED: "recovery-contradicted" Warning Driver NVML_DOC, "Kernel log and NVML disagree about the recovery of the GPU",
        Watch "The kernel log recommends recovering {gpu} of {node}, and no later line withdraws this, but NVML recommends \
            nothing. Read the state again (nvidia-smi -q).",
        means "The driver logged a recovery action (Xid 154) and did not withdraw it, but NVML recommends no action.",
        reads "ecc.recovery_action, xid: 154";
    OTHER: "recovery-unknown" Warning Driver NVML_DOC, "The driver recommends an unknown recovery action",
        Watch "The driver is newer than this version of gpu-syringe. Run nvidia-smi -q on {node} to see the recovery \
            action of {gpu}.",
        means "The driver recommends an action that this version of gpu-syringe does not know.",
        reads "ecc.recovery_action, xid: 154", depth 2;
}

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let recommended = node.gpus.iter().filter_map(|gpu| {
        let (action, event) = node.recovery_action(gpu)?;
        let draft = Draft::on_gpu(rule(action)?, gpu);
        Some(match event {
            Some(event) => draft.with_evidence(evidence::event(event)),
            None => draft.with_evidence(format!("NVML recovery action: {}", action.label())),
        })
    });
    let contradicted = node.gpus.iter().filter_map(|gpu| contradicted(node, gpu));
    recommended.chain(contradicted).collect()
}

/// Returns a finding if the last Xid 154 recommends an action and NVML does not.
fn contradicted(node: &Node<'_>, gpu: &Gpu) -> Option<Draft> {
    node.ecc_of(gpu)?.recovery_action.filter(|action| *action == RecoveryAction::None)?;
    let newest = node.timeline.xids(gpu, &[154]).map(KernelEvent::ordered_at).max()?;
    // If several lines have the same time, the last line counts, but their order may not be known.
    let mut lines = node.timeline.xids(gpu, &[154]).filter(|event| event.ordered_at() == newest);
    if lines.any(|event| !recommends_recovery(event)) {
        return None;
    }
    let last =
        node.timeline.xids(gpu, &[154]).filter(|event| event.ordered_at() == newest).max_by_key(|event| &event.raw)?;
    let draft = Draft::on_gpu(CONTRADICTED, gpu).with_event(last).with_evidence("NVML recovery action: none");
    let logged = last.details.get("recovery_to").and_then(|value| value.parse::<u32>().ok()).map(RecoveryAction::from);
    let advice = match logged.and_then(rule) {
        Some(rule) => format!("{} If work on the GPU fails: {}", draft.advice, evidence::uncapitalized(rule.advice)),
        None => draft.advice.clone(),
    };
    let draft = draft.with_action(CONTRADICTED.action, advice);
    // If the GPU has worked for a day since the recommendation, the recommendation is obsolete.
    let rests = node.recovered(gpu, &[last]).filter(|recovered| recovered.long_ago);
    Some(if rests.is_some() { draft.with_severity(Severity::Info) } else { draft })
}

/// Joins the recommendation with the most severe finding about the same GPU, if that finding is at least critical.
pub(super) fn refine(node: &Node<'_>, drafts: &mut Vec<Draft>) {
    let is_recommendation = |draft: &Draft| RULES.contains(&draft.rule) && draft.rule.id != CONTRADICTED.id;
    for gpu in &node.gpus {
        let Some(at) = drafts.iter().position(|draft| is_recommendation(draft) && draft.is_on(gpu)) else { continue };
        let recommendation = drafts.remove(at);
        let is_severe = |draft: &&mut Draft| draft.is_on(gpu) && draft.severity >= Severity::Critical;
        match drafts.iter_mut().filter(is_severe).max_by_key(|draft| draft.severity) {
            Some(draft) => join(draft, recommendation),
            None => drafts.push(recommendation),
        }
    }
}

/// Joins the recommendation with a finding. An action replaces the other action only if it includes that action.
fn join(draft: &mut Draft, recommendation: Draft) {
    let words = recommendation.evidence.join(", ");
    let mut joined = draft.clone().with_evidence(format!("{words} (recommended by the driver)"));
    // The driver lets work finish before this reset. It does not know about other actions.
    let is_same = joined.action == recommendation.action && joined.rule.in_plan == InPlan::None;
    if is_same && recommendation.rule.in_plan == InPlan::WorkContinues {
        joined.rule.in_plan = InPlan::WorkContinues;
    }
    *draft = joined.joined_with(recommendation.action, recommendation.advice);
}

fn rule(action: RecoveryAction) -> Option<Rule> {
    match action {
        RecoveryAction::None => None,
        RecoveryAction::GpuReset => Some(RESET),
        RecoveryAction::BusReset => Some(BUS_RESET),
        RecoveryAction::NodeReboot | RecoveryAction::SystemReboot => Some(REBOOT),
        RecoveryAction::DrainP2p => Some(DRAIN_P2P),
        RecoveryAction::DrainAndReset => Some(DRAIN_RESET),
        RecoveryAction::RecoverImex => Some(IMEX),
        RecoveryAction::Unknown => Some(OTHER),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::aging;

    /// Tests that the catalogue and this file define the same action for every recommendation.
    #[test]
    fn the_kinds_of_154_are_the_rules_of_this_file() {
        for (value, name) in [
            (1, "gpu_reset"),
            (2, "node_reboot"),
            (3, "drain_p2p"),
            (4, "drain_and_reset"),
            (5, "recover_imex"),
            (6, "bus_reset"),
            (7, "system_reboot"),
        ] {
            let details = [("recovery_action".to_owned(), name.to_owned())].into();
            let event = KernelEvent { code: Some(154), details, ..KernelEvent::default() };
            let rule = rule(RecoveryAction::from(value)).expect("an action has a rule");
            let found = (aging::severity(&event), aging::of(&event).action);
            assert_eq!(found, (rule.severity, rule.action), "{name}");
        }
    }
}
