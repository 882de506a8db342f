//! Tests of the limits of a diagnosis: the time before its kernel log, states before its window, and sections that were
//! read in part.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::diagnose;
use crate::finding::Diagnosis;
use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::kernel_log as xid;
use syringe_core::report::Report;
use syringe_core::section_name::SectionName;

const NOW: &str = "2026-11-21T02:45:10Z";

/// Returns the diagnosis of a GPU that fell off the bus two minutes ago. The node has been running for a month, and its
/// log begins at boot. `window`: the requested time window in minutes.
fn lost(window: Option<i64>) -> Diagnosis {
    let now: Timestamp = NOW.parse().expect("a time");
    let at = |minutes: i64| (now - SignedDuration::from_mins(minutes)).to_string();
    let month = 30 * 24 * 60;
    let event = json!({"kind": "xid", "code": 79, "pci_address": "00000000:5d:00.0", "count": 1, "first": at(2),
        "last": at(2)});
    let coverage = json!({"source": "/dev/kmsg", "from": at(month), "to": at(0), "records": 900,
        "complete_since_boot": true});
    let mut report: Report = serde_json::from_value(json!({"taken_at": NOW, "sections": {
        "host": {"status": "ok", "data": {"uptime_seconds": month * 60}},
        "xid": {"status": "ok", "data": {"events": [event], "coverage": [coverage]}}}}))
    .expect("a report");
    if let (Some(minutes), Some(section)) = (window, &mut report.sections.xid) {
        xid::drop_events_before(section.data.as_mut().expect("a log"), now - SignedDuration::from_mins(minutes));
    }
    diagnose(&report, &KubernetesFacts::default())
}

fn advice(diagnosis: &Diagnosis) -> &str {
    let found = diagnosis.findings.iter().find(|finding| finding.id == "gpu-off-bus");
    &found.expect("a finding").action.text
}

#[test]
fn the_start_of_a_window_is_not_called_the_last_boot() {
    let whole = lost(None);
    assert!(advice(&whole).contains("begins at the last boot (2026-10-22T02:45:10Z)"), "{}", advice(&whole));
    let part = lost(Some(60));
    assert!(!advice(&part).contains("last boot"), "{}", advice(&part));
    assert!(advice(&part).contains("from 2026-11-21T01:45:10Z on"), "{}", advice(&part));
    assert!(advice(&part).contains("earlier occurrences are not known"), "{}", advice(&part));
    assert!(part.kernel_log.iter().all(|log| log.complete_since_boot != Some(true)), "{:?}", part.kernel_log);
    // If the requested window is longer than the log, no events are removed.
    let all = lost(Some(90 * 24 * 60));
    assert!(advice(&all).contains("last boot"), "{}", advice(&all));
}

#[test]
fn a_window_keeps_states_that_last_until_a_driver_load() {
    let now: Timestamp = NOW.parse().expect("a time");
    let then = (now - SignedDuration::from_hours(30)).to_string();
    let event = json!({"kind": "uvm", "sub_code": "fatal", "count": 1, "first": then, "last": then});
    let mut log = serde_json::from_value(json!({"events": [event]})).expect("a log");
    xid::drop_events_before(&mut log, now - SignedDuration::from_hours(1));
    assert_eq!(log.events.len(), 1, "the fault is a state that lasts: no CUDA program can start");
}

#[test]
fn a_section_that_was_read_in_part_is_not_called_judged() {
    let problem = json!({"what": "power.draw", "why": "Unknown Error", "code": "unknown", "gpu": 0});
    let gpu = json!({"index": 0, "uuid": "GPU-1", "temperature": {"gpu_celsius": 40}});
    let report: Report = serde_json::from_value(json!({"taken_at": NOW, "sections": {
        "telemetry": {"status": "partial", "data": {"gpus": [gpu]}, "problems": [problem]},
        "ecc": {"status": "ok", "data": {"gpus": []}}}}))
    .expect("a report");
    let told = diagnose(&report, &KubernetesFacts::default());
    assert_eq!((told.checked, told.partly_checked), (vec![SectionName::Ecc], vec![SectionName::Telemetry]));
    assert!(told.summary.contains("telemetry (in part)"), "{}", told.summary);
}
