//! Rules about the kernel log itself: its period, its gaps, and lines that are omitted, suppressed, unrecognized or not
//! from the kernel. `join_unrecognized`, `add_start_of_log`: add unrecognized lines and the start of the log to other
//! findings.

use jiff::{SignedDuration, Timestamp};

use crate::evidence;
use crate::input::log_window::why_too_short;
use crate::input::node::Node;
use crate::rule::{About, DEBUG_DOC, Draft, Unread, rules};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kernel_log::Coverage;
use syringe_core::section_name::SectionName;
use syringe_core::unknown::Unknown;

rules! {
    SHORT: "kernel-log-short" Info Driver DEBUG_DOC, "The kernel log covers only a short time",
        Watch "Look for older Xids of {node} where logs are stored (journal, log system), or enlarge the kernel buffer \
            (log_buf_len).",
        means "The kernel log that could be read begins recently. Older events are not known.",
        reads "xid.coverage, host.uptime_seconds";
    LOST: "kernel-log-lost-records" Info Driver None, "Kernel log records were overwritten",
        Watch "Event counts from the kernel log of {node} are lower bounds.",
        means "The kernel overwrote records of its log before they were read. Events may be missing.",
        reads "xid.coverage";
    OMITTED: "kernel-log-events-omitted" Info Driver None, "The kernel log has more events than fit in a report",
        Watch "The oldest events of {node} were omitted. Request a shorter time window.",
        means "The report holds a limited number of events, and there were more.",
        reads "xid.events_omitted";
    UNTRUSTED: "kernel-log-untrusted-lines" Info Driver None, "A program wrote lines that look like GPU errors",
        Watch "These lines were ignored. Find the program that writes to /dev/kmsg on {node} (a fault-injection \
            test?).",
        means "A program other than the kernel wrote lines that look like GPU errors. These lines are not used.",
        reads "xid";
    UNREAD: "kernel-log-lines-not-recognized" Info Driver None, "Kernel log lines of a driver were not recognized",
        Watch "Read the quoted lines of {node}. They did not affect the verdict.",
        means "The kernel log has lines about NVIDIA devices, or warnings about network cards and PCIe ports, in words that this version does \
            not know.",
        reads "xid";
    SUPPRESSED: "kernel-log-suppressed-lines" Info Driver None, "The kernel suppressed log lines",
        Watch "Event counts from the kernel log of {node} are lower bounds.",
        means "The kernel or the driver limits the rate of its messages, and left out some messages.",
        reads "xid";
}

/// Returns findings about the window and the gaps of the log.
pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts: Vec<Draft> =
        why_too_short(node).map(|words| Draft::on_node(SHORT).with_evidence(words)).into_iter().collect();
    if let Some(log) = node.kernel_log() {
        let sum =
            |of: fn(&Coverage) -> u64| log.coverage.iter().fold(0_u64, |sum, source| sum.saturating_add(of(source)));
        let lost = sum(|source| source.lost_records);
        let counts = [
            (LOST, lost, "records overwritten before they could be read"),
            (OMITTED, log.events_omitted, "events omitted"),
            (UNTRUSTED, log.untrusted_lines, "lines that the kernel did not write"),
            (SUPPRESSED, sum(|source| source.suppressed_lines), "lines suppressed by a rate limit"),
        ];
        for (rule, count, words) in counts {
            if count > 0 {
                drafts.push(Draft::on_node(rule).with_evidence(format!("{count} {words}")));
            }
        }
    }
    drafts.extend(unrecognized(node));
    drafts
}

/// Beginning of the evidence with an unrecognized line.
const SAMPLE_OF: &str = "kernel line: ";

const MAY_BE_ERRORS: &str = "Read the quoted lines of {node}: some of them may report an error of a GPU or NVSwitch, so the verdict is not healthy.";

/// Returns a finding with the lines about NVIDIA that were not recognized. A person can then read them.
fn unrecognized(node: &Node<'_>) -> Option<Draft> {
    let logs = node.kernel_log()?.coverage.iter().filter(|log| log.unread_lines > 0);
    let lines = logs.flat_map(|log| {
        let count = format!("{} of {}", log.unread_lines, evidence::data(&log.source));
        let samples =
            log.unread_samples.iter().map(|sample| format!("{SAMPLE_OF}{}", syringe_core::text::clean(sample, SAMPLE)));
        std::iter::once(count).chain(samples)
    });
    let lines: Vec<String> = lines.collect();
    let draft = Draft::on_node(UNREAD).with_all_evidence(lines);
    let draft = match undecoded(node) {
        Some(_) => draft.with_action(ActionCode::Watch, MAY_BE_ERRORS),
        None => draft,
    };
    (!draft.evidence.is_empty()).then_some(draft)
}

/// Moves the unrecognized lines into the finding about a driver that does not work, or else about a GPU that does not
/// work: they can contain the reason.
pub(super) fn join_unrecognized(drafts: &mut Vec<Draft>) {
    let Some(lines) = drafts.iter().position(|draft| draft.rule.id == UNREAD.id) else { return };
    let of_driver = |draft: &Draft| {
        draft.severity >= Severity::Critical && matches!(draft.rule.about, About::Driver | About::DriverAbsent)
    };
    let of_gpu =
        |draft: &Draft| draft.severity >= Severity::Critical && draft.names_gpu() && draft.rule.about == About::Gpus;
    let samples: Vec<String> = drafts[lines]
        .evidence
        .iter()
        .filter_map(|line| Some(format!("unrecognized kernel line: {}", line.strip_prefix(SAMPLE_OF)?)))
        .collect();
    let at = drafts.iter().position(of_driver).or_else(|| drafts.iter().position(of_gpu));
    if let Some(at) = at {
        drafts[at].evidence.extend(samples);
        drafts.remove(lines);
    }
}

/// Returns entries about errors in the log that could not be parsed, and about a window that is too short.
pub(super) fn unread_log(node: &Node<'_>) -> Vec<Unread> {
    let reasons = undecoded(node).into_iter().chain(why_too_short(node));
    reasons.map(|why| Unread { fact: Unknown::new(SectionName::Xid, why), decides: true }).collect()
}

/// Returns the number of errors in the log that could not be parsed, with a sample.
fn undecoded(node: &Node<'_>) -> Option<String> {
    let log = node.kernel_log()?;
    let errors = log.coverage.iter().map(|source| source.unread_errors).max().unwrap_or(0);
    let sample = log.coverage.iter().flat_map(|source| &source.unread_samples).next();
    let sample = sample.map(|sample| format!(": {}", syringe_core::text::clean(sample, SAMPLE))).unwrap_or_default();
    let lines = if errors == 1 { "line" } else { "lines" };
    (errors > 0).then(|| format!("{errors} kernel {lines} that may report a GPU error could not be parsed{sample}"))
}

/// Phrases in the advice for a fault that occurs again.
const AGAIN: [&str; 6] = ["happens again", "fails again", "repeat", "second loss", "lost again", "comes back"];

/// Adds a sentence to such advice if the log does not show whether the fault occurred before.
pub(super) fn add_start_of_log(node: &Node<'_>, drafts: &mut [Draft]) {
    let Some(limit) = untold(node) else { return };
    let of_event = |draft: &&mut Draft| draft.when.is_some() && draft.severity >= Severity::Warning;
    for draft in drafts.iter_mut().filter(of_event) {
        if AGAIN.iter().any(|words| draft.advice.contains(words)) {
            draft.advice.push_str(&format!(" {limit}, so earlier occurrences are not known."));
        }
    }
}

/// Returns a clause about the start of the log: the start of the requested window, or the last boot. `None` if the log
/// begins elsewhere.
fn untold(node: &Node<'_>) -> Option<String> {
    let log = node.kernel_log()?;
    let begins = log.coverage.iter().filter_map(|source| source.from).min()?;
    if let Some(asked) = log.since.filter(|asked| begins <= *asked) {
        return Some(format!(
            "The kernel log was read from {} on, the start of the requested window",
            evidence::time(asked)
        ));
    }
    begins_at_boot(node).map(|begins| format!("The kernel log begins at the last boot ({})", evidence::time(begins)))
}

/// Returns the start of the log if it begins at the last boot.
fn begins_at_boot(node: &Node<'_>) -> Option<Timestamp> {
    let log = node.kernel_log()?;
    if log.events.iter().any(|event| event.boot_id.is_some() && event.boot_id != node.report.boot_id) {
        return None;
    }
    let begins = log.coverage.iter().filter_map(|source| source.from).min()?;
    // The timestamps of one moment can differ, because the clock of the kernel drifts.
    let since_boot = node.booted().is_some_and(|booted| begins.duration_since(booted) >= SignedDuration::from_mins(-5));
    let complete = log
        .coverage
        .iter()
        .filter(|source| source.from.is_some())
        .all(|source| source.complete_since_boot == Some(true));
    (since_boot || complete).then_some(begins)
}

/// Maximum length of a log line in a finding.
const SAMPLE: usize = 200;

#[cfg(test)]
mod tests {
    use crate::diagnose;
    use crate::finding::Verdict;
    use syringe_core::facts::kernel_log::{Coverage, KernelEvent, KernelLog};
    use syringe_core::facts::kubernetes::node::KubernetesFacts;
    use syringe_core::report::{Report, Section};

    /// Diagnoses a healthy node with these kernel logs.
    fn with(coverage: Vec<Coverage>) -> crate::finding::Diagnosis {
        let mut report: Report =
            serde_json::from_str(include_str!("../../../../../tests/scenarios/base/healthy-h100-8.json"))
                .expect("the scenario");
        report.kernel_log.clear();
        report.sections.xid = Some(Section::read(KernelLog { coverage, ..KernelLog::default() }, Vec::new()));
        diagnose(&report, &KubernetesFacts::default())
    }

    /// Diagnoses a healthy node with these kernel logs: source, first and last record.
    fn judged(logs: &[(&str, &str, &str)]) -> crate::finding::Diagnosis {
        let coverage = |&(source, from, to): &(&str, &str, &str)| Coverage {
            source: source.to_owned(),
            from: from.parse().ok(),
            to: to.parse().ok(),
            complete_since_boot: (source == "/dev/kmsg").then_some(false),
            ..Coverage::default()
        };
        with(logs.iter().map(coverage).collect())
    }

    // The facts of the scenario were collected at 2026-11-21T02:45:10Z.
    const OLD: (&str, &str, &str) = ("/var/log/syslog", "2026-11-01T00:00:00Z", "2026-11-17T00:00:00Z");

    #[test]
    fn no_xid_is_claimed_only_back_to_the_first_gap() {
        let told = judged(&[OLD, ("/dev/kmsg", "2026-11-20T00:45:10Z", "2026-11-21T02:40:00Z")]);
        assert_eq!(told.verdict, Verdict::Healthy);
        assert!(told.summary.contains("no Xid since 2026-11-20T00:45:10Z"), "{}", told.summary);
    }

    #[test]
    fn how_short_a_log_may_be_depends_on_the_uptime() {
        let verdict = |minutes: i64, uptime_minutes: u64| {
            let mut report: Report =
                serde_json::from_str(include_str!("../../../../../tests/scenarios/base/healthy-h100-8.json"))
                    .expect("the scenario");
            report.kernel_log.clear();
            let now = report.taken_at.expect("a time");
            let from = Some(now - jiff::SignedDuration::from_mins(minutes));
            let source = Coverage { source: "journal".into(), from, to: Some(now), ..Coverage::default() };
            let log = KernelLog { coverage: vec![source], ..KernelLog::default() };
            report.sections.xid = Some(Section::read(log, Vec::new()));
            let host = report.sections.host.as_mut().and_then(|host| host.data.as_mut()).expect("a host");
            host.uptime_seconds = Some(uptime_minutes * 60);
            diagnose(&report, &KubernetesFacts::default()).verdict
        };
        const DAY: u64 = 24 * 60;
        for (minutes, uptime, expected) in [
            (65, 10 * DAY, Verdict::Unknown),
            (5 * 60, 10 * DAY, Verdict::Unknown),
            (25 * 60, 300 * DAY, Verdict::Healthy),
            (65, 2 * 60, Verdict::Healthy),
            (10, 10, Verdict::Healthy),
            (10, 60, Verdict::Unknown),
        ] {
            assert_eq!(verdict(minutes, uptime), expected, "{minutes} min of {uptime} min");
        }
    }

    #[test]
    fn an_old_log_does_not_make_a_short_one_long_enough() {
        let told = judged(&[OLD, ("/dev/kmsg", "2026-11-21T02:30:10Z", "2026-11-21T02:40:00Z")]);
        assert_eq!(told.verdict, Verdict::Unknown);
        assert!(told.unknown[0].why.contains("a gap of 4 d"), "{:?}", told.unknown);
    }

    #[test]
    fn a_log_that_ended_days_ago_does_not_cover_the_present() {
        let told = judged(&[OLD]);
        assert_eq!(told.verdict, Verdict::Unknown);
        assert!(told.unknown[0].why.contains("ends 4 d before now"), "{:?}", told.unknown);
    }

    #[test]
    fn advice_about_a_repetition_names_the_start_of_the_log() {
        // The node of the scenario has been running for 12 days.
        let with_loss = |from: &str, earlier: bool| {
            let mut report: Report =
                serde_json::from_str(include_str!("../../../../../tests/scenarios/base/healthy-h100-8.json"))
                    .expect("the scenario");
            report.kernel_log.clear();
            let last = "2026-11-21T02:44:00Z".parse().ok();
            let pci_address = syringe_core::pci::PciAddress::parse("18:00.0");
            let lost =
                KernelEvent { code: Some(79), pci_address, count: 1, first: last, last, ..KernelEvent::default() };
            let mut events = vec![lost.clone()];
            if earlier {
                let (pci_address, boot_id) =
                    (syringe_core::pci::PciAddress::parse("2a:00.0"), Some("before".to_owned()));
                events.push(KernelEvent { code: Some(43), pci_address, boot_id, ..lost });
            }
            let source =
                Coverage { source: "journal".into(), from: from.parse().ok(), to: last, ..Coverage::default() };
            let log = KernelLog { coverage: vec![source], events, ..KernelLog::default() };
            report.sections.xid = Some(Section::read(log, Vec::new()));
            let findings = diagnose(&report, &KubernetesFacts::default()).findings;
            let loss = findings.into_iter().find(|finding| finding.id == "gpu-off-bus").expect("the loss");
            assert!(loss.action.text.contains("If it happens again"));
            loss.action.text.contains("earlier occurrences are not known")
        };
        assert!(with_loss("2026-11-20T02:44:00Z", false), "the log begins after the boot");
        assert!(!with_loss("2026-10-01T00:00:00Z", false), "the log begins weeks before the boot");
        assert!(!with_loss("2026-11-20T02:44:00Z", true), "the log has lines of an earlier boot");
    }

    #[test]
    fn an_error_that_could_not_be_decoded_forbids_an_all_clear() {
        let log = |unread_lines, unread_errors| {
            let from = "2026-11-01T00:00:00Z".parse().ok();
            let to = "2026-11-21T02:40:00Z".parse().ok();
            let unread_samples = vec!["NVRM: Xid (new frame): 79".to_owned()];
            let log =
                Coverage { source: "journal".into(), from, to, unread_lines, unread_errors, ..Coverage::default() };
            with(vec![Coverage { unread_samples, ..log }])
        };
        let shown = log(4, 0);
        assert_eq!(shown.verdict, Verdict::Healthy, "harmless lines are shown, but do not change the verdict");
        assert!(shown.findings.iter().any(|finding| finding.id == "kernel-log-lines-not-recognized"));
        let undecoded = log(4, 1);
        assert_eq!(undecoded.verdict, Verdict::Unknown);
        assert!(undecoded.unknown[0].why.contains("new frame"), "{:?}", undecoded.unknown);
    }

    #[test]
    fn a_log_without_records_or_times_is_not_healthy() {
        let log = |records, complete_since_boot| {
            let source = "/var/log/kern.log".to_owned();
            with(vec![Coverage { source, records, complete_since_boot, ..Coverage::default() }])
        };
        let empty = log(0, None);
        assert_eq!(empty.verdict, Verdict::Unknown);
        assert!(empty.unknown[0].why.contains("has no records"), "{:?}", empty.unknown);
        let undated = log(900, Some(false));
        assert_eq!(undated.verdict, Verdict::Unknown);
        assert!(undated.unknown[0].why.contains("have no timestamps"), "{:?}", undated.unknown);
        let from_boot = log(900, Some(true));
        assert_eq!(from_boot.verdict, Verdict::Healthy, "a saved dmesg of the whole boot");
        assert!(from_boot.summary.contains("no Xid; "), "{}", from_boot.summary);
    }
}
