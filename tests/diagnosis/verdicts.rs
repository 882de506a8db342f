//! No fault passes as healthy: properties over every Xid, every line format, every scenario and every snapshot.

use std::path::Path;

use proptest::prelude::*;
use serde_json::Value;
use syringe_core::diagnosis::{ClusterFacts, Diagnosis, Finding, Severity, Verdict, diagnose};
use syringe_core::facts::health::HealthStatus;
use syringe_core::report::{Problem, Report, Section, Sections};
use syringe_core::xid::{self, Class, XidEntry};

use super::{library, replayed, scenarios, told, without};

/// A line's prefixes, as logs have them. `{}` is the driver's text. All are of 2026-11-21T02:40Z, five minutes before the
/// facts were taken.
const FORMATS: [&str; 9] = [
    "3,4100,1036505000000,-;{}",
    "[1036505.000000] {}",
    "[Sat Nov 21 02:40:00 2026] {}",
    "Nov 21 02:40:00 gpu-h100-1 kernel: {}",
    "Nov 21 02:40:00 gpu-h100-1 kernel: [1036505.000000] {}",
    "2026-11-21T02:40:00.000000+00:00 gpu-h100-1 kernel: {}",
    "2026-11-21T02:40:00+0000 gpu-h100-1 kernel: {}",
    r#"{"_TRANSPORT":"kernel","__REALTIME_TIMESTAMP":"1795228800000000","MESSAGE":"{}"}"#,
    "kern  :err   : [1036505.000000] {}",
];

/// The driver's own spellings of the frame. `{}` is the code with what follows it.
const FRAMES: [&str; 3] =
    ["NVRM: Xid (PCI:0000:5d:00): {}", "NVRM: Xid (0000:5d:00): {}", "NVRM: Xid (PCI:0000:5d:00 GPU-I:03): {}"];

const PROCESSES: [&str; 3] = ["pid=4242, name=python3, ", "pid='<unknown>', name=<unknown>, ", ""];

/// Which sections a report holds besides the kernel's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    Nothing,
    Host,
    Everything,
}

/// Codes that catalogue and rules grade apart, because the line's own text decides.
fn least_severity(entry: &XidEntry, beside: Beside) -> Option<Severity> {
    let of_catalogue = match entry.severity {
        xid::Severity::Info => return None,
        xid::Severity::Warning => Severity::Warning,
        xid::Severity::Critical => Severity::Critical,
        xid::Severity::Fatal => Severity::Fatal,
    };
    match (entry.code, entry.class) {
        // A program's own fault says nothing against the GPU, however grave it is for the program.
        (_, Class::Application) => Some(Severity::Info),
        // The registers in the text decide, and this text has none.
        (74 | 144..=150, _) => Some(Severity::Warning),
        // NVML's own answer has taken the wish back.
        (154, _) if beside == Beside::Everything => None,
        // NVML's present answer may soften what the log says.
        _ if beside == Beside::Everything => Some(Severity::Warning),
        // The memory's findings join several codes.
        (48, _) => Some(Severity::Critical),
        // Corrected errors harm nobody; a context switch that timed out is mostly a program's.
        (92 | 109, _) => Some(Severity::Warning),
        _ => Some(of_catalogue),
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

fn report_with(line: &str, beside: Beside) -> Report {
    static BASE: std::sync::OnceLock<Report> = std::sync::OnceLock::new();
    let base = BASE.get_or_init(|| {
        let text = include_str!("../scenarios/healthy-h100-8.json");
        serde_json::from_str(text).expect("the scenario")
    });
    let mut report = base.clone();
    report.kernel_log.push(line.to_owned());
    let mut report = replayed(report);
    let all = std::mem::take(&mut report.sections);
    report.sections = match beside {
        Beside::Nothing => Sections { xid: all.xid, ..Sections::default() },
        Beside::Host => Sections { xid: all.xid, host: all.host, ..Sections::default() },
        Beside::Everything => all,
    };
    report
}

fn worst(diagnosis: &Diagnosis) -> Option<Severity> {
    diagnosis.findings.iter().map(|finding| finding.severity).max()
}

/// Whether the verdict says that nothing is wrong.
fn all_clear(diagnosis: &Diagnosis) -> bool {
    matches!(diagnosis.verdict, Verdict::Healthy | Verdict::NoFaultFound)
}

fn check_code(entry: &XidEntry, format: &str, frame: &str, process: &str, beside: Beside) -> Result<(), String> {
    let Some(least) = least_severity(entry, beside) else { return Ok(()) };
    let text = frame.replace("{}", &format!("{}, {process}{}", entry.code, text_of(entry)));
    let line = format.replace("{}", &text);
    let diagnosis = diagnose(&report_with(&line, beside), &ClusterFacts::default());
    let named = |finding: &Finding| {
        let code = format!("Xid {}", entry.code);
        finding.evidence.iter().any(|line| line.contains(&code)) || finding.title.contains(&code)
    };
    let found = diagnosis.findings.iter().filter(|finding| named(finding)).map(|finding| finding.severity).max();
    let fails = |why: &str| Err(format!("{why}: {line}\n{beside:?}, at least {least:?}\n{}", told(&diagnosis)));
    if found.is_none_or(|found| found < least) {
        return fails("no finding that is grave enough");
    }
    if least > Severity::Info && (all_clear(&diagnosis) || worst(&diagnosis) < Some(least)) {
        return fails("the verdict is clear");
    }
    Ok(())
}

/// Every code once with each kind of report, so that none is left to chance.
#[test]
fn no_xid_passes_as_healthy() {
    let mut complaints = Vec::new();
    for entry in xid::xids() {
        for beside in [Beside::Nothing, Beside::Host, Beside::Everything] {
            complaints.extend(check_code(entry, FORMATS[0], FRAMES[0], PROCESSES[1], beside).err());
        }
    }
    let first: Vec<&String> = complaints.iter().take(3).collect();
    let lines: Vec<&str> = complaints.iter().filter_map(|complaint| complaint.lines().next()).collect();
    assert!(complaints.is_empty(), "{} complaints\n{lines:#?}\n{first:#?}", complaints.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 160, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_xid_passes_as_healthy_in_any_format(
        code in any::<prop::sample::Index>(),
        format in prop::sample::select(&FORMATS[..]),
        frame in prop::sample::select(&FRAMES[..]),
        process in prop::sample::select(&PROCESSES[..]),
        beside in prop::sample::select(&[Beside::Nothing, Beside::Host, Beside::Everything][..]),
    ) {
        let entries: Vec<&XidEntry> = xid::xids().collect();
        let entry = code.get(&entries);
        if let Err(complaint) = check_code(entry, format, frame, process, beside) {
            return Err(TestCaseError::fail(complaint));
        }
    }

    /// Less that was read is never a better verdict: without one of the sections, nothing is healthy.
    #[test]
    fn dropping_sections_makes_no_verdict_better(at in any::<prop::sample::Index>(), mask in 0..0x1ff_u16) {
        let (report, cluster) = at.get(library());
        let part = diagnose(&without(report, mask), cluster);
        prop_assert_ne!(part.verdict, Verdict::Healthy, "{}", told(&part));
        prop_assert!(!part.not_judged.is_empty());
    }

    /// A section that nobody could read is no better than one that nobody asked for.
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

/// The sections that hold the evidence of a finding, each by itself. A finding that quotes the kernel is in `xid`, unless
/// the kernel's line is a client's complaint only.
fn sections_with_evidence(finding: &Finding) -> Vec<&'static str> {
    let quotes = |line: &String| line.starts_with("kernel ") && !line.contains("API mismatch");
    let log = finding.evidence.iter().any(quotes).then_some("xid");
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

/// Findings that rest on a call that failed: each section has the failures of its own calls.
const OF_FAILED_CALLS: [&str; 5] =
    ["gpu-unresponsive", "gpu-cannot-be-opened", "gpu-reset-required", "gpu-lost", "nvml-not-answering"];

/// A report of one section.
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
            if part.sections == Sections::default() || silent {
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

/// The body of a snapshot file, behind its head.
fn body(path: &Path) -> String {
    let text = std::fs::read_to_string(path).expect("a snapshot");
    text.splitn(3, "---\n").nth(2).unwrap_or_default().to_owned()
}

fn snapshots(folder: &str) -> Vec<std::path::PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("snapshots").join(folder);
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

/// What was accepted once is held to the same: no tool calls a troubled node healthy, and none without every section.
#[test]
fn no_accepted_answer_of_a_tool_calls_a_troubled_node_healthy() {
    let scenarios = scenarios();
    for path in snapshots("tools") {
        let Ok(answer) = serde_json::from_str::<Value>(&body(&path)) else { continue };
        let scenario = path.parent().and_then(Path::file_name).expect("a folder").to_string_lossy().into_owned();
        let (_, expected) = &scenarios[&scenario];
        let verdict = answer["verdict"].as_str().unwrap_or_default();
        if verdict == "healthy" {
            assert_eq!(expected.verdict, Verdict::Healthy, "{}", path.display());
            assert_eq!(answer["not_judged"], Value::Null, "{}", path.display());
        }
        if matches!(verdict, "healthy" | "no_fault_found") {
            for event in answer["events"].as_array().into_iter().flatten() {
                let code = event["code"].as_u64().and_then(|code| u32::try_from(code).ok());
                let entry = code.filter(|_| event["kind"] == "xid").and_then(xid::xid);
                let least = entry.and_then(|entry| least_severity(entry, Beside::Nothing));
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

#[test]
fn no_accepted_health_section_calls_a_troubled_node_healthy() {
    let scenarios = scenarios();
    for path in snapshots("worked_out") {
        let scenario = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let Ok(answer) = serde_json::from_str::<Value>(&body(&path)) else { panic!("{scenario} is no JSON") };
        let (_, expected) = &scenarios[&scenario];
        // The section knows nothing of Kubernetes, and what one container lost is no fault of the node.
        let status = answer["health"]["data"]["status"].as_str().unwrap_or_default();
        assert!(status != "healthy" || expected.health == HealthStatus::Healthy, "{scenario}");
    }
}
