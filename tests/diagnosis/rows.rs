//! Tests that the conclusions about one event follow the row of its code in `xid.tsv`, `sxid.tsv` or `nvlink5.tsv`.

use diagnosis::diagnose;
use diagnosis::finding::{Diagnosis, Urgency};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::gpu_names::gpu_addresses;
use syringe_core::kernel_log::event_meaning::{self, EventMeaning};
use syringe_core::kernel_log::{sxids, xids};
use syringe_core::pci::PciAddress;
use syringe_core::report::Report;

use super::properties::log_of;
use super::scenarios;

const NVLINK5: &str = include_str!("../../src/kernel_log/data/nvlink5.tsv");

/// Xids whose finding differs from the row, because other facts of the healthy node have priority.
const BY_STATE: [(u32, &str); 4] = [
    (63, "NVML says whether the remap is pending"),
    (64, "NVML says whether the remap failed"),
    (143, "the GPU initialized later"),
    (154, "the details name the action"),
];

/// Returns the healthy node with this event five minutes ago. If `loaded` is set, the driver was loaded after the
/// event.
fn node(event: KernelEvent, loaded: bool) -> Report {
    let (mut report, _) = scenarios()["healthy-h100-8"].clone();
    let taken = report.taken_at.expect("a time");
    let time = Some(taken - jiff::SignedDuration::from_mins(5));
    let boot_id = report.boot_id.clone();
    let log = log_of(&mut report).expect("a log");
    log.events.push(KernelEvent { count: 1, first: time, last: time, boot_id: boot_id.clone(), ..event });
    if loaded {
        let time = Some(taken - jiff::SignedDuration::from_mins(2));
        log.events.push(KernelEvent {
            kind: Kind::DriverLoaded,
            count: 1,
            first: time,
            last: time,
            boot_id,
            ..KernelEvent::default()
        });
    }
    report
}

fn xid(code: u32) -> KernelEvent {
    let (report, _) = &scenarios()["healthy-h100-8"];
    let pci_address = gpu_addresses(report).get(2).map(|(pci, ..)| pci.clone());
    KernelEvent { kind: Kind::Xid, code: Some(code), pci_address, gpu_index: Some(2), ..KernelEvent::default() }
}

fn sxid(code: u32) -> KernelEvent {
    let pci_address = PciAddress::parse("0000:07:00.0");
    KernelEvent { kind: Kind::Sxid, code: Some(code), pci_address, ..KernelEvent::default() }
}

/// Returns an event for each row of the table of NVLink 5 errors.
fn nvlink5() -> Vec<KernelEvent> {
    let rows = NVLINK5.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let events = rows.map(|row| {
        let fields: Vec<&str> = row.split('\t').collect();
        let [code, units, _, from, _, severity, action, ..] = fields[..] else { panic!("{row}") };
        let mut event = xid(code.parse().expect("a code"));
        event.sub_code = units.split(',').next().map(str::to_owned);
        let reason = from.split_once('/').and_then(|(_, value)| u32::from_str_radix(value, 16).ok()).unwrap_or(0) >> 20;
        for (name, value) in [
            ("action", action.to_owned()),
            ("fatal", (severity != "nonfatal").to_string()),
            ("link_down_reason", reason.to_string()),
        ] {
            event.details.insert(name.to_owned(), value);
        }
        event
    });
    events.collect()
}

/// Returns what contradicts the row.
fn contradictions(row: &EventMeaning, event: &KernelEvent) -> Vec<String> {
    let diagnosis = diagnose(&node(event.clone(), false), &KubernetesFacts::default());
    let name = format!("{:?} {:?} {:?}", event.kind, event.code.unwrap_or(0), event.details.get("action"));
    let mut found = Vec::new();
    let worst = diagnosis.findings.iter().max_by_key(|finding| finding.severity);
    let severity = worst.map_or(Severity::Info, |finding| finding.severity);
    if severity != row.severity {
        found.push(format!("{name}: severity {severity:?}, row {:?}", row.severity));
    }
    if row.severity > Severity::Info {
        let action = worst.map_or(ActionCode::None, |finding| finding.action.code);
        if action != row.action {
            found.push(format!("{name}: action {action:?}, row {:?}", row.action));
        }
    }
    found.extend(of_plans(row, &diagnosis).map(|words| format!("{name}: {words}")));
    found
}

/// Returns how the plans differ from the row: another action, a higher urgency, or a missing plan.
fn of_plans(row: &EventMeaning, diagnosis: &Diagnosis) -> Option<String> {
    let interrupts = |action: ActionCode| action.includes(ActionCode::ResetGpu);
    let planned = diagnosis.plan.iter().find(|plan| plan.action != row.action);
    if let Some(plan) = planned {
        return Some(format!("plan {:?}, row {:?}", plan.action, row.action));
    }
    let now = diagnosis.plan.iter().any(|plan| plan.urgency == Urgency::Now);
    if now && !interrupts(row.action) && row.severity < Severity::Fatal {
        return Some(format!("plan now, row {:?} {:?}", row.severity, row.action));
    }
    let needed = row.severity >= Severity::Critical && interrupts(row.action);
    (needed && diagnosis.plan.is_empty()).then(|| "no plan".to_owned())
}

#[test]
fn finding_and_plan_follow_the_row_of_each_code() {
    let by_state = |code: u32| BY_STATE.iter().any(|(known, _)| *known == code);
    let all = xids().filter(|entry| !by_state(entry.code)).map(|entry| xid(entry.code));
    let events: Vec<KernelEvent> = all.chain(sxids().map(|entry| sxid(entry.code))).chain(nvlink5()).collect();
    assert!(events.len() > 600, "{}", events.len());
    let meaning = |event: &KernelEvent| event_meaning::of(&KernelEvent { count: 1, ..event.clone() }).expect("a row");
    let found: Vec<String> = events.iter().flat_map(|event| contradictions(&meaning(event), event)).collect();
    assert!(found.is_empty(), "{} contradictions:\n{}", found.len(), found.join("\n"));
}

/// For these codes, the Fabric Manager user guide recommends a restart of the host.
#[test]
fn no_driver_load_ends_an_sxid_that_is_always_fatal() {
    let always = || sxids().filter(|entry| entry.nvidia_action == Some("RESTART_HOST"));
    assert!(always().count() > 10);
    for entry in always() {
        let diagnosis = diagnose(&node(sxid(entry.code), true), &KubernetesFacts::default());
        let reboots = diagnosis.plan.iter().any(|plan| plan.action == ActionCode::DrainAndReboot);
        assert!(reboots, "SXid {}: {:?}", entry.code, diagnosis.plan);
    }
}

/// The line of an Xid can mention another Xid as its cause. That Xid counts even if its own line is missing.
#[test]
fn an_xid_that_is_only_named_as_the_cause_counts() {
    for code in [48, 79, 94, 95, 119] {
        let mut event = xid(45);
        event.details.insert("caused_by".to_owned(), code.to_string());
        let diagnosis = diagnose(&node(event, false), &KubernetesFacts::default());
        let worst = diagnosis.findings.iter().max_by_key(|finding| finding.severity).expect("a finding");
        assert!(worst.severity >= Severity::Warning, "{code}: {:?}", diagnosis.findings);
        assert!(worst.evidence.iter().any(|line| line.contains("named by Xid 45")), "{code}: {:?}", worst.evidence);
    }
}
