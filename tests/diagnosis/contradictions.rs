//! Tests of facts that contradict each other: a thing that another source shows at work is not missing.

use diagnosis::diagnose;
use diagnosis::finding::{Diagnosis, Urgency};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kubelet::Allocation;
use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::facts::topology::Topology;
use syringe_core::report::Report;

use super::{told, with_lines};

fn alone(report: &Report) -> Diagnosis {
    diagnose(report, &KubernetesFacts::default())
}

fn topology(report: &mut Report) -> &mut Topology {
    report.sections.topology.as_mut().and_then(|section| section.data.as_mut()).expect("a topology")
}

/// Returns the severity of a finding.
fn severity(diagnosis: &Diagnosis, id: &str) -> Option<Severity> {
    diagnosis.findings.iter().find(|finding| finding.id == id).map(|finding| finding.severity)
}

/// Asserts that the diagnosis asks for no repair.
fn assert_no_repair(diagnosis: &Diagnosis) {
    let is_repair = |code: ActionCode| code.includes(ActionCode::ResetGpu) || code == ActionCode::DrainAndReboot;
    assert!(diagnosis.plan.is_empty(), "{}", told(diagnosis));
    assert!(!diagnosis.findings.iter().any(|finding| is_repair(finding.action.code)), "{}", told(diagnosis));
}

#[test]
fn a_switch_with_active_links_is_not_missing() {
    for base in ["healthy-h100-8", "a100-mig-8"] {
        let healthy = with_lines(base, &[]);
        let switches = topology(&mut healthy.clone()).nvswitches.clone();
        for missing in &switches {
            for (linked, active, unread) in
                [(true, true, false), (false, true, false), (true, false, false), (true, false, true)]
            {
                let mut report = healthy.clone();
                let of_node = topology(&mut report);
                of_node.nvswitches.retain(|switch| switch != missing);
                for group in of_node.gpus.iter_mut().flat_map(|gpu| &mut gpu.nvlinks) {
                    if group.remote_pci_address.as_ref() == Some(missing) {
                        group.remote_pci_address = group.remote_pci_address.take().filter(|_| linked);
                        group.active = (!unread).then_some(active);
                    }
                }
                let diagnosis = alone(&report);
                if active {
                    assert_eq!(severity(&diagnosis, "facts-disagree"), Some(Severity::Warning), "{}", told(&diagnosis));
                    assert_eq!(severity(&diagnosis, "nvswitch-missing"), None, "{}", told(&diagnosis));
                    assert_no_repair(&diagnosis);
                } else if unread {
                    let plan = &diagnosis.plan[0];
                    assert_eq!(severity(&diagnosis, "nvswitch-missing"), Some(Severity::Critical));
                    assert_eq!(plan.urgency, Urgency::WhenJobsEnd, "{}", told(&diagnosis));
                }
            }
        }
    }
}

#[test]
fn a_label_alone_does_not_make_gpus_missing() {
    let cluster = |capacity, label, instance_type: Option<&str>| KubernetesFacts {
        node: Some("gpu-1".to_owned()),
        gpu_capacity: Some(capacity),
        gpu_allocatable: Some(capacity),
        gpu_label_count: label,
        instance_type: instance_type.map(str::to_owned),
        ..KubernetesFacts::default()
    };
    let critical = Some(("gpu-count-low", Severity::Critical));
    let warning = Some(("gpu-count-contradicted", Severity::Warning));
    let info = Some(("gpu-count-contradicted", Severity::Info));
    for (base, cluster, expected) in [
        ("l40s-4-idle", cluster(4, Some(9), None), warning),
        ("l40s-4-idle", cluster(4, Some(8), None), warning),
        ("l40s-4-idle", cluster(4, Some(8), Some("g6e.24xlarge")), warning),
        ("l40s-4-idle", cluster(4, Some(4), Some("p5.48xlarge")), warning),
        ("healthy-t4-1", cluster(1, Some(1), Some("g5.48xlarge")), warning),
        ("healthy-h100-8", cluster(8, Some(8), Some("g6e.xlarge")), info),
        ("healthy-h100-8", cluster(8, Some(8), Some("p4d.24xlarge")), info),
        ("l40s-4-idle", cluster(8, Some(4), None), None),
        ("l40s-4-idle", cluster(4, Some(4), Some("g6e.24xlarge")), None),
        ("healthy-h100-8", cluster(8, Some(8), Some("p5.48xlarge")), None),
        ("healthy-t4-1", cluster(1, Some(1), Some("g4dn.xlarge")), None),
        ("l40s-4-idle", cluster(4, Some(4), Some("g6e.48xlarge")), critical),
        ("l40s-4-idle", cluster(8, Some(8), None), critical),
        ("l40s-4-idle", cluster(5, None, None), critical),
    ] {
        let diagnosis = diagnose(&with_lines(base, &[]), &cluster);
        let counts = ["gpu-count-low", "gpu-count-contradicted"];
        let found = diagnosis.findings.iter().find(|finding| counts.contains(&finding.id.as_str()));
        let found = found.map(|finding| (finding.id.as_str(), finding.severity));
        assert_eq!(found, expected, "{cluster:?}: {}", told(&diagnosis));
        if expected != critical {
            assert_no_repair(&diagnosis);
        }
    }
}

/// The same lines, about a device that the node does not have and about one that it has.
#[test]
fn a_device_that_the_node_does_not_have_needs_no_repair() {
    let xid = |address: &str, code: u32| format!("NVRM: Xid (PCI:{address}): {code}, pid=4711, name=python3, a text");
    let sxid = |address: &str| format!("nvidia-nvswitch0: SXid (PCI:{address}): 20034, Fatal, Link 32 LTSSM Fault Up");
    let cluster = KubernetesFacts { node: Some("gpu-1".into()), gpu_capacity: Some(8), ..KubernetesFacts::default() };
    for (base, here, elsewhere) in [
        ("l40s-4-idle", "0000:16:00", "0000:00:05"),
        ("healthy-h100-8", "0000:18:00", "0000:00:05"),
        ("healthy-t4-1", "0000:00:1e", "0000:af:00"),
    ] {
        for code in [48, 62, 74, 94, 95, 109, 119] {
            let foreign = alone(&with_lines(base, &[(30, &xid(elsewhere, code))]));
            assert_eq!(severity(&foreign, "event-of-absent-device"), Some(Severity::Warning), "{}", told(&foreign));
            assert_eq!(foreign.findings.iter().filter(|finding| finding.severity > Severity::Info).count(), 1);
            assert_no_repair(&foreign);
            let own = alone(&with_lines(base, &[(30, &xid(here, code))]));
            assert_eq!(severity(&own, "event-of-absent-device"), None, "{}", told(&own));
        }
        // A GPU that fell off the bus can be gone from it, and so can one that Kubernetes still counts.
        let lost = with_lines(base, &[(30, &xid(elsewhere, 62)), (29, &xid(elsewhere, 79))]);
        assert_eq!(severity(&alone(&lost), "event-of-absent-device"), None);
        if base == "l40s-4-idle" {
            let counted = diagnose(&with_lines(base, &[(30, &xid(elsewhere, 62))]), &cluster);
            assert_eq!(severity(&counted, "event-of-absent-device"), None, "{}", told(&counted));
        }
    }
    for (base, address, is_here) in [
        ("l40s-4-idle", "0000:07:00.0", false),
        ("a100-mig-8", "0000:f9:00.0", false),
        ("a100-mig-8", "0000:c3:00.0", true),
        ("healthy-h100-8", "0000:07:00.0", true),
    ] {
        let diagnosis = alone(&with_lines(base, &[(30, &sxid(address))]));
        assert_eq!(severity(&diagnosis, "event-of-absent-device").is_none(), is_here, "{}", told(&diagnosis));
        assert_eq!(diagnosis.plan.is_empty(), !is_here, "{}", told(&diagnosis));
    }
}

/// One GPU that the kubelet allocated to two pods is an error, unless something shares it or one of the pods has ended.
#[test]
fn a_gpu_has_one_holder_unless_it_is_shared() {
    let found = |resource: &str, replicas: Option<u32>, live: Option<&[&str]>, device: &str| {
        let mut report = with_lines("l40s-4-idle", &[]);
        let inventory = report.sections.inventory.as_ref().and_then(|section| section.data.as_ref());
        let uuid = inventory.and_then(|inventory| inventory.gpus[1].uuid.clone()).expect("a UUID");
        let device = device.replace("{}", &uuid);
        let kubelet = report.sections.kubelet.as_mut().and_then(|section| section.data.as_mut()).expect("a kubelet");
        kubelet.allocations = ["pod-a", "pod-b"]
            .map(|pod| Allocation {
                pod_uid: pod.to_owned(),
                container: "main".to_owned(),
                resource: resource.to_owned(),
                devices: vec![device.clone()],
                replicas,
                ..Allocation::default()
            })
            .to_vec();
        let live_pod_uids = live.map(|live| live.iter().map(|uid| (*uid).to_owned()).collect());
        let diagnosis = diagnose(&report, &KubernetesFacts { live_pod_uids, ..KubernetesFacts::default() });
        let twice = diagnosis.findings.iter().find(|finding| finding.id == "gpu-allocated-twice");
        twice.map(|finding| finding.evidence.join(" "))
    };
    let both = &["pod-a", "pod-b"][..];
    for live in [None, Some(both)] {
        let line = found("nvidia.com/gpu", None, live, "{}").expect("a finding");
        assert!(line.contains("pod-a") && line.contains("pod-b"), "{line}");
        assert_eq!(found("nvidia.com/gpu", Some(4), live, "{}"), None, "time-slicing");
        assert_eq!(found("nvidia.com/gpu.shared", None, live, "{}"), None);
        assert_eq!(found("nvidia.com/gpu", None, live, "{}::3"), None);
    }
    assert_eq!(found("nvidia.com/gpu", None, Some(&["pod-b"]), "{}"), None, "the other pod has ended");
}
