//! Rules about other devices in the kernel log: machine checks (CPU, host memory, PCIe) and network cards.

use crate::input::node::Node;
use crate::rule::{DEBUG_DOC, Draft, rules};
use syringe_core::classification::Severity;
use syringe_core::facts::kernel_log::KernelEventKind as Kind;

rules! {
    MACHINE_CHECK: "machine-check" Warning Hardware DEBUG_DOC, "Machine check: CPU, host memory or PCIe error",
        Watch "Check the hardware log (BMC) of {node}. The GPUs may be affected.",
        means "The CPU reported machine checks: errors of CPU, host memory or PCIe. These errors may be related to errors of \
            GPUs.",
        reads "xid: machine checks";
    NIC: "nic-problem" Warning Fabric None, "A network card reports a problem",
        CheckCabling "Check power, cooling and cable of the network card of {node} in the evidence. This is not a \
            GPU fault, but it affects jobs.",
        means "A network card reported errors in the kernel log. Jobs on several nodes can be slow or hang.",
        reads "xid: network cards";
}

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    let harmless = |sub: Option<&str>| matches!(sub, Some("firmware_corrected" | "memory_corrected" | "logged"));
    let (corrected, uncorrected): (Vec<_>, Vec<_>) =
        node.timeline.of_kind(Kind::Mce).partition(|event| harmless(event.sub_code.as_deref()));
    for (events, severity) in [(uncorrected, Severity::Warning), (corrected, Severity::Info)] {
        if !events.is_empty() {
            let draft = Draft::on_node(MACHINE_CHECK).with_severity(severity).with_events(events.iter().copied());
            drafts.push(draft.aged_on_node(node, &events));
        }
    }
    let cards =
        node.timeline.of_kind(Kind::Nic).filter(|event| event.sub_code.as_deref() != Some("insufficient_power"));
    let cards: Vec<_> = cards.collect();
    if !cards.is_empty() {
        drafts.push(Draft::on_node(NIC).with_events(cards.iter().copied()).aged_on_node(node, &cards));
    }
    drafts
}
