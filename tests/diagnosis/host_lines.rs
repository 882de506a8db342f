//! Tests that each row of `host_lines.tsv` leads to its finding with its severity, for the time that the row sets,
//! until a line about recovery. Unknown words of a network card leave a node healthy.

use diagnosis::diagnose;
use diagnosis::finding::{Finding, Verdict};
use jiff::SignedDuration;
use syringe_core::classification::Severity;
use syringe_core::facts::kernel_log::KernelEvent;
use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::kernel_log::host_lines::{HostLine, Lasts, find};
use syringe_core::kernel_log::{Clock, EventLog, Options};

use super::properties::log_of;
use super::scenarios;

const LINES: &str = include_str!("../kernel_lines/host_lines.txt");

/// Returns the findings of a healthy node with these lines. The numbers are minutes before the report.
fn findings(lines: &[(i64, &str)], of_earlier_boot: bool) -> (Verdict, Vec<Finding>) {
    let (mut report, _) = scenarios()["healthy-h100-8"].clone();
    let taken = report.taken_at.expect("a time");
    let start = taken - SignedDuration::from_hours(24 * 9);
    let mut log = EventLog::new(Some(Clock { boot_wall_time: start }), Options::default());
    log.source("/dev/kmsg");
    let mut lines = lines.to_vec();
    lines.sort_by_key(|(minutes, _)| -minutes);
    for (at, (minutes, line)) in lines.iter().enumerate() {
        let since = (24 * 9 * 60 - minutes) * 60_000_000 + i64::try_from(at).expect("a number");
        log.push_line(&format!("3,{at},{since},-;{line}"));
    }
    let boot_id = if of_earlier_boot { Some("earlier".to_owned()) } else { report.boot_id.clone() };
    let events = log.finish().events;
    log_of(&mut report)
        .expect("a log")
        .events
        .extend(events.into_iter().map(|event| KernelEvent { boot_id: boot_id.clone(), ..event }));
    report.kernel_log.clear();
    let diagnosis = diagnose(&report, &KubernetesFacts::default());
    (diagnosis.verdict, diagnosis.findings)
}

fn severity(row: &HostLine, lines: &[(i64, &str)], of_earlier_boot: bool) -> Option<Severity> {
    let (_, found) = findings(lines, of_earlier_boot);
    let id = row.finding.expect("a finding");
    assert!(found.iter().all(|one| one.id == id || one.severity == Severity::Info), "{}: {found:#?}", row.name);
    let own = found.iter().find(|one| one.id == id)?;
    let line = lines.first().map(|(_, line)| line.get(..60).unwrap_or(line)).unwrap_or_default();
    // Quoted text contains no `]:`, which could be taken for a link.
    let quotes = |evidence: &String| evidence.replace("] :", "]:").contains(line);
    assert!(own.evidence.iter().any(quotes), "{line} is not in {own:#?}");
    Some(own.severity)
}

fn rows() -> impl Iterator<Item = (&'static str, &'static HostLine)> {
    LINES.lines().map(|line| (line, find(line).expect("a row"))).filter(|(_, row)| row.finding.is_some())
}

const DAY: i64 = 24 * 60;

#[test]
fn each_row_has_a_finding_of_its_severity() {
    // An NVSwitch with active links works: the line about its driver is information on this node.
    for (line, row) in rows().filter(|(_, row)| row.name != "nvswitch_failed") {
        let enough: Vec<_> = (0..i64::try_from(row.at_least).expect("a number")).map(|at| (5 + 2 * at, line)).collect();
        assert_eq!(severity(row, &enough, false), Some(row.severity), "{line}");
        if row.at_least > 1 {
            assert_eq!(severity(row, &enough[1..], false), Some(Severity::Info), "{line}: too few");
        }
        let old: Vec<_> = enough.iter().map(|(minutes, line)| (minutes + 2 * DAY, *line)).collect();
        let lasting = if row.lasts == Lasts::UntilBoot { row.severity } else { Severity::Info };
        assert_eq!(severity(row, &old, false), Some(lasting), "{line}: old");
        let over_boots = (row.lasts == Lasts::AfterADayOverBoots).then_some(row.severity);
        assert_eq!(severity(row, &enough, true), over_boots, "{line}: of an earlier boot");
    }
}

/// Returns the device that a line names: a word with a number that is not a time or a code.
fn devices(line: &str) -> impl Iterator<Item = &str> {
    let words = line.split(|one: char| !(one.is_ascii_alphanumeric() || ".:-".contains(one)));
    // A word that begins with a digit is an address, which contains colons. In all other words, a colon ends a name.
    fn parts(word: &str) -> Vec<&str> {
        if word.starts_with(|first: char| first.is_ascii_digit()) { vec![word] } else { word.split(':').collect() }
    }
    let words = words.flat_map(parts).map(|word| word.trim_matches([':', '.']));
    words.filter(|word| {
        let begins = word.starts_with(|first: char| first.is_ascii_lowercase()) || word.contains(":");
        begins && word.ends_with(|last: char| last.is_ascii_digit()) && !word.starts_with("0x")
    })
}

#[test]
fn what_works_again_is_information_unless_it_fails_often() {
    let mut tested = std::collections::BTreeSet::new();
    for (line, row) in rows().filter(|(_, row)| row.ended_by.is_some()) {
        let ends = LINES.lines().filter(|end| find(end).map(|end| end.name) == row.ended_by);
        let is_same = |end: &&str| devices(end).any(|device| devices(line).any(|other| other == device));
        let mut ends: Vec<&str> = ends.collect();
        let any = ends.first().copied();
        ends.retain(|end| is_same(end));
        // Lines about a server or a client name no device.
        let Some(end) = ends.first().copied().or(any.filter(|_| devices(line).next().is_none())) else { continue };
        tested.insert(row.name);
        assert_eq!(severity(row, &[(10, line), (5, end)], false), Some(Severity::Info), "{line}");
        assert_eq!(severity(row, &[(5, line), (10, end)], false), Some(row.severity), "{line}: again");
        let often: Vec<_> = (1..5).map(|at| (at * 20, line)).chain([(5, end)]).collect();
        assert_eq!(severity(row, &often, false), Some(row.severity), "{line}: often");
    }
    for name in ["link_down", "disk_lost", "array_degraded", "fs_error", "read_only", "fatal_error"] {
        assert!(tested.contains(name), "{name} is not tested: {tested:?}");
    }
}

#[test]
fn a_warning_of_a_network_card_in_unknown_words_leaves_the_node_healthy() {
    let (mut report, _) = scenarios()["healthy-h100-8"].clone();
    let coverage = &mut log_of(&mut report).expect("a log").coverage[0];
    coverage.unread_lines = 1;
    coverage.unread_samples = vec!["mlx5_core 0000:5d:00.0: words that are new".to_owned()];
    report.kernel_log.clear();
    let diagnosis = diagnose(&report, &KubernetesFacts::default());
    assert_eq!(diagnosis.verdict, Verdict::Healthy);
    assert!(diagnosis.findings.iter().any(|finding| finding.id == "kernel-log-lines-not-recognized"));
}
