//! Tests that no fault leads to the verdict `healthy`, for every Xid, log format, scenario and snapshot, also if
//! sections are missing or could not be read.

#[path = "../kernel_lines/spellings.rs"]
mod spellings;

use std::path::Path;

use diagnosis::diagnose;
use diagnosis::finding::{Diagnosis, Finding, Verdict};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::Value;
use syringe_core::classification::Severity;
use syringe_core::facts::kernel_log::KernelEvent;
use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::kernel_log as xid;
use syringe_core::kernel_log::XidEntry;
use syringe_core::report::{Problem, Report, Section, Sections};

use spellings::{FORMATS, Format};

use super::properties::{library, without};
use super::{replayed, scenarios, told};

/// The formats of the start of an Xid line. `{}` is the code and the following text.
const FRAMES: [&str; 3] =
    ["NVRM: Xid (PCI:0000:5d:00): {}", "NVRM: Xid (0000:5d:00): {}", "NVRM: Xid (PCI:0000:5d:00 GPU-I:03): {}"];

const PROCESSES: [&str; 3] = ["pid=4242, name=python3, ", "pid='<unknown>', name=<unknown>, ", ""];

/// The sections of a report besides the kernel log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OtherSections {
    Nothing,
    Host,
    Everything,
}

/// Returns the minimum severity of a finding about this event, according to the catalogue. `None`: the event is information.
fn least_severity(event: &KernelEvent, others: OtherSections) -> Option<Severity> {
    let judged = xid::event_meaning::of(event)?;
    match (event.code?, others) {
        _ if judged.severity == Severity::Info => None,
        // NVML now returns `none`, which withdraws the recommendation.
        (154, OtherSections::Everything) => None,
        _ => Some(judged.severity),
    }
}

fn text_of(entry: &XidEntry) -> &'static str {
    match entry.code {
        154 => "GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)",
        64 => "Row remapper table full",
        140 => "ECC unrecovered error count: dram 1",
        _ => "Something happened",
    }
}

/// Returns the time of the report, five minutes after the line, so that no event is old and no GPU has recovered.
fn now() -> Timestamp {
    "2025-02-23T16:29:18Z".parse().expect("a time")
}

fn report_with(line: &str, others: OtherSections) -> Report {
    static BASE: std::sync::OnceLock<Report> = std::sync::OnceLock::new();
    let base = BASE.get_or_init(|| {
        let text = include_str!("../scenarios/base/healthy-h100-8.json");
        let mut base: Report = serde_json::from_str(text).expect("the scenario");
        base.taken_at = Some(now());
        let host = base.sections.host.as_mut().and_then(|section| section.data.as_mut());
        host.expect("the host").uptime_seconds = Some(472);
        base.kernel_log = vec!["6,1,1000000,-;Linux version 6.8.0".to_owned()];
        base
    });
    let mut report = base.clone();
    report.kernel_log.push(line.to_owned());
    let mut report = replayed(report);
    let all = std::mem::take(&mut report.sections);
    report.sections = match others {
        OtherSections::Nothing => Sections { xid: all.xid, ..Sections::default() },
        OtherSections::Host => Sections { xid: all.xid, host: all.host, ..Sections::default() },
        OtherSections::Everything => all,
    };
    report
}

fn worst(diagnosis: &Diagnosis) -> Option<Severity> {
    diagnosis.findings.iter().map(|finding| finding.severity).max()
}

/// Returns whether the verdict is `healthy`, i.e. reports no fault.
fn all_clear(diagnosis: &Diagnosis) -> bool {
    matches!(diagnosis.verdict, Verdict::Healthy | Verdict::NoFaultFound)
}

/// Returns whether the event has the right time or no time. Lines with another zone or year belong to an earlier boot.
fn is_of_this_boot(event: &KernelEvent) -> bool {
    event.boot_id.is_none()
        && event.last.is_none_or(|last| now().duration_since(last).abs() < SignedDuration::from_hours(1))
}

/// Checks the diagnosis of one line. `Ok(false)`: the event gets a wrong time, because the format of the line does not
/// contain the zone or the year.
fn check_code(
    entry: &XidEntry,
    format: &Format,
    frame: &str,
    process: &str,
    others: OtherSections,
) -> Result<bool, String> {
    let text = frame.replace("{}", &format!("{}, {process}{}", entry.code, text_of(entry)));
    let line = format.1(2, &text);
    let report = report_with(&line, others);
    let events = Section::data_of(&report.sections.xid).map(|log| log.events.as_slice()).unwrap_or_default();
    let Some(event) = events.iter().find(|event| event.code == Some(entry.code)) else {
        return Err(format!("no event: {line}"));
    };
    if !is_of_this_boot(event) {
        return Ok(false);
    }
    let Some(least) = least_severity(event, others) else { return Ok(true) };
    let diagnosis = diagnose(&report, &KubernetesFacts::default());
    let named = |finding: &Finding| {
        let code = format!("Xid {}", entry.code);
        finding.evidence.iter().any(|line| line.contains(&code)) || finding.title.contains(&code)
    };
    let found = diagnosis.findings.iter().filter(|finding| named(finding)).map(|finding| finding.severity).max();
    let fails =
        |why: &str| Err(format!("{why}: {line}: {found:?}, {others:?}, at least {least:?}\n{}", told(&diagnosis)));
    if found.is_none_or(|found| found < least) {
        return fails("no finding is severe enough");
    }
    if all_clear(&diagnosis) || worst(&diagnosis) < Some(least) {
        return fails("the verdict is clear");
    }
    Ok(true)
}

const OTHER_SECTIONS: [OtherSections; 3] = [OtherSections::Nothing, OtherSections::Host, OtherSections::Everything];

fn assert_none(complaints: &[String]) {
    let lines: Vec<&str> = complaints.iter().filter_map(|complaint| complaint.lines().next()).collect();
    assert!(complaints.is_empty(), "{} complaints\n{lines:#?}\n{}", complaints.len(), complaints[0]);
}

/// Tests every code with each kind of report, so that no code is left to the random tests.
#[test]
fn no_xid_passes_as_healthy() {
    let mut complaints = Vec::new();
    for entry in xid::xids() {
        for others in OTHER_SECTIONS {
            complaints.extend(check_code(entry, &FORMATS[0], FRAMES[0], PROCESSES[1], others).err());
        }
    }
    assert_none(&complaints);
}

/// Tests every log format with some of the codes, different codes for each format.
#[test]
fn no_spelling_of_a_log_hides_an_xid() {
    const PARTS: usize = 11;
    let (mut complaints, mut of_this_boot) = (Vec::new(), 0);
    for (at, format) in FORMATS.iter().enumerate() {
        let mut counts = false;
        for (nth, entry) in xid::xids().enumerate().filter(|(nth, _)| nth % PARTS == at % PARTS) {
            match check_code(entry, format, FRAMES[nth % 3], PROCESSES[at % 3], OTHER_SECTIONS[(nth + at) % 3]) {
                Ok(judged) => counts |= judged,
                Err(complaint) => complaints.push(format!("{}: {complaint}", format.0)),
            }
        }
        of_this_boot += usize::from(counts);
    }
    assert_none(&complaints);
    assert!(of_this_boot >= 25, "{of_this_boot} of {} spellings", FORMATS.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 160, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_xid_passes_as_healthy_in_any_format(
        code in any::<prop::sample::Index>(),
        format in 0..FORMATS.len(),
        frame in prop::sample::select(&FRAMES[..]),
        process in prop::sample::select(&PROCESSES[..]),
        others in prop::sample::select(&OTHER_SECTIONS[..]),
    ) {
        let entries: Vec<&XidEntry> = xid::xids().collect();
        let entry = code.get(&entries);
        if let Err(complaint) = check_code(entry, &FORMATS[format], frame, process, others) {
            return Err(TestCaseError::fail(complaint));
        }
    }

    /// Less data never leads to a better verdict: if a section is missing, the verdict is not healthy.
    #[test]
    fn dropping_sections_makes_no_verdict_better(at in any::<prop::sample::Index>(), mask in 0..0x1ff_u16) {
        let (report, cluster) = at.get(library());
        let part = diagnose(&without(report, mask), cluster);
        prop_assert_ne!(part.verdict, Verdict::Healthy, "{}", told(&part));
        prop_assert!(!part.not_requested.is_empty());
    }

    /// A section that could not be read does not lead to a better verdict than a section that was not requested.
    #[test]
    fn a_section_that_failed_makes_no_verdict_better(at in any::<prop::sample::Index>(), which in 0..6_usize) {
        let (report, cluster) = at.get(library());
        let mut part = report.clone();
        let why = Problem { what: "it".into(), why: "no answer".into(), code: "unknown".into(), ..Problem::default() };
        let sections = &mut part.sections;
        match which {
            0 => sections.inventory = Some(Section::failed(why)),
            1 => sections.telemetry = Some(Section::failed(why)),
            2 => sections.topology = Some(Section::failed(why)),
            3 => sections.ecc = Some(Section::failed(why)),
            4 => sections.host = Some(Section::failed(why)),
            _ => sections.xid = Some(Section::failed(why)),
        }
        let part = diagnose(&part, cluster);
        prop_assert!(part.verdict >= Verdict::Unknown, "{}", told(&part));
    }
}

/// Returns the sections that contain the evidence of a finding. If the evidence quotes a kernel line, `xid` is one of
/// them, except for the line `API mismatch`, which is only about a client.
fn sections_with_evidence(finding: &Finding) -> Vec<&'static str> {
    let quotes = |line: &String| line.starts_with("kernel ") && !line.contains("API mismatch");
    let log = finding.evidence.iter().any(quotes).then_some("xid");
    // A finding that is based only on an Xid does not depend on NVML's counters: they may be zero.
    let counted = finding.evidence.iter().any(|line| line.contains("since driver load: "));
    if finding.id.starts_with("ecc-") && log.is_some() && !counted {
        return log.into_iter().collect();
    }
    // The growth between two readings is a fact of telemetry.
    if finding.evidence.iter().any(|line| line.contains(" in the last ") && line.ends_with(" s")) {
        return vec!["telemetry"];
    }
    const TABLE: &[(&[&str], &[&str])] = &[
        (&["row-remap-", "retired-pages-", "sram-", "inforom-", "repair-", "ecc-", "recovery-"], &["ecc"]),
        (
            &["thermal-slow", "power-", "clocks-", "hardware-slowdown", "memory-too", "gpu-too", "pcie-width"],
            &["telemetry"],
        ),
        (
            &["nvlink-down", "nvlink-errors", "fabric-unhealthy", "fabric-not-registered", "fabric-limited"],
            &["topology"],
        ),
        (&["persistence-off"], &["inventory"]),
        (&["mig-"], &["mig"]),
        (&["process-outside", "process-zombie", "memory-unaccounted"], &["processes"]),
        (&["device-nodes", "driver-nouveau", "container-"], &["host"]),
        (
            &["gpu-lost", "gpu-unresponsive", "gpu-cannot", "gpu-reset-required"],
            &["inventory", "telemetry", "ecc", "topology"],
        ),
        (&["nvml-", "driver-version"], &["inventory", "telemetry", "ecc"]),
    ];
    let row = TABLE.iter().find(|(ids, _)| ids.iter().any(|id| finding.id.starts_with(id)));
    row.map_or(&[][..], |(_, sections)| sections).iter().copied().chain(log).collect()
}

/// Findings that are based on a failed call. Each section contains the failures of its own calls.
const OF_FAILED_CALLS: [&str; 5] =
    ["gpu-unresponsive", "gpu-cannot-be-opened", "gpu-reset-required", "gpu-lost", "nvml-not-answering"];

/// Returns a report that only has this section.
fn only(report: &Report, section: &str) -> Report {
    let mut part: Value = serde_json::to_value(report).expect("JSON");
    part["sections"].as_object_mut().expect("sections").retain(|name, _| name == section);
    Report { kernel_log: Vec::new(), ..serde_json::from_value(part).expect("a report") }
}

#[test]
fn a_section_that_holds_the_evidence_is_never_clear() {
    let (mut complaints, mut checked) = (Vec::new(), 0);
    for (name, (report, expected)) in scenarios() {
        let whole = diagnose(&report, &expected.cluster);
        let grave = whole.findings.iter().filter(|finding| finding.severity > Severity::Info);
        for (finding, section) in
            grave.flat_map(|one| sections_with_evidence(one).into_iter().map(move |section| (one, section)))
        {
            let part = only(&report, section);
            let silent = OF_FAILED_CALLS.contains(&finding.id.as_str())
                && section != "xid"
                && part.sections.problems().is_empty();
            // If all GPUs lack the same links, only the name of the board shows this. The name is in the inventory.
            let of_board = name == "nvswitch-not-started" && section == "topology";
            if part.sections == Sections::default() || silent || of_board {
                continue;
            }
            checked += 1;
            let diagnosis = diagnose(&part, &expected.cluster);
            if all_clear(&diagnosis) {
                complaints.push(format!("{name}: {section} alone is {:?} with {}", diagnosis.verdict, finding.id));
            }
        }
    }
    assert!(complaints.is_empty(), "{complaints:#?}");
    assert!(checked >= 60, "{checked} checked");
}

/// Returns the content of a snapshot file, without the header.
fn body(path: &Path) -> String {
    let text = std::fs::read_to_string(path).expect("a snapshot");
    text.splitn(3, "---\n").nth(2).unwrap_or_default().to_owned()
}

fn snapshots(folder: &str) -> Vec<std::path::PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../snapshots").join(folder);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder") {
        let path = entry.expect("a file").path();
        if path.is_dir() {
            found.extend(std::fs::read_dir(&path).expect("the folder").map(|entry| entry.expect("a file").path()));
        } else {
            found.push(path);
        }
    }
    found.retain(|path| path.extension().is_some_and(|ending| ending == "snap"));
    assert!(found.len() >= 10, "{}", found.len());
    found
}

/// In the accepted snapshots, no tool reports a node with a fault, or a node that was not read completely, as healthy.
#[test]
fn no_accepted_answer_of_a_tool_calls_a_troubled_node_healthy() {
    let scenarios = scenarios();
    for path in snapshots("tools") {
        let Ok(answer) = serde_json::from_str::<Value>(&body(&path)) else { continue };
        let scenario = path.parent().and_then(Path::file_name).expect("a folder").to_string_lossy().into_owned();
        let (_, expected) = &scenarios[&scenario];
        let verdict = answer["verdict"].as_str().unwrap_or_default();
        if verdict == "healthy" {
            assert_eq!(expected.verdict, "healthy", "{}", path.display());
            assert_eq!(answer["not_requested"], Value::Null, "{}", path.display());
        }
        if matches!(verdict, "healthy" | "no_fault_found") {
            for event in answer["events"].as_array().into_iter().flatten() {
                let read: KernelEvent = serde_json::from_value(event.clone()).expect("an event");
                let least = least_severity(&read, OtherSections::Nothing).filter(|_| event["kind"] == "xid");
                assert!(least <= Some(Severity::Info) || !event["boot_id"].is_null(), "{}: {event}", path.display());
            }
        }
    }
}

#[test]
fn no_accepted_table_calls_a_troubled_node_healthy() {
    let first = |path: &Path| body(path).split("  ").next().unwrap_or_default().to_owned();
    for path in snapshots("tables") {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let Some((node, _)) = name.split_once('.').filter(|(node, _)| node.starts_with("gpu-")) else { continue };
        let whole = first(&path.with_file_name(format!("{node}.diagnose_gpu_node.snap")));
        assert!(first(&path) != "HEALTHY" || whole == "HEALTHY", "{name}");
        let troubled = ["[warning]", "[critical]", "[fatal]"].iter().any(|word| body(&path).contains(word));
        let clear = ["HEALTHY", "NO FAULT FOUND"].contains(&first(&path).as_str());
        assert!(!(clear && troubled), "{name}");
    }
}
