//! Rules about machine checks in the kernel log: errors of CPU, host memory and PCIe.

use jiff::SignedDuration;

use crate::input::node::Node;
use crate::rule::{DEBUG_DOC, Draft, rules};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};

rules! {
    MACHINE_CHECK: "machine-check" Warning Hardware DEBUG_DOC, "Machine check: CPU, host memory or PCIe error",
        Watch "Check the hardware log (BMC) of {node}. The GPUs may be affected.",
        means "The CPU reported machine checks: errors of CPU, host memory or PCIe. These errors may be related to errors of \
            GPUs.",
        reads "xid: machine checks";
}

/// Number of lines about corrected errors in a day from which on a memory module should be replaced. Servers set such limits
/// between some dozens and some thousands of errors.
const MANY_CORRECTED: u64 = 100;

const REPLACE_MODULE: &str = "Find the memory module in the hardware log (BMC) of {node}, and replace it at the next maintenance: so many corrected \
     errors often precede an uncorrected one.";

/// Returns the number of lines about corrected errors in one day: all of them if they are not older, or else the mean.
fn corrected_in_a_day(events: &[&KernelEvent]) -> u64 {
    let count: u64 = events.iter().map(|event| event.count).sum();
    let first = events.iter().filter_map(|event| event.first).min();
    let last = events.iter().filter_map(|event| event.last).max();
    let days = first
        .zip(last)
        .map_or(1, |(first, last)| u64::try_from(last.duration_since(first).as_hours() / 24).unwrap_or(0));
    count / days.max(1)
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
            let many = severity == Severity::Info && corrected_in_a_day(&events) >= MANY_CORRECTED;
            let severity = if many { Severity::Warning } else { severity };
            let draft = Draft::on_node(MACHINE_CHECK).with_severity(severity).with_events(events.iter().copied());
            let draft = if many { draft.with_action(ActionCode::Watch, REPLACE_MODULE) } else { draft };
            drafts.push(draft.aged_on_node(node, &events));
        }
    }
    drafts
}
