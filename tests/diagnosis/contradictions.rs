//! Tests of findings about facts that contradict each other (labels, devices, MIG layouts, allocations, CDI kinds).
//! Tests of repeated faults of one GPU, of PCIe error counters, and of IMEX.

use diagnosis::diagnose;
use diagnosis::finding::{Diagnosis, Finding, Urgency, Verdict};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::cdi::CdiSpec;
use syringe_core::facts::kubelet::Allocation;
use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::facts::mig::MigDevice;
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

/// Asserts that the diagnosis recommends no repair.
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

/// The same lines appear once for a device that the node does not have, and once for a device that it has.
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
        // A GPU that fell off the bus, or a GPU that Kubernetes still counts, may be missing in every list.
        let lost = with_lines(base, &[(30, &xid(elsewhere, 62)), (29, &xid(elsewhere, 79))]);
        assert_eq!(severity(&alone(&lost), "event-of-absent-device"), None);
        if base == "l40s-4-idle" {
            let four = KubernetesFacts { gpu_capacity: Some(4), ..cluster.clone() };
            let complete = diagnose(&lost, &four);
            assert_eq!(severity(&complete, "event-of-absent-device"), Some(Severity::Warning), "{}", told(&complete));
            assert_no_repair(&complete);
            let counted = diagnose(&with_lines(base, &[(30, &xid(elsewhere, 62))]), &cluster);
            assert_eq!(severity(&counted, "event-of-absent-device"), None, "{}", told(&counted));
        }
    }
    for (base, address, is_here) in [
        ("l40s-4-idle", "0000:07:00.0", false),
        ("gb200-4", "0000:07:00.0", false),
        ("a100-mig-8", "0000:f9:00.0", false),
        ("a100-mig-8", "0000:c3:00.0", true),
        ("healthy-h100-8", "0000:07:00.0", true),
    ] {
        let diagnosis = alone(&with_lines(base, &[(30, &sxid(address))]));
        assert_eq!(severity(&diagnosis, "event-of-absent-device").is_none(), is_here, "{}", told(&diagnosis));
        assert_eq!(diagnosis.plan.is_empty(), !is_here, "{}", told(&diagnosis));
    }
}

/// If the kubelet allocated one GPU to two pods, this is an error, unless the GPU is shared or one of the pods has
/// ended.
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

/// The MIG layout in a label differs from the layout of all GPUs.
#[test]
fn a_mig_layout_that_no_gpu_has_is_shown() {
    let found = |label: &str| {
        let mut report = with_lines("a100-mig-8", &[]);
        let mig = report.sections.mig.as_mut().and_then(|section| section.data.as_mut()).expect("MIG devices");
        let device = mig.gpus.iter().flat_map(|gpu| &gpu.devices).next().cloned().expect("a MIG device");
        for gpu in &mut mig.gpus {
            gpu.devices = vec![MigDevice { profile: Some("3g.40gb".to_owned()), ..device.clone() }; 2];
        }
        let mut cluster = KubernetesFacts::default();
        cluster.labels.mig_config = Some(label.to_owned());
        cluster.labels.mig_config_state = Some("success".to_owned());
        let findings = diagnose(&report, &cluster).findings;
        let line = |finding: &Finding| finding.evidence.iter().any(|line| line.contains("no GPU has a MIG device"));
        findings.iter().find(|finding| line(finding)).map(|finding| finding.severity)
    };
    assert_eq!(found("all-2g.20gb"), Some(Severity::Info));
    for label in ["all-3g.40gb", "all-balanced", "mine", "all-3g.40gb.me"] {
        assert_eq!(found(label), None, "{label}");
    }
}

/// If several processes fault in one copy engine, this is a pattern. Restarts within minutes, page faults and faults of
/// each GPU are not a pattern.
#[test]
fn faults_of_one_copy_engine_single_out_its_gpu() {
    let found = |code: u32, places: &[&str], minutes: i64| {
        let fault =
            |place: &str, pid: u32| format!("NVRM: Xid (PCI:{place}): {code}, pid={pid}, name=python3, Ch 00000010");
        let lines: Vec<String> = (1..4)
            .flat_map(|job| places.iter().zip(0..).map(move |(place, at)| fault(place, 40_000 + job * 10 + at)))
            .collect();
        let each = places.len() as i64;
        let lines: Vec<(i64, &str)> =
            (0..).zip(&lines).map(|(at, line)| (5 + minutes * (3 - at / each), line.as_str())).collect();
        severity(&alone(&with_lines("l40s-4-idle", &lines)), "application-faults-repeat-on-one-gpu")
    };
    for (code, expected) in [(39, Some(Severity::Warning)), (126, Some(Severity::Warning)), (31, None), (43, None)] {
        assert_eq!(found(code, &["0000:16:00"], 150), expected, "{code}");
    }
    assert_eq!(found(39, &["0000:16:00"], 4), None);
    assert_eq!(found(39, &["0000:16:00", "0000:38:00"], 150), None);
}

/// A GPU has no finding of its own if its programs fault as often as those of the other GPUs.
#[test]
fn faults_on_each_gpu_single_out_none() {
    let found = |base: &str, places: &[&str], each: u32, also_here: u32| {
        let fault = |place: &str, job: u32| {
            let pid = 40_000 + job * 10 + place.len() as u32 + u32::from(place.as_bytes()[5]) * 100;
            format!("NVRM: Xid (PCI:{place}): 13, pid={pid}, name=student{pid}, Graphics Exception: ESR 0x504730=0x2b")
        };
        let more = (0..also_here).map(|job| fault(places[0], 500 + job));
        let lines: Vec<String> =
            places.iter().flat_map(|place| (0..each).map(|job| fault(place, job))).chain(more).collect();
        let lines: Vec<(i64, &str)> = (0..).zip(&lines).map(|(at, line)| (300 - at, line.as_str())).collect();
        severity(&alone(&with_lines(base, &lines)), "application-faults-on-one-gpu")
    };
    let l40s = ["0000:16:00", "0000:38:00", "0000:ac:00", "0000:d8:00"];
    let h100 = [
        "0000:18:00",
        "0000:2a:00",
        "0000:3a:00",
        "0000:5d:00",
        "0000:9a:00",
        "0000:ab:00",
        "0000:ba:00",
        "0000:db:00",
    ];
    assert_eq!(found("l40s-4-idle", &l40s, 3, 0), None);
    assert_eq!(found("l40s-4-idle", &l40s[..2], 6, 0), None);
    assert_eq!(found("healthy-h100-8", &h100, 4, 0), None);
    assert_eq!(found("l40s-4-idle", &l40s[..1], 6, 0), Some(Severity::Warning));
    assert_eq!(found("l40s-4-idle", &l40s, 1, 8), Some(Severity::Warning));
}

/// Fatal errors that a PCIe port counted are at least as severe as uncorrected errors.
#[test]
fn a_counter_of_fatal_pcie_errors_is_a_warning() {
    let found = |kind: &str, count: u64| {
        let mut report = with_lines("healthy-h100-8", &[]);
        topology(&mut report).gpus[6].pcie_path[1].aer.insert(kind.to_owned(), count);
        let diagnosis = alone(&report);
        diagnosis.findings.iter().filter(|finding| finding.id.starts_with("pcie-errors")).map(|one| one.severity).max()
    };
    assert_eq!(found("fatal", 1), Some(Severity::Warning));
    assert_eq!(found("fatal", 3), Some(Severity::Warning));
    assert_eq!(found("nonfatal", 220), Some(Severity::Warning));
    assert_eq!(found("nonfatal", 3), None);
    assert_eq!(found("correctable", 20), None);
}

/// IMEX shares memory between the nodes of a rack. Other nodes do not need it.
#[test]
fn imex_that_does_not_run_is_shown_in_a_rack() {
    let found = |base: &str, running: bool| {
        let mut report = with_lines(base, &[]);
        let host = report.sections.host.as_mut().and_then(|section| section.data.as_mut()).expect("a host");
        host.daemons.imex = Some(running);
        severity(&alone(&report), "imex-not-running")
    };
    assert_eq!(found("gb200-4", false), Some(Severity::Info));
    assert_eq!(found("gb200-4", true), None);
    assert_eq!(found("healthy-h100-8", false), None);
    assert_eq!(found("l40s-4-idle", false), None);
}

/// The kind of CDI devices that NVIDIA's runtime requests differs from the kinds of the specifications.
#[test]
fn a_cdi_kind_without_a_specification_is_found() {
    let (report, expected) = &super::scenarios()["whole-h100-8"];
    let found = |kind: Option<&str>, specs: &[&str]| {
        let mut report = report.clone();
        let host = report.sections.host.as_mut().and_then(|section| section.data.as_mut()).expect("a host");
        let toolkit = host.container_runtime.as_mut().and_then(|runtime| runtime.toolkit.as_mut()).expect("a toolkit");
        toolkit.mode = Some("cdi".to_owned());
        toolkit.default_kind = kind.map(str::to_owned);
        let cdi = host.cdi.get_or_insert_default();
        let spec = cdi.specs.first().cloned().unwrap_or_default();
        cdi.specs = specs.iter().map(|kind| CdiSpec { kind: (*kind).to_owned(), ..spec.clone() }).collect();
        severity(&diagnose(&report, &expected.cluster), "cdi-kind-missing")
    };
    assert_eq!(found(Some("nvidia.com/foo"), &["nvidia.com/gpu"]), Some(Severity::Critical));
    assert_eq!(found(Some("management.nvidia.com/gpu"), &["nvidia.com/gpu", "management.nvidia.com/gpu"]), None);
    assert_eq!(found(None, &["nvidia.com/gpu"]), None);
    assert_eq!(found(None, &["k8s.device-plugin.nvidia.com/gpu"]), None);
}

/// A program chooses its name, and the audit system quotes text of programs. Neither is a line of the driver.
#[test]
fn a_quoted_xid_takes_no_verdict_from_a_node() {
    for line in [
        "Out of memory: Killed process 4711 (NVRM: Xid (PCI:0000:16:00): 79) total-vm:1kB, anon-rss:1kB, file-rss:0kB, UID:0",
        "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),task=NVRM: Xid (PCI:0000:16:00): 79,pid=4711,uid=0",
        "INFO: task NVRM: Xid 79:4711 blocked for more than 120 seconds.",
        "audit: type=1400 audit(1.2:3): apparmor=\"DENIED\" name=\"\\x0aNVRM: Xid (PCI:0000:16:00): 79, GPU has fallen off\"",
    ] {
        let diagnosis = alone(&with_lines("l40s-4-idle", &[(30, line)]));
        let gpu = diagnosis.findings.iter().find(|one| one.severity > Severity::Info && one.scope.gpu.is_some());
        assert!(gpu.is_none() && diagnosis.verdict != Verdict::Unknown, "{line}: {}", told(&diagnosis));
    }
}

/// A GPU that NVML can read is not lost, whatever its PCI configuration space returns, and its other sections are also
/// used.
#[test]
fn a_gpu_that_nvml_reads_is_not_lost() {
    let mut report = with_lines("l40s-4-idle", &[]);
    let host = report.sections.host.as_mut().and_then(|section| section.data.as_mut()).expect("a host");
    host.pci_gpus[2].answers = Some(false);
    let diagnosis = alone(&report);
    assert_eq!(severity(&diagnosis, "facts-disagree"), Some(Severity::Warning), "{}", told(&diagnosis));
    assert_no_repair(&diagnosis);
    let mut report = with_lines("l40s-4-idle", &[]);
    report.sections.host.as_mut().and_then(|section| section.data.as_mut()).expect("a host").pci_gpus.clear();
    report.sections.inventory.as_mut().and_then(|section| section.data.as_mut()).expect("an inventory").gpus.clear();
    let cluster = KubernetesFacts { node: Some("gpu-1".into()), gpu_capacity: Some(4), ..KubernetesFacts::default() };
    assert_no_repair(&diagnose(&report, &cluster));
}
