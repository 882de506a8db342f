//! The driver's own verdict on a GPU: the recovery action that NVML reports (R570 on) and that Xid 154 logs (R565 on).
//!
//! It outranks what we would have advised. Where another finding already says why, the action joins it; alone it is a
//! finding of its own.

use super::draft::Draft;
use super::node::Node;
use super::rules::{NVML_DOC, Rule, rules};
use super::{ActionCode, Severity, quote};
use crate::facts::ecc::RecoveryAction;

rules! {
    RESET: "recovery-gpu-reset" Critical Hardware NVML_DOC, "The driver asks for a GPU reset",
        DrainAndReset "Drain the work of {gpu} on {node} and reset it.";
    REBOOT: "recovery-node-reboot" Fatal Hardware NVML_DOC, "The driver asks for a reboot",
        DrainAndReboot "Cordon, drain and reboot {node}: a reset of {gpu} does not suffice.";
    BUS_RESET: "recovery-bus-reset" Critical Hardware NVML_DOC, "The driver asks for a reset of the bus",
        DrainAndReboot "Cordon, drain and reboot {node}: a reset of {gpu} does not suffice, and one of its bus takes \
            whatever else is on it.";
    DRAIN_RESET: "recovery-drain-and-reset" Critical Hardware NVML_DOC, "The driver asks for drain and reset",
        DrainAndReset "Give {gpu} of {node} no new work, let unaffected work end, then reset it.";
    DRAIN_P2P: "recovery-drain-p2p" Warning Fabric NVML_DOC, "The driver asks to stop peer-to-peer work",
        DrainAndReset "End the peer-to-peer work of {gpu} on {node} and ask again; if the driver still asks, reset it.";
    IMEX: "recovery-imex" Critical Fabric NVML_DOC, "The driver asks to recover the IMEX domain",
        UpdateSoftware "Restart nvidia-imex on the nodes of this IMEX domain, {node} among them.";
    OTHER: "recovery-unknown" Warning Driver NVML_DOC, "The driver asks for an unknown recovery",
        Watch "The driver is newer than this tool: ask nvidia-smi -q on {node} for the recovery action of {gpu}.";
}

/// Adds the driver's wish to the findings of each GPU.
pub(super) fn apply(node: &Node<'_>, drafts: &mut Vec<Draft>) {
    for gpu in &node.gpus {
        let Some((action, event)) = node.recovery_action(gpu) else { continue };
        let Some(rule) = rule(action) else { continue };
        let words = match event {
            Some(event) => quote::event(event),
            None => format!("NVML: recovery action {}", action.label()),
        };
        let grave = |draft: &&mut Draft| draft.is_on(gpu) && draft.severity >= Severity::Critical;
        match drafts.iter_mut().filter(grave).max_by_key(|draft| draft.severity) {
            Some(draft) => join(draft, rule, words),
            None => drafts.push(Draft::on_gpu(rule, gpu).with_evidence(words)),
        }
    }
}

/// A return to the vendor, and a reboot, stand; anything less gives way to what the driver asks.
fn join(draft: &mut Draft, rule: Rule, words: String) {
    let keeps = matches!(draft.action, ActionCode::ContactVendor | ActionCode::DrainAndReboot);
    let joined = draft.clone().with_evidence(format!("{words} (the driver's own wish)"));
    *draft = if keeps || draft.action == rule.action { joined } else { joined.with_action(rule.action, rule.advice) };
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
    use crate::diagnosis::event_judgement;
    use crate::facts::kernel_log::KernelEvent;

    /// The catalogue and this file say the same of every recovery action.
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
            let found =
                (event_judgement::severity(&event), event_judgement::action(event_judgement::of(&event).response));
            assert_eq!(found, (rule.severity, rule.action), "{name}");
        }
    }
}
