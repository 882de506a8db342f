//! Tests of pods that the kubelet rejected (topology, devices of deleted pods, device plugin): each rejection with and
//! without the node facts that explain it.

use jiff::Timestamp;

use crate::diagnose;
use crate::explanation::tests::{Cause, Certainty, PodEvent, PodFacts, cause_of, explain, failed, node, time};
use crate::explanation::types::Explanation;
use crate::finding::{Diagnosis, Finding};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::host::Host;
use syringe_core::facts::inventory::GpuInventory;
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind};
use syringe_core::facts::kubelet::{Allocation, RegisteredDevices};
use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::facts::topology::{GpuTopology, Topology};
use syringe_core::report::{Report, Section};

const BOOKS: &str = "Allocate failed due to requested number of devices unavailable for nvidia.com/gpu. Requested: 1, \
    Available: 0, which is unexpected";
const UNHEALTHY: &str = "Allocate failed due to no healthy devices present; cannot allocate unhealthy devices \
    nvidia.com/gpu, which is unexpected";
const PREFERRED: &str = "Allocate failed due to device plugin GetPreferredAllocation rpc failed with err: rpc error: code = \
    Unknown desc = error getting list of preferred allocation devices: unable to get device link information: …, which is \
    unexpected";

/// Creates a pod that the kubelet rejected at 02:10.
fn refused(reason: &str, message: &str) -> PodFacts {
    let event = PodEvent {
        time: Some(time("02:10:00")),
        reason: reason.into(),
        message: message.into(),
        count: 1,
        ..PodEvent::default()
    };
    PodFacts {
        phase: "Failed".into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        containers: Vec::new(),
        events: vec![event],
        gpus_requested: 4,
        ..failed(1, "Error")
    }
}

/// Creates a healthy node with `count` GPUs in two NUMA nodes. The GPUs with these indices are allocated to other pods.
fn machine(count: u32, held: &[u32]) -> Report {
    let mut report = node(Vec::new());
    let uuid = |index: u32| format!("GPU-{index}");
    let inventory = report.sections.inventory.as_mut().and_then(|section| section.data.as_mut()).expect("an inventory");
    let address = |index: u32| syringe_core::pci::PciAddress::parse(&format!("0000:{:02x}:00.0", 0x10 + index));
    inventory.gpus = (0..count)
        .map(|index| GpuInventory {
            index,
            uuid: Some(uuid(index)),
            pci_address: address(index),
            persistence_mode: Some(true),
            ..GpuInventory::default()
        })
        .collect();
    let topology = (0..count).map(|index| GpuTopology {
        index,
        uuid: Some(uuid(index)),
        numa_node: Some(index / (count / 2)),
        ..GpuTopology::default()
    });
    report.sections.topology =
        Some(Section::read(Topology { gpus: topology.collect(), ..Topology::default() }, Vec::new()));
    let kubelet = report.sections.kubelet.as_mut().and_then(|section| section.data.as_mut()).expect("allocations");
    kubelet.registered =
        vec![RegisteredDevices { resource: "nvidia.com/gpu".into(), devices: (0..count).map(uuid).collect() }];
    kubelet.allocations = held
        .iter()
        .map(|index| Allocation {
            pod_uid: "other".into(),
            container: "main".into(),
            resource: "nvidia.com/gpu".into(),
            devices: vec![uuid(*index)],
            ..Allocation::default()
        })
        .collect();
    report
}

fn explained(pod: &PodFacts, report: &Report, live: &[&str]) -> Explanation {
    let live = live.iter().map(|uid| (*uid).to_owned()).collect();
    let cluster = KubernetesFacts {
        node: Some("gpu-2".into()),
        gpu_capacity: Some(8),
        gpu_allocatable: Some(8),
        live_pod_uids: Some(live),
        ..KubernetesFacts::default()
    };
    let diagnosis = diagnose(report, &cluster);
    explain(pod, Some((report, &diagnosis)), None)
}

#[test]
fn a_topology_refusal_counts_the_free_gpus_of_each_numa_node() {
    let pod = refused("TopologyAffinityError", "Resources cannot be allocated with Topology locality");
    let evidence = |held: &[u32]| {
        let explained = explained(&pod, &machine(8, held), &["other"]);
        assert_eq!((explained.cause, explained.certainty), (Cause::Node, Certainty::Certain), "{}", explained.summary);
        (explained.summary, explained.evidence.join("\n"), explained.action.text)
    };
    // Two GPUs of each NUMA node are allocated. Four GPUs are free, but at most two on one NUMA node.
    let (summary, spread, action) = evidence(&[0, 1, 4, 5]);
    assert!(summary.contains("4 GPUs are free, at most 2 of them on one"), "{summary}");
    assert!(spread.contains("requests 4 GPUs; free on gpu-2 now: 2 on NUMA node 0, 2 on NUMA node 1"), "{spread}");
    assert!(action.contains("free 2 more"), "{action}");
    // Four GPUs are free, all on one NUMA node: another resource did not fit, or the GPUs were not free at that time.
    let (summary, together, action) = evidence(&[0, 1, 2, 3]);
    assert!(!summary.contains("GPUs are free"), "{summary}");
    assert!(together.contains("0 on NUMA node 0, 4 on NUMA node 1"), "{together}");
    assert!(action.contains("CPUs, memory"), "{action}");
    let (.., action) = evidence(&[0, 1, 2, 3, 4, 5]);
    assert!(action.contains("gpu-2 has 2"), "{action}");
}

#[test]
fn a_topology_refusal_does_not_count_the_devices_of_deleted_pods() {
    let pod = refused("TopologyAffinityError", "Resources cannot be allocated with Topology locality");
    let pod = PodFacts { live_pod_uids: Some(vec!["another".into()]), ..pod };
    let explained = explained(&pod, &machine(8, &[0, 1, 4]), &["another"]);
    let evidence = explained.evidence.join("\n");
    assert!(evidence.contains("free on gpu-2 now: 4 on NUMA node 0, 4 on NUMA node 1"), "{evidence}");
}

#[test]
fn free_gpus_are_not_counted_where_they_are_shared_or_not_known() {
    let pod = refused("TopologyAffinityError", "Resources cannot be allocated with Topology locality");
    let mut shared = machine(8, &[0]);
    let kubelet = shared.sections.kubelet.as_mut().and_then(|section| section.data.as_mut()).expect("allocations");
    kubelet.allocations[0].replicas = Some(1);
    let mut unknown = machine(8, &[0]);
    let topology = unknown.sections.topology.as_mut().and_then(|section| section.data.as_mut()).expect("a topology");
    topology.gpus[3].numa_node = None;
    for report in [shared, unknown] {
        let explained = explained(&pod, &report, &["other"]);
        assert!(!explained.evidence.iter().any(|line| line.contains("NUMA node 0")), "{:?}", explained.evidence);
        assert!(explained.action.text.contains("topologyManagerPolicy"), "{}", explained.action.text);
    }
}

#[test]
fn a_kubelet_that_refuses_pods_for_devices_of_deleted_pods_must_be_restarted() {
    let pod = refused("UnexpectedAdmissionError", BOOKS);
    let report = machine(8, &[0, 1, 2, 3, 4, 5, 6, 7]);
    let finding = Finding {
        id: "kubelet-allocations-not-released".into(),
        severity: Severity::Critical,
        title: "The kubelet refuses pods for GPUs that are free".into(),
        ..Finding::default()
    };
    let diagnosis = Diagnosis { findings: vec![finding], ..Diagnosis::default() };
    let stale = explain(&pod, Some((&report, &diagnosis)), None);
    assert!(
        stale.summary.contains("1 requested, 0 available; the kubelet counts devices of deleted pods"),
        "{}",
        stale.summary
    );
    assert!(stale.action.text.starts_with("Restart the kubelet of gpu-2"), "{}", stale.action.text);
    // Allocations of deleted pods alone are no proof, because the kubelet releases them when it admits the next pod.
    for live in ["other", "somebody-else"] {
        let full = explained(&pod, &report, &[live]);
        assert!(full.summary.contains("all devices are allocated"), "{}", full.summary);
        assert!(!full.action.text.contains("estart the kubelet"), "{}", full.action.text);
    }
    let free = explained(&pod, &machine(8, &[0, 1]), &["other"]);
    assert!(
        free.evidence.iter().any(|line| line.contains("2 of 8 nvidia.com/gpu allocated now")),
        "{:?}",
        free.evidence
    );
    assert!(free.action.text.contains("is rejected again"), "{}", free.action.text);
}

/// Creates a node that booted at this time on the day of the report.
fn booted(at: &str) -> Report {
    let mut report = machine(8, &[]);
    let taken_at = report.taken_at.expect("a time");
    let up = taken_at.duration_since(time(at)).as_secs();
    let host = Host { uptime_seconds: u64::try_from(up).ok(), ..Host::default() };
    report.sections.host = Some(Section::read(host, Vec::new()));
    report
}

#[test]
fn a_pod_that_came_before_the_device_plugin_after_a_boot_is_told_so() {
    let pod = refused("UnexpectedAdmissionError", UNHEALTHY);
    let after_boot = explained(&pod, &booted("02:09:00"), &[]);
    assert!(after_boot.summary.contains("its node had just booted"), "{}", after_boot.summary);
    assert!(after_boot.evidence.iter().any(|line| line.contains("60 s before")), "{:?}", after_boot.evidence);
    assert_eq!(after_boot.action.code, ActionCode::RestartPod);
    // A boot long before the rejection, or after it, is not the reason.
    for at in ["00:00:30", "02:30:00"] {
        let other = explained(&pod, &booted(at), &[]);
        assert!(other.summary.contains("no healthy device") && !other.summary.contains("booted"), "{}", other.summary);
    }
}

#[test]
fn a_lost_gpu_that_stops_the_device_plugin_is_the_gpu_and_the_plugin_is_not_blamed() {
    let pod = refused("UnexpectedAdmissionError", PREFERRED);
    let mut report = machine(8, &[]);
    let fall = KernelEvent {
        kind: KernelEventKind::Xid,
        code: Some(79),
        pci_address: syringe_core::pci::PciAddress::parse("0000:13:00.0"),
        count: 1,
        first: Some(time("02:05:00")),
        last: Some(time("02:05:00")),
        raw: "NVRM: Xid 79".into(),
        ..KernelEvent::default()
    };
    let log = report.sections.xid.as_mut().and_then(|section| section.data.as_mut()).expect("a log");
    log.events.push(fall);
    // NVML lists seven GPUs: the eighth is gone.
    let inventory = report.sections.inventory.as_mut().and_then(|section| section.data.as_mut()).expect("an inventory");
    inventory.gpus.remove(3);
    let lost = explained(&pod, &report, &[]);
    assert_eq!((lost.cause, lost.certainty), (Cause::Gpu, Certainty::Certain), "{}", lost.summary);
    assert!(lost.summary.contains("fell off the PCIe bus"), "{}", lost.summary);
    assert!(!lost.action.text.contains("plugin"), "{}", lost.action.text);
    let unhealthy = explained(&refused("UnexpectedAdmissionError", UNHEALTHY), &report, &[]);
    assert_eq!(unhealthy.cause, Cause::Gpu, "{}", unhealthy.summary);
    assert!(unhealthy.summary.contains("fell off the PCIe bus"), "{}", unhealthy.summary);
    assert_eq!(unhealthy.action.text, lost.action.text.clone() + " Then recreate the pod.");
    let healthy = explained(&pod, &machine(8, &[]), &[]);
    assert_eq!(healthy.cause, Cause::Node, "{}", healthy.summary);
    assert!(healthy.action.text.contains("device plugin's log"), "{}", healthy.action.text);
}

#[test]
fn more_shares_than_one_are_the_pods_own() {
    let message = "Allocate failed due to rpc error: code = Unknown desc = maximum request size for shared resources is 1; \
        found 2, which is unexpected";
    let explained = cause_of(&refused("UnexpectedAdmissionError", message), &machine(8, &[]));
    assert_eq!(
        (explained.cause, explained.action.code),
        (Cause::Application, ActionCode::None),
        "{}",
        explained.summary
    );
}

#[test]
fn the_event_tells_when_it_was_refused() {
    let mut pod = refused("UnexpectedAdmissionError", UNHEALTHY);
    pod.events.clear();
    // Without the event, the time at which the kubelet first saw the pod is used: 02:00.
    let first_look: Timestamp = pod.scheduled.expect("a time");
    assert_eq!(first_look, time("02:00:00"));
    let explained = explained(&pod, &booted("01:59:00"), &[]);
    assert!(explained.summary.contains("had just booted"), "{}", explained.summary);
}

#[test]
fn a_request_above_the_maximum_of_a_plugin_is_to_be_changed() {
    let rpc = "Allocate failed due to rpc error: code = Unknown desc = ";
    for (message, is_maximum) in [
        ("invalid request for sharing GPU (MPS), at most 1 nvidia.com/gpu can be requested on GPU nodes", true),
        ("cannot request more than 2 example.com/gpu for one container", true),
        ("at most 3 attempts were made", false),
    ] {
        let explained = explain(&refused("UnexpectedAdmissionError", &format!("{rpc}{message}")), None, None);
        assert_eq!(explained.action.code == ActionCode::ChangeRequest, is_maximum, "{message}: {}", explained.summary);
        assert_eq!(explained.summary.contains("the pod requests 4"), is_maximum, "{message}: {}", explained.summary);
    }
}
