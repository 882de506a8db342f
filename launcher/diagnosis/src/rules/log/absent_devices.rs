//! Rule about Xids and SXids of a device that the node does not have.

use crate::evidence;
use crate::input::node::{Node, STALE_AFTER};
use crate::input::timeline::OF_ABSENT_DEVICE;
use crate::rule::aging;
use crate::rule::{Draft, XID_DOC, rules};
use syringe_core::classification::{ActionCode, Severity};

rules! {
    ABSENT: "event-of-absent-device" Warning Driver XID_DOC, "The kernel log has errors of a device that the node does not have",
        Watch "Find out which device this is: NVML and the PCI bus of {node} do not show the device, so it cannot be \
            reset. If the lines are from another machine, diagnose that machine. If the device was removed from {node} or is missing there, power-cycle {node} when its \
            jobs have ended, and check the hardware log (BMC).",
        means "An Xid or SXid names a PCI address at which the node has no GPU and no NVSwitch, while all its devices are known: the \
            log is from another machine, or the device is gone.",
        reads "xid, inventory.gpus, host.pci_gpus, topology.nvswitches", in_plan WorkContinues;
}

/// Maximum number of events in the evidence.
const SHOWN: usize = 4;

pub(super) fn check(node: &Node<'_>) -> Option<Draft> {
    let events: Vec<_> = node
        .timeline
        .events
        .iter()
        .filter(|event| event.history == Some(OF_ABSENT_DEVICE))
        .map(|event| event.fact)
        .collect();
    let grave = |at_least| {
        let new = |then| node.age(then).is_none_or(|age| age <= STALE_AFTER);
        events.iter().any(|event| aging::severity(event) >= at_least && new(event.ordered_at()))
    };
    let lines = events.iter().take(SHOWN).map(|event| {
        let place = event.pci_address.as_ref().map(|pci| pci.sysfs().to_owned()).unwrap_or_default();
        format!("{} of {place}: no GPU or NVSwitch of the node", evidence::event(event))
    });
    let draft = Draft::on_node(ABSENT).with_all_evidence(lines);
    let draft = events.iter().fold(draft, |draft, event| draft.with_time_of(event));
    (!events.is_empty()).then(|| match grave(Severity::Warning) {
        true => draft,
        false => draft.with_severity(Severity::Info).with_action(
            ActionCode::Watch,
            "No action: the events are old or harmless, and the device is not on {node}.",
        ),
    })
}
