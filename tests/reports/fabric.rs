//! Cases of public reports about NVLink, fabric, IMEX, GPUDirect RDMA, PCIe ACS and shared memory.

use demo_cluster::Fixture;
use serde_json::json;
use syringe_core::facts::topology::{Fabric, GpuDirect};

use crate::case::Case;
use crate::cluster::{at, changed, event, pod, scenario, section, status};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::of_node(40, scenario("fabric-manager-down"))
            .finding("fabric-manager-not-running", &["not registered"])
            .twin(scenario("healthy-h100-8")),
        // The probe does not read which module is missing.
        Case::of_node(41, unregistered()).beside(&["fabric-not-registered"]),
        Case::of_node(42, dead_links()).finding("nvlink-down", &["0 of 18 NVLinks up"]).twin(scenario("gb200-4")),
        Case::of_node(43, scenario("gb200-link-down"))
            .finding("nvlink-fault", &["Xid 149"])
            .twin(scenario("gb200-link-noise")),
        // The probe reads neither the log of the IMEX daemon, which contains the reason, nor the other daemon of the host.
        Case::of_pod(44, "research/imex", ended("imex", "nvidia-imex: another instance is running"))
            .beside(&["application"]),
        Case::of_pod(46, "research/imex", not_ready()).beside(&["application"]),
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

/// Returns a node with the proprietary driver, which needs `nvidia_peermem`: the module is loaded, but not registered, or it is not loaded.
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

/// Returns a cluster with a pod that is running but not Ready.
fn not_ready() -> Fixture {
    let running = status("Running", json!({"running": {"startedAt": at("02:00:05")}}));
    let mut imex = pod("imex", 0, running);
    let ready = json!({"type": "Ready", "status": "False", "reason": "ContainersNotReady"});
    imex.status.as_mut().unwrap().conditions.as_mut().unwrap().push(serde_json::from_value(ready).unwrap());
    let mut fixture = scenario("gb200-4").with_pod(imex);
    fixture.events.push(event("imex", "Unhealthy", "Readiness probe failed: compute-domain daemon is not ready"));
    fixture
}

/// Returns a cluster with a pod whose program exited with code 1 and this message.
fn ended(name: &str, message: &str) -> Fixture {
    let ended = json!({"terminated": {"exitCode": 1, "reason": "Error", "message": message, "startedAt": at("02:00:05"),
        "finishedAt": at("02:01:19")}});
    scenario("healthy-h100-8").with_pod(pod(name, 1, status("Failed", ended)))
}
