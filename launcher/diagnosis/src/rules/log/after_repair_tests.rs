//! Tests of faults that a boot or reset did not end, of faults that occurred after it, of GPUs lost together, and of
//! GPUs with a slot or memory fault.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::diagnose;
use crate::finding::{Finding, Rma};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kubernetes::node::{
    Component, ContainerStateKind, KubernetesFacts, NvidiaContainer, NvidiaContainerState, NvidiaPod,
};
use syringe_core::report::Report;

const NOW: &str = "2026-11-21T12:00:00Z";

fn ago(hours: i64) -> Timestamp {
    NOW.parse::<Timestamp>().expect("a time") - SignedDuration::from_hours(hours)
}

fn xid(code: u32, hours: i64, boot: Option<&str>, pci: &str) -> Value {
    json!({"kind": "xid", "code": code, "pci_address": pci, "boot_id": boot, "count": 1, "first": ago(hours), "last": ago(hours),
        "raw": format!("NVRM: Xid {code}")})
}

/// Creates a node with a GPU that has a pending row remap, and these events.
fn pending(events: &[Value]) -> Report {
    let gpu = json!({"index": 0, "uuid": "GPU-1", "pci_address": "00000000:5d:00.0", "name": "NVIDIA H100"});
    let rows = json!({"correctable": 0, "uncorrectable": 1, "pending": true, "failure_occurred": false});
    serde_json::from_value(json!({"taken_at": NOW, "boot_id": "now", "sections": {
        "inventory": {"status": "ok", "data": {"gpus": [gpu]}},
        "ecc": {"status": "ok", "data": {"gpus": [{"index": 0, "pci_address": "00000000:5d:00.0", "remapped_rows": rows}]}},
        "xid": {"status": "ok", "data": {"events": events}},
    }}))
    .expect("a report")
}

fn of<'f>(findings: &'f [Finding], id: &str) -> &'f Finding {
    findings.iter().find(|finding| finding.id == id).unwrap_or_else(|| panic!("no {id}: {findings:?}"))
}

#[test]
fn a_repair_that_did_not_help_is_not_advised_again() {
    let before = xid(63, 72, Some("before"), "00000000:5d:00.0");
    let again = xid(63, 1, Some("now"), "00000000:5d:00.0");
    let other = xid(63, 72, Some("before"), "00000000:9a:00.0");
    for (events, persists) in [
        (vec![before.clone()], true),
        (vec![before.clone(), again.clone()], false),
        (vec![again], false),
        (vec![other], false),
        (vec![], false),
    ] {
        let findings = diagnose(&pending(&events), &KubernetesFacts::default()).findings;
        let finding = of(&findings, "row-remap-pending");
        assert_eq!(finding.action.text.contains("should have applied the remap"), persists, "{events:?}: {finding:?}");
        assert_eq!(finding.severity, Severity::Warning);
        if persists {
            let said = finding.evidence.iter().any(|line| line.contains("the boot since then did not end the fault"));
            assert!(said, "{:?}", finding.evidence);
        }
    }
}

#[test]
fn a_fault_long_after_an_earlier_one_is_a_new_one() {
    for (hours_before, persists) in [(3, true), (300, false)] {
        let mut report = pending(&[
            xid(79, 2 + hours_before, Some("before"), "00000000:9a:00.0"),
            json!({"kind": "rm_init_failed", "pci_address": "00000000:9a:00.0", "count": 1, "first": ago(2), "last": ago(2),
                "raw": "NVRM: RmInitAdapter failed!"}),
        ].map(|mut event| {
            if event["boot_id"].is_null() {
                event["boot_id"] = json!("now");
            }
            event
        }));
        let host = json!({"uptime_seconds": 7200, "pci_gpus": [
            {"pci_address": "00000000:5d:00.0", "driver": "nvidia"}, {"pci_address": "00000000:9a:00.0", "driver": "nvidia"}]});
        report.sections.host = serde_json::from_value(json!({"status": "ok", "data": host})).expect("a section");
        let findings = diagnose(&report, &KubernetesFacts::default()).findings;
        let finding = of(&findings, "gpu-init-failed");
        let said = finding.evidence.iter().any(|line| line.contains("did not end the fault"));
        assert_eq!(said, persists, "{findings:?}");
    }
}

#[test]
fn two_gpus_that_are_lost_in_one_moment_have_one_cause() {
    let lost = |apart: i64| {
        let event = |pci: &str, seconds: i64| {
            let time = ago(0) - SignedDuration::from_secs(600 + seconds);
            json!({"kind": "xid", "code": 79, "pci_address": pci, "count": 1, "first": time, "last": time, "raw": "NVRM: Xid 79"})
        };
        let report: Report = serde_json::from_value(json!({"taken_at": NOW, "sections": {
            "xid": {"status": "ok", "data": {"events": [event("00000000:5d:00.0", 0), event("00000000:9a:00.0", apart)]}},
        }}))
        .expect("a report");
        diagnose(&report, &KubernetesFacts::default())
    };
    for (apart, shared) in [(0, true), (5, true), (300, false)] {
        let diagnosis = lost(apart);
        let [plan] = diagnosis.plan.as_slice() else { panic!("{:?}", diagnosis.plan) };
        assert_eq!(plan.rma == Rma::No, shared, "{apart}: {plan:?}");
        assert_eq!(plan.steps.iter().any(|step| step.contains("a cause that several GPUs share")), shared, "{plan:?}");
    }
}

#[test]
fn a_container_of_the_stack_that_its_memory_limit_ends_is_named_with_that_reason() {
    let pod = |component: Component, restarts: u32, reason: &str| {
        let ended = NvidiaContainerState {
            kind: ContainerStateKind::Terminated,
            reason: Some(reason.into()),
            exit_code: Some(137),
            since: Some(ago(0)),
            ..NvidiaContainerState::default()
        };
        let waits = NvidiaContainerState { reason: Some("CrashLoopBackOff".into()), ..NvidiaContainerState::default() };
        let container = NvidiaContainer {
            name: "main".into(),
            restarts,
            state: waits,
            last: Some(ended),
            ..NvidiaContainer::default()
        };
        NvidiaPod {
            namespace: "gpu".into(),
            name: "pod-1".into(),
            uid: "u-1".into(),
            component,
            phase: "Running".into(),
            created: Some(ago(48)),
            containers: vec![container],
            ..NvidiaPod::default()
        }
    };
    let diagnosed = |pod: NvidiaPod| {
        let facts = KubernetesFacts {
            node: Some("gpu-1".into()),
            ready: Some(true),
            ready_since: Some(ago(96)),
            gpu_capacity: Some(1),
            gpu_allocatable: Some(1),
            nvidia_pods: Some(vec![pod]),
            ..KubernetesFacts::default()
        };
        diagnose(&pending(&[]), &facts).findings
    };
    let exporter = diagnosed(pod(Component::Monitoring, 37, "OOMKilled"));
    let finding = of(&exporter, "nvidia-pod-out-of-memory");
    assert_eq!((finding.severity, finding.action.code), (Severity::Warning, ActionCode::FixLimits), "{finding:?}");
    let plugin = diagnosed(pod(Component::DevicePlugin, 37, "OOMKilled"));
    let finding = of(&plugin, "stack-broken-at-plugin");
    assert_eq!(finding.action.code, ActionCode::FixLimits, "{finding:?}");
    assert!(finding.headline().contains("OOMKilled"), "{finding:?}");
    for other in [pod(Component::Monitoring, 1, "OOMKilled"), pod(Component::Monitoring, 37, "Error")] {
        assert!(!diagnosed(other).iter().any(|finding| finding.id == "nvidia-pod-out-of-memory"));
    }
}

/// Creates a node with two GPUs on the PCI bus. NVML lists only the first, and these events are about the second.
fn second_gpu(events: &[Value]) -> Report {
    let mut report = pending(events);
    let host = json!({"uptime_seconds": 7200, "pci_gpus": [
        {"pci_address": "00000000:5d:00.0", "driver": "nvidia"}, {"pci_address": "00000000:9a:00.0", "driver": "nvidia"}]});
    report.sections.host = serde_json::from_value(json!({"status": "ok", "data": host})).expect("a section");
    report
}

fn line(kind: &str, sub_code: Option<&str>, raw: &str, pci: &str) -> Value {
    json!({"kind": kind, "sub_code": sub_code, "pci_address": pci, "boot_id": "now", "count": 1, "first": ago(1), "last": ago(1),
        "raw": raw})
}

#[test]
fn protected_memory_that_is_still_in_use_needs_a_cold_start() {
    let second = "00000000:9a:00.0";
    let failed = line("rm_init_failed", None, "NVRM: RmInitAdapter failed!", second);
    let in_use = "NVRM: _kgspBootGspRm: unexpected WPR2 already up, cannot proceed with booting GSP";
    let other = "NVRM: _kgspBootGspRm: (0x62:0x55:1784)";
    for (raw, pci, is_cold) in [(in_use, second, true), (in_use, "00000000:5d:00.0", false), (other, second, false)] {
        let events = [failed.clone(), line("gsp_failed", Some("_kgspBootGspRm"), raw, pci)];
        let diagnosis = diagnose(&second_gpu(&events), &KubernetesFacts::default());
        let finding = of(&diagnosis.findings, "gpu-init-failed");
        assert_eq!(finding.evidence.iter().any(|line| line.contains("WPR2")), is_cold, "{finding:?}");
        let [plan] = &diagnosis.plan[..] else { panic!("{diagnosis:#?}") };
        assert_eq!(plan.steps.iter().any(|step| step.starts_with("Power-cycle")), is_cold, "{plan:#?}");
        assert!(!plan.steps.iter().any(|step| step.contains("off the bus")), "{plan:#?}");
    }
}

#[test]
fn a_gpu_is_not_returned_because_of_its_slot() {
    let gpu = "00000000:9a:00.0";
    for (state, checks) in [
        ("card_not_present", true),
        ("link_down", true),
        ("power_fault", true),
        ("attention_button", true),
        ("link_up", false),
    ] {
        let slot = line("pcie_link", Some(state), "pcieport 0000:98:01.0: pciehp: Slot(12)", "00000000:98:01.0");
        let report = second_gpu(&[slot, xid(79, 1, Some("now"), gpu)]);
        let diagnosis = diagnose(&report, &KubernetesFacts::default());
        let [plan] = &diagnosis.plan[..] else { panic!("{diagnosis:#?}") };
        assert_eq!(plan.steps.iter().any(|step| step.contains("seating")), checks, "{plan:#?}");
        assert_eq!(plan.rma == Rma::No, checks, "{plan:#?}");
        let finding = of(&diagnosis.findings, "gpu-off-bus");
        let texts = plan.steps.iter().chain([&finding.action.text]);
        assert_eq!(texts.filter(|text| text.contains("(RMA)")).count() == 0, checks, "{diagnosis:#?}");
    }
}
