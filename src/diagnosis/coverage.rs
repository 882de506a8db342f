//! How much of the kernel log there was to be read, and what else it says about the machine around the GPUs.
//!
//! "No Xid" holds for the window that was read. A window of minutes on a machine that runs for weeks is no all-clear.

use jiff::{SignedDuration, Timestamp};

use super::draft::Draft;
use super::node::Node;
use super::rules::{DEBUG_DOC, rules};
use super::{Severity, quote};
use crate::facts::kernel_log::{Coverage, KernelEventKind as Kind};
use crate::xid::window;

rules! {
    SHORT: "kernel-log-short" Info Driver DEBUG_DOC, "The kernel log covers a short time only",
        Watch "Look for older Xids of {node} where logs are kept (journal, log system), or enlarge the kernel's \
            buffer (log_buf_len).";
    LOST: "kernel-log-lost-records" Info Driver None, "Kernel log records were overwritten",
        Watch "Counts of kernel events on {node} are lower bounds.";
    OMITTED: "kernel-log-events-omitted" Info Driver None, "More kernel events than a report holds",
        Watch "The oldest events of {node} were left out; ask for a shorter window.";
    UNTRUSTED: "kernel-log-untrusted-lines" Info Driver None, "A program wrote lines that look like GPU errors",
        Watch "They were not believed. Find out which program writes to /dev/kmsg on {node} (a fault-injection test?).";
    MACHINE_CHECK: "machine-check" Warning Hardware DEBUG_DOC, "Machine checks: CPU, host memory or PCIe",
        Watch "Look at the hardware log (BMC) of {node}; the GPUs may be victims.";
    NIC: "nic-trouble" Warning Fabric None, "A network card reports trouble",
        CheckCabling "Check the named network card of {node}: power, cooling, cable. Not a GPU fault, but jobs see it.";
}

/// Below an hour, an Xid that failed a job may well have left the buffer before anybody asked.
const SHORTEST: SignedDuration = SignedDuration::from_hours(1);

/// The log's window, its gaps, and the machine's other trouble.
pub(super) fn judge(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts: Vec<Draft> =
        window_too_short(node).map(|words| Draft::here(SHORT).because(words)).into_iter().collect();
    if let Some(log) = node.kernel_log() {
        let lost: u64 = log.coverage.iter().fold(0, |sum, source| sum.saturating_add(source.lost_records));
        let counts = [
            (LOST, lost, "records overwritten before they could be read"),
            (OMITTED, log.events_omitted, "events left out"),
            (UNTRUSTED, log.untrusted_lines, "lines of another facility than the kernel's"),
        ];
        for (rule, count, words) in counts {
            if count > 0 {
                drafts.push(Draft::here(rule).because(format!("{count} {words}")));
            }
        }
    }
    drafts.extend(neighbours(node));
    drafts
}

/// Since when the log was read without a hole, up to the moment at which the facts were taken.
pub(super) fn since(node: &Node<'_>) -> Option<Timestamp> {
    let log = node.kernel_log()?;
    // A window that was asked for is the window that is spoken of.
    window::reach(&log.coverage, node.now?).map(|reach| log.since.map_or(reach, |asked| asked.max(reach)))
}

/// Whether the log has all of the window that was asked for.
fn covers_what_was_asked(node: &Node<'_>) -> bool {
    node.kernel_log().and_then(|log| log.since).zip(since(node)).is_some_and(|(asked, since)| since <= asked)
}

/// In words, why the log is too short for "no Xid"; `None` where it is long enough or begins at boot.
pub(super) fn window_too_short(node: &Node<'_>) -> Option<String> {
    let logs = node.kernel_log()?.coverage.as_slice();
    if let Some(why) = without_times(logs) {
        return Some(why.to_owned());
    }
    let now = node.now?;
    let Some(since) = since(node) else {
        let ended = window::last_before(logs, now)?;
        return Some(format!(
            "the kernel log that was read ends {} before now",
            quote::span(now.duration_since(ended))
        ));
    };
    let complete = logs.iter().any(|log| log.complete_since_boot == Some(true));
    let window = now.duration_since(since);
    let uptime = node.host().and_then(|host| host.uptime_seconds).and_then(|uptime| i64::try_from(uptime).ok());
    // Just booted: there is no more to read.
    let since_boot = uptime.is_some_and(|uptime| window.as_secs() + 60 >= uptime);
    if complete || since_boot || window >= SHORTEST || covers_what_was_asked(node) {
        return None;
    }
    let uptime = uptime.map(|uptime| format!(", the node runs for {}", quote::span(SignedDuration::from_secs(uptime))));
    let hole = window::last_before(logs, since).map(|ended| {
        let hole = quote::span(since.duration_since(ended));
        format!("; before that nothing is known of {hole}, older records end {}", quote::time(ended))
    });
    let reach = quote::span(window);
    Some(format!("the kernel log reaches back {reach} only{}{}", uptime.unwrap_or_default(), hole.unwrap_or_default()))
}

/// Why logs without any time say nothing of a window. One that begins at boot (a saved `dmesg`) needs none.
fn without_times(logs: &[Coverage]) -> Option<&'static str> {
    if logs.is_empty() || logs.iter().any(|log| log.from.is_some()) {
        return None;
    }
    if logs.iter().all(|log| log.records == 0) {
        return Some("the kernel log that was read holds no record");
    }
    let from_boot = logs.iter().any(|log| log.complete_since_boot == Some(true));
    (!from_boot).then_some("the kernel log that was read does not say when: its records have no time")
}

fn neighbours(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    let harmless = |sub: Option<&str>| matches!(sub, Some("firmware_corrected" | "memory_corrected" | "logged"));
    let (corrected, grave): (Vec<_>, Vec<_>) =
        node.timeline.of_kind(Kind::Mce).partition(|event| harmless(event.sub_code.as_deref()));
    for (events, severity) in [(grave, Severity::Warning), (corrected, Severity::Info)] {
        if !events.is_empty() {
            drafts.push(Draft::here(MACHINE_CHECK).graded(severity).seen_all(events));
        }
    }
    let cards =
        node.timeline.of_kind(Kind::Nic).filter(|event| event.sub_code.as_deref() != Some("insufficient_power"));
    let cards: Vec<_> = cards.collect();
    if !cards.is_empty() {
        drafts.push(Draft::here(NIC).seen_all(cards));
    }
    drafts
}

#[cfg(test)]
mod tests {
    use super::super::{ClusterFacts, Verdict, diagnose};
    use crate::facts::kernel_log::{Coverage, KernelLog};
    use crate::report::{Report, Section};

    /// A healthy node whose kernel logs are these.
    fn with(coverage: Vec<Coverage>) -> super::super::Diagnosis {
        let mut report: Report =
            serde_json::from_str(include_str!("../../tests/scenarios/healthy-h100-8.json")).expect("the scenario");
        report.kernel_log.clear();
        report.sections.xid = Some(Section::read(KernelLog { coverage, ..KernelLog::default() }, Vec::new()));
        diagnose(&report, &ClusterFacts::default())
    }

    /// A healthy node whose kernel logs are these: source, first and last record.
    fn judged(logs: &[(&str, &str, &str)]) -> super::super::Diagnosis {
        let coverage = |&(source, from, to): &(&str, &str, &str)| Coverage {
            source: source.to_owned(),
            from: from.parse().ok(),
            to: to.parse().ok(),
            complete_since_boot: (source == "/dev/kmsg").then_some(false),
            ..Coverage::default()
        };
        with(logs.iter().map(coverage).collect())
    }

    // The facts of the scenario are of 2026-11-21T02:45:10Z.
    const OLD: (&str, &str, &str) = ("/var/log/syslog", "2026-11-01T00:00:00Z", "2026-11-17T00:00:00Z");

    #[test]
    fn no_xid_is_claimed_back_to_the_first_hole_only() {
        let told = judged(&[OLD, ("/dev/kmsg", "2026-11-21T00:45:10Z", "2026-11-21T02:40:00Z")]);
        assert_eq!(told.verdict, Verdict::Healthy);
        assert!(told.summary.contains("no Xid since 2026-11-21T00:45:10Z"), "{}", told.summary);
    }

    #[test]
    fn an_old_log_does_not_make_a_short_one_long_enough() {
        let told = judged(&[OLD, ("/dev/kmsg", "2026-11-21T02:30:10Z", "2026-11-21T02:40:00Z")]);
        assert_eq!(told.verdict, Verdict::Unknown);
        assert!(told.unknown[0].why.contains("nothing is known of 4 d"), "{:?}", told.unknown);
    }

    #[test]
    fn a_log_that_ended_days_ago_says_nothing_of_now() {
        let told = judged(&[OLD]);
        assert_eq!(told.verdict, Verdict::Unknown);
        assert!(told.unknown[0].why.contains("ends 4 d before now"), "{:?}", told.unknown);
    }

    #[test]
    fn a_log_without_a_record_or_without_times_is_no_all_clear() {
        let log = |records, complete_since_boot| {
            let source = "/var/log/kern.log".to_owned();
            with(vec![Coverage { source, records, complete_since_boot, ..Coverage::default() }])
        };
        let empty = log(0, None);
        assert_eq!(empty.verdict, Verdict::Unknown);
        assert!(empty.unknown[0].why.contains("holds no record"), "{:?}", empty.unknown);
        let undated = log(900, Some(false));
        assert_eq!(undated.verdict, Verdict::Unknown);
        assert!(undated.unknown[0].why.contains("records have no time"), "{:?}", undated.unknown);
        let from_boot = log(900, Some(true));
        assert_eq!(from_boot.verdict, Verdict::Healthy, "a saved dmesg with all of its boot");
        assert!(from_boot.summary.contains("no Xid; "), "{}", from_boot.summary);
    }
}
