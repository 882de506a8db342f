//! `change`: changes a base node to a virtual machine with RoCE and time-slicing, for facts that no base node has.

use syringe_core::facts::ecc::Ecc;
use syringe_core::facts::host::Host;
use syringe_core::facts::inventory::Inventory;
use syringe_core::facts::kubelet::Kubelet;
use syringe_core::facts::kubernetes::daemon_set::{DaemonSetFacts, DaemonSetRole};
use syringe_core::facts::kubernetes::node::{Component, KubernetesFacts, NvidiaPod, RuntimeClassUse};
use syringe_core::facts::rates::{Activity, Sample};
use syringe_core::facts::telemetry::Telemetry;
use syringe_core::facts::topology::{Bond, C2cLinks, NicInterface, Topology};
use syringe_core::report::{Report, Section};

fn data<T>(section: &mut Option<Section<T>>) -> &mut T {
    section.as_mut().and_then(|section| section.data.as_mut()).expect("the section")
}

pub(super) fn change(report: &mut Report, cluster: &mut KubernetesFacts) {
    let sections = &mut report.sections;
    let inventory: &mut Inventory = data(&mut sections.inventory);
    inventory.gpus.iter_mut().for_each(|gpu| gpu.virtualization_mode = Some("passthrough".into()));
    let telemetry: &mut Telemetry = data(&mut sections.telemetry);
    for gpu in &mut telemetry.gpus {
        gpu.fan_percent = Some(30);
        gpu.sample = Some(sample());
    }
    network(data(&mut sections.topology));
    let ecc: &mut Ecc = data(&mut sections.ecc);
    for gpu in &mut ecc.gpus {
        gpu.unrepairable_memory = Some(false);
        let rows = gpu.remapped_rows.as_mut().expect("row remapping");
        (rows.correctable_inactive, rows.uncorrectable_inactive) = (Some(0), Some(0));
    }
    let host: &mut Host = data(&mut sections.host);
    (host.numa_balancing, host.driver.module_listed) = (Some(false), Some(true));
    let kubelet: &mut Kubelet = data(&mut sections.kubelet);
    // Each replica belongs to a different GPU.
    for allocation in &mut kubelet.allocations {
        allocation.replicas = u32::try_from(allocation.devices.len()).ok();
    }
    kubernetes(cluster);
}

/// Returns the second reading of a healthy GPU, for a caller who requests it.
fn sample() -> Sample {
    let activity = Activity {
        sm_percent: Some(93.4),
        tensor_percent: Some(41.2),
        memory_bandwidth_percent: Some(57.9),
        pcie_sent_mebibytes_per_second: Some(812.0),
        pcie_received_mebibytes_per_second: Some(1290.5),
        nvlink_sent_mebibytes_per_second: Some(181_220.0),
        nvlink_received_mebibytes_per_second: Some(180_914.5),
    };
    Sample {
        window_ms: 1000,
        pcie_replays: Some(0),
        corrected_memory_errors: Some(0),
        c2c_errors: Some(0),
        activity: Some(Box::new(activity)),
        ..Sample::default()
    }
}

/// Replaces InfiniBand by RoCE, and adds a bond of the management network.
fn network(topology: &mut Topology) {
    for gpu in &mut topology.gpus {
        gpu.c2c = Some(C2cLinks { count: 10, megabytes_per_second: Some(44_712), ..C2cLinks::default() });
    }
    for (at, port) in topology.nics.iter_mut().enumerate() {
        port.link_layer = Some("Ethernet".into());
        port.roce_v2_address = Some(true);
        port.interface = Some(NicInterface {
            name: format!("eth{at}"),
            operational_state: Some("up".into()),
            enabled: Some(true),
            ..NicInterface::default()
        });
    }
    let members = ["eth20", "eth21"].map(str::to_owned).to_vec();
    topology.bonds = vec![Bond { name: "bond0".into(), default_route: true, up: members, down: Vec::new() }];
}

fn kubernetes(cluster: &mut KubernetesFacts) {
    cluster.instance_type = Some("p5.48xlarge".into());
    cluster.taints = vec!["nvidia.com/gpu=present:NoSchedule".into()];
    cluster.labels.sharing_strategy = Some("time-slicing".into());
    let class = RuntimeClassUse {
        name: "nvidia".into(),
        handler: Some("nvidia".into()),
        pods: vec!["gpu-operator/nvidia-device-plugin-daemonset-x7p2q".into()],
    };
    cluster.runtime_classes = Some(vec![class]);
    let pods = cluster.nvidia_pods.as_deref().unwrap_or_default();
    // Other rules evaluate the pods of the plugin and the pods that the plugin needs.
    let pod = NvidiaPod {
        name: "nvidia-dcgm-exporter-x7p2q".into(),
        uid: "0b6c1d52-8c1f-4a55-9a0e-5f6f0e3d7c11".into(),
        component: Component::Monitoring,
        owner: "nvidia-dcgm-exporter".into(),
        ..pods.iter().find(|pod| pod.component == Component::DevicePlugin).cloned().expect("a plugin")
    };
    cluster.daemon_sets = Some(vec![DaemonSetFacts {
        namespace: "gpu-operator".into(),
        name: "nvidia-dcgm-exporter".into(),
        role: DaemonSetRole::GpuStack,
        pod: Some(pod),
        ..DaemonSetFacts::default()
    }]);
}
