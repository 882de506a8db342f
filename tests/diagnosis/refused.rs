//! Tests of GPUs that the driver rejects and that only the kernel log reports. Tests of the temperature margin with
//! and without its threshold.

use diagnosis::diagnose;
use diagnosis::finding::{Diagnosis, Verdict};
use syringe_core::classification::Severity;
use syringe_core::facts::kernel_log::{Coverage, KernelEvent, KernelEventKind, KernelLog};
use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::facts::telemetry::{Temperature, TlimitThresholds};
use syringe_core::pci::PciAddress;
use syringe_core::report::{Report, Section, Sections};

use super::{scenarios, told};

fn healthy() -> Report {
    scenarios().remove("healthy-h100-8").expect("the scenario").0
}

/// Returns a report that only has a kernel log, in which the driver rejects a GPU.
fn refusal(kind: KernelEventKind, address: Option<&str>) -> Report {
    let base = healthy();
    let pci_address = address.and_then(PciAddress::parse);
    let last = base.taken_at;
    let event = KernelEvent { kind, pci_address, count: 1, first: last, last, ..KernelEvent::default() };
    let coverage = vec![Coverage { source: "kern.log".into(), to: last, ..Coverage::default() }];
    let log = KernelLog { coverage, events: vec![event], ..KernelLog::default() };
    let sections = Sections { xid: Some(Section::read(log, Vec::new())), ..Sections::default() };
    Report { sections, kernel_log: Vec::new(), ..base }
}

fn found(diagnosis: &Diagnosis, id: &str) -> bool {
    diagnosis.findings.iter().any(|finding| finding.id == id && finding.severity == Severity::Fatal)
}

#[test]
fn a_gpu_that_the_driver_refuses_is_found_in_the_log_alone() {
    let kinds = [
        (KernelEventKind::NotSupported, "driver-wrong-kernel-module-type"),
        (KernelEventKind::BarUnassigned, "gpu-memory-not-mapped"),
    ];
    for (kind, id) in kinds {
        for address in [Some("0000:38:00.0"), None] {
            let report = refusal(kind, address);
            let alone = diagnose(&report, &KubernetesFacts::default());
            assert!(found(&alone, id), "{address:?}: {}", told(&alone));
            // The inventory alone does not show which GPUs are on the bus.
            let base = healthy();
            let sections = Sections { inventory: base.sections.inventory.clone(), ..report.sections.clone() };
            let with_inventory = diagnose(&Report { sections, ..report.clone() }, &KubernetesFacts::default());
            assert!(found(&with_inventory, id), "{address:?}: {}", told(&with_inventory));
        }
    }
}

#[test]
fn a_refusal_without_an_address_is_no_fault_if_every_gpu_responds() {
    let log = refusal(KernelEventKind::NotSupported, None).sections.xid;
    let mut report = healthy();
    report.sections.xid = log;
    let diagnosis = diagnose(&report, &KubernetesFacts::default());
    assert!(!found(&diagnosis, "driver-wrong-kernel-module-type"), "{}", told(&diagnosis));
}

/// Returns the diagnosis of a healthy node with these temperatures on every GPU.
fn with(change: impl Fn(&mut Temperature)) -> Diagnosis {
    let mut report = healthy();
    let telemetry = report.sections.telemetry.as_mut().and_then(|section| section.data.as_mut()).expect("telemetry");
    telemetry.gpus.iter_mut().for_each(|gpu| {
        gpu.temperature.slowdown_celsius = None;
        change(&mut gpu.temperature);
    });
    diagnose(&report, &KubernetesFacts::default())
}

#[test]
fn a_margin_shows_overheating_only_with_its_threshold() {
    let limits = |slowdown| Some(TlimitThresholds { slowdown_celsius: slowdown, ..TlimitThresholds::default() });
    let margin_alone = with(|now| (now.tlimit_margin_celsius, now.tlimit_thresholds) = (Some(20), limits(None)));
    assert_eq!(margin_alone.verdict, Verdict::Unknown, "{}", told(&margin_alone));
    assert!(!margin_alone.summary.contains("overheating") || margin_alone.summary.contains("could not"));
    let both = with(|now| (now.tlimit_margin_celsius, now.tlimit_thresholds) = (Some(20), limits(Some(-2))));
    assert_eq!(both.verdict, Verdict::Healthy, "{}", told(&both));
    assert!(both.summary.contains("no overheating"), "{}", both.summary);
    let reached = with(|now| {
        (now.gpu_celsius, now.tlimit_margin_celsius, now.tlimit_thresholds) = (Some(88), Some(-3), limits(Some(-2)));
    });
    assert_eq!(reached.verdict, Verdict::Critical, "{}", told(&reached));
}
