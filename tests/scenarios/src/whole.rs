//! Healthy nodes for which every source was read: NVML, host, container runtime, kubelet, and the Kubernetes API.
//! `levels`: the state of the host of such a node.

use syringe_core::facts::host::{Host, ServiceLog};
use syringe_core::facts::host_levels::{Clock, Cpus, FileSystem, HostLevels, Level, Limits, Socket};
use syringe_core::facts::kubernetes::gpu_pod::{GpuContainer, GpuPod};
use syringe_core::facts::kubernetes::node::{Component, GpuLabels, NvidiaPod};
use syringe_core::facts::nvidia_stack::{Inotify, NvidiaStack, StackProcess};
use syringe_core::report::Section;

use crate::kubernetes::{nvidia_pod, runtime_class};
use crate::prelude::*;
use crate::stack::{CONFIG, TOOLKIT, containerd, nvidia, plugin_stack, spec, validated};

/// Returns scenarios of healthy nodes for which every source was read.
pub(crate) fn scenarios() -> Vec<Scenario> {
    let whole = |name, base, build: fn() -> Node| {
        healthy(name, "Everything was read, and nothing is wrong.")
            .must_not(ANY_WARNING)
            .cluster(kubernetes(base))
            .node(build)
    };
    vec![
        whole("whole-h100-8", "healthy-h100-8", || node("healthy-h100-8")),
        whole("whole-a100-mig-8", "a100-mig-8", || node("a100-mig-8")),
        whole("whole-gb200-4", "gb200-4", || node("gb200-4")),
        whole("whole-l40s-4", "l40s-4-idle", || node("l40s-4-idle")),
        whole("whole-t4-1", "healthy-t4-1", || node("healthy-t4-1")),
    ]
}

fn node(base: &str) -> Node {
    let stack = validated(plugin_stack(["nvidia-gpu.sock"]));
    let names: Vec<String> = ["all".to_owned()].into_iter().chain(devices(base)).collect();
    let mut specification = spec();
    specification.devices = names;
    Node::of_base(base)
        .container_runtime(containerd(CONFIG, 2, [nvidia(TOOLKIT)]).with(|runtime| runtime.cdi_enabled = Some(true)))
        .cdi([specification])
        .nvidia_stack(NvidiaStack {
            processes: vec![StackProcess { pid: 6120, ..stack.processes[0].clone() }],
            inotify: Some(Inotify { instances_of_root: Some(60), ..stack.inotify.clone().unwrap_or_default() }),
            ..stack
        })
        .host(|host| {
            host.levels = Some(levels());
            if base == "healthy-t4-1" {
                // A small virtual machine has one socket.
                host.levels.iter_mut().for_each(|levels| levels.sockets.clear());
            }
            (host.services, host.service_logs) = services(host);
        })
}

/// Returns the processes of the daemons, which started a minute after the boot, and the end of their logs.
fn services(host: &Host) -> (Vec<StackProcess>, Vec<ServiceLog>) {
    let uptime = host.uptime_seconds.expect("an uptime").cast_signed();
    let at = Some(ago(seconds(uptime - 60)));
    let daemons = [
        (&host.daemons.persistenced, "nvidia-persiste", None),
        (&host.daemons.fabric_manager, "nv-fabricmanage", Some("fabricmanager")),
        (&host.daemons.imex, "nvidia-imex", Some("nvidia-imex")),
        (&host.daemons.dcgm, "nv-hostengine", None),
    ];
    let (mut processes, mut logs) = (Vec::new(), Vec::new());
    for ((_, name, log), pid) in daemons.into_iter().zip(1900..).filter(|((runs, ..), _)| **runs == Some(true)) {
        processes.push(StackProcess { name: name.to_owned(), pid, pod_uid: None, started_at: at });
        logs.extend(log.map(|service| ServiceLog {
            service: service.to_owned(),
            version: host.driver.loaded.clone(),
            starts: 1,
            written_at: at,
            last_error: None,
        }));
    }
    (processes, logs)
}

/// Returns the state of a host on which all resources are sufficient and complete.
pub(crate) fn levels() -> HostLevels {
    const GIB: u64 = 1 << 30;
    let level = |used, limit| Some(Level { used, limit });
    HostLevels {
        file_systems: vec![FileSystem {
            paths: ["/", "/var/lib/kubelet", "/var/lib/containerd", "/var/log", "/tmp"].map(str::to_owned).to_vec(),
            kind: "ext4".to_owned(),
            total_bytes: 1759 * GIB,
            available_bytes: 1201 * GIB,
            inodes: Some(117_194_752),
            inodes_free: Some(115_020_411),
            ..FileSystem::default()
        }],
        clock: Some(Clock { is_synchronized: Some(true), service: text("chronyd") }),
        limits: Some(Limits {
            threads: level(6200, 4_194_304),
            open_files: level(22_400, 2_466_170),
            connections: level(1900, 1_048_576),
        }),
        cpus: Some(Cpus {
            present: 128,
            online: 128,
            smt: None,
            frequency_driver: text("acpi-cpufreq"),
            governors: [("performance".to_owned(), 32)].into(),
            minimum_megahertz: Some(1500),
            maximum_megahertz: Some(3700),
        }),
        sockets: [0, 1].map(|socket| Socket { socket, cpus: 64, memory_bytes: 1007 * GIB }).to_vec(),
        // The taint bits for a proprietary, out-of-tree, unsigned module.
        kernel_taint: Some(12_289),
        ..HostLevels::default()
    }
}

/// Returns the names of the CDI devices: UUIDs of GPUs or MIG devices.
fn devices(base: &str) -> Vec<String> {
    let report = Node::of_base(base).report;
    let kubelet = Section::data_of(&report.sections.kubelet).expect("the kubelet");
    kubelet.registered.iter().flat_map(|registered| registered.devices.clone()).collect()
}

/// Returns the data of the API about a node with the GPU Operator: labels and pods of the operator, and the pods that
/// use GPUs.
fn kubernetes(base: &str) -> KubernetesFacts {
    let report = Node::of_base(base).report;
    let name = report.hostname.clone().expect("a name");
    let count = u32::try_from(Section::data_of(&report.sections.inventory).expect("it").gpus.len()).expect("few");
    let kubelet = Section::data_of(&report.sections.kubelet).expect("the kubelet");
    let is_mig = kubelet.registered.iter().any(|registered| registered.resource.contains("mig-"));
    let processes =
        Section::data_of(&report.sections.processes).map(|all| all.processes.as_slice()).unwrap_or_default();
    let mut uids: Vec<String> = kubelet.allocations.iter().map(|allocation| allocation.pod_uid.clone()).collect();
    uids.extend(processes.iter().filter_map(|process| process.pod_uid.clone()));
    let stack = uuid(&["stack", "nvidia-device-plugin"]);
    uids.push(stack.clone());
    uids.sort_unstable();
    uids.dedup();
    let pod = |uid: &str| {
        let own = kubelet.allocations.iter().filter(|allocation| allocation.pod_uid == uid);
        let containers = own.map(|allocation| GpuContainer {
            name: allocation.container.clone(),
            requests: [(allocation.resource.clone(), allocation.devices.len() as u64)].into(),
            running_since: Some(ago(days(3))),
        });
        GpuPod {
            namespace: "workloads".to_owned(),
            name: format!("pod-{}", &uid[..8]),
            uid: uid.to_owned(),
            phase: "Running".to_owned(),
            created: Some(ago(days(3))),
            observed: Some(ago(days(3))),
            containers: containers.collect(),
            ..GpuPod::default()
        }
    };
    let with_gpus = uids.iter().filter(|uid| kubelet.allocations.iter().any(|allocation| allocation.pod_uid == **uid));
    KubernetesFacts {
        gpu_label_count: Some(count),
        gpu_capacity: Some(if is_mig { 0 } else { count }),
        gpu_allocatable: Some(if is_mig { 0 } else { count }),
        other_gpu_resources: is_mig,
        gpu_dra: Some(false),
        gpu_plugin_in_cluster: Some(true),
        gpu_pods: Some(with_gpus.map(|uid| pod(uid)).collect()),
        live_pod_uids: Some(uids),
        read_at: report.taken_at,
        ready: Some(true),
        ready_since: Some(ago(days(6))),
        os_image: report.sections.host.as_ref().and_then(|host| host.data.as_ref()?.operating_system.clone()),
        runtime_version: text("containerd://1.7.27"),
        labels: labels(is_mig),
        nvidia_pods: Some(operator_pods(&stack)),
        pci_label_elsewhere: Some(true),
        runtime_classes: runtime_class("nvidia", "workloads/pod-a"),
        ..cluster(&name)
    }
}

fn labels(is_mig: bool) -> GpuLabels {
    let parts = [
        "container-toolkit",
        "dcgm-exporter",
        "device-plugin",
        "driver",
        "gpu-feature-discovery",
        "operator-validator",
    ];
    GpuLabels {
        deploy: parts.iter().map(|part| ((*part).to_owned(), "true".to_owned())).collect(),
        mig_config: text(if is_mig { "all-1g.10gb" } else { "all-disabled" }),
        mig_config_state: text("success"),
        driver_upgrade_state: text("upgrade-done"),
        pci_present: true,
        feature_discovery: true,
        ..GpuLabels::default()
    }
}

fn operator_pods(plugin_uid: &str) -> Vec<NvidiaPod> {
    let pods = [
        ("nvidia-driver-daemonset", Component::Driver, "nvidia-driver-ctr"),
        ("nvidia-container-toolkit-daemonset", Component::ContainerToolkit, "nvidia-container-toolkit-ctr"),
        ("nvidia-device-plugin-daemonset", Component::DevicePlugin, "nvidia-device-plugin"),
        ("nvidia-operator-validator", Component::Validator, "nvidia-operator-validator"),
        ("gpu-feature-discovery", Component::FeatureDiscovery, "gpu-feature-discovery"),
        ("nvidia-dcgm-exporter", Component::Monitoring, "nvidia-dcgm-exporter"),
    ];
    let pod = |(owner, component, container): (&str, Component, &str)| {
        let pod = nvidia_pod(&format!("gpu-operator/{owner}-x7p2q"), component, container, days(6));
        let uid = if component == Component::DevicePlugin { plugin_uid.to_owned() } else { uuid(&["stack", owner]) };
        let runtime_class =
            (component != Component::Driver && component != Component::ContainerToolkit).then(|| "nvidia".to_owned());
        NvidiaPod { uid, owner: owner.to_owned(), created: Some(ago(days(6))), runtime_class, ..pod }
    };
    pods.into_iter().map(pod).collect()
}
