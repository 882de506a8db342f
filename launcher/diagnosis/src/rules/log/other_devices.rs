//! Rules about machine checks in the kernel log: errors of CPU, host memory and PCIe.

use jiff::SignedDuration;

use crate::input::node::Node;
use crate::rule::{DEBUG_DOC, Draft, rules};
use syringe_core::classification::Severity;
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};

rules! {
    MACHINE_CHECK: "machine-check" Warning Hardware DEBUG_DOC, "Machine check: CPU, host memory or PCIe error",
        Watch "Check the hardware log (BMC) of {node}. The GPUs may be affected.",
        means "The CPU reported machine checks: errors of CPU, host memory or PCIe. These errors may be related to errors of \
            GPUs.",
        reads "xid: machine checks";
}

/// Maximum time between the lines of one error record.
const SAME_RECORD: SignedDuration = SignedDuration::from_secs(2);

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    let is = |event: &KernelEvent, names: &[&str]| {
        event.sub_code.as_deref().is_some_and(|sub| names.iter().any(|name| sub.starts_with(name)))
    };
    let (devices, checks): (Vec<_>, Vec<_>) =
        node.timeline.of_kind(Kind::Mce).partition(|event| is(event, &["firmware_device"]));
    let (corrected, uncorrected): (Vec<_>, Vec<_>) =
        checks.into_iter().partition(|event| is(event, &["firmware_corrected", "memory_corrected", "logged"]));
    // The firmware's record names its device in a separate line. Both lines have the same time.
    let near = |device: &KernelEvent, event: &KernelEvent| match (device.last, event.last) {
        (Some(one), Some(other)) => one.duration_since(other).abs() <= SAME_RECORD,
        _ => true,
    };
    for (mut events, severity) in [(uncorrected, Severity::Warning), (corrected, Severity::Info)] {
        if !events.is_empty() {
            let named: Vec<_> =
                devices.iter().copied().filter(|device| events.iter().any(|event| near(device, event))).collect();
            events.extend(named);
            let draft = Draft::on_node(MACHINE_CHECK).with_severity(severity).with_events(events.iter().copied());
            drafts.push(draft.aged_on_node(node, &events));
        }
    }
    drafts
}
