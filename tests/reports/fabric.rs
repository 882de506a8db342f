//! Cases of public reports about NVLink, fabric, IMEX, GPUDirect RDMA, PCIe ACS and shared memory.

use demo_cluster::Fixture;
use serde_json::json;
use syringe_core::facts::nvidia_stack::StackProcess;
use syringe_core::facts::stack_log::StackLog;
use syringe_core::facts::topology::{Fabric, GpuDirect};

use crate::case::Case;
use crate::cluster::{at, changed, event, from_json, pod, scenario, section, status};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::of_node(40, scenario("fabric-manager-down"))
            .finding("fabric-manager-not-running", &["not registered"])
            .twin(scenario("healthy-h100-8")),
        Case::of_node(41, scenario("fabric-without-modules"))
            .finding("fabric-not-registered", &["mlx5_ib, ib_umad"])
            .twin(unregistered()),
        Case::of_node(42, dead_links()).finding("nvlink-down", &["0 of 18 NVLinks up"]).twin(scenario("gb200-4")),
        Case::of_node(43, scenario("gb200-link-down"))
            .finding("nvlink-fault", &["Xid 149"])
            .twin(scenario("gb200-link-noise")),
        Case::of_node(44, in_domain(false, &[SESSION_IN_USE], &[(IMEX, false), (DAEMON, true)]))
            .finding("imex-service-beside-compute-domain", &["is in no pod", DAEMON])
            .beside(&["compute-domain-node-not-ready"])
            .twin(in_domain(true, &[], &[(DAEMON, true), (IMEX, true)])),
        Case::of_node(46, in_domain(false, &[NO_INTERFACE], &[(DAEMON, true)]))
            .finding("compute-domain-node-not-ready", &["has no address of this node", "ml/train is NotReady"])
            .twin(in_domain(true, &[], &[(DAEMON, true), (IMEX, true)])),
        Case::of_pod(46, &format!("{DRA}/{DAEMON_POD}"), in_domain(false, &[NO_INTERFACE], &[(DAEMON, true)]))
            .cause("node", &["has no address of this node"])
            .beside(&["node"]),
        // The domain counts as ready, but the program of the daemon has ended.
        Case::of_node(46, in_domain(true, &[], &[(DAEMON, true)]))
            .finding("compute-domain-node-not-ready", &["nvidia-imex does not run in it"])
            .twin(in_domain(true, &[], &[(DAEMON, true), (IMEX, true)])),
        Case::of_pod(
            47,
            "research/train",
            waits("train", "Failed to prepare dynamic resources: channel-0 is already allocated to different claim"),
        )
        .cause("cluster", &["already allocated to different claim"]),
        Case::of_node(48, with_access_control())
            .finding("pcie-acs-redirects", &["ACS redirects transfers"])
            .twin(scenario("l40s-4-idle")),
        Case::of_node(49, peer_memory(false))
            .finding("gpudirect-rdma-unavailable", &["nvidia_peermem is not loaded"])
            .twin(scenario("healthy-h100-8")),
        Case::of_node(50, peer_memory(true))
            .finding("nvidia-peermem-not-registered", &["clients in /sys/kernel/mm/memory_peers: none"])
            .twin(scenario("healthy-h100-8")),
        Case::of_pod(51, "research/train", ended("train", SHARED_MEMORY)).beside(&["application"]),
    ]
}

/// Returns a compute tray whose fabric registration is in progress. There are no NVSwitches on PCI.
fn unregistered() -> Fixture {
    changed("gb200-4", |report| {
        for gpu in &mut section(&mut report.sections.topology).gpus {
            gpu.fabric = Some(Fabric { state: "in_progress".into(), ..Fabric::default() });
        }
    })
}

/// Returns a node on which all links of GPU 2 are down, while the links of the other GPUs are up.
fn dead_links() -> Fixture {
    changed("gb200-4", |report| {
        for group in &mut section(&mut report.sections.topology).gpus[2].nvlinks {
            group.active = Some(false);
            group.remote_type = None;
        }
    })
}

/// Returns a node without NVLinks on which the ports of a PCIe switch above two GPUs redirect their transfers.
fn with_access_control() -> Fixture {
    changed("l40s-4-idle", |report| {
        let topology = section(&mut report.sections.topology);
        let ports = topology.gpus[..2].iter().filter_map(|gpu| gpu.pci_address.clone()).collect();
        (topology.matrix[0][1], topology.matrix[1][0]) = ("PIX".into(), "PIX".into());
        topology.gpudirect =
            Some(GpuDirect { acs_ports_read: Some(8), acs_switch_ports: ports, ..GpuDirect::default() });
    })
}

/// Returns a node with the proprietary driver, which needs `nvidia_peermem`: the module is loaded, but not registered,
/// or it is not loaded.
fn peer_memory(is_loaded: bool) -> Fixture {
    changed("healthy-h100-8", |report| {
        let host = section(&mut report.sections.host);
        host.modules.retain(|name| is_loaded || name != "nvidia_peermem");
        host.driver.flavor = Some("proprietary".into());
        let settings = section(&mut report.sections.topology).gpudirect.get_or_insert_default();
        settings.memory_peers = Some(Vec::new());
    })
}

/// Returns a cluster with a pod in ContainerCreating and this warning.
fn waits(name: &str, message: &str) -> Fixture {
    let creating = status("Pending", json!({"waiting": {"reason": "ContainerCreating"}}));
    let mut fixture = scenario("healthy-h100-8").with_pod(pod(name, 1, creating));
    fixture.events.push(event(name, "FailedPrepareDynamicResources", message));
    fixture
}

const SHARED_MEMORY: &str = "NCCL WARN Error while creating shared memory segment";

/// The processes that start IMEX in a pod, and IMEX itself.
const DAEMON: &str = "compute-domain-daemon";
const IMEX: &str = "nvidia-imex";
/// Namespace of the DRA driver, and the pod of the daemon of the domain on the node.
const DRA: &str = "nvidia-dra-driver-gpu";
const DAEMON_POD: &str = "computedomain-daemon-5d1c2d0e-x7k2p";
const DAEMON_UID: &str = "7d1c2d0e-0000-4000-8000-000000000002";
const NO_INTERFACE: &str = "[Nov 21 2026 02:01:38] [ERROR] [tid 39] No matching network interface found for any IP addresses in the node \
                            configuration file /imexd/nodes.cfg";
const SESSION_IN_USE: &str = "[Nov 21 2026 02:01:38] [ERROR] [tid 39] Failed to allocate Imex session: NV_ERR_IN_USE";

/// Returns the compute tray `gpu-1` in a ComputeDomain of two nodes. `ready`: whether the daemon of the domain is ready
/// there. `lines`: the end of its log. `processes`: the name of each process, and whether it runs in the pod of the
/// daemon.
fn in_domain(ready: bool, lines: &[&str], processes: &[(&str, bool)]) -> Fixture {
    let mut fixture = changed("gb200-4", |report| {
        let host = section(&mut report.sections.host);
        host.services = processes
            .iter()
            .zip(7001..)
            .map(|((name, in_pod), pid)| StackProcess {
                name: (*name).to_owned(),
                pid,
                pod_uid: in_pod.then(|| DAEMON_UID.to_owned()),
                started_at: at("02:00:10").parse().ok(),
            })
            .collect();
        host.daemons.imex = Some(processes.iter().any(|(name, _)| *name == IMEX));
        host.stack_log = (!lines.is_empty()).then(|| StackLog {
            pod_uid: DAEMON_UID.to_owned(),
            container: DAEMON.to_owned(),
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
            ..StackLog::default()
        });
    });
    let word = if ready { "True" } else { "False" };
    let state = json!({"running": {"startedAt": at("02:00:05")}});
    fixture.pods.push(from_json(json!({
        "metadata": {"name": DAEMON_POD, "namespace": DRA, "uid": DAEMON_UID, "creationTimestamp": at("02:00:00"),
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "computedomain-daemon-5d1c2d0e", "uid": "d",
                "controller": true}]},
        "spec": {"nodeName": "gpu-1",
            "containers": [{"name": DAEMON, "image": "registry.k8s.io/dra-driver-nvidia/dra-driver-nvidia-gpu:v25.12.0"}]},
        "status": {"phase": "Running",
            "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": at("02:00:01")},
                {"type": "Ready", "status": word, "lastTransitionTime": at("02:00:40")}],
            "containerStatuses": [{"name": DAEMON, "image": "", "imageID": "", "ready": ready, "restartCount": 0, "state": state}]},
    })));
    fixture.nodes[0]
        .labels
        .insert("resource.nvidia.com/computeDomain".into(), "5d1c2d0e-0000-4000-8000-000000000001".into());
    let status = |ready: bool| if ready { "Ready" } else { "NotReady" };
    let entry = |name: &str, ready: bool| json!({"name": name, "status": status(ready), "cliqueID": "c.1", "index": 0});
    fixture.objects.push(json!({"apiVersion": "resource.nvidia.com/v1beta1", "kind": "ComputeDomain",
        "metadata": {"name": "train", "namespace": "ml", "uid": "5d1c2d0e-0000-4000-8000-000000000001", "creationTimestamp": at("01:59:00")},
        "spec": {"numNodes": 2},
        "status": {"status": status(ready), "nodes": [entry("gpu-1", ready), entry("gpu-2", true)]}}));
    fixture
}

/// Returns a cluster with a pod whose program exited with code 1 and this message.
fn ended(name: &str, message: &str) -> Fixture {
    let ended = json!({"terminated": {"exitCode": 1, "reason": "Error", "message": message, "startedAt": at("02:00:05"),
        "finishedAt": at("02:01:19")}});
    scenario("healthy-h100-8").with_pod(pod(name, 1, status("Failed", ended)))
}
