//! Tests of findings from past events: GPUs that work again, blocked tasks, driver lines, PCIe totals, faults that come
//! back, and summaries without faults.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::diagnose;
use crate::finding::{Diagnosis, Finding};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::report::{Report, Section};

const NOW: &str = "2026-11-21T02:45:10Z";
const GPU: &str = "00000000:5d:00.0";
const HOUR: i64 = 60;
const DAY: i64 = 24 * HOUR;

fn ago(minutes: i64) -> String {
    let now: Timestamp = NOW.parse().expect("a time");
    (now - SignedDuration::from_mins(minutes)).to_string()
}

/// Creates an event of this kind `minutes` ago at the GPU's address.
fn event(kind: &str, minutes: i64) -> Value {
    json!({"kind": kind, "pci_address": GPU, "count": 1, "first": ago(minutes), "last": ago(minutes)})
}

fn xid(code: u32, minutes: i64) -> Value {
    let mut event = event("xid", minutes);
    event["code"] = code.into();
    event
}

/// Creates an event without an address.
fn nameless(kind: &str, minutes: i64) -> Value {
    let mut event = event(kind, minutes);
    event.as_object_mut().expect("an object").remove("pci_address");
    event
}

fn ok(data: &Value) -> Value {
    json!({"status": "ok", "data": data})
}

/// Creates a node with one working GPU and this kernel log.
fn working(events: &[Value]) -> Value {
    let of = |more: Value| {
        let mut gpu = json!({"index": 0, "uuid": "GPU-1", "pci_address": GPU});
        gpu.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        ok(&json!({"gpus": [gpu]}))
    };
    json!({"taken_at": NOW, "sections": {
        "inventory": of(json!({"minor_number": 0})),
        "telemetry": of(json!({"temperature": {"gpu_celsius": 40}})),
        "ecc": of(json!({"volatile": {"uncorrected": 0}})),
        "host": ok(&json!({"pci_gpus": [{"pci_address": GPU, "driver": "nvidia", "in_nvml": true, "answers": true}],
            "driver": {"loaded": "570.124.06"}})),
        "xid": ok(&json!({"events": events}))}})
}

/// Adds to the GPU a program that started ten minutes ago.
fn at_work(mut report: Value) -> Value {
    let program = json!({"pid": 4242, "name": "python3", "started_at": ago(10), "uses": [{"gpu": 0}]});
    report["sections"]["processes"] = ok(&json!({"host_pid_namespace": true, "processes": [program]}));
    report
}

fn judged(report: &Value) -> Diagnosis {
    let report: Report = serde_json::from_value(report.clone()).expect("a report");
    diagnose(&report, &KubernetesFacts::default())
}

fn finding(report: &Value, id: &str) -> Option<Finding> {
    judged(report).findings.into_iter().find(|finding| finding.id == id)
}

fn severity(report: &Value, id: &str) -> Option<Severity> {
    finding(report, id).map(|finding| finding.severity)
}

/// Adds a process in state D that uses the GPU.
fn with_waiting_process(mut report: Value, waits_in: Option<&str>) -> Value {
    let thread = json!({"tid": 7, "state": "D", "waits_in": waits_in});
    let process = json!({"pid": 7, "name": "python3", "state": "D", "uses": [{"gpu": 0}],
        "threads": {"total": 1, "uninterruptible": 1, "examples": [thread]}});
    report["sections"]["processes"] = ok(&json!({"host_pid_namespace": true, "processes": [process]}));
    report
}

#[test]
fn a_gsp_timeout_that_the_gpu_recovered_from_proves_no_stuck_process() {
    let at = |minutes| with_waiting_process(working(&[xid(119, minutes)]), None);
    assert_eq!(severity(&at(6 * DAY), "gsp-failed"), Some(Severity::Warning));
    assert_eq!(severity(&at(6 * DAY), "process-uninterruptible"), Some(Severity::Info));
    assert_eq!(severity(&at(5), "process-stuck"), Some(Severity::Critical), "not settled yet");
    assert_eq!(severity(&at(5), "gsp-failed"), Some(Severity::Fatal));
    let mut asks = at(6 * DAY);
    asks["sections"]["ecc"]["data"]["gpus"][0]["recovery_action"] = "gpu_reset".into();
    assert_eq!(severity(&asks, "process-stuck"), Some(Severity::Critical), "the driver still asks for a reset");
}

/// Tests a job that is restarted after each occurrence of a fault. The program that is running now will fail next.
#[test]
fn a_new_program_does_not_end_a_fault_that_comes_back() {
    for code in [79, 109, 119, 120] {
        let worst = |minutes: &[i64]| {
            let events: Vec<Value> = minutes.iter().map(|minutes| xid(code, *minutes)).collect();
            judged(&at_work(working(&events))).findings.into_iter().map(|finding| finding.severity).max()
        };
        assert_eq!(worst(&[120, 70, 25]), Some(Severity::Critical), "Xid {code} three times in two hours");
        // The driver repeats the line about a hanging GPU until the program on the GPU is killed. These lines are one
        // occurrence.
        let one_hang: Vec<i64> = (25..45).rev().collect();
        for once in [&[25][..], &one_hang] {
            assert_eq!(worst(once), Some(Severity::Warning), "Xid {code} once: {once:?}");
        }
    }
}

#[test]
fn unknown_error_counters_are_no_recovery_from_a_memory_error() {
    let of = |code: u32, volatile: Value, more: Value| {
        let mut report = working(&[xid(code, 6 * DAY)]);
        let gpu = &mut report["sections"]["ecc"]["data"]["gpus"][0];
        gpu["volatile"] = volatile;
        gpu.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        judged(&report).findings.iter().map(|finding| finding.severity).max()
    };
    assert_eq!(of(95, json!({"uncorrected": 0}), json!({})), Some(Severity::Warning));
    assert_eq!(of(95, json!({}), json!({})), Some(Severity::Fatal), "the counter was not read");
    let sram = json!({"sram": {"volatile_uncorrected_parity": 0}});
    assert_eq!(of(95, json!({}), sram), Some(Severity::Fatal), "the SRAM counters do not cover all memory");
    let off = json!({"mode": {"current": false, "pending": false}});
    assert_eq!(of(95, json!({}), off), Some(Severity::Fatal), "without counters nothing shows that the memory works");
    assert_eq!(of(119, json!({}), json!({})), Some(Severity::Warning), "the counters say nothing about GSP");
}

#[test]
fn a_blocked_task_that_ended_requires_no_action() {
    let at = |minutes, host_pid_namespace| {
        let mut task = nameless("hung_task", minutes);
        task["process"] = "nvidia-smi".into();
        task["pid"] = 4242.into();
        let mut report = working(&[task]);
        report["sections"]["processes"] = ok(&json!({"host_pid_namespace": host_pid_namespace, "processes": []}));
        finding(&report, "process-stuck").expect("a finding")
    };
    let gone = at(3 * DAY, true);
    assert_eq!((gone.severity, gone.action.code), (Severity::Info, ActionCode::Watch), "{gone:#?}");
    assert!(!gone.action.text.contains("power-cycle"), "{}", gone.action.text);
    let fresh = at(5, true);
    assert_eq!((fresh.severity, fresh.action.code), (Severity::Warning, ActionCode::DrainAndReboot));
    let hidden = at(3 * DAY, false);
    assert_eq!(
        hidden.severity,
        Severity::Warning,
        "a probe that cannot see the host's processes cannot tell whether the task ended"
    );
}

#[test]
fn a_blocked_task_of_the_disk_is_not_the_drivers() {
    let of = |name: &str| {
        let mut task = nameless("hung_task", 5);
        task["process"] = name.into();
        task["pid"] = 4242.into();
        let mut report = working(&[task]);
        report["sections"]["processes"] = ok(&json!({"host_pid_namespace": true, "processes": []}));
        finding(&report, "process-stuck").is_some()
    };
    assert!(of("nvidia-smi") && of("nv_queue") && of("nv-hostengine"));
    assert!(!of("nvme-wq") && !of("nvmet_wq"));
}

#[test]
fn a_wait_for_an_nvme_disk_is_outside_the_driver() {
    let advice = |waits_in| {
        let report = with_waiting_process(working(&[]), Some(waits_in));
        finding(&report, "process-uninterruptible").expect("a finding").action.text
    };
    for place in ["nvme_submit_sync_cmd", "nvmem_reg_read", "nvdimm_bus_lock", "nfs_wait_bit_killable"] {
        assert!(advice(place).contains("does not wait in the NVIDIA driver"), "{place}");
    }
    for place in ["nvidia_ioctl", "nv_open_device", "_nv000123rm", "uvm_ioctl", "os_acquire_mutex", "nvlink_lib_x"] {
        assert!(!advice(place).contains("does not wait in the NVIDIA driver"), "{place}");
    }
}

#[test]
fn findings_from_driver_lines_fade_where_the_gpu_works() {
    for (event, id) in [
        (event("gsp_failed", 0), "gsp-errors-logged"),
        (nameless("gsp_failed", 0), "gsp-errors-logged"),
        (nameless("probe_failed", 0), "driver-probe-failed"),
        (nameless("peermem_error", 0), "nvidia-peermem-error"),
        (nameless("nic", 0), "nic-problem"),
        (nameless("mce", 0), "machine-check"),
    ] {
        let at = |minutes: i64| {
            let mut event = event.clone();
            event["first"] = ago(minutes).into();
            event["last"] = ago(minutes).into();
            working(&[event])
        };
        let fresh = judged(&at(5));
        assert_eq!(severity(&at(5), id), Some(Severity::Warning), "{id} {:#?}", fresh.findings);
        assert!(fresh.summary.contains("5 min ago"), "{id}: {}", fresh.summary);
        assert_eq!(severity(&at(6 * DAY), id), Some(Severity::Info), "{id}");
    }
}

#[test]
fn a_driver_line_about_a_gpu_that_does_not_answer_stays() {
    for kind in ["gsp_failed", "gsp_rate_limit", "probe_failed"] {
        for line in [event(kind, 6 * DAY), nameless(kind, 6 * DAY)] {
            let mut report = working(&[line]);
            report["sections"] = json!({"xid": report["sections"]["xid"]});
            let worst = judged(&report).findings.iter().map(|finding| finding.severity).max();
            assert!(worst >= Some(Severity::Warning), "{kind}: nothing shows that the GPU works");
        }
    }
}

#[test]
fn a_gpu_that_came_back_after_it_left_the_bus_needs_no_power_cycle() {
    for line in [xid(79, 6 * DAY), event("off_bus", 6 * DAY), xid(79, 2 * HOUR)] {
        let idle = finding(&working(std::slice::from_ref(&line)), "gpu-off-bus").expect("a finding");
        assert_eq!(idle.action.code, ActionCode::DrainAndReboot, "{line}: nothing shows that it works");
        let found = judged(&at_work(working(std::slice::from_ref(&line))));
        for finding in &found.findings {
            let text = &finding.action.text;
            assert!(!text.contains("power-cycle") && !text.contains("cannot reach"), "{line}: {text}");
            assert!(finding.severity <= Severity::Warning, "{line}: {finding:#?}");
        }
        assert!(found.findings.iter().any(|finding| finding.id == "gpu-off-bus"), "{line}: the loss is still reported");
    }
    // The GPU responds but counts errors, so work on it is not safe. NVIDIA asks for a reboot. A power cycle is not
    // needed.
    let mut doubtful = working(&[xid(79, 6 * DAY)]);
    doubtful["sections"]["ecc"]["data"]["gpus"][0]["volatile"] = json!({"uncorrected": 3});
    let doubtful = finding(&doubtful, "gpu-off-bus").expect("a finding");
    assert_eq!((doubtful.severity, doubtful.action.code), (Severity::Critical, ActionCode::DrainAndReboot));
    assert!(!doubtful.action.text.contains("cannot reach"), "{}", doubtful.action.text);
    // The GPU does not respond.
    let mut gone = working(&[xid(79, 6 * DAY)]);
    gone["sections"]["telemetry"]["data"]["gpus"] = json!([]);
    let gone = finding(&gone, "gpu-off-bus").expect("a finding");
    assert_eq!((gone.severity, gone.action.code), (Severity::Fatal, ActionCode::DrainAndReboot));
    assert!(finding(&working(&[xid(79, 5)]), "gpu-off-bus").is_some_and(|finding| finding.severity == Severity::Fatal));
}

#[test]
fn a_lost_gpu_explains_its_gsp_errors() {
    for limit in [event("gsp_rate_limit", 4), nameless("gsp_rate_limit", 4), event("gsp_failed", 4)] {
        assert_eq!(finding(&working(&[xid(79, 5), limit.clone()]), "gsp-errors-logged"), None, "{limit}");
    }
    let other = json!({"kind": "gsp_rate_limit", "pci_address": "00000000:9a:00.0", "count": 1, "first": ago(4),
        "last": ago(4)});
    assert!(finding(&working(&[xid(79, 5), other]), "gsp-errors-logged").is_some(), "of another GPU");
    assert!(finding(&working(&[event("gsp_rate_limit", 4)]), "gsp-errors-logged").is_some());
}

#[test]
fn a_gpu_that_is_passed_through_is_no_failed_probe() {
    let with = |drivers: &[Option<&str>]| {
        let gpus: Vec<Value> = drivers
            .iter()
            .enumerate()
            .map(|(at, driver)| json!({"pci_address": format!("00000000:{at:02x}:00.0"), "driver": driver}))
            .collect();
        let mut line = nameless("probe_failed", 5);
        line["sub_code"] = "not_called".into();
        let report = json!({"taken_at": NOW, "sections": {
            "host": ok(&json!({"pci_gpus": gpus, "driver": {"loaded": "570.124.06"}})),
            "xid": ok(&json!({"events": [line]}))}});
        finding(&report, "driver-probe-failed").is_some()
    };
    assert!(!with(&[Some("vfio-pci"), Some("nvidia")]), "the device is bound to vfio-pci on purpose");
    assert!(!with(&[Some("vfio-pci")]));
    assert!(with(&[Some("nvidia"), None]), "no driver is bound to the device");
    assert!(with(&[Some("vfio-pci"), None]), "one device is bound on purpose, the other to no driver");
}

/// Returns the diagnosis of a healthy node with eight GPUs whose programs started an hour ago. Its log contains these
/// kernel events and this number of unrecognized lines about NVIDIA.
fn healthy(events: Vec<Value>, unread_lines: u64) -> Diagnosis {
    let mut report = healthy_report();
    let taken_at = report.taken_at.expect("a time");
    let now: Timestamp = NOW.parse().expect("a time");
    // The times of the events are relative to the time of the report.
    let moved = |mut event: Value| {
        for field in ["first", "last"] {
            let time: Timestamp = event[field].as_str().and_then(|time| time.parse().ok()).expect("a time");
            event[field] = (taken_at - now.duration_since(time)).to_string().into();
        }
        event
    };
    let events: Vec<Value> = events.into_iter().map(moved).collect();
    let from = taken_at - SignedDuration::from_hours(24 * 30);
    let coverage =
        json!({"source": "journal", "from": from, "to": taken_at, "records": 900, "unread_lines": unread_lines});
    let log = serde_json::from_value(json!({"events": events, "coverage": [coverage]})).expect("a log");
    report.sections.xid = Some(Section::read(log, Vec::new()));
    diagnose(&report, &KubernetesFacts::default())
}

fn healthy_report() -> Report {
    let text = include_str!("../../../../../tests/scenarios/base/healthy-h100-8.json");
    let mut report: Report = serde_json::from_str(text).expect("the scenario");
    report.kernel_log.clear();
    let started = report.taken_at.map(|now| now - SignedDuration::from_hours(1));
    let processes = report.sections.processes.as_mut().and_then(|section| section.data.as_mut()).expect("processes");
    processes.processes.iter_mut().for_each(|process| process.started_at = started);
    report
}

#[test]
fn a_healthy_summary_denies_nothing_that_it_names() {
    let report = healthy_report();
    let inventory = report.sections.inventory.as_ref().and_then(|section| section.data.as_ref()).expect("an inventory");
    let address = json!(inventory.gpus[0].pci_address);
    let at = |mut event: Value| {
        event["pci_address"] = address.clone();
        event
    };
    let clean = healthy(vec![], 0).summary;
    for clause in ["no Xid since", "driver problem", "no NVLink fault", "no uncorrected memory error"] {
        assert!(clean.contains(clause), "{clause}: {clean}");
    }
    for (code, denied) in [(119, "driver problem"), (74, "NVLink fault"), (95, "uncorrected memory error")] {
        let found = healthy(vec![at(xid(code, 9 * DAY))], 0);
        assert!(found.findings.iter().all(|finding| finding.severity == Severity::Info), "{code}: {found:#?}");
        assert!(found.summary.contains(&format!("Xid {code}")), "{}", found.summary);
        assert!(!found.summary.contains(denied), "{}", found.summary);
    }
    for line in [at(event("gsp_failed", 6 * DAY)), nameless("peermem_error", 6 * DAY), nameless("assertion", 5)] {
        let found = healthy(vec![line], 0);
        assert!(!found.summary.contains("driver problem"), "{}", found.summary);
    }
    let program = healthy(vec![at(xid(13, 5))], 0).summary;
    assert!(program.contains("driver problem"), "a program fault is not a driver problem: {program}");
}

#[test]
fn lines_that_were_not_understood_are_excepted_from_no_xid() {
    let found = healthy(vec![], 3);
    assert!(!found.summary.contains("driver problem"), "{}", found.summary);
    assert!(found.summary.contains("no Xid") && found.summary.contains("3 lines"), "{}", found.summary);
    let understood = healthy(vec![], 0).summary;
    assert!(!understood.contains("lines"), "{understood}");
}

#[test]
fn refused_transfers_of_a_gpu_are_a_finding_about_it() {
    let fault = |count: u64, minutes: i64| {
        let mut fault = event("iommu", minutes);
        fault["count"] = count.into();
        fault["sub_code"] = "DMA Write".into();
        fault
    };
    assert_eq!(severity(&working(&[fault(1, 5)]), "iommu-fault"), Some(Severity::Warning));
    assert_eq!(severity(&working(&[fault(200, 5)]), "iommu-fault"), Some(Severity::Critical));
    assert_eq!(severity(&working(&[fault(200, 6 * DAY)]), "iommu-fault"), Some(Severity::Info));
    let mut of_disk = fault(200, 5);
    of_disk["pci_address"] = "00000000:01:00.0".into();
    assert_eq!(severity(&working(&[of_disk]), "iommu-fault"), None);
}

#[test]
fn each_fault_of_an_application_is_suspicious_if_different_workloads_have_it_on_one_gpu() {
    let of = |code: u32, pid: Option<u32>, name: &str, address: &str| {
        let mut fault = xid(code, 5);
        fault["pid"] = pid.into();
        fault["process"] = name.into();
        fault["pci_address"] = address.into();
        fault
    };
    let application = |entry: &&syringe_core::kernel_log::XidEntry| {
        entry.class == Some(syringe_core::classification::Class::Application)
    };
    for entry in syringe_core::kernel_log::xids().filter(application) {
        let code = entry.code;
        let worst = |events: &[Value]| judged(&working(events)).findings.iter().map(|finding| finding.severity).max();
        let jobs: Vec<Value> = (0..6).map(|job| of(code, Some(100 + job), &format!("job{job}"), GPU)).collect();
        // A channel is closed as a consequence of the end of the program.
        let expected = if [45, 141, 174].contains(&code) { Severity::Info } else { Severity::Warning };
        assert_eq!(worst(&jobs), Some(expected), "{code}");
        assert_eq!(worst(&jobs[..1]), Some(Severity::Info), "{code}: one fault");
        let elsewhere: Vec<Value> =
            (0..6).map(|job| of(code, Some(200 + job), &format!("job{job}"), "00000000:9a:00.0")).collect();
        let everywhere = worst(&[jobs, elsewhere].concat());
        assert_eq!(everywhere, Some(Severity::Info), "{code}: the workloads fail on each GPU");
        let mut nameless = of(code, None, "", GPU);
        nameless["count"] = 60.into();
        assert_eq!(worst(&[nameless]), Some(expected), "{code}: lines without a process");
    }
}

#[test]
fn a_blocked_task_is_the_process_of_the_same_id_only_if_it_is_as_old() {
    let with = |minutes: i64, started: Option<i64>, two_readings: bool| {
        let mut task = nameless("hung_task", minutes);
        task["pid"] = 7.into();
        task["process"] = "python3".into();
        let threads = json!({"checked": 1, "uninterruptible": 1, "examples": [{"tid": 7}]});
        let threads = if two_readings { threads } else { Value::Null };
        let process = json!({"pid": 7, "name": "python3", "state": "D", "uses": [{"gpu": 0}], "threads": threads,
            "started_at": started.map(ago)});
        let mut report = working(&[task]);
        report["sections"]["processes"] = ok(&json!({"host_pid_namespace": true, "processes": [process]}));
        judged(&report).findings.iter().map(|finding| finding.severity).max()
    };
    for (minutes, started, two_readings, expected) in [
        (5, Some(HOUR), false, Severity::Critical),
        (5, None, false, Severity::Critical),
        (5, Some(1), false, Severity::Info),
        (10 * DAY, Some(HOUR), true, Severity::Info),
        (10 * DAY, None, false, Severity::Info),
        (10 * DAY, Some(20 * DAY), false, Severity::Info),
        (10 * DAY, Some(20 * DAY), true, Severity::Critical),
    ] {
        assert_eq!(with(minutes, started, two_readings), Some(expected), "{minutes} {started:?} {two_readings}");
    }
}

#[test]
fn totals_of_pcie_errors_count_by_their_rate() {
    let with = |counters: Value, days: u64, events: &[Value]| {
        let mut report = working(events);
        let hop = json!({"pci_address": GPU, "kind": "endpoint", "aer": counters});
        report["sections"]["topology"] =
            ok(&json!({"gpus": [{"index": 0, "uuid": "GPU-1", "pci_address": GPU, "pcie_path": [hop]}]}));
        report["sections"]["host"]["data"]["uptime_seconds"] = (days * 24 * 3600).into();
        judged(&report).findings.iter().map(|finding| finding.severity).max().unwrap_or_default()
    };
    for (counters, days, expected) in [
        (json!({"nonfatal": 11}), 300, Severity::Info),
        (json!({"nonfatal": 50}), 1, Severity::Warning),
        (json!({"correctable": 1500}), 300, Severity::Info),
        (json!({"correctable": 1500}), 1, Severity::Warning),
        (json!({"nonfatal": 9, "correctable": 900}), 1, Severity::Info),
    ] {
        assert_eq!(with(counters.clone(), days, &[]), expected, "{counters} in {days} days");
    }
    let line = |minutes| {
        let mut line = event("aer", minutes);
        line["sub_code"] = "uncorrected_nonfatal".into();
        line
    };
    assert_eq!(with(json!({}), 300, &[line(5)]), Severity::Warning);
    assert_eq!(with(json!({}), 300, &[line(11 * DAY)]), Severity::Info);
}

#[test]
fn a_recommendation_that_nvml_does_not_share_is_said() {
    let with = |minutes: i64, to: &str, action: &str| {
        let mut asked = xid(154, minutes);
        asked["details"] = json!({"recovery_from": "0", "recovery_to": to, "recovery_action": action});
        let mut report = working(&[asked]);
        report["sections"]["ecc"]["data"]["gpus"][0]["recovery_action"] = "none".into();
        report
    };
    assert_eq!(severity(&with(30, "1", "gpu_reset"), "recovery-contradicted"), Some(Severity::Warning));
    let rests = at_work(with(6 * DAY, "1", "gpu_reset"));
    assert_eq!(severity(&rests, "recovery-contradicted"), Some(Severity::Info));
    assert_eq!(severity(&with(30, "0", "none"), "recovery-contradicted"), None);
}

/// Tests that no claim in the summary of a healthy node contradicts an Xid or another driver line in the log.
#[test]
fn no_claim_of_a_clean_summary_contradicts_an_event_of_the_log() {
    let report = healthy_report();
    let inventory = report.sections.inventory.as_ref().and_then(|section| section.data.as_ref()).expect("an inventory");
    let address = json!(inventory.gpus[0].pci_address);
    for entry in syringe_core::kernel_log::xids() {
        let mut line = xid(entry.code, 6 * DAY);
        line["pci_address"] = address.clone();
        let told = healthy(vec![line], 0).summary;
        assert!(!told.contains("no Xid"), "{}: {told}", entry.code);
        let denied = match entry.class {
            Some(syringe_core::classification::Class::Driver) => "no driver problem",
            Some(syringe_core::classification::Class::Thermal) => "no overheating",
            Some(syringe_core::classification::Class::Power) => "no throttling",
            Some(syringe_core::classification::Class::Fabric) => "no NVLink fault",
            _ => continue,
        };
        assert!(!told.contains(denied), "{}: {told}", entry.code);
    }
}

/// Lines of the driver without an Xid code, with the sub-codes that the parser gives them. The list does not contain
/// lines about a state that lasts until the driver is loaded again (fatal errors of nvidia-uvm, links that did not
/// start) or until a part is replaced (uncorrected errors of host memory).
const LINES: [(&str, &[&str]); 18] = [
    ("rm_init_failed", &[""]),
    ("bar_unassigned", &[""]),
    ("not_supported", &[""]),
    ("module_refused", &["unsigned"]),
    ("uvm", &[""]),
    ("probe_failed", &["failed", "not_called"]),
    ("gsp_rate_limit", &[""]),
    ("gsp_failed", &[""]),
    ("api_mismatch", &[""]),
    ("driver_loaded", &[""]),
    ("assertion", &[""]),
    ("peermem_error", &[""]),
    (
        "aer",
        &["corrected", "uncorrected", "uncorrected_nonfatal", "uncorrected_fatal", "cannot_recover", "recovery_failed"],
    ),
    ("pcie_link", &["bandwidth_limited", "card_not_present", "link_down", "link_up", "power_state"]),
    ("mce", &["exception", "firmware_fatal", "memory_corrected", "logged"]),
    ("hung_task", &[""]),
    ("nic", &["insufficient_power", "health_compromised", "cable_unplugged"]),
    ("iommu", &["DMA Write"]),
];

#[test]
fn every_line_ages_where_all_gpus_are_at_work() {
    for (kind, subs) in LINES {
        for sub in subs {
            for mut line in [event(kind, 6 * DAY), nameless(kind, 6 * DAY)] {
                if !sub.is_empty() {
                    line["sub_code"] = (*sub).into();
                }
                line["process"] = "nvidia-smi".into();
                line["pid"] = 7.into();
                let found = judged(&at_work(working(&[line.clone()]))).findings;
                assert!(found.iter().all(|finding| finding.severity == Severity::Info), "{line}: {found:#?}");
            }
        }
    }
}

/// Tests how long and where a program must run, because NVML reports no utilization in MIG mode and the driver reports
/// a timeout only after minutes.
#[test]
fn a_program_proves_recovery_after_minutes_of_work_on_the_whole_gpu() {
    let with = |minutes: i64, is_mig: bool| {
        let mut report = at_work(working(&[xid(119, 60)]));
        report["sections"]["processes"]["data"]["processes"][0]["started_at"] = ago(minutes).into();
        let mode = json!({"current": is_mig, "pending": is_mig});
        report["sections"]["inventory"]["data"]["gpus"][0]["mig_mode"] = mode;
        severity(&report, "gsp-failed")
    };
    assert_eq!(with(30, false), Some(Severity::Warning));
    assert_eq!(with(1, false), Some(Severity::Critical), "a minute of work shows nothing");
    assert_eq!(with(30, true), Some(Severity::Critical), "the program can use another instance");
}

/// Tests that versions that do not match are still a fault if NVML can read the GPU.
#[test]
fn a_fault_of_versions_lasts_until_they_change() {
    for code in [78, 166, 170] {
        for minutes in [20, 26 * 60, 3 * DAY] {
            let found = judged(&working(&[xid(code, minutes)]));
            let found = found.findings.iter().max_by_key(|one| one.severity).expect("a finding");
            assert!(found.severity >= Severity::Warning, "{code}, {minutes} min: {found:#?}");
            assert!(!found.action.text.contains("No action now"), "{code}, {minutes} min: {found:#?}");
        }
    }
}

/// Tests that a fault that comes back has one plan, and that the finding about its last occurrence refers to this plan.
#[test]
fn a_fault_that_comes_back_has_one_plan_that_its_single_event_refers_to() {
    for code in [109, 119, 120] {
        let events: Vec<Value> = [1200, 600, 25].iter().map(|minutes| xid(code, *minutes)).collect();
        let found = judged(&at_work(working(&events)));
        assert!(found.findings.iter().any(|one| one.id == "xid-recurring"), "{code}: {found:#?}");
        let plan = found.plan.first().expect("a plan");
        assert!(plan.findings.iter().any(|id| id == "xid-recurring"), "{code}: {plan:#?}");
        let words = if code == 109 { "field diagnostic" } else { "versions of driver and firmware" };
        assert!(plan.steps.iter().any(|step| step.contains(words)), "{code}: {plan:#?}");
        for one in found.findings.iter().filter(|one| one.severity > Severity::Info) {
            assert!(!one.action.text.contains("No action now"), "{code}: {one:#?}");
        }
    }
}
