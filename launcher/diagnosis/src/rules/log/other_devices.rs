//! Rules about machine checks and firmware error records: CPU, host memory, and PCIe errors that the kernel does not
//! log as AER.

use jiff::SignedDuration;

use crate::evidence;
use crate::input::node::Node;
use crate::rule::{DEBUG_DOC, Draft, rules};
use crate::rules::log::host_lines::MEMORY;
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};

rules! {
    MACHINE_CHECK: "machine-check" Warning Hardware DEBUG_DOC, "Machine check: CPU, host memory or PCIe error",
        Watch "Check the hardware log (BMC) of {node}. The GPUs may be affected.",
        means "The CPU reported machine checks: errors of CPU, host memory or PCIe. These errors may be related to errors of \
            GPUs.",
        reads "xid: machine checks";
}

/// Minimum number of corrected errors in a day at which a memory module should be replaced. This is the limit of mcelog
/// for the memory of a socket (mem-ce-error-threshold). The limit for one module is 10.
const MANY_CORRECTED: u64 = 100;

const REPLACE_MODULE: &str = "Find the slot of the memory module in the evidence in the hardware log (BMC) of {node}, and replace the module at the next \
     maintenance: so many corrected errors often precede an uncorrected error. This is not GPU memory.";

const FEW_CORRECTED: &str = "No action now: the host memory of {node} corrected the errors. Watch whether the number \
    of errors grows. This is not GPU memory.";

const ALSO_UNCORRECTED: &str =
    "No separate action: the host memory of {node} also has an error that it could not correct. See that finding.";

/// Returns the number of corrected errors in one day: all of them if they are not older, or else the mean.
fn corrected_in_a_day(events: &[&KernelEvent]) -> u64 {
    let count: u64 = events.iter().map(|event| event.count).sum();
    let first = events.iter().filter_map(|event| event.first).min();
    let last = events.iter().filter_map(|event| event.last).max();
    let days = first
        .zip(last)
        .map_or(1, |(first, last)| u64::try_from(last.duration_since(first).as_hours() / 24).unwrap_or(0));
    count / days.max(1)
}

/// Action for an error of the PCIe link of a GPU that the firmware reported in place of the kernel.
const LINK: &str = "Check seating, riser and cables of {gpu} on {node} at the next maintenance: the firmware of the machine reported PCIe errors of \
     the GPU or of a port above it.";

/// Returns the finding about the GPU whose PCIe device, or port above it, the record of the firmware names.
fn on_gpu_of(node: &Node<'_>, draft: Draft, events: &[&KernelEvent]) -> Draft {
    let mut gpus = events.iter().filter_map(|event| node.gpu_below(event.pci_address.as_ref()?));
    let Some(gpu) = gpus.next().filter(|first| gpus.all(|gpu| gpu == *first)) else { return draft };
    let scope = Draft::on_gpu(draft.rule, gpu).scope;
    Draft { scope, ..draft }.with_action(ActionCode::CheckCabling, LINK)
}

/// If the newest uncorrectable error is older than this, work has run on the node since then.
const RECENT: SignedDuration = SignedDuration::from_hours(24);

/// Maximum time between the lines of one error record.
const SAME_RECORD: SignedDuration = SignedDuration::from_secs(2);

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    let is = |event: &KernelEvent, names: &[&str]| {
        event.sub_code.as_deref().is_some_and(|sub| names.iter().any(|name| sub.starts_with(name)))
    };
    // The firmware's record names its device in a separate line. Both lines have the same time.
    let near = |device: &KernelEvent, event: &KernelEvent| match (device.last, event.last) {
        (Some(one), Some(other)) => one.duration_since(other).abs() <= SAME_RECORD,
        _ => true,
    };
    let (devices, checks): (Vec<_>, Vec<_>) =
        node.timeline.of_kind(Kind::Mce).partition(|event| is(event, &["firmware_device"]));
    let (uncorrected_memory, checks): (Vec<_>, Vec<_>) =
        checks.into_iter().partition(|event| is(event, &["memory_uncorrected"]));
    if !uncorrected_memory.is_empty() {
        let newest = uncorrected_memory.iter().max_by_key(|event| event.ordered_at());
        let is_recent = node.age(newest.and_then(|event| event.last)).is_none_or(|age| age <= RECENT);
        let severity = if is_recent { Severity::Critical } else { Severity::Warning };
        let draft = Draft::on_node(MEMORY).with_severity(severity).with_events(uncorrected_memory.iter().copied());
        let draft = draft.with_all_evidence(newest.map(|event| evidence::kernel_line(event)));
        // A damaged module stays in the node: the next boot uses its page again.
        let is_of_boot = uncorrected_memory.iter().any(|event| event.boot_id.is_none());
        drafts.push(if is_of_boot { draft } else { draft.aged_on_node(node, &uncorrected_memory) });
    }
    // A line that only reports a logged record belongs to the machine check with the same time.
    let is_pointer = |event: &KernelEvent| {
        is(event, &["logged"]) && node.timeline.of_kind(Kind::Mce).any(|one| !is(one, &["logged"]) && near(one, event))
    };
    let checks: Vec<_> = checks.into_iter().filter(|event| !is_pointer(event)).collect();
    let (corrected, uncorrected): (Vec<_>, Vec<_>) = checks
        .into_iter()
        .partition(|event| is(event, &["firmware_corrected", "memory_corrected", "corrected", "logged"]));
    for (mut events, severity) in [(uncorrected, Severity::Warning), (corrected, Severity::Info)] {
        if !events.is_empty() {
            let named: Vec<_> =
                devices.iter().copied().filter(|device| events.iter().any(|event| near(device, event))).collect();
            events.extend(named);
            let many = severity == Severity::Info && corrected_in_a_day(&events) >= MANY_CORRECTED;
            let severity = if many { Severity::Warning } else { severity };
            let draft = Draft::on_node(MACHINE_CHECK).with_severity(severity).with_events(events.iter().copied());
            let of_memory = events.iter().all(|event| is(event, &["memory_corrected"]));
            let draft = match (of_memory, many) {
                (true, _) if !uncorrected_memory.is_empty() => draft.with_action(ActionCode::Watch, ALSO_UNCORRECTED),
                (_, true) => draft.with_action(ActionCode::Watch, REPLACE_MODULE),
                (true, false) => draft.with_action(ActionCode::Watch, FEW_CORRECTED),
                (false, false) => draft,
            };
            drafts.push(on_gpu_of(node, draft, &events).aged_on_node(node, &events));
        }
    }
    drafts
}
