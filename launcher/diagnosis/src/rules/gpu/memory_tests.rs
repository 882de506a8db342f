//! Tests of findings about GPU memory: InfoROM, ECC modes, and errors of an earlier boot, of a lost GPU and of a GPU
//! that has recovered.

use serde_json::{Value, json};

use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kubernetes::KubernetesFacts;

use crate::{Finding, diagnose};
use syringe_core::report::Report;

/// Returns the findings of one GPU with these ECC facts, problems and kernel events.
fn findings(ecc: Value, problems: Value, events: Value) -> Vec<Finding> {
    let of = |more: Value| {
        let mut gpu = json!({"index": 0, "uuid": "GPU-1", "pci_address": "00000000:5d:00.0"});
        gpu.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        json!({"status": "ok", "data": {"gpus": [gpu]}})
    };
    let mut ecc = of(ecc);
    ecc["problems"] = problems;
    let report: Report = serde_json::from_value(json!({"taken_at": "2026-11-21T02:45:10Z", "boot_id": "now",
        "sections": {"inventory": of(json!({})), "telemetry": of(json!({"temperature": {"gpu_celsius": 40}})),
            "ecc": ecc, "xid": {"status": "ok", "data": {"events": events}}}}))
    .expect("a report");
    diagnose(&report, &KubernetesFacts::default()).findings
}

fn xid(code: u32, time: &str, more: Value) -> Value {
    let mut event = json!({"kind": "xid", "code": code, "pci_address": "00000000:5d:00.0", "count": 1,
        "first": time, "last": time});
    event.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    event
}

fn only<'a>(findings: &'a [Finding], id: &str) -> &'a Finding {
    let found: Vec<&Finding> = findings.iter().filter(|finding| finding.id == id).collect();
    assert_eq!(found.len(), 1, "{id}: {findings:#?}");
    found[0]
}

#[test]
fn a_corrupted_inforom_is_one_finding_however_many_calls_trip_over_it() {
    let problems = json!([{"what": "ECC counters", "why": "NVML: infoROM is corrupted", "gpu": 0,
        "code": syringe_core::nvml_codes::CORRUPTED_INFOROM}]);
    let found = findings(json!({"inforom_valid": false}), problems, json!([]));
    assert_eq!(only(&found, "inforom-corrupted").evidence.len(), 2);
}

#[test]
fn events_of_an_earlier_boot_are_no_evidence_of_a_current_error() {
    let earlier = json!({"boot_id": "before"});
    let events = json!([
        xid(94, "2026-11-18T01:00:00Z", earlier.clone()),
        xid(45, "2026-11-18T01:00:02Z", earlier),
        xid(94, "2026-11-21T02:00:00Z", json!({})),
    ]);
    let found = findings(json!({}), json!([]), events);
    let evidence = &only(&found, "ecc-contained").evidence;
    assert!(!evidence.iter().any(|line| line.contains("Xid 45")), "{evidence:?}");
}

#[test]
fn a_memory_error_of_a_gpu_that_falls_off_the_bus_is_evidence_of_that_fault() {
    let events = json!([xid(79, "2026-11-21T02:00:00Z", json!({})), xid(48, "2026-11-21T02:00:01Z", json!({}))]);
    let found = findings(json!({}), json!([]), events);
    assert!(only(&found, "gpu-off-bus").evidence.iter().any(|line| line.contains("Xid 48 (1)")));
    assert!(!found.iter().any(|finding| finding.id == "ecc-double-bit"));
}

#[test]
fn a_memory_error_days_after_the_gpu_recovered_is_a_separate_finding() {
    let events = json!([xid(79, "2026-11-15T02:00:00Z", json!({})), xid(95, "2026-11-21T02:40:00Z", json!({}))]);
    let found = findings(json!({}), json!([]), events);
    assert_eq!(only(&found, "ecc-uncontained").severity, Severity::Fatal);
    assert!(only(&found, "gpu-off-bus").evidence.iter().all(|line| !line.contains("Xid 95")));
}

#[test]
fn an_error_is_less_severe_if_the_counters_say_that_there_was_none() {
    let severity = |ecc: Value, time: &str| {
        only(&findings(ecc, json!([]), json!([xid(95, time, json!({}))])), "ecc-uncontained").severity
    };
    let clean = || json!({"volatile": {"uncorrected": 0}});
    assert_eq!(severity(clean(), "2026-11-20T20:00:00Z"), Severity::Critical, "the counters contradict the log");
    assert_eq!(severity(clean(), "2026-11-18T20:00:00Z"), Severity::Warning);
    assert_eq!(severity(clean(), "2026-11-21T02:44:00Z"), Severity::Fatal, "counters lag");
    assert_eq!(severity(json!({"volatile": {"uncorrected": 1}}), "2026-11-18T20:00:00Z"), Severity::Fatal);
    assert_eq!(severity(json!({}), "2026-11-18T20:00:00Z"), Severity::Fatal, "the counters were not read");
    let asked = json!({"volatile": {"uncorrected": 0}, "recovery_action": "drain_and_reset"});
    assert_eq!(severity(asked, "2026-11-18T20:00:00Z"), Severity::Fatal, "the driver recommends an action");
}

#[test]
fn a_gpu_that_the_driver_wants_reset_has_not_recovered() {
    let clean = || json!({"volatile": {"uncorrected": 0}});
    let wish = |to: &str, time: &str| xid(154, time, json!({"details": {"recovery_to": to}}));
    let gsp = |events: Value| only(&findings(clean(), json!([]), events), "gsp-failed").severity;
    let hung = || xid(119, "2026-11-21T02:30:00Z", json!({}));
    assert_eq!(
        gsp(json!([hung()])),
        Severity::Critical,
        "before R565: the GPU responds, and the driver recommends nothing"
    );
    assert_eq!(gsp(json!([hung(), wish("1", "2026-11-21T02:30:01Z")])), Severity::Fatal);
    let failing = || xid(95, "2026-11-21T02:30:00Z", json!({}));
    let found = findings(clean(), json!([]), json!([failing(), wish("4", "2026-11-21T02:30:01Z")]));
    assert_eq!(only(&found, "ecc-uncontained").severity, Severity::Fatal);
    // The recommendation was withdrawn. Events before the withdrawal no longer count, but later events do.
    let taken_back = json!([wish("1", "2026-11-21T02:20:00Z"), wish("0", "2026-11-21T02:25:00Z"), hung()]);
    assert_eq!(gsp(taken_back), Severity::Critical);
}

#[test]
fn a_reboot_is_advised_only_if_it_switches_ecc_on() {
    for (pending, code) in [(true, ActionCode::DrainAndReboot), (false, ActionCode::Watch)] {
        let mode = json!({"mode": {"current": !pending, "pending": pending}});
        let found = findings(mode, json!([]), json!([]));
        let action = &only(&found, "ecc-mode-pending").action;
        assert_eq!(action.code, code, "{action:?}");
        assert_eq!(action.text.contains("on purpose"), !pending, "{action:?}");
    }
}
