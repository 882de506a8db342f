//! Tests of urgency: work that continues after an error may finish, regardless of the age of the error and of the work.

use diagnosis::diagnose;
use diagnosis::finding::{Diagnosis, Urgency};
use syringe_core::classification::Severity;
use syringe_core::facts::ecc::{RecoveryAction, RemappedRows, RetiredPages};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::gpu_names::gpu_addresses;
use syringe_core::kernel_log::catalogue::Fatality;
use syringe_core::kernel_log::{sxids, xids};
use syringe_core::pci::PciAddress;
use syringe_core::report::Report;

use super::properties::log_of;
use super::{scenarios, told, with_lines};

const HOUR: i64 = 60;

/// Returns the H100 node with this event at these ages in minutes. It runs a job on all GPUs, unless it is `idle`.
fn node(event: &KernelEvent, ages: &[i64], idle: bool) -> Report {
    let (mut report, _) = scenarios()["healthy-h100-8"].clone();
    let now = report.taken_at.expect("a time");
    if idle {
        let processes =
            report.sections.processes.as_mut().and_then(|section| section.data.as_mut()).expect("processes");
        processes.processes.retain(|process| process.pod_uid.is_none());
    }
    let boot_id = report.boot_id.clone();
    let log = log_of(&mut report).expect("a log");
    for age in ages {
        let time = Some(now - jiff::SignedDuration::from_mins(*age));
        log.events.push(KernelEvent { count: 1, first: time, last: time, boot_id: boot_id.clone(), ..event.clone() });
    }
    report.kernel_log.clear();
    report
}

fn judged(report: &Report) -> Diagnosis {
    diagnose(report, &KubernetesFacts::default())
}

/// Returns the highest urgency of all plans.
fn urgency(diagnosis: &Diagnosis) -> Option<Urgency> {
    diagnosis.plan.iter().map(|plan| plan.urgency).max()
}

/// Tests each Xid and SXid of the catalogue as a new, an old and a repeated event, on an idle node and on a node with a
/// job.
#[test]
fn only_an_error_that_ends_work_is_urgent() {
    let (report, _) = &scenarios()["healthy-h100-8"];
    let gpu = gpu_addresses(report).get(2).map(|(pci, ..)| pci.clone());
    let continues = |action: Option<&str>| matches!(action, Some("IGNORE" | "CONTACT_SUPPORT"));
    let of_xid = |code| KernelEvent {
        kind: Kind::Xid,
        code: Some(code),
        pci_address: gpu.clone(),
        gpu_index: Some(2),
        ..KernelEvent::default()
    };
    let of_sxid = |code| KernelEvent {
        kind: Kind::Sxid,
        code: Some(code),
        pci_address: PciAddress::parse("0000:07:00.0"),
        ..KernelEvent::default()
    };
    let all = xids().map(|entry| (of_xid(entry.code), entry.nvidia_action, continues(entry.nvidia_action)));
    let all = all.chain(sxids().map(|entry| {
        let harmless = entry.fatality == Some(Fatality::NonFatal);
        (of_sxid(entry.code), entry.nvidia_action, harmless)
    }));
    // The other rows recommend a repair, or are not documented.
    let all = all.filter(|(_, action, continues)| *continues || *action == Some("IGNORE"));
    let mut wrong = Vec::new();
    for (event, action, continues) in all {
        let name = format!("{:?} {:?} {action:?}", event.kind, event.code);
        for idle in [true, false] {
            for ages in [&[5][..], &[8 * HOUR], &[72 * HOUR], &[70, 5]] {
                let diagnosis = judged(&node(&event, ages, idle));
                let worst = diagnosis.findings.iter().map(|finding| finding.severity).max().unwrap_or_default();
                if continues && urgency(&diagnosis) == Some(Urgency::Now) {
                    wrong.push(format!("{name} {ages:?}, idle {idle}: now"));
                }
                let harmless = action == Some("IGNORE") && ages.len() == 1 && ages != [5];
                if harmless && worst > Severity::Warning {
                    wrong.push(format!("{name} {ages:?}, idle {idle}: {worst:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

/// Work that is still running hours after a fault that is not fatal may finish.
#[test]
fn an_old_fault_that_is_not_fatal_is_not_urgent() {
    let (report, _) = &scenarios()["healthy-h100-8"];
    let gpu = gpu_addresses(report).get(2).map(|(pci, ..)| pci.clone());
    for entry in xids().filter(|entry| entry.severity == Severity::Critical) {
        let event = KernelEvent {
            kind: Kind::Xid,
            code: Some(entry.code),
            pci_address: gpu.clone(),
            gpu_index: Some(2),
            ..KernelEvent::default()
        };
        let diagnosis = judged(&node(&event, &[8 * HOUR], false));
        assert!(urgency(&diagnosis) < Some(Urgency::Now), "{}: {}", entry.code, told(&diagnosis));
    }
}

/// Single events that NVIDIA's catalogue ignores are information, unless a state of the GPU requires a repair.
#[test]
fn a_single_event_that_nvidia_ignores_is_information() {
    let (report, _) = &scenarios()["healthy-h100-8"];
    let gpu = gpu_addresses(report).get(2).map(|(pci, ..)| pci.clone());
    for code in [37, 38, 44, 66, 67, 93, 108, 121, 137, 152, 153] {
        let event = KernelEvent {
            kind: Kind::Xid,
            code: Some(code),
            pci_address: gpu.clone(),
            gpu_index: Some(2),
            ..KernelEvent::default()
        };
        let diagnosis = judged(&node(&event, &[11 * HOUR], false));
        assert!(
            diagnosis.findings.iter().all(|finding| finding.severity == Severity::Info),
            "{code}: {}",
            told(&diagnosis)
        );
    }
}

/// After a corrected error, the data is correct.
#[test]
fn corrected_errors_stop_no_work() {
    let with = |change: &dyn Fn(&mut syringe_core::facts::ecc::GpuEcc)| {
        let mut report = with_lines("healthy-h100-8", &[(72 * HOUR, "NVRM: Xid (PCI:0000:2a:00): 63, Row Remapper")]);
        let ecc = report.sections.ecc.as_mut().and_then(|section| section.data.as_mut()).expect("counters");
        change(&mut ecc.gpus[1]);
        judged(&report)
    };
    let pages =
        |single, double| RetiredPages { single_bit: Some(single), double_bit: Some(double), pending: Some(true) };
    for corrected in [1, 1_000, 10_000_000] {
        let corrected = with(&|gpu| gpu.volatile.corrected = Some(corrected));
        assert!(urgency(&corrected) < Some(Urgency::Now), "{}", told(&corrected));
    }
    for (single, double, uncorrected, expected) in
        [(2, 0, 0, false), (2, 0, 1, true), (0, 1, 1, true), (40, 3, 0, false), (2, 1, 0, false)]
    {
        let diagnosis = with(&|gpu| {
            gpu.remapped_rows = None;
            gpu.retired_pages = Some(pages(single, double));
            gpu.volatile.uncorrected = Some(uncorrected);
            gpu.aggregate.uncorrected = Some(u64::from(double) + uncorrected);
        });
        let finding = diagnosis.findings.iter().find(|finding| finding.id == "retired-pages-pending");
        let finding = finding.unwrap_or_else(|| panic!("{}", told(&diagnosis)));
        assert_eq!(finding.severity == Severity::Critical, expected, "{}", told(&diagnosis));
        assert_eq!(urgency(&diagnosis) == Some(Urgency::Now), expected, "{}", told(&diagnosis));
    }
    let rows = |rows: &mut RemappedRows| (rows.pending, rows.correctable) = (true, 1);
    let remap = with(&|gpu| gpu.remapped_rows.iter_mut().for_each(rows));
    assert!(urgency(&remap) < Some(Urgency::Now), "{}", told(&remap));
}

#[test]
fn work_may_end_if_the_driver_asks_for_a_drain_unless_its_results_are_wrong() {
    let (report, _) = &scenarios()["healthy-h100-8"];
    let gpu = gpu_addresses(report).get(2).map(|(pci, ..)| pci.clone());
    let xid = |code| KernelEvent {
        kind: Kind::Xid,
        code: Some(code),
        pci_address: gpu.clone(),
        gpu_index: Some(2),
        ..KernelEvent::default()
    };
    for (recovery, codes, expected) in [
        (Some(RecoveryAction::DrainAndReset), vec![48], Urgency::WhenJobsEnd),
        (Some(RecoveryAction::DrainAndReset), vec![48, 95], Urgency::Now),
        (Some(RecoveryAction::GpuReset), vec![48], Urgency::Now),
    ] {
        let mut report = node(&xid(codes[0]), &[5], false);
        for code in &codes[1..] {
            let first = log_of(&mut report).expect("a log").events.last().expect("an event").clone();
            log_of(&mut report).expect("a log").events.push(KernelEvent { code: Some(*code), ..first });
        }
        let ecc = report.sections.ecc.as_mut().and_then(|section| section.data.as_mut()).expect("counters");
        ecc.gpus.iter_mut().filter(|gpu| gpu.index == 2).for_each(|gpu| gpu.recovery_action = recovery);
        let diagnosis = judged(&report);
        assert_eq!(urgency(&diagnosis), Some(expected), "{recovery:?} {codes:?}: {}", told(&diagnosis));
    }
}

#[test]
fn a_gpu_that_was_lost_long_ago_and_that_nobody_has_ends_no_work() {
    let (report, _) = &scenarios()["xid79-off-bus"];
    assert_eq!(urgency(&judged(report)), Some(Urgency::Now));
    let mut old = report.clone();
    let now = old.taken_at.expect("a time");
    let inventory = old.sections.inventory.as_ref().and_then(|section| section.data.clone()).expect("an inventory");
    let kubelet = old.sections.kubelet.as_mut().and_then(|section| section.data.as_mut()).expect("a kubelet");
    let responds = |device: &String| inventory.gpus.iter().any(|gpu| gpu.uuid.as_ref() == Some(device));
    kubelet.registered.iter_mut().for_each(|one| one.devices.retain(responds));
    kubelet.allocations.iter_mut().for_each(|one| one.devices.retain(responds));
    // No process hangs on the GPU.
    let processes = old.sections.processes.as_mut().and_then(|section| section.data.as_mut()).expect("processes");
    processes.processes.retain(|process| process.state.as_deref() != Some("D"));
    let six_days_ago = Some(now - jiff::SignedDuration::from_hours(6 * 24));
    for event in &mut log_of(&mut old).expect("a log").events {
        (event.first, event.last) = (six_days_ago, six_days_ago);
    }
    old.kernel_log.clear();
    let diagnosis = judged(&old);
    assert!(diagnosis.findings.iter().any(|finding| finding.severity == Severity::Fatal), "{}", told(&diagnosis));
    assert_eq!(urgency(&diagnosis), Some(Urgency::WhenJobsEnd), "{}", told(&diagnosis));
}

#[test]
fn work_that_started_before_an_update_of_the_driver_may_end() {
    let (updated, _) = &scenarios()["driver-mismatch"];
    let with_work = judged(updated);
    assert_eq!(urgency(&with_work), Some(Urgency::WhenJobsEnd), "{}", told(&with_work));
    let mut idle = updated.clone();
    let processes = idle.sections.processes.as_mut().and_then(|section| section.data.as_mut()).expect("processes");
    processes.processes.clear();
    assert_eq!(urgency(&judged(&idle)), Some(Urgency::Now));
}
