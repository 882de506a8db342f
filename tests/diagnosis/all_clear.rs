//! Tests of the verdict `healthy` and of statements such as "no overheating" in the summary: recent errors, gaps in the
//! log and unread data rule them out. Old errors alone do not.

use diagnosis::diagnose;
use diagnosis::finding::{Diagnosis, Verdict};
use jiff::SignedDuration;
use serde_json::Value;
use syringe_core::classification::Severity;
use syringe_core::facts::kernel_log::{Coverage, KernelEvent, KernelEventKind as Kind, KernelLog};
use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::pci::PciAddress;
use syringe_core::report::{Report, Section, Sections, Source, Status};

use super::properties::log_of;
use super::{scenarios, told};

fn healthy() -> Report {
    scenarios().remove("healthy-h100-8").expect("the scenario").0
}

/// Returns an event of the healthy node's first GPU, this many minutes before the report.
fn event(kind: Kind, minutes: i64) -> KernelEvent {
    let last = healthy().taken_at.map(|now| now - SignedDuration::from_mins(minutes));
    KernelEvent {
        kind,
        pci_address: PciAddress::parse("0000:18:00.0"),
        count: 1,
        first: last,
        last,
        ..Default::default()
    }
}

fn xid(code: u32, minutes: i64) -> KernelEvent {
    KernelEvent { code: Some(code), ..event(Kind::Xid, minutes) }
}

/// Returns the report of the healthy node with these events. All programs started an hour before the report.
fn with_new_programs(events: Vec<KernelEvent>) -> Report {
    let mut report = with(events);
    let started = report.taken_at.map(|now| now - SignedDuration::from_hours(1));
    let processes = report.sections.processes.as_mut().and_then(|section| section.data.as_mut()).expect("processes");
    processes.processes.iter_mut().for_each(|process| process.started_at = started);
    report
}

fn judged(report: &Report) -> Diagnosis {
    diagnose(report, &KubernetesFacts::default())
}

/// Returns the report of the healthy node with these events in the log.
fn with(events: Vec<KernelEvent>) -> Report {
    let mut report = healthy();
    log_of(&mut report).expect("a log").events.extend(events);
    report
}

/// Returns a report that only has the log. The log covers five hours.
fn log_alone(events: Vec<KernelEvent>) -> Report {
    let base = healthy();
    let from = base.taken_at.map(|now| now - SignedDuration::from_hours(5));
    let coverage = vec![Coverage { source: "kern.log".into(), from, to: base.taken_at, ..Coverage::default() }];
    let log = KernelLog { coverage, events, ..KernelLog::default() };
    let sections = Sections { xid: Some(Section::read(log, Vec::new())), ..Sections::default() };
    Report { sections, kernel_log: Vec::new(), ..base }
}

fn worst(diagnosis: &Diagnosis) -> Option<Severity> {
    diagnosis.findings.iter().map(|finding| finding.severity).max()
}

#[test]
fn a_summary_names_the_errors_that_no_longer_count() {
    const DAYS: i64 = 9 * 24 * 60;
    for code in [48, 119, 38, 233] {
        let diagnosis = judged(&with_new_programs(vec![xid(code, DAYS)]));
        let summary = &diagnosis.summary;
        assert!(summary.contains(&format!("Xid {code}")), "{summary}");
        assert!(!summary.to_lowercase().contains("no hardware or driver xid"), "{summary}");
    }
    for (code, claim) in [(48, "no uncorrected memory error"), (119, "no driver problem")] {
        assert!(judged(&healthy()).summary.contains(claim));
        let summary = judged(&with_new_programs(vec![xid(code, DAYS)])).summary;
        assert!(!summary.contains(claim), "the summary contradicts the error that it names: {summary}");
    }
    let programs = judged(&with(vec![xid(31, 30)]));
    assert!(programs.summary.contains("o hardware or driver Xid"), "{}", programs.summary);
}

#[test]
fn a_link_that_went_down_is_found_in_the_log_alone() {
    let power = KernelEvent {
        sub_code: Some("power_state".into()),
        raw: "nvidia 0000:5d:00.0: Unable to change power state from D3cold to D0, device inaccessible".into(),
        ..event(Kind::PcieLink, 30)
    };
    assert_eq!(judged(&log_alone(vec![power])).verdict, Verdict::Critical);
    let slot = KernelEvent {
        sub_code: Some("link_down".into()),
        raw: "pcieport 0000:5c:01.0: pciehp: Slot(12): Link Down".into(),
        ..event(Kind::PcieLink, 30)
    };
    let port = PciAddress::parse("0000:fe:01.0");
    assert_eq!(judged(&log_alone(vec![slot.clone()])).verdict, Verdict::Warning);
    let of_a_disk = judged(&with(vec![KernelEvent { pci_address: port, ..slot }]));
    assert_eq!(of_a_disk.verdict, Verdict::Healthy, "{}", told(&of_a_disk));
}

#[test]
fn a_link_that_has_worked_for_a_week_is_no_open_fault() {
    let down = |minutes| KernelEvent { sub_code: Some("link_down".into()), ..event(Kind::PcieLink, minutes) };
    assert_eq!(worst(&judged(&with(vec![down(5)]))), Some(Severity::Critical));
    assert_eq!(worst(&judged(&with(vec![down(8 * 24 * 60)]))), Some(Severity::Info));
}

#[test]
fn a_section_that_failed_is_named_and_forbids_healthy() {
    for section in ["processes", "mig", "kubelet"] {
        for broken in [serde_json::json!({"status": "error"}), serde_json::json!({"status": "ok", "data": null})] {
            let mut report: Value = serde_json::to_value(healthy()).expect("JSON");
            report["sections"][section] = broken;
            let diagnosis = judged(&serde_json::from_value(report).expect("a report"));
            assert!(diagnosis.verdict != Verdict::Healthy, "{section}: {}", told(&diagnosis));
            assert!(
                diagnosis.unknown.iter().any(|one| one.section.split(", ").any(|name| name == section)),
                "{section}: {}",
                told(&diagnosis)
            );
        }
    }
}

#[test]
fn gaps_in_the_log_and_contradictions_rule_out_healthy() {
    let mut hole = healthy();
    log_of(&mut hole).expect("a log").coverage[0].lost_records = 50_000;
    let mut no_inventory = healthy();
    no_inventory.sections.inventory.as_mut().and_then(|one| one.data.as_mut()).expect("data").gpus.clear();
    let mut no_bus = healthy();
    no_bus.sections.host.as_mut().and_then(|one| one.data.as_mut()).expect("data").pci_gpus.clear();
    for report in [hole, no_inventory, no_bus] {
        let diagnosis = judged(&report);
        assert!(diagnosis.verdict >= Verdict::Unknown, "{}", told(&diagnosis));
    }
    let mut omitted = healthy();
    log_of(&mut omitted).expect("a log").events_omitted = 100;
    let summary = judged(&omitted).summary;
    assert!(!summary.to_lowercase().contains("no xid"), "{summary}");
}

#[test]
fn errors_that_only_one_counter_has_are_found() {
    let mut report = healthy();
    let ecc = report.sections.ecc.as_mut().and_then(|one| one.data.as_mut()).expect("data");
    let sram = ecc.gpus[0].sram.as_mut().expect("an H100 counts SRAM errors");
    sram.volatile_uncorrected_parity = 1;
    let diagnosis = judged(&report);
    assert!(diagnosis.verdict >= Verdict::Warning, "{}", told(&diagnosis));
}

#[test]
fn a_limit_that_no_gpu_has_clears_no_heat() {
    let mut report = healthy();
    let telemetry = report.sections.telemetry.as_mut().and_then(|one| one.data.as_mut()).expect("data");
    for gpu in &mut telemetry.gpus {
        gpu.temperature.slowdown_celsius = Some(0);
        (gpu.temperature.tlimit_margin_celsius, gpu.temperature.tlimit_thresholds) = (None, None);
    }
    let summary = judged(&report).summary;
    assert!(!summary.contains("no overheating"), "{summary}");
}

#[test]
fn the_newest_boot_of_a_foreign_log_is_its_present() {
    let of_boot = |boot: &str, event: KernelEvent| KernelEvent { boot_id: Some(boot.into()), ..event };
    let mut report = log_alone(vec![of_boot("old", xid(48, 290)), of_boot("new", xid(79, 180))]);
    report.boot_id = None;
    let diagnosis = judged(&report);
    assert_eq!(diagnosis.verdict, Verdict::Fatal, "{}", told(&diagnosis));
}

#[test]
fn a_load_of_the_driver_brings_no_lost_gpu_back() {
    let lost = vec![xid(79, 60), KernelEvent { pci_address: None, ..event(Kind::DriverLoaded, 30) }];
    let alone = judged(&log_alone(lost.clone()));
    assert_eq!(alone.verdict, Verdict::Fatal, "{}", told(&alone));
    let works = judged(&with(lost));
    assert!(worst(&works) <= Some(Severity::Warning), "NVML can read the GPU: {}", told(&works));
}

#[test]
fn a_limit_on_gsp_lines_and_a_failed_probe_are_found_without_anything_else() {
    let limited = judged(&log_alone(vec![event(Kind::GspRateLimit, 30)]));
    assert_eq!(limited.verdict, Verdict::Warning, "{}", told(&limited));
    let mut with_host = log_alone(vec![event(Kind::ProbeFailed, 30)]);
    with_host.sections.host = healthy().sections.host;
    assert_eq!(with_host.sections.host.as_ref().map(|host| host.status), Some(Status::Ok));
    let diagnosis = judged(&with_host);
    assert_eq!(diagnosis.verdict, Verdict::Warning, "{}", told(&diagnosis));
}

#[test]
fn a_missing_name_is_no_second_workload() {
    let fault = |pid| KernelEvent { pid: Some(pid), ..xid(31, 30 + i64::from(pid)) };
    let diagnosis = judged(&with(vec![fault(1), fault(2)]));
    assert_eq!(worst(&diagnosis), Some(Severity::Info), "{}", told(&diagnosis));
    let named = |pid, name: &str| KernelEvent { process: Some(name.into()), ..fault(pid) };
    let diagnosis = judged(&with(vec![named(1, "a"), named(2, "b")]));
    assert_eq!(worst(&diagnosis), Some(Severity::Warning), "{}", told(&diagnosis));
}

#[test]
fn a_blocked_task_that_ended_a_day_ago_is_history() {
    let hung =
        |minutes| KernelEvent { pid: Some(4321), process: Some("nvidia-smi".into()), ..event(Kind::HungTask, minutes) };
    assert_eq!(worst(&judged(&with(vec![hung(30)]))), Some(Severity::Warning));
    assert_eq!(worst(&judged(&with(vec![hung(8 * 24 * 60)]))), Some(Severity::Info));
}

/// Returns the diagnosis of a log for its last hour. In this log, the line is six hours old.
fn last_hour(line: &str) -> Diagnosis {
    let mut report = Report { taken_at: "2026-11-21T02:45:10Z".parse().ok(), ..Report::default() };
    report.kernel_log = [
        "2026-11-20T01:00:00Z n kernel: Linux version 6.8.0",
        &format!("2026-11-20T20:45:10Z n kernel: {line}"),
        "2026-11-21T02:45:00Z n kernel: x",
    ]
    .map(str::to_owned)
    .to_vec();
    narrowed(super::replayed(report))
}

/// Returns the diagnosis of the last hour of the log.
fn narrowed(mut report: Report) -> Diagnosis {
    let since = report.taken_at.expect("a time") - SignedDuration::from_hours(1);
    syringe_core::kernel_log::drop_events_before(log_of(&mut report).expect("a log"), since);
    judged(&report)
}

#[test]
fn a_window_hides_no_gpu_that_the_driver_refused_and_no_port_that_was_cut_off() {
    for line in [
        "NVRM: The NVIDIA probe routine failed for 1 device(s).",
        "NVRM: BAR1 is 0M @ 0x0 (PCI:0000:18:00.0)",
        "NVRM: The NVIDIA GPU 0000:18:00.0 (PCI ID: 10de:2330) installed in this system is not supported by open \
         nvidia.ko because it does not include the required GPU System Processor (GSP).",
        "pcieport 0000:16:00.0: pciehp: Slot(1): Link Down",
        "pcieport 0000:16:00.0: DPC: containment event, status:0x1f01 source:0x0000",
    ] {
        let diagnosis = last_hour(line);
        assert!(worst(&diagnosis) >= Some(Severity::Warning), "{line}: {}", told(&diagnosis));
    }
    let corrected = "pcieport 0000:16:00.0: AER: Corrected error received: 0000:16:00.0";
    let usb = "usb 1-1: device not accepting address 5, error -71";
    for line in [corrected, usb] {
        let diagnosis = last_hour(line);
        assert_eq!(diagnosis.verdict, Verdict::NoFaultFound, "{line}: {}", told(&diagnosis));
    }
}

/// A fault that is only in the log is reported for any requested time window.
#[test]
fn no_window_clears_what_the_whole_log_calls_critical() {
    let mut checked = 0;
    for (name, (report, _)) in scenarios() {
        let sections = Sections { xid: report.sections.xid.clone(), ..Sections::default() };
        let part = Report { sections, kernel_log: Vec::new(), ..report };
        if part.sections.xid.is_none() || judged(&part).verdict < Verdict::Critical {
            continue;
        }
        checked += 1;
        let diagnosis = narrowed(part);
        assert!(worst(&diagnosis) >= Some(Severity::Warning), "{name}: {}", told(&diagnosis));
    }
    assert!(checked >= 10, "{checked} scenarios");
}

#[test]
fn a_summary_without_nvml_does_not_say_who_responds() {
    let base = with(vec![xid(95, 5)]);
    let part = |telemetry| {
        let Sections { host, xid, .. } = base.sections.clone();
        Report { sections: Sections { host, xid, telemetry, ..Sections::default() }, ..base.clone() }
    };
    let blind = judged(&part(None));
    assert!(blind.verdict == Verdict::Fatal && !blind.summary.contains("respond"), "{}", blind.summary);
    let read = judged(&part(base.sections.telemetry.clone()));
    assert!(read.summary.contains("ll 8 GPUs respond"), "{}", read.summary);
}

#[test]
fn a_status_that_calls_a_gpu_lost_forbids_an_all_clear_where_no_gpu_was_read() {
    let status = |word: &str| KernelEvent {
        pci_address: None,
        details: [("status".to_owned(), word.to_owned())].into(),
        ..event(Kind::Assertion, 5)
    };
    let lost = judged(&log_alone(vec![status("NV_ERR_GPU_IS_LOST")]));
    assert_eq!(lost.verdict, Verdict::Unknown, "{}", told(&lost));
    assert!(lost.unknown.iter().any(|one| one.why.contains("not every GPU was read")), "{}", told(&lost));
    let other = judged(&log_alone(vec![status("NV_ERR_INVALID_STATE")]));
    assert_eq!(other.verdict, Verdict::NoFaultFound, "{}", told(&other));
    let works = judged(&with(vec![status("NV_ERR_GPU_IS_LOST")]));
    assert_eq!(works.verdict, Verdict::Healthy, "all GPUs are read: {}", told(&works));
}

/// On rack systems, no switch is on the PCI bus, and the remote device of an inactive link is not known.
#[test]
fn links_of_nvlink_5_and_of_a_registered_gpu_need_switches() {
    let (report, _) = scenarios().remove("gb200-4").expect("the scenario");
    let critical = |by_version: bool, by_fabric: bool| {
        let mut value = ::scenarios::in_full(&report);
        let cards = value["sections"]["inventory"]["data"]["gpus"].as_array_mut().expect("GPUs");
        cards.iter_mut().for_each(|gpu| gpu["name"] = "NVIDIA H100 NVL".into());
        let gpus = value["sections"]["topology"]["data"]["gpus"].as_array_mut().expect("GPUs");
        for (at, gpu) in gpus.iter_mut().enumerate() {
            let version = if by_version { 5 } else { 4 };
            gpu["nvlinks"] = serde_json::json!([{"links": [0, 1, 2, 3], "active": at != 2, "version": version}]);
            if !by_fabric {
                gpu.as_object_mut().expect("a GPU").remove("fabric");
            }
        }
        let diagnosis = judged(&serde_json::from_value(value).expect("a report"));
        diagnosis.findings.iter().any(|one| one.id == "nvlink-down" && one.severity == Severity::Critical)
    };
    assert!(critical(true, false) && critical(false, true));
    assert!(!critical(false, false), "without switches and active links, the card may have no bridge");
}

/// The log alone does not show whether a GPU works again. If all sections are read, these events are information.
#[test]
fn an_old_event_is_no_emergency_where_the_present_was_not_read() {
    const WEEK: i64 = 7 * 24 * 60;
    for code in [119, 79, 95, 48, 62, 109, 74, 149] {
        assert!(worst(&judged(&with_new_programs(vec![xid(code, WEEK + 1)]))) <= Some(Severity::Info), "{code}");
        assert_eq!(worst(&judged(&with(vec![xid(code, WEEK)]))), Some(Severity::Warning), "{code}: no work since then");
        let alone = judged(&log_alone(vec![xid(code, WEEK)]));
        let finding = alone.findings.first().expect("a finding");
        assert_eq!(finding.severity, Severity::Warning, "{code}: {}", told(&alone));
        assert!(finding.action.text.contains("Call diagnose_gpu_node"), "{code}: {}", told(&alone));
        let recent = judged(&log_alone(vec![xid(code, 5)]));
        let finding = recent.findings.first().expect("a finding");
        assert!(finding.severity >= Severity::Critical, "{code}: {}", told(&recent));
        assert!(finding.evidence.iter().any(|line| line.contains("diagnose_gpu_node")), "{code}: {}", told(&recent));
    }
    for state in [157, 161, 64] {
        let alone = judged(&log_alone(vec![xid(state, WEEK)]));
        let whole = judged(&with(vec![xid(state, WEEK)]));
        assert_eq!(worst(&alone), worst(&whole), "{state} lasts until a reset: {}", told(&alone));
    }
}

/// If a part of a section could not be read, the diagnosis draws no conclusion from that part, even if the problem is
/// not assigned to a GPU.
#[test]
fn a_partial_section_forbids_healthy_unless_the_input_is_declared_optional() {
    let verdict = |section: &str, code: &str| {
        let mut report = serde_json::to_value(healthy()).expect("JSON");
        let problem = serde_json::json!({"what": "an input", "why": "permission denied", "code": code});
        report["sections"][section]["status"] = "partial".into();
        report["sections"][section]["problems"] = serde_json::json!([problem]);
        judged(&serde_json::from_value(report).expect("a report")).verdict
    };
    for section in ["inventory", "telemetry", "topology", "ecc", "host"] {
        assert_eq!(verdict(section, "sysfs"), Verdict::Unknown, "{section}");
    }
    assert_eq!(verdict("host", "stack_log_missing"), Verdict::Healthy);
}

#[test]
fn a_node_of_which_kubernetes_shows_no_gpu_has_no_broken_stage() {
    let report = Report { source: Source::Api, ..Report::default() };
    let cluster =
        KubernetesFacts { node: Some("cpu-1".to_owned()), nvidia_pods: Some(Vec::new()), ..KubernetesFacts::default() };
    let none = diagnosis::diagnose(&report, &cluster);
    assert!(none.summary.starts_with("Kubernetes shows no NVIDIA GPU on "), "{}", told(&none));
    assert_eq!((none.stack.len(), none.findings.len()), (0, 0), "{}", told(&none));
    // The label says that the node has GPUs.
    let labelled = diagnosis::diagnose(&report, &KubernetesFacts { gpu_label_count: Some(8), ..cluster });
    assert!(labelled.findings.iter().any(|finding| finding.id == "gpus-not-advertised"), "{}", told(&labelled));
}
