//! Tests of every severe Xid: repeated with and without a repair, once long ago, as a lasting state of the board, and
//! with wrong clocks.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::diagnose;
use crate::finding::{Diagnosis, Rma};
use syringe_core::classification::{ActionCode, Class, Severity};
use syringe_core::facts::kernel_log::{KernelEvent, KernelLog};
use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::kernel_log::catalogue::{self, Ageing, RecoveryEvidence, WorkEvidence};
use syringe_core::kernel_log::{Clock, EventLog, Options, XidEntry, xids};
use syringe_core::report::Report;

const NOW: &str = "2026-11-21T12:00:00Z";
const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

fn ago(seconds: i64) -> Timestamp {
    let now: Timestamp = NOW.parse().expect("a time");
    now - SignedDuration::from_secs(seconds)
}

/// Returns the severe Xids, which are at least critical in the catalogue. Application faults are excluded. Xid 154 is
/// also excluded, because its meaning depends on its line.
fn grave() -> impl Iterator<Item = &'static XidEntry> {
    xids().filter(|entry| {
        entry.severity >= Severity::Critical && entry.code != 154 && entry.class != Some(Class::Application)
    })
}

/// An action that ends a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repair {
    Reset,
    DriverLoad,
    Boot,
}

const REPAIRS: [Repair; 3] = [Repair::Reset, Repair::DriverLoad, Repair::Boot];

fn fault(code: u32) -> String {
    format!("NVRM: Xid (PCI:0000:5d:00): {code}, pid=4711, name=python3, a text")
}

/// Creates a journal without records, whose running boot is `last`.
fn empty_journal() -> EventLog {
    let mut log = EventLog::new(None, Options { running_boot_id: Some("last".into()), ..Options::default() });
    log.source("journal");
    log
}

fn push_record(log: &mut EventLog, boot: &str, when: Timestamp, text: &str) {
    let entry = json!({"__REALTIME_TIMESTAMP": when.as_microsecond().to_string(), "_BOOT_ID": boot,
        "_TRANSPORT": "kernel", "SYSLOG_FACILITY": "0", "MESSAGE": text});
    log.push_line(&entry.to_string());
}

/// Creates a journal with a fault at each of these times (seconds before now). Each fault is followed by a repair after
/// ten minutes.
fn journal(code: u32, times: &[i64], repair: Repair) -> KernelLog {
    let mut log = empty_journal();
    let mut push = |boot: &str, when: Timestamp, text: &str| push_record(&mut log, boot, when, text);
    for (number, time) in times.iter().enumerate() {
        let boot = if repair == Repair::Boot { format!("b{number}") } else { "last".to_owned() };
        push(&boot, ago(*time), &fault(code));
        let text = match repair {
            Repair::Boot => continue,
            Repair::Reset => {
                "NVRM: Xid (PCI:0000:5d:00): 154, GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)"
            }
            Repair::DriverLoad => {
                "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  570.124.06  Wed Feb 26 02:29:16 UTC 2025"
            }
        };
        push(&boot, ago(*time - 10 * MINUTE), text);
    }
    log.finish()
}

/// Creates a text log of a node that booted ten days ago. The last value of each line is the error of the clock in
/// seconds when the line was written.
fn text_log(lines: &[(i64, String, i64)], with_uptime: bool) -> KernelLog {
    let boot = ago(10 * DAY);
    let now = NOW.parse().ok();
    let mut log = EventLog::new(Some(Clock { boot_wall_time: boot }), Options { now, ..Options::default() });
    log.source("/var/log/kern.log");
    for (seconds, text, shift) in lines {
        let when = ago(*seconds);
        let uptime =
            if with_uptime { format!("[{}.000000] ", when.duration_since(boot).as_secs()) } else { String::new() };
        let stamp = when + SignedDuration::from_secs(*shift);
        log.push_line(&format!("{stamp:.6} gpu-1 kernel: {uptime}{text}"));
    }
    log.finish()
}

/// Diagnoses a node with one working GPU and this log.
fn judged(log: KernelLog, has_ecc: bool) -> Diagnosis {
    judged_with(log, has_ecc, false)
}

/// Diagnoses this node. `at_work`: a program that started ten minutes ago is running on the GPU.
fn judged_with(mut log: KernelLog, has_ecc: bool, at_work: bool) -> Diagnosis {
    let program = json!({"pid": 9, "name": "python3", "started_at": ago(10 * MINUTE), "uses": [{"gpu": 0}]});
    let programs = if at_work { vec![program] } else { Vec::new() };
    for event in log.events.iter_mut().filter(|event| event.pci_address.is_some()) {
        event.gpu_index = Some(0);
    }
    let of = |more: Value| {
        let mut gpu = json!({"index": 0, "uuid": "GPU-1", "pci_address": "00000000:5d:00.0"});
        gpu.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        json!({"status": "ok", "data": {"gpus": [gpu]}})
    };
    let ecc = match has_ecc {
        true => json!({"volatile": {"uncorrected": 0}}),
        false => json!({"mode": {"current": false, "pending": false}}),
    };
    let report: Report = serde_json::from_value(json!({"taken_at": NOW, "boot_id": "last", "sections": {
        "inventory": of(json!({"minor_number": 0, "name": "NVIDIA GeForce RTX 4090"})),
        "telemetry": of(json!({"temperature": {"gpu_celsius": 40}})), "ecc": of(ecc),
        "processes": {"status": "ok", "data": {"host_pid_namespace": true, "processes": programs}},
        "xid": {"status": "ok", "data": log}}}))
    .expect("a report");
    diagnose(&report, &KubernetesFacts::default())
}

fn worst(diagnosis: &Diagnosis) -> Severity {
    diagnosis.findings.iter().map(|finding| finding.severity).max().unwrap_or_default()
}

#[test]
fn a_grave_fault_that_comes_back_after_each_cure_is_critical() {
    let today: Vec<i64> = (1..=5).rev().map(|number| number * 2 * HOUR).collect();
    for entry in grave() {
        for repair in REPAIRS {
            for has_ecc in [true, false] {
                let found = judged(journal(entry.code, &today, repair), has_ecc);
                assert!(worst(&found) >= Severity::Critical, "{} {repair:?}: {found:#?}", entry.code);
                assert!(!found.summary.contains("no Xid"), "{}: {}", entry.code, found.summary);
            }
        }
    }
}

#[test]
fn a_grave_fault_that_comes_back_once_in_months_is_no_pattern() {
    let rare = [230 * DAY, 140 * DAY, 50 * DAY];
    for entry in grave().filter(|entry| entry.ageing != Ageing::Permanent) {
        for repair in REPAIRS {
            let found = judged(journal(entry.code, &rare, repair), true);
            assert_eq!(worst(&found), Severity::Info, "{} {repair:?}: {found:#?}", entry.code);
            assert!(found.plan.is_empty(), "{} {repair:?}: {:#?}", entry.code, found.plan);
        }
    }
}

#[test]
fn a_gpu_is_returned_only_if_the_diagnostic_fails() {
    for entry in grave().filter(|entry| entry.ageing != Ageing::Permanent) {
        let found = judged(journal(entry.code, &[3 * DAY, 2 * DAY, DAY], Repair::Reset), true);
        assert!(worst(&found) >= Severity::Critical, "{}", entry.code);
        for plan in &found.plan {
            assert_ne!(plan.rma, Rma::Yes, "{}: {plan:#?}", entry.code);
            let returns = plan.steps.iter().filter(|step| step.contains("(RMA)"));
            for step in returns {
                assert!(step.contains("if the diagnostic fails"), "{}: {step}", entry.code);
            }
        }
    }
}

#[test]
fn a_grave_fault_of_long_ago_that_was_cured_is_information() {
    for entry in grave().filter(|entry| entry.ageing != Ageing::Permanent) {
        for repair in REPAIRS {
            for has_ecc in [true, false] {
                let found = judged(journal(entry.code, &[6 * DAY], repair), has_ecc);
                assert_eq!(worst(&found), Severity::Info, "{} {repair:?}: {found:#?}", entry.code);
            }
        }
    }
}

#[test]
fn a_lasting_state_of_the_board_outlives_every_cure() {
    for entry in xids().filter(|entry| entry.ageing == Ageing::Permanent) {
        for repair in REPAIRS {
            let found = judged(journal(entry.code, &[6 * DAY], repair), true);
            assert!(worst(&found) >= entry.severity, "{} {repair:?}: {found:#?}", entry.code);
        }
    }
}

#[test]
fn a_lasting_state_of_a_board_that_was_replaced_is_history() {
    for known in [true, false] {
        let mut log = journal(165, &[6 * DAY], Repair::Boot);
        for event in &mut log.events {
            event.gpu_uuid = known.then(|| "GPU-of-before".to_owned());
        }
        let expected = if known { Severity::Info } else { Severity::Warning };
        assert_eq!(worst(&judged(log, true)), expected);
    }
}

#[test]
fn a_gpu_that_hung_until_one_cure_did_not_come_back() {
    // The GPU logs its fault every half hour until it is repaired.
    let times: Vec<i64> = (0..12).map(|number| 3 * DAY - number * HOUR / 2).collect();
    for (code, repair) in [(119, Repair::Boot), (79, Repair::Boot), (119, Repair::DriverLoad)] {
        let mut log = journal(code, &times, Repair::Reset);
        log.events.retain(|event| event.code != Some(154));
        let last = log.events[0].last;
        match repair {
            Repair::Boot => log.events.iter_mut().for_each(|event| event.boot_id = Some("b".into())),
            _ => log.events.extend(journal(31, &[2 * DAY], Repair::DriverLoad).events),
        }
        assert!(log.events[0].last == last && log.events[0].count == 12);
        let found = judged(log, true);
        assert_eq!(worst(&found), Severity::Info, "{code} {repair:?}: {found:#?}");
    }
}

#[test]
fn a_hang_of_many_hours_that_was_cured_counts_once() {
    let hang = (0..12).map(|hour| 3 * DAY - hour * HOUR);
    let times: Vec<i64> = std::iter::once(200 * DAY).chain(hang).collect();
    for code in [119, 79, 95] {
        let mut log = journal(code, &times, Repair::Reset);
        // The repairs took place after the first and after the last incident.
        let repairs: Vec<_> = log.events.iter().filter(|event| event.code == Some(154)).cloned().collect();
        log.events.retain(|event| event.code != Some(154));
        let ends = [ago(200 * DAY - 10 * MINUTE), ago(3 * DAY - 12 * HOUR)];
        log.events.extend(ends.map(|end| KernelEvent {
            first: Some(end),
            last: Some(end),
            count: 1,
            occurrences: Vec::new(),
            ..repairs[0].clone()
        }));
        let found = judged(log, true);
        assert_eq!(worst(&found), Severity::Info, "{code}: {found:#?}");
    }
}

#[test]
fn states_of_the_board_in_several_boots_are_critical() {
    let days: Vec<i64> = (1..=6).rev().map(|number| number * DAY).collect();
    for code in [64, 94, 54, 157, 161, 164, 165, 168] {
        let found = judged(journal(code, &days, Repair::Boot), true);
        assert!(worst(&found) >= Severity::Critical, "{code}: {found:#?}");
    }
}

#[test]
fn a_grave_fault_that_repeats_without_any_cure_is_critical() {
    let daily: Vec<i64> = (1..=6).rev().map(|number| number * DAY).collect();
    let hourly: Vec<i64> = (1..=12).rev().map(|number| number * HOUR).collect();
    for entry in grave().filter(|entry| entry.code != 79) {
        for times in [&daily, &hourly] {
            let lines: Vec<_> = times.iter().map(|time| (*time, fault(entry.code), 0)).collect();
            let found = judged(text_log(&lines, true), true);
            assert!(worst(&found) >= Severity::Critical, "{}: {found:#?}", entry.code);
        }
    }
}

#[test]
fn a_grave_fault_of_long_ago_ages_where_the_gpu_is_at_work() {
    let ages = |entry: &&XidEntry| matches!(entry.ageing, Ageing::WhenWorking | Ageing::WhenWorkingADay);
    for entry in grave().filter(ages) {
        for has_ecc in [true, false] {
            let at = |days, at_work| {
                worst(&judged_with(text_log(&[(days * DAY, fault(entry.code), 0)], true), has_ecc, at_work))
            };
            let event = KernelEvent { code: Some(entry.code), ..KernelEvent::default() };
            let family = catalogue::family_of(&event).expect("a family");
            // Without counters, no fact shows that the memory works.
            let known = has_ecc || family.recovery != RecoveryEvidence::Counters;
            let asks = entry.action.includes(ActionCode::ResetGpu) || entry.action == ActionCode::UpdateSoftware;
            let (after_a_day, after_a_week) = match family.work {
                _ if !asks => (known, known),
                WorkEvidence::Program => (known, known),
                WorkEvidence::AfterAWeek => (false, known),
                // The node has one GPU.
                WorkEvidence::ProgramOnSeveralGpus => (false, false),
            };
            let code = entry.code;
            assert_eq!(at(6, true) == Severity::Info, after_a_day, "{code} {has_ecc}");
            assert_eq!(at(9, true) == Severity::Info, after_a_week, "{code} {has_ecc}");
            assert!(!asks || at(9, false) >= Severity::Warning, "{code}: time alone ends no fault");
        }
    }
}

#[test]
fn a_wrong_clock_neither_hides_a_fault_nor_makes_an_old_one_new() {
    let loaded = "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  570.124.06  Wed Feb 26 02:29:16 UTC 2025".to_owned();
    let end = || (MINUTE, "eth0: renamed".to_owned(), 0);
    for entry in grave().filter(|entry| entry.ageing != Ageing::Permanent) {
        // The clock is slow by two hours, weeks or years (no battery), or fast by three hours.
        for shift in [-2 * HOUR, -20 * DAY, -6 * 365 * DAY, 3 * HOUR] {
            for with_uptime in [true, false] {
                let lines = [(2 * HOUR, loaded.clone(), 0), (5 * MINUTE, fault(entry.code), shift), end()];
                let found = judged(text_log(&lines, with_uptime), true);
                // Without uptimes, it is only known that the fault occurred after the line before it.
                let least = if with_uptime { Severity::Critical } else { Severity::Warning };
                assert!(worst(&found) >= least, "{} {shift} {with_uptime}: {found:#?}", entry.code);
            }
            let lines = [(6 * DAY, fault(entry.code), shift), (5 * DAY, loaded.clone(), shift), end()];
            let found = judged(text_log(&lines, true), true);
            assert_eq!(worst(&found), Severity::Info, "{} {shift}: {found:#?}", entry.code);
        }
    }
}

#[test]
fn a_warning_that_repeats_is_no_longer_information_after_a_day() {
    let days: Vec<i64> = (2..=6).rev().map(|number| number * DAY).collect();
    for entry in xids().filter(|entry| entry.severity == Severity::Warning && entry.class != Some(Class::Application)) {
        for repair in REPAIRS {
            let often = judged(journal(entry.code, &days, repair), true);
            assert!(worst(&often) >= Severity::Warning, "{} {repair:?}: {often:#?}", entry.code);
        }
        if entry.ageing == Ageing::AfterADay {
            let twice = judged(journal(entry.code, &days[..2], Repair::DriverLoad), true);
            assert_eq!(worst(&twice), Severity::Info, "{}: {twice:#?}", entry.code);
        }
    }
}

#[test]
fn a_fault_of_a_switch_that_comes_back_is_critical() {
    let times = |repair| {
        let mut log = journal(79, &[3 * DAY, 2 * DAY, DAY], repair);
        for event in log.events.iter_mut().filter(|event| event.code == Some(79)) {
            event.kind = syringe_core::facts::kernel_log::KernelEventKind::Sxid;
            event.code = Some(20034);
            event.pci_address = syringe_core::pci::PciAddress::parse("05:00.0");
        }
        worst(&judged(log, true))
    };
    assert!(times(Repair::Boot) >= Severity::Critical && times(Repair::DriverLoad) >= Severity::Critical);
}

/// Creates a journal with these faults (code, seconds before now), each in its own boot. The running boot has no fault.
fn one_fault_in_each_boot(faults: &[(u32, i64)]) -> KernelLog {
    let mut log = empty_journal();
    let mut push = |boot: &str, when: Timestamp, text: &str| push_record(&mut log, boot, when, text);
    for (number, (code, time)) in faults.iter().enumerate() {
        push(&format!("b{number}"), ago(*time), &fault(*code));
    }
    push("last", ago(HOUR), "Linux version 6.8.0");
    log.finish()
}

#[test]
fn different_severe_faults_of_one_gpu_count_together() {
    let found = |faults: &[(u32, i64)]| {
        let diagnosis = judged(one_fault_in_each_boot(faults), true);
        let own =
            |id: &&str| diagnosis.findings.iter().any(|finding| finding.id == *id && finding.severity > Severity::Info);
        let ids: Vec<&str> = ["xid-different-faults", "xid-recurring"].into_iter().filter(own).collect();
        let severity = diagnosis.findings.iter().map(|finding| finding.severity).max().unwrap_or_default();
        (ids.first().copied(), severity)
    };
    let mixed = Some("xid-different-faults");
    assert_eq!(found(&[(119, 3 * DAY), (62, 2 * DAY), (79, DAY)]), (mixed, Severity::Critical));
    assert_eq!(found(&[(119, 20 * DAY), (95, 12 * DAY), (79, DAY)]), (mixed, Severity::Critical));
    assert_eq!(found(&[(95, 4 * DAY), (119, DAY)]), (mixed, Severity::Warning));
    assert_eq!(found(&[(79, 4 * DAY), (79, DAY)]).0, Some("xid-recurring"));
    // The fault occurred once, long ago or far apart, or does not require a repair.
    assert_eq!(found(&[(119, DAY)]), (None, Severity::Info));
    assert_eq!(found(&[(119, 100 * DAY), (62, 80 * DAY), (79, 60 * DAY)]).0, None);
    assert_eq!(found(&[(119, 25 * DAY), (95, DAY)]), (None, Severity::Info));
    assert_eq!(found(&[(31, 3 * DAY), (13, 2 * DAY), (119, DAY)]), (None, Severity::Info));
    assert_eq!(found(&[(63, 3 * DAY), (92, 2 * DAY), (119, DAY)]), (None, Severity::Info));
}
