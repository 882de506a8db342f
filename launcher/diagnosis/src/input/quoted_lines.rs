//! `with_quoted_lines`: adds the kernel lines that an event of the node quotes, if the kernel log no longer has them.
//!
//! node-problem-detector and similar monitors copy a line of the kernel into an event of the Node object. The event outlives
//! the line if the kernel buffer is overwritten. Where the log covers the time of the event, the log decides.

use std::borrow::Cow;

use jiff::{SignedDuration, Timestamp};

use syringe_core::facts::kernel_log::{KernelEvent, KernelLog};
use syringe_core::facts::kubernetes::KubernetesFacts;
use syringe_core::facts::kubernetes::node::PodWarning;
use syringe_core::kernel_log::line::Parsed;
use syringe_core::kernel_log::record::{Record, WallTime};
use syringe_core::kernel_log::{EventLog, LogOrigin, Options, join_gpus, line_parser, window};
use syringe_core::pci::PciAddress;
use syringe_core::report::{Report, Section};

/// A monitor writes its event at most this long after the line.
const DELAY: SignedDuration = SignedDuration::from_mins(2);

/// Returns the report with the kernel lines of events about the node that its log does not cover.
pub(crate) fn with_quoted_lines<'a>(report: Cow<'a, Report>, kubernetes: &KubernetesFacts) -> Cow<'a, Report> {
    let Some(log) = Section::data_of(&report.sections.xid) else { return report };
    let quoted: Vec<KernelEvent> =
        kubernetes.warnings.iter().filter_map(|warning| lost_line(&report, log, warning)).collect();
    if quoted.is_empty() {
        return report;
    }
    let mut report = report.into_owned();
    if let Some(log) = report.sections.xid.as_mut().and_then(|section| section.data.as_mut()) {
        log.events.extend(quoted);
        log.events.sort_by_key(KernelEvent::ordered_at);
    }
    Cow::Owned(report)
}

/// Returns the kernel line in the message of an event, if there is one.
pub(crate) fn quoted_line(message: &str) -> Option<&str> {
    let from_frame = message.find("NVRM: ").and_then(|at| message.get(at..));
    [Some(message.trim_start()), from_frame]
        .into_iter()
        .flatten()
        .find(|text| matches!(line_parser::parse(text), Some(Parsed::Event(_))))
}

/// Returns whether the kernel log covers the time of an event.
pub(crate) fn is_covered(report: &Report, warning: &PodWarning) -> bool {
    let log = Section::data_of(&report.sections.xid);
    log.zip(warning.last).zip(report.taken_at).is_some_and(|((log, at), now)| covers(log, at, now))
}

fn covers(log: &KernelLog, at: Timestamp, now: Timestamp) -> bool {
    window::covers(&log.coverage, at.saturating_sub(DELAY).unwrap_or(at), at, now)
}

/// Returns the event of a quoted line that the log does not cover. A line without a time cannot be compared with the log.
fn lost_line(report: &Report, log: &KernelLog, warning: &PodWarning) -> Option<KernelEvent> {
    let (at, now) = (warning.last?, report.taken_at?);
    let text = quoted_line(&warning.message).filter(|_| !covers(log, at, now))?;
    let mut event = parsed(report, text, at)?;
    let is_same = |known: &KernelEvent| {
        let near = known.ordered_at().is_none_or(|known| known.duration_since(at).abs() <= DELAY);
        near && (known.kind, known.code, &known.pci_address) == (event.kind, event.code, &event.pci_address)
    };
    if log.events.iter().any(is_same) {
        return None;
    }
    event.count = u64::from(warning.count.max(1));
    event.details.insert("named_by".to_owned(), format!("the event {} of the node", warning.reason));
    // The uptime shows that the event belongs to an earlier boot.
    let uptime = Section::data_of(&report.sections.host).and_then(|host| host.uptime_seconds);
    let age = u64::try_from(now.duration_since(at).as_secs()).unwrap_or_default();
    event.boot_id = uptime.filter(|uptime| *uptime < age).map(|_| "earlier".to_owned());
    Some(event)
}

/// Parses a quoted line as a line of the kernel log of this node.
fn parsed(report: &Report, text: &str, at: Timestamp) -> Option<KernelEvent> {
    let mut log = EventLog::new(None, Options { now: report.taken_at, ..Options::default() });
    log.source("events");
    let wall = Some(WallTime::At { microseconds: at.as_microsecond(), zone: true });
    log.push_record(&Record { wall, has_prefix: true, ..Record::bare(text) });
    let mut log = log.finish();
    let inventory = Section::data_of(&report.sections.inventory);
    let gpus: Vec<(PciAddress, u32, Option<String>)> = inventory
        .iter()
        .flat_map(|inventory| &inventory.gpus)
        .filter_map(|gpu| Some((gpu.pci_address.clone()?, gpu.index, gpu.uuid.clone())))
        .collect();
    join_gpus(&mut log, LogOrigin::ThisNode, &gpus, &[]);
    log.events.into_iter().next()
}
