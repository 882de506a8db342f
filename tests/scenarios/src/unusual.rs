//! `unusual_nodes`: 60 healthy nodes with unusual hardware, settings, Kubernetes distributions or earlier events.
//! `published`: the devices that a DRA driver publishes for the GPUs of a node.
//!
//! The author of these nodes did not read the rules. A diagnosis must be healthy and contain no finding above `info`.
//! Each builder changes all facts that such a node would have: NVML, PCI, host, kernel log, kubelet and Kubernetes.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use syringe_core::facts::ecc::{ErrorCounts, GpuEcc, RemapHistogram, RetiredPages};
use syringe_core::facts::inventory::{GpuInventory, LicensableFeature, VgpuLicense};
use syringe_core::facts::kubelet::{Allocation, RegisteredDevices};
use syringe_core::facts::kubernetes::gpu_pod::{GpuContainer, GpuPod};
use syringe_core::facts::kubernetes::node::{Component, ContainerStateKind, DraDevice, GpuLabels, NvidiaPod};
use syringe_core::facts::mig::{GpuMig, MigDevice};
use syringe_core::facts::nvidia_stack::{NvidiaStack, StackProcess, TimestampedFile};
use syringe_core::facts::processes::GpuUse;
use syringe_core::facts::telemetry::{GpuTelemetry, Violation};
use syringe_core::facts::topology::{Fabric, GpuTopology, MissingP2p, NearGpu, NicPort, NvlinkGroup};
use syringe_core::facts::{Mode, Unsupported};
use syringe_core::pci::PciAddress;
use syringe_core::report::{Report, Section};

use crate::benign::links_down;
use crate::kubernetes::{nvidia_pod, runtime_class};
use crate::load::{Load, idle, serving, training};
use crate::node::{NVIDIA_GPU, data, errors, gpu_uuid, pod_uid};
use crate::prelude::*;
use crate::stack::{
    CONFIG, HOST, Runtime, TOOLKIT, containerd, handler, nvidia, nvidia_named, plugin_stack, spec, stack, validated,
};

/// A healthy node.
#[derive(Debug)]
pub struct Unusual {
    /// The name, in kebab case.
    pub name: &'static str,
    /// Why the node is healthy.
    pub why: &'static str,
    build: fn() -> Healthy,
}

impl Unusual {
    /// Creates the report of the node, and the facts from the Kubernetes API.
    ///
    /// # Panics
    /// Panics if a builder changes a part that its base node does not have.
    pub fn read(&self) -> (Report, KubernetesFacts) {
        let (node, cluster) = (self.build)();
        (node.report(), cluster)
    }
}

/// Returns every unusual node.
pub fn unusual_nodes() -> &'static [Unusual] {
    ALL
}

/// A node, and the facts that the Kubernetes API returns about this node.
type Healthy = (Node, KubernetesFacts);

const fn node(name: &'static str, why: &'static str, build: fn() -> Healthy) -> Unusual {
    Unusual { name, why, build }
}

static ALL: &[Unusual] = &[
    node(
        "idle-without-persistence",
        "No daemon keeps the driver loaded, so the driver initializes the idle GPUs for each read.",
        idle_without_persistence,
    ),
    node(
        "idle-board-at-idle-clocks",
        "All eight GPUs are idle, so their clocks and power are low.",
        idle_board_at_idle_clocks,
    ),
    node(
        "all-capped-at-80-percent",
        "An administrator set the power limit of all GPUs to 560 W, and the training job uses all of it.",
        all_capped_at_80_percent,
    ),
    node(
        "one-capped-by-administrator",
        "One card in a slot with less air flow has a lower power limit.",
        one_capped_by_administrator,
    ),
    node(
        "rack-budget-of-57-percent",
        "All cards have a limit of 200 of 350 W, because of the power budget of the rack.",
        rack_budget_of_57_percent,
    ),
    node(
        "mig-with-strategy-single",
        "All GPUs have two MIG devices each, which the plugin advertises as nvidia.com/gpu.",
        mig_with_strategy_single,
    ),
    node(
        "mig-on-three-of-eight",
        "Three GPUs are divided for notebooks, and five whole GPUs run training.",
        mig_on_three_of_eight,
    ),
    node("time-slicing", "Each GPU has four replicas, and eight small services use the two GPUs.", time_slicing),
    node("shared-with-mps", "The plugin shares the GPUs with MPS and renames the resource.", shared_with_mps),
    node(
        "gke-time-sharing",
        "GKE shares one GPU among three pods. Its own plugin names the devices nvidia0/vgpu0.",
        gke_time_sharing,
    ),
    node("hami", "HAMi gives parts of each GPU to pods and advertises ten shares of each GPU.", hami),
    node(
        "volcano-vgpu",
        "The plugin of Volcano advertises shares of the GPUs as volcano.sh/vgpu-number.",
        volcano_vgpu,
    ),
    node(
        "runai-fractions",
        "Pods of Run:ai hold no device: a reservation pod holds the GPU for them.",
        runai_fractions,
    ),
    node(
        "one-card-passed-through",
        "One of four cards is reserved for a virtual machine and bound to vfio-pci.",
        one_card_passed_through,
    ),
    node(
        "kubevirt-has-two-of-four-cards",
        "KubeVirt gives two of four cards to virtual machines; containers use the others.",
        kubevirt_has_two_of_four_cards,
    ),
    node(
        "display-card-beside-compute-cards",
        "A small card without ECC drives the console; two other cards run jobs.",
        display_card_beside_compute_cards,
    ),
    node(
        "old-display-card-that-the-driver-ignores",
        "The driver does not support the old console card and ignores it.",
        old_display_card_that_the_driver_ignores,
    ),
    node(
        "slots-with-eight-lanes",
        "The slots of the server have eight lanes, which limits cards for sixteen lanes.",
        slots_with_eight_lanes,
    ),
    node("cards-with-eight-lanes", "An A2 has eight lanes, in slots with sixteen lanes.", cards_with_eight_lanes),
    node("dra-alone", "A DRA driver offers the GPUs, and pods have claims. There is no device plugin.", dra_alone),
    node(
        "gb200-with-compute-domains",
        "The DRA driver starts IMEX only for pods with a compute domain; no such pod runs now.",
        gb200_with_compute_domains,
    ),
    node("jetson-orin", "The GPU of a Jetson is not on PCI, and NVML supports almost no value of it.", jetson_orin),
    node(
        "vgpu-guest",
        "A licensed vGPU: the guest cannot read power draw, temperature, PCIe or memory errors.",
        vgpu_guest,
    ),
    node(
        "vgpu-host",
        "The host of virtual machines with vGPUs has no CUDA and no container that uses a GPU.",
        vgpu_host,
    ),
    node(
        "drained-for-maintenance",
        "The node is cordoned and drained: only pods of DaemonSets are left.",
        drained_for_maintenance,
    ),
    node(
        "waits-for-a-driver-upgrade",
        "The GPU Operator will upgrade the driver later; the present driver still runs.",
        waits_for_a_driver_upgrade,
    ),
    node(
        "just-booted",
        "The node was booted four minutes ago, and the pods of the GPU Operator are still starting.",
        just_booted,
    ),
    node("spare-infiniband-ports", "Two ports of the storage cards have no cable.", spare_infiniband_ports),
    node(
        "oke-with-spare-roce-ports",
        "Bare metal of Oracle with CRI-O: two ports per GPU with RoCE, one spare card for each CPU.",
        oke_with_spare_roce_ports,
    ),
    node("eks-with-efa", "EKS: 32 EFA devices, whose link layer is not InfiniBand or Ethernet.", eks_with_efa),
    node(
        "user-bugs-on-several-gpus",
        "Programs of users read wrong addresses (Xid 13, 31) and were killed (Xid 43, 45).",
        user_bugs_on_several_gpus,
    ),
    node(
        "crash-loop-on-the-only-gpu",
        "One faulty program is restarted every 20 minutes on a node with one GPU.",
        crash_loop_on_the_only_gpu,
    ),
    node(
        "old-events-with-a-reset-after",
        "Weeks ago, a GPU had contained memory errors. It was reset, and no event followed.",
        old_events_with_a_reset_after,
    ),
    node("few-corrected-errors", "ECC corrected a few errors, which is normal.", few_corrected_errors),
    node("few-remapped-rows", "A few rows were remapped in earlier years; no remap is pending.", few_remapped_rows),
    node(
        "v100-with-retired-pages",
        "Pages of two old cards were retired in earlier years; no retirement is pending.",
        v100_with_retired_pages,
    ),
    node("t4-with-driver-470", "The driver of 2021 does not support many values.", t4_with_driver_470),
    node(
        "p4-with-driver-535",
        "Two small cards of 2016 with the proprietary module of driver 535.",
        p4_with_driver_535,
    ),
    node(
        "v100-cube-mesh",
        "Eight GPUs with six NVLinks each, which connect only some pairs, and without NVSwitches.",
        v100_cube_mesh,
    ),
    node(
        "two-baseboards-of-eight",
        "Sixteen GPUs on two baseboards, each of which numbers its modules from 1 to 8.",
        two_baseboards_of_eight,
    ),
    node(
        "cards-with-module-0",
        "PCIe cards are on no baseboard: the driver returns the module number 0 for all of them.",
        cards_with_module_0,
    ),
    node(
        "nvl-bridge-on-two-of-four-cards",
        "Bridges connect two of four H100 NVL cards; the other two have no bridge.",
        nvl_bridge_on_two_of_four_cards,
    ),
    node("mixed-models", "Two L40S and two A10 in one server.", mixed_models),
    node(
        "h100-pcie-without-fabric-manager",
        "PCIe cards without bridges need no Fabric Manager, and their NVLinks are down.",
        h100_pcie_without_fabric_manager,
    ),
    node(
        "consumer-cards-on-k3s",
        "Four RTX 4090 without ECC, serial numbers and peer-to-peer access, on k3s.",
        consumer_cards_on_k3s,
    ),
    node(
        "workstation-with-a-desktop",
        "A workstation with a desktop: ECC is off by default, and a display is active.",
        workstation_with_a_desktop,
    ),
    node(
        "gh200-with-numa-memory",
        "The memory of the GPU appears as NUMA nodes of the system, and no NVLink is connected.",
        gh200_with_numa_memory,
    ),
    node("gb200-in-a-rack", "A job uses a tray of a rack. The GPU memory is NUMA nodes 2 to 33.", gb200_in_a_rack),
    node(
        "closed-module-without-gsp",
        "The proprietary module runs without GSP firmware, as a module parameter requests.",
        closed_module_without_gsp,
    ),
    node(
        "confidential-virtual-machine",
        "A confidential virtual machine has one H100 without NVLinks and without an IOMMU.",
        confidential_virtual_machine,
    ),
    node(
        "kvm-guest",
        "The virtual PCIe ports of a guest report one lane of generation 1, which is not the real link.",
        kvm_guest,
    ),
    node(
        "aks-on-hyper-v",
        "AKS: a virtual machine of Hyper-V with one A100, which has a PCI domain of its own.",
        aks_on_hyper_v,
    ),
    node("talos", "Talos keeps the driver and the configuration of containerd in other folders.", talos),
    node("bottlerocket", "The device plugin is a service of the node, so no pod of the plugin exists.", bottlerocket),
    node(
        "openshift-with-cri-o",
        "OpenShift: the driver is only in a container of the GPU Operator.",
        openshift_with_cri_o,
    ),
    node(
        "training-at-the-power-limit",
        "A large job uses all power; one GPU is at its target temperature and reduces its clocks a little.",
        training_at_the_power_limit,
    ),
    node("up-for-400-days", "The node has been up for 412 days.", up_for_400_days),
    node("hundreds-of-processes", "Each pod has 80 worker processes on its GPU.", hundreds_of_processes),
    node(
        "plugins-of-other-vendors",
        "Plugins for RDMA, KVM and an accelerator of Intel run beside the plugin of NVIDIA.",
        plugins_of_other_vendors,
    ),
    node(
        "gke-part-of-a-board",
        "A virtual machine of GKE has four GPUs of a board; the NVSwitches belong to the hypervisor.",
        gke_part_of_a_board,
    ),
];

// ---- the nodes

fn idle_without_persistence() -> Healthy {
    // When the GPUs are read for the first time, they are in P0, at full clocks and full PCIe speed, and their counters
    // start at zero.
    let node = l40s(4).idle().of_no_daemons().each_telemetry(|gpu| {
        gpu.performance_state = Some(0);
        (gpu.clocks.graphics_mhz, gpu.clocks.sm_mhz) = (Some(2520), Some(2520));
        (gpu.clocks.memory_mhz, gpu.clocks.video_mhz) = (Some(9001), Some(1965));
        gpu.pcie.generation = gpu.pcie.max_generation;
        gpu.power.draw_milliwatts = Some(79_412);
        gpu.power.instant_milliwatts = Some(80_007);
        gpu.power.margin_to_limit_milliwatts = Some(350_000 - 79_412);
        gpu.power.energy_millijoules = Some(31_870);
        gpu.throttling.reasons.clear();
        gpu.throttling.reasons_mask = Some(0);
        gpu.memory.used_bytes = Some(0);
        gpu.memory.free_bytes = Some(48_305_799_168 - 618_659_840);
    });
    with_plugin(node)
}

fn idle_board_at_idle_clocks() -> Healthy {
    // Some drivers report the power cap as a throttle reason of an idle GPU.
    let node = h100(8).idle().of_base_ports("healthy-h100-8").telemetry(2, |gpu| {
        gpu.throttling.reasons = vec!["SW power cap".to_owned()];
        gpu.throttling.reasons_mask = Some(0x4);
    });
    with_operator(node)
}

fn all_capped_at_80_percent() -> Healthy {
    let node = h100(8).of_base_ports("healthy-h100-8").loads(|index, load| {
        (load.watts, load.mhz, load.reasons) = (558, Some(1515 + 15 * (index % 3)), Some(0x4));
        load.capped_ms = 811_000_000 + 90_017 * u64::from(index);
    });
    with_operator((0..8).fold(node, |node, gpu| node.of_limit(gpu, 560)))
}

fn one_capped_by_administrator() -> Healthy {
    let node = l40s(4).load(2, |load| {
        (load.watts, load.mhz, load.reasons, load.capped_ms) = (249, Some(2205), Some(0x4), 401_220_000);
    });
    with_plugin(node.of_limit(2, 250))
}

fn rack_budget_of_57_percent() -> Healthy {
    let node = l40s(4).loads(|_, load| {
        (load.watts, load.mhz, load.reasons, load.capped_ms) = (198, Some(1785), Some(0x4), 612_500_000);
    });
    with_plugin((0..4).fold(node, |node, gpu| node.of_limit(gpu, 200)))
}

fn mig_with_strategy_single() -> Healthy {
    let node = h100(4).idle().of_base_ports("healthy-h100-8").topology_of(4);
    let name = node.name().to_owned();
    let node = node.of_mig(&[0, 1, 2, 3], "3g.40gb", 3, 2, 40_448).of_mig_peers(&[0, 1, 2, 3]);
    let devices: Vec<String> = (0..4)
        .flat_map(|gpu| (0..2).map(move |number| (gpu, number)))
        .map(|(gpu, number)| mig_uuid(&name, gpu, number))
        .collect();
    let (node, cluster) = with_operator(node.registered(NVIDIA_GPU, devices));
    let labels =
        GpuLabels { mig_config: text("all-3g.40gb"), mig_config_state: text("success"), ..cluster.labels.clone() };
    (node, KubernetesFacts { labels, gpu_label_count: Some(8), ..cluster })
}

fn mig_on_three_of_eight() -> Healthy {
    let node = a100s(8).of_base_ports("a100-mig-8");
    let node = (0..3).fold(node, |node, gpu| node.without_job(gpu).load(gpu, |load| *load = idle(gpu)));
    let name = node.name().to_owned();
    let node = node.of_mig(&[0, 1, 2], "1g.10gb", 1, 7, 9_728).of_mig_peers(&[0, 1, 2]);
    let parts: Vec<String> = (0..3)
        .flat_map(|gpu| (0..7).map(move |number| (gpu, number)))
        .map(|(gpu, number)| mig_uuid(&name, gpu, number))
        .collect();
    let whole = node.gpu_uuids().split_off(3);
    let notebook = Allocation {
        pod_uid: node.pod_uid("notebook"),
        container: "notebook".to_owned(),
        resource: "nvidia.com/mig-1g.10gb".to_owned(),
        devices: vec![parts[4].clone()],
        ..Allocation::default()
    };
    let node = node.kubelet(|kubelet| {
        kubelet.allocations.retain(|allocation| whole.contains(&allocation.devices[0]));
        kubelet.allocations.push(notebook);
        let registered = |resource: &str, devices| RegisteredDevices { resource: resource.to_owned(), devices };
        kubelet.registered = vec![registered(NVIDIA_GPU, whole), registered("nvidia.com/mig-1g.10gb", parts)];
    });
    let (node, cluster) = with_operator(node);
    let labels = GpuLabels {
        mig_config: text("notebooks-and-training"),
        mig_config_state: text("success"),
        ..cluster.labels.clone()
    };
    (node, KubernetesFacts { labels, ..cluster })
}

fn time_slicing() -> Healthy {
    let node = shared(2, 4, 5_200);
    let (node, cluster) = with_operator(node);
    // The capacity counts GPUs, not replicas.
    (node, KubernetesFacts { gpu_capacity: Some(2), gpu_allocatable: Some(2), ..cluster })
}

/// Returns a node on which several services share each GPU. Each service uses `mib` MiB.
fn shared(gpus: u32, replicas: u32, mib: u64) -> Node {
    let used = (u64::from(replicas) * mib + 523) as f64 / 45_477.0;
    let node = l40s(gpus).without_processes().loads(|index, load| *load = Load { used, ..serving(index) });
    let mut allocations = Vec::new();
    let mut processes = Vec::new();
    for gpu in 0..gpus {
        for replica in 0..replicas {
            let (pod, pid) = (format!("service-{gpu}-{replica}"), 50_000 + 100 * gpu + replica);
            allocations.push(Allocation { replicas: Some(1), ..node.allocation(&pod, gpu) });
            processes.push((pod, process(pid, "python3", "python3 serve.py", 4_190, on_gpu(gpu, mib * MIB))));
        }
    }
    let node = node.allocations(allocations);
    processes.into_iter().fold(node, |node, (pod, process)| node.running(Some(&pod), process))
}

fn shared_with_mps() -> Healthy {
    let node = shared(2, 4, 5_200).processes(|all| {
        for process in &mut all.processes {
            process.uses.iter_mut().for_each(|used| used.kind = "mps".to_owned());
        }
    });
    let server =
        |gpu: u32| process(8_800 + gpu, "nvidia-cuda-mps", "nvidia-cuda-mps-server", 130, on_gpu(gpu, 30 * MIB));
    let node = (0..2).fold(node, |node, gpu| node.running(Some("mps-control-daemon"), server(gpu)));
    let node = node
        .each_inventory(|gpu| gpu.compute_mode = text("exclusive_process"))
        .host(|host| host.daemons.mps = Some(true))
        .kubelet(|kubelet| {
            let shared = "nvidia.com/gpu.shared";
            kubelet.allocations.iter_mut().for_each(|allocation| allocation.resource = shared.to_owned());
            kubelet.registered[0].resource = shared.to_owned();
        });
    let (node, cluster) = with_operator(node);
    let daemon_uid = node.pod_uid("mps-control-daemon");
    let mut gpu_pods = cluster.gpu_pods.clone().unwrap_or_default();
    gpu_pods.iter_mut().filter(|pod| pod.uid == daemon_uid).for_each(|pod| {
        pod.is_node_software = true;
        pod.extra_devices_reason = vec!["its container mps-control-daemon-ctr is privileged".to_owned()];
    });
    // The capacity is nvidia.com/gpu.shared, divided by the number of replicas.
    (node, KubernetesFacts { gpu_capacity: Some(2), gpu_allocatable: Some(2), gpu_pods: Some(gpu_pods), ..cluster })
}

impl Node {
    /// Removes ports that are not near any of the first `count` GPUs.
    fn topology_of(mut self, count: u32) -> Self {
        data(&mut self.report.sections.topology).nics.retain(|port| port.near.iter().any(|near| near.gpu < count));
        self
    }

    /// Removes peer-to-peer access between GPUs with MIG and all other GPUs.
    fn of_mig_peers(mut self, parts: &[u32]) -> Self {
        self = self.lacks_peers("not_supported", &["read", "write", "atomics"]);
        let lacking = &mut data(&mut self.report.sections.topology).p2p_lacking;
        lacking.iter_mut().for_each(|lack| lack.pairs.retain(|pair| pair.iter().any(|gpu| parts.contains(gpu))));
        self
    }

    /// Removes these peer-to-peer capabilities between all pairs of GPUs.
    fn lacks_peers(mut self, status: &str, lacking: &[&str]) -> Self {
        let count = data_of(&self.report.sections.inventory).gpus.len() as u32;
        let pairs: Vec<[u32; 2]> = (0..count).flat_map(|one| (one + 1..count).map(move |other| [one, other])).collect();
        let topology = data(&mut self.report.sections.topology);
        topology.p2p_lacking.retain(|lack| !lacking.contains(&lack.capability.as_str()));
        topology.p2p_all_ok.retain(|capability| !lacking.contains(&capability.as_str()));
        topology.p2p_lacking.extend(lacking.iter().map(|capability| MissingP2p {
            capability: (*capability).to_owned(),
            status: status.to_owned(),
            pairs: pairs.clone(),
        }));
        self
    }
}

fn gke_time_sharing() -> Healthy {
    let node = shared_t4(3, 3_100)
        .system("Container-Optimized OS from Google", "6.6.93+")
        .host(|host| {
            (host.container_toolkit, host.cdi_spec) = (None, None);
            host.driver.library_path = text("/home/kubernetes/bin/nvidia/lib64/libnvidia-ml.so.550.163.01");
        })
        .kubelet(|kubelet| {
            let nvidia0 = || vec!["nvidia0".to_owned()];
            kubelet.allocations.iter_mut().for_each(|allocation| allocation.devices = nvidia0());
            kubelet.registered = vec![RegisteredDevices { resource: NVIDIA_GPU.to_owned(), devices: nvidia0() }];
        })
        .container_runtime(containerd(CONFIG, 2, [handler("gvisor", "io.containerd.runsc.v1", None)]).without_toolkit())
        .cdi([]);
    let sockets = ["nvidiaGPU-1794192300.sock"];
    let (node, cluster) = with_stack(node, stack(sockets, "nvidia-gpu-devi", Some("nvidia-gpu-device-plugin")));
    // The capacity of GKE counts the replicas; no label of GPU feature discovery contains the number of replicas.
    let labels = GpuLabels { gke_driver_version: text("default"), ..GpuLabels::default() };
    let cluster = KubernetesFacts { gpu_capacity: Some(3), gpu_allocatable: Some(3), labels, ..cluster };
    (node, named_plugin(cluster, "kube-system/nvidia-gpu-device-plugin-medium-cos-9k2xw", "nvidia-gpu-device-plugin"))
}

/// Returns a node with one T4 that several pods share.
fn shared_t4(pods: u32, mib: u64) -> Node {
    let used = (u64::from(pods) * mib + 523) as f64 / 14_905.0;
    let node = t4().without_processes().loads(|_, load| load.used = used);
    let names: Vec<String> = (0..pods).map(|pod| format!("service-{pod}")).collect();
    let held: Vec<Allocation> =
        names.iter().map(|pod| Allocation { replicas: Some(1), ..node.allocation(pod, 0) }).collect();
    names.into_iter().zip(50_000..).fold(node.allocations(held), |node, (pod, pid)| {
        node.running(Some(&pod), process(pid, "python3", "python3 serve.py", 4_190, on_gpu(0, mib * MIB)))
    })
}

/// Changes the name and the container of the device plugin's pod.
fn named_plugin(mut cluster: KubernetesFacts, full_name: &str, container: &str) -> KubernetesFacts {
    let (namespace, name) = full_name.split_once('/').expect("a namespace and a name");
    let pods = cluster.nvidia_pods.iter_mut().flatten();
    for pod in pods.filter(|pod| pod.component == Component::DevicePlugin) {
        (pod.namespace, pod.name, pod.owner) = (namespace.to_owned(), name.to_owned(), container.to_owned());
        pod.containers.iter_mut().for_each(|one| one.name = container.to_owned());
    }
    cluster
}

/// Marks the pods of all allocations as pods whose annotations contain the GPUs.
fn annotated(mut cluster: KubernetesFacts) -> KubernetesFacts {
    cluster
        .gpu_pods
        .iter_mut()
        .flatten()
        .filter(|pod| !pod.is_node_software)
        .for_each(|pod| pod.has_annotated_gpus = true);
    cluster
}

fn hami() -> Healthy {
    let node =
        shared(2, 3, 9_000).container_runtime(containerd(CONFIG, 3, [nvidia(HOST)]).default_handler("nvidia")).of_cdi();
    let (node, cluster) = with_stack(node, stack(["nvidia-gpu.sock"], "nvidia-device-p", Some("hami-device-plugin")));
    let cluster = KubernetesFacts { gpu_capacity: Some(20), gpu_allocatable: Some(20), ..annotated(cluster) };
    (node, named_plugin(cluster, "kube-system/hami-device-plugin-w7f4m", "device-plugin"))
}

fn volcano_vgpu() -> Healthy {
    let resource = "volcano.sh/vgpu-number";
    let node = shared(2, 3, 9_000)
        .kubelet(|kubelet| {
            kubelet.allocations.iter_mut().for_each(|allocation| allocation.resource = resource.to_owned());
            kubelet.registered[0].resource = resource.to_owned();
        })
        .container_runtime(containerd(CONFIG, 3, [nvidia(HOST)]).default_handler("nvidia"))
        .of_cdi();
    let (node, cluster) =
        with_stack(node, stack(["volcano-vgpu.sock"], "volcano-vgpu-de", Some("volcano-device-plugin")));
    let mut cluster = annotated(cluster);
    // This pod is not NVIDIA's software.
    (cluster.nvidia_pods, cluster.gpu_plugin_in_cluster) = (Some(Vec::new()), Some(false));
    (node, cluster)
}

fn runai_fractions() -> Healthy {
    let node = shared(2, 2, 15_000);
    let held: Vec<Allocation> = (0..2).map(|gpu| node.allocation(&format!("gpu-reservation-{gpu}"), gpu)).collect();
    let (node, mut cluster) = with_operator(node.allocations(held));
    for gpu in 0..2 {
        let uid = node.pod_uid(&format!("gpu-reservation-{gpu}"));
        for pod in cluster.gpu_pods.iter_mut().flatten().filter(|pod| pod.uid == uid) {
            pod.namespace = "runai-reservation".to_owned();
            pod.name = format!("gpu-reservation-gpu-l40s-9-{}", &uid[..5]);
        }
    }
    (node, cluster)
}

fn one_card_passed_through() -> Healthy {
    kubevirt(1, "gpu-operator/nvidia-sandbox-device-plugin-daemonset-5c8rk")
}

fn kubevirt_has_two_of_four_cards() -> Healthy {
    kubevirt(2, "kubevirt-system/nvidia-kubevirt-gpu-dp-daemonset-5c8rk")
}

/// Returns a node with four cards, the last of which are bound to vfio-pci.
fn kubevirt(count: u32, plugin: &str) -> Healthy {
    let resource = "nvidia.com/AD102GL_L40S";
    let mut node = l40s(4);
    let held: Vec<Allocation> = (0..4 - count).map(|gpu| node.allocation(&format!("job-{gpu}"), gpu)).collect();
    let addresses: Vec<String> = (4 - count..4)
        .map(|gpu| {
            let address = data_of(&node.report.sections.host).pci_gpus[gpu as usize].pci_address.clone();
            address.expect("an address").sysfs().to_owned()
        })
        .collect();
    for gpu in (4 - count..4).rev() {
        node = node.not_in_nvml(gpu).no_gpu_lost();
    }
    let left = 4 - count;
    let kept = |gpu: u32| gpu < left;
    node.keep_gpus(&kept);
    let topology = data(&mut node.report.sections.topology);
    topology.matrix.truncate(left as usize);
    topology.matrix.iter_mut().for_each(|cells| cells.truncate(left as usize));
    topology.p2p_lacking.iter_mut().for_each(|lack| lack.pairs.retain(|pair| pair.iter().all(|gpu| kept(*gpu))));
    let own: Vec<String> = (0..left).map(|gpu| gpu_uuid("gpu-l40s-9", gpu)).collect();
    let machine = Allocation {
        pod_uid: node.pod_uid("virt-launcher-desktop-1"),
        container: "compute".to_owned(),
        resource: resource.to_owned(),
        devices: addresses.clone(),
        ..Allocation::default()
    };
    let files: Vec<String> = (0..left).map(|gpu| format!("/dev/nvidia{gpu}")).collect();
    let node = node
        .allocations(held.into_iter().chain([machine]))
        .kubelet(|kubelet| {
            let registered = |resource: &str, devices| RegisteredDevices { resource: resource.to_owned(), devices };
            kubelet.registered = vec![registered(resource, addresses), registered(NVIDIA_GPU, own)];
        })
        .processes(|all| {
            all.processes.iter_mut().filter(|one| !one.open_device_files.is_empty()).for_each(|process| {
                process.open_device_files.clone_from(&files);
            });
        })
        .host(|host| {
            host.modules.push("vfio_pci".to_owned());
            host.device_nodes.retain(|name| !(left..4).any(|gpu| *name == format!("nvidia{gpu}")));
            host.pci_gpus.iter_mut().skip(left as usize).for_each(|gpu| {
                (gpu.driver, gpu.in_nvml) = (text("vfio-pci"), Some(false));
            });
        })
        .container_runtime(containerd(CONFIG, 3, [nvidia(HOST)]))
        .of_cdi();
    let mut traces = plugin_stack(["nvidia-gpu.sock", "kubevirt-AD102GL_L40S.sock"]);
    traces.processes.push(StackProcess {
        name: "nvidia-kubevirt".to_owned(),
        pid: 6_480,
        pod_uid: text(uuid(&["stack", "sandbox"])),
        started_at: None,
    });
    let (node, mut cluster) = with_stack(node, traces);
    let (namespace, name) = plugin.split_once('/').expect("a namespace and a name");
    let pods = cluster.nvidia_pods.iter_mut().flatten();
    for pod in pods.filter(|pod| pod.uid == uuid(&["stack", "sandbox"])) {
        pod.component = Component::SandboxDevicePlugin;
        (pod.namespace, pod.name) = (namespace.to_owned(), name.to_owned());
        pod.owner = name.rsplit_once('-').map_or(name, |(owner, _)| owner).to_owned();
    }
    (node, cluster)
}

fn display_card_beside_compute_cards() -> Healthy {
    let node = l40s(3).without_job(2);
    let held: Vec<Allocation> = (0..2).map(|gpu| node.allocation(&format!("job-{gpu}"), gpu)).collect();
    let node = node
        .allocations(held)
        .load(2, |load| *load = idle(2))
        .of_product(2, &T400)
        .of_no_ecc(&[2])
        .inventory(2, |gpu| gpu.display_active = Some(true))
        .telemetry(2, |gpu| gpu.fan_percent = Some(35));
    let desktop = [("Xorg", "/usr/lib/xorg/Xorg", 61), ("gnome-shell", "/usr/bin/gnome-shell", 48)];
    let node = desktop.into_iter().zip(3_300..).fold(node, |node, ((name, command, mib), pid)| {
        let used = GpuUse { gpu: 2, kind: "graphics".to_owned(), memory_bytes: Some(mib * MIB), ..GpuUse::default() };
        node.running(None, process(pid, name, command, 60, vec![used]))
    });
    with_plugin(node.telemetry(2, |gpu| {
        let used = 112 * MIB;
        let total = gpu.memory.total_bytes.unwrap_or_default() - gpu.memory.reserved_bytes.unwrap_or_default();
        (gpu.memory.used_bytes, gpu.memory.free_bytes) = (Some(used), Some(total - used));
        gpu.pcie.generation = Some(1);
    }))
}

fn old_display_card_that_the_driver_ignores() -> Healthy {
    let lines = "NVRM: The NVIDIA GPU 0000:03:00.0 (PCI ID: 10de:128b)\\x0aNVRM: installed in this system is \
                 supported through the NVIDIA 470.xx Legacy drivers. Please\\x0aNVRM: visit \
                 http://www.nvidia.com/object/unix.html for more\\x0aNVRM: information.  The 570.124.06 NVIDIA driver \
                 will ignore\\x0aNVRM: this GPU.  Continuing probe...";
    let node = l40s(2).host(|host| {
        let mut card = host.pci_gpus[0].clone();
        card.pci_address = PciAddress::parse("0000:03:00.0");
        (card.device_id, card.driver, card.in_nvml) = (text("128b"), None, Some(false));
        card.iommu_group = Some(11);
        host.pci_gpus.insert(0, card);
    });
    with_plugin(node.driver_start_line(lines).driver_start_line("nvidia: probe of 0000:03:00.0 failed with error -1"))
}

fn slots_with_eight_lanes() -> Healthy {
    let node = l40s(4)
        .each_inventory(|gpu| gpu.pcie_max_width = Some(8))
        .each_telemetry(|gpu| (gpu.pcie.width, gpu.pcie.max_width) = (Some(8), Some(8)))
        .each_topology(|gpu| {
            gpu.pcie_path[0].width = Some(8);
            (gpu.pcie_path[1].width, gpu.pcie_path[1].max_width) = (Some(8), Some(8));
        });
    with_plugin(node)
}

fn cards_with_eight_lanes() -> Healthy {
    let node = (0..2)
        .fold(l40s(2), |node, gpu| node.of_product(gpu, &A2))
        .each_inventory(|gpu| gpu.pcie_max_width = Some(8))
        .each_telemetry(|gpu| (gpu.pcie.width, gpu.pcie.max_width) = (Some(8), Some(8)))
        .each_topology(|gpu| {
            (gpu.pcie_path[0].width, gpu.pcie_path[0].max_width) = (Some(8), Some(8));
            gpu.pcie_path[1].width = Some(8);
        });
    with_plugin(node)
}

fn dra_alone() -> Healthy {
    let node = l40s(2);
    let claims: Vec<Allocation> =
        (0..2).map(|gpu| claim(&node, &format!("job-{gpu}"), &format!("gpu-{gpu}"))).collect();
    let node = node.allocations(claims).nothing_registered();
    let runtime = containerd(CONFIG, 3, []).without_toolkit().with(|runtime| runtime.cdi_enabled = Some(true));
    let node = node.container_runtime(runtime).cdi([]).host(|host| {
        (host.container_toolkit, host.cdi_spec) = (None, None);
        host.cdi.get_or_insert_default().claim_specs = 2;
    });
    with_dra_driver(node, stack([], "gpu-kubelet-plu", Some("dra")))
}

/// Returns an allocation of one device of the DRA driver to the claim of a pod.
fn claim(node: &Node, pod: &str, device: &str) -> Allocation {
    Allocation {
        container: String::new(),
        namespace: text("workloads"),
        resource: "gpu.nvidia.com".to_owned(),
        claim: text(format!("{pod}-gpu")),
        devices: vec![device.to_owned()],
        ..node.allocation(pod, 0)
    }
}

/// Adds the pod and the registration of the DRA driver.
fn with_dra_driver(node: Node, traces: NvidiaStack) -> Healthy {
    let sockets = ["gpu.nvidia.com-reg.sock", "compute-domain.nvidia.com-reg.sock"];
    let sockets = sockets.map(|name| TimestampedFile { name: name.to_owned(), at: None });
    let (node, mut cluster) = with_stack(node, NvidiaStack { registry_sockets: Some(sockets.to_vec()), ..traces });
    let pods = cluster.nvidia_pods.iter_mut().flatten();
    for pod in pods.filter(|pod| pod.uid == uuid(&["stack", "dra"])) {
        pod.component = Component::DraDriver;
        pod.namespace = "nvidia-dra-driver-gpu".to_owned();
        pod.name = "nvidia-dra-driver-gpu-kubelet-plugin-4x2k9".to_owned();
        pod.owner = "nvidia-dra-driver-gpu-kubelet-plugin".to_owned();
        pod.containers.iter_mut().for_each(|one| one.name = "gpus".to_owned());
    }
    let dra_devices = published(&node);
    (node, KubernetesFacts { gpu_dra: Some(true), dra_devices, ..cluster })
}

/// Returns the devices that a DRA driver publishes for the GPUs of a node.
pub(crate) fn published(node: &Node) -> Vec<DraDevice> {
    let gpus = &node.report.sections.inventory.as_ref().and_then(|section| section.data.as_ref()).expect("GPUs").gpus;
    let device = |gpu: &GpuInventory| DraDevice {
        name: format!("gpu-{}", gpu.index),
        kind: text("gpu"),
        uuid: gpu.uuid.clone(),
        ..DraDevice::default()
    };
    gpus.iter().map(device).collect()
}

/// The values of a product that the base nodes do not have.
struct Product {
    name: &'static str,
    brand: &'static str,
    architecture: &'static str,
    capability: &'static str,
    part: &'static str,
    device: &'static str,
    subsystem: &'static str,
    vbios: &'static str,
    image: &'static str,
    mib: u64,
    bar1_mib: u64,
    generation: u32,
    cores: u32,
    /// Lowest, default and highest power limit, and the power without work.
    watts: (u32, u32, u32, u32),
    /// Highest clocks: graphics, memory, video.
    mhz: (u32, u32, u32),
}

const T400: Product = Product {
    name: "NVIDIA T400 4GB",
    brand: "NVIDIA",
    architecture: "Turing",
    capability: "7.5",
    part: "900-5G172-2240-000",
    device: "1ff210de",
    subsystem: "161310de",
    vbios: "90.17.8D.00.05",
    image: "G172.0500.00.01",
    mib: 4_096,
    bar1_mib: 256,
    generation: 3,
    cores: 384,
    watts: (20, 31, 31, 5),
    mhz: (2_100, 5_001, 1_950),
};

const A2: Product = Product {
    name: "NVIDIA A2",
    brand: "NVIDIA",
    architecture: "Ampere",
    capability: "8.6",
    part: "900-2G179-0020-100",
    device: "25b610de",
    subsystem: "157e10de",
    vbios: "94.07.5B.00.92",
    image: "G179.0220.00.01",
    mib: 15_356,
    bar1_mib: 16_384,
    generation: 4,
    cores: 1_280,
    watts: (35, 60, 60, 9),
    mhz: (1_770, 6_251, 1_650),
};

impl Node {
    /// Changes the product of a GPU. The load stays the same in relation to the memory and the power of the product.
    fn of_product(mut self, gpu: u32, product: &Product) -> Self {
        let reserved = product.mib / 60 * MIB;
        let total = product.mib * MIB;
        let used = ((total - reserved) as f64 * self.loads[gpu as usize].used) as u64 / MIB * MIB;
        let used = used.max(MIB);
        let is_busy = self.loads[gpu as usize].gpu > 0;
        let (least, default, most, idle) = product.watts;
        self = self
            .inventory(gpu, |gpu| {
                (gpu.name, gpu.brand) = (text(product.name), text(product.brand));
                (gpu.architecture, gpu.compute_capability) = (text(product.architecture), text(product.capability));
                (gpu.board_part_number, gpu.pci_device_id) = (text(product.part), text(product.device));
                (gpu.pci_subsystem_id, gpu.vbios_version) = (text(product.subsystem), text(product.vbios));
                gpu.inforom.image = text(product.image);
                (gpu.memory_total_bytes, gpu.memory_reserved_bytes) = (Some(total), Some(reserved));
                gpu.bar1_total_bytes = Some(product.bar1_mib * MIB);
                (gpu.pcie_max_generation, gpu.cores) = (Some(product.generation), Some(product.cores));
            })
            .telemetry(gpu, |gpu| {
                let draw = if is_busy { default * 690 + 137 * gpu.index } else { idle * 1000 + 41 };
                let power = &mut gpu.power;
                (power.draw_milliwatts, power.instant_milliwatts) = (Some(draw), Some(draw + 220));
                (power.min_limit_milliwatts, power.max_limit_milliwatts) = (Some(least * 1000), Some(most * 1000));
                power.default_limit_milliwatts = Some(default * 1000);
                (power.limit_milliwatts, power.enforced_limit_milliwatts) =
                    (Some(default * 1000), Some(default * 1000));
                power.margin_to_limit_milliwatts = Some(i64::from(default * 1000) - i64::from(draw));
                power.energy_millijoules = Some(u64::from(draw) * 900_000);
                let (graphics, memory, video) = product.mhz;
                let clocks = &mut gpu.clocks;
                (clocks.max_graphics_mhz, clocks.max_sm_mhz) = (Some(graphics), Some(graphics));
                (clocks.max_memory_mhz, clocks.max_video_mhz) = (Some(memory), Some(video));
                (clocks.application_graphics_mhz, clocks.application_memory_mhz) = (Some(graphics), Some(memory));
                let now = if is_busy { (graphics - 45, memory, video) } else { (300, 405, 540) };
                (clocks.graphics_mhz, clocks.sm_mhz) = (Some(now.0), Some(now.0));
                (clocks.memory_mhz, clocks.video_mhz) = (Some(now.1), Some(now.2));
                let memory = &mut gpu.memory;
                (memory.total_bytes, memory.reserved_bytes) = (Some(total), Some(reserved));
                (memory.used_bytes, memory.free_bytes) = (Some(used), Some(total - reserved - used));
                memory.bar1_total_bytes = Some(product.bar1_mib * MIB);
                gpu.pcie.max_generation = Some(product.generation);
                gpu.pcie.generation = Some(if is_busy { product.generation } else { 1 });
            })
            .topology(gpu, |gpu| {
                let current = Some(product.generation);
                (gpu.pcie_path[0].generation, gpu.pcie_path[0].max_generation) = (current, current);
                gpu.pcie_path.iter_mut().skip(1).for_each(|hop| hop.generation = hop.max_generation.min(current));
            });
        let uses = data(&mut self.report.sections.processes).processes.iter_mut().flat_map(|one| &mut one.uses);
        for one in uses.filter(|one| one.gpu == gpu) {
            one.memory_bytes = Some(used.saturating_sub(260 * MIB).max(MIB));
        }
        self.host(|host| host.pci_gpus[gpu as usize].device_id = text(&product.device[..4]))
    }

    /// Marks GPUs as products without ECC: no error counters, no row remapping, no serial number of the board.
    fn of_no_ecc(mut self, gpus: &[u32]) -> Self {
        for gpu in gpus {
            self = self.inventory(*gpu, |gpu| (gpu.ecc_mode, gpu.inforom.ecc) = (None, None)).ecc(*gpu, |gpu| {
                gpu.mode = None;
                (gpu.volatile, gpu.aggregate) = (ErrorCounts::default(), ErrorCounts::default());
                (gpu.sram, gpu.remapped_rows, gpu.retired_pages) = (None, None, None);
            });
        }
        let counts =
            ["mode", "volatile.corrected", "volatile.uncorrected", "aggregate.corrected", "aggregate.uncorrected"];
        let fields = [&counts[..], &["volatile.locations", "aggregate.locations", "sram", "remapped_rows"]].concat();
        self.inventory_lacks(gpus, &["ecc_mode", "inforom.ecc"]).ecc_lacks(gpus, &fields)
    }
}

fn gb200_with_compute_domains() -> Healthy {
    let node = gb200(4)
        .host(|host| {
            (host.daemons.imex, host.numa_nodes, host.numa_balancing) = (Some(false), Some(34), Some(false));
            host.device_nodes.push("nvidia-caps-imex-channels/channel0".to_owned());
        })
        .container_runtime(containerd(CONFIG, 2, [nvidia(TOOLKIT)]).with(|it| it.cdi_enabled = Some(true)))
        .of_cdi();
    let mut traces = plugin_stack(["nvidia-gpu.sock"]);
    traces.processes.push(StackProcess {
        name: "compute-domain-".to_owned(),
        pid: 6_933,
        pod_uid: text(uuid(&["stack", "dra"])),
        started_at: None,
    });
    let (node, cluster) = with_dra_driver(node, traces);
    // The DRA driver publishes compute domains only; the device plugin advertises the GPUs.
    (node, KubernetesFacts { gpu_dra: Some(false), dra_devices: Vec::new(), ..cluster })
}

fn jetson_orin() -> Healthy {
    let node = Node::like("healthy-t4-1", "jetson-orin-3", 1, &["0-11"])
        .system("Ubuntu 22.04.5 LTS", "5.15.148-tegra")
        .working(|_| Load { gpu: 1, ..Load::default() })
        .uptime(402_118)
        .without_jobs()
        .processes(|all| all.processes.clear())
        .each_inventory(|gpu| {
            *gpu = GpuInventory {
                index: 0,
                uuid: gpu.uuid.clone(),
                name: text("Orin (nvgpu)"),
                brand: text("NVIDIA"),
                architecture: text("Ampere"),
                compute_capability: text("8.7"),
                minor_number: Some(0),
                ..GpuInventory::default()
            };
        })
        .each_telemetry(|gpu| *gpu = GpuTelemetry { index: 0, uuid: gpu.uuid.clone(), ..GpuTelemetry::default() })
        .each_topology(|gpu| *gpu = GpuTopology { index: 0, uuid: gpu.uuid.clone(), ..GpuTopology::default() })
        .each_ecc(|gpu| *gpu = GpuEcc { index: 0, uuid: gpu.uuid.clone(), ..GpuEcc::default() })
        .inventory_lacks(&[0], &JETSON_INVENTORY)
        .telemetry_lacks(&[0], &TELEMETRY)
        .topology_lacks(&[0], &["pci_address", "nvlinks", "fabric", "pcie_replays", "cpu_affinity"])
        .ecc_lacks(&[0], &ECC)
        .registered(NVIDIA_GPU, vec!["tegra".to_owned()]);
    let mut node = node.host(|host| {
        let library = "/usr/lib/aarch64-linux-gnu/nvidia/libnvidia-ml.so.540.4.0";
        let driver = &mut host.driver;
        (driver.loaded, driver.flavor) = (text("540.4.0"), text("open"));
        (driver.module_on_disk, driver.library) = (text("540.4.0"), text("540.4.0"));
        driver.library_path = text(library);
        host.modules = vec!["nvidia".to_owned(), "nvidia_modeset".to_owned()];
        host.pci_gpus.clear();
        host.device_nodes = ["nvidiactl", "nvidia-modeset", "nvidia0"].map(str::to_owned).to_vec();
        (host.daemons.persistenced, host.daemons.dcgm) = (Some(false), Some(false));
        host.gsp_firmware_versions.clear();
        (host.iommu, host.memory_total_bytes) = (Some(true), Some(65_890_271_232));
        host.memory_available_bytes = Some(51_220_144_128);
    });
    let inventory = data(&mut node.report.sections.inventory);
    (inventory.driver_version, inventory.cuda_version) = (text("540.4.0"), text("12.6"));
    inventory.nvml_version = text("12.540.4.0");
    inventory.nvml_library = text("/usr/lib/aarch64-linux-gnu/nvidia/libnvidia-ml.so.540.4.0");
    data(&mut node.report.sections.mig).gpus.clear();
    let node = node
        .container_runtime(containerd(CONFIG, 2, [nvidia(HOST)]).default_handler("nvidia").mode("csv"))
        .host(|host| host.cdi_spec = None)
        .cdi([]);
    with_stack(node, plugin_stack(["nvidia-gpu.sock"]))
}

const JETSON_INVENTORY: [&str; 24] = [
    "pci_address",
    "serial",
    "board_part_number",
    "board_id",
    "module_id",
    "pci_device_id",
    "pci_subsystem_id",
    "vbios_version",
    "inforom.image",
    "inforom.oem",
    "inforom.ecc",
    "inforom.power",
    "gsp_firmware_version",
    "gsp_enabled",
    "persistence_mode",
    "compute_mode",
    "virtualization_mode",
    "display_active",
    "mig_mode",
    "ecc_mode",
    "memory_total_bytes",
    "bar1_total_bytes",
    "pcie_max_generation",
    "pcie_max_width",
];

/// All values of telemetry that a GPU without power, temperature and clock sensors lacks.
const TELEMETRY: [&str; 49] = [
    "pci_address",
    "performance_state",
    "temperature.gpu_celsius",
    "temperature.memory_celsius",
    "temperature.slowdown_celsius",
    "temperature.shutdown_celsius",
    "temperature.gpu_max_celsius",
    "temperature.memory_max_celsius",
    "temperature.tlimit_margin_celsius",
    "temperature.tlimit_thresholds",
    "fan_percent",
    "power.draw_milliwatts",
    "power.instant_milliwatts",
    "power.limit_milliwatts",
    "power.enforced_limit_milliwatts",
    "power.default_limit_milliwatts",
    "power.min_limit_milliwatts",
    "power.max_limit_milliwatts",
    "power.energy_millijoules",
    "clocks.graphics_mhz",
    "clocks.sm_mhz",
    "clocks.memory_mhz",
    "clocks.video_mhz",
    "clocks.max_graphics_mhz",
    "clocks.max_sm_mhz",
    "clocks.max_memory_mhz",
    "clocks.max_video_mhz",
    "clocks.application_graphics_mhz",
    "clocks.application_memory_mhz",
    "utilization.gpu_percent",
    "utilization.memory_percent",
    "utilization.encoder_percent",
    "utilization.decoder_percent",
    "utilization.jpeg_percent",
    "utilization.ofa_percent",
    "memory.total_bytes",
    "memory.reserved_bytes",
    "memory.used_bytes",
    "memory.free_bytes",
    "memory.bar1_total_bytes",
    "memory.bar1_used_bytes",
    "pcie.generation",
    "pcie.width",
    "pcie.max_generation",
    "pcie.max_width",
    "pcie.replays",
    "pcie.replay_rollovers",
    "throttling.reasons_mask",
    "throttling.violations",
];

/// All values of the ecc section.
const ECC: [&str; 13] = [
    "pci_address",
    "mode",
    "volatile.corrected",
    "volatile.uncorrected",
    "volatile.locations",
    "aggregate.corrected",
    "aggregate.uncorrected",
    "aggregate.locations",
    "sram",
    "remapped_rows",
    "retired_pages",
    "recovery_action",
    "inforom_valid",
];

fn vgpu_guest() -> Healthy {
    let feature = LicensableFeature {
        name: "compute".to_owned(),
        product: text("NVIDIA Virtual Compute Server"),
        enabled: true,
        licensed: true,
        info: text("Licensed (Expiry: 2026-11-22 01:12:40 GMT)"),
    };
    let product = Product {
        name: "NVIDIA L40S-24C",
        brand: "NVIDIA Virtual Compute Server",
        architecture: "Ada",
        capability: "8.9",
        part: "",
        device: "26b910de",
        subsystem: "185f10de",
        vbios: "00.00.00.00.00",
        image: "",
        mib: 24_576,
        bar1_mib: 4_096,
        generation: 3,
        cores: 18_176,
        watts: (20, 70, 70, 20),
        mhz: (2_520, 9_001, 1_965),
    };
    let license = VgpuLicense { features: vec![feature] };
    let node = Node::like("healthy-t4-1", "gpu-vgpu-4", 1, &["0-15"])
        .system("Ubuntu 24.04.3 LTS", "6.8.0-87-generic")
        .working(|_| Load { gpu: 61, memory: 34, used: 0.61, watts: 40, degrees: 50, ..Load::default() })
        .uptime(702_331)
        .driver("570.124.06", "12.8")
        .of_product(0, &product)
        .of_no_ecc(&[0])
        .inventory(0, |gpu| {
            (gpu.virtualization_mode, gpu.vgpu_license) = (text("vgpu"), Some(license));
            (gpu.serial, gpu.board_part_number, gpu.inforom) = (None, None, Default::default());
            (gpu.gsp_firmware_version, gpu.gsp_enabled) = (None, Some(false));
            (gpu.pcie_max_generation, gpu.pcie_max_width) = (None, None);
        })
        .telemetry(0, |gpu| {
            (gpu.temperature, gpu.power, gpu.pcie) = Default::default();
            gpu.throttling = Default::default();
        })
        .ecc(0, |gpu| (gpu.inforom_valid, gpu.recovery_action) = (None, None))
        .topology(0, |gpu| gpu.pcie_replays = None);
    let gone = |part: &'static str| TELEMETRY.into_iter().filter(move |field| field.starts_with(part));
    let fields: Vec<&str> =
        ["temperature.", "power.", "pcie.", "throttling.", "fan_percent"].into_iter().flat_map(gone).collect();
    let node = node
        .telemetry_lacks(&[0], &fields)
        .ecc_lacks(&[0], &ECC[1..])
        .inventory_lacks(
            &[0],
            &[
                "serial",
                "board_part_number",
                "inforom.image",
                "inforom.oem",
                "gsp_firmware_version",
                "pcie_max_generation",
                "pcie_max_width",
            ],
        )
        .topology_lacks(&[0], &["pcie_replays"])
        .host(|host| (host.daemons.dcgm, host.gsp_firmware_versions) = (Some(false), Vec::new()))
        .processes(|all| all.processes.retain(|process| process.name.as_deref() != Some("nv-hostengine")));
    with_plugin(node)
}

fn vgpu_host() -> Healthy {
    let resource = "nvidia.com/NVIDIA_L40S-24C";
    let node = l40s(2).without_jobs();
    let devices: Vec<String> = (0..4).map(|part| uuid(&["mdev", &part.to_string()])).collect();
    let machines: Vec<Allocation> = (0..4)
        .map(|part| Allocation {
            pod_uid: node.pod_uid(&format!("virt-launcher-{part}")),
            container: "compute".to_owned(),
            resource: resource.to_owned(),
            devices: vec![devices[part].clone()],
            ..Allocation::default()
        })
        .collect();
    let node = node
        .loads(|index, load| *load = Load { used: 0.985, watts: 121 + index, ..serving(index) })
        .allocations(machines)
        .registered(resource, devices)
        .each_inventory(|gpu| gpu.virtualization_mode = text("host_vgpu"))
        .host(|host| {
            host.modules = ["nvidia", "nvidia_vgpu_vfio", "vfio_pci"].map(str::to_owned).to_vec();
            host.device_nodes =
                ["nvidiactl", "nvidia0", "nvidia1", "nvidia-caps/nvidia-cap1", "nvidia-caps/nvidia-cap2"]
                    .map(str::to_owned)
                    .to_vec();
            (host.container_toolkit, host.cdi_spec) = (None, None);
            (host.daemons.dcgm, host.driver.flavor) = (Some(false), text("proprietary"));
        })
        .processes(|all| all.processes.retain(|process| process.name.as_deref() != Some("nv-hostengine")))
        .container_runtime(containerd(CONFIG, 3, []).without_toolkit())
        .cdi([]);
    // Each vGPU has one process of the vGPU manager on the host.
    let manager = |part: u32| {
        let used = GpuUse {
            gpu: part / 2,
            kind: "graphics".to_owned(),
            memory_bytes: Some(22_100 * MIB),
            ..GpuUse::default()
        };
        process(9_200 + part, "vgpu", "vgpu", 4_160, vec![used])
    };
    // The manager runs in a DaemonSet of the GPU Operator.
    let mut node = (0..4).fold(node, |node, part| node.running(Some("vgpu-manager"), manager(part)));
    data(&mut node.report.sections.inventory).cuda_version = text("12.8");
    let mut traces = stack(["kubevirt-NVIDIA_L40S-24C.sock"], "nvidia-kubevirt", Some("sandbox"));
    traces.validations = ["vgpu-devices-ready", "vgpu-manager-ready"]
        .map(|name| TimestampedFile { name: name.to_owned(), at: None })
        .to_vec();
    let (node, mut cluster) = with_stack(node, traces);
    let manager = node.pod_uid("vgpu-manager");
    for pod in cluster.gpu_pods.iter_mut().flatten().filter(|pod| pod.uid == manager) {
        (pod.namespace, pod.is_node_software) = ("gpu-operator".to_owned(), true);
        pod.name = "nvidia-vgpu-manager-daemonset-2q8zt".to_owned();
        pod.extra_devices_reason = vec!["its container nvidia-vgpu-manager-ctr is privileged".to_owned()];
    }
    let pods = cluster.nvidia_pods.get_or_insert_default();
    for pod in pods.iter_mut() {
        pod.component = Component::SandboxDevicePlugin;
        pod.namespace = "gpu-operator".to_owned();
        pod.name = "nvidia-sandbox-device-plugin-daemonset-5c8rk".to_owned();
        pod.owner = "nvidia-sandbox-device-plugin-daemonset".to_owned();
    }
    let name = "gpu-operator/nvidia-vgpu-manager-daemonset-2q8zt";
    let started = node.boot() + seconds(92);
    pods.push(NvidiaPod {
        uid: manager,
        owner: "nvidia-vgpu-manager-daemonset".to_owned(),
        ..daemon(name, Component::VgpuManager, "nvidia-vgpu-manager-ctr", started)
    });
    (node, cluster)
}

fn drained_for_maintenance() -> Healthy {
    with_operator(a100s(8).idle().of_base_ports("a100-mig-8"))
}

fn waits_for_a_driver_upgrade() -> Healthy {
    let (node, mut cluster) = with_operator(l40s(4));
    cluster.labels.driver_upgrade_state = text("upgrade-required");
    (node, cluster)
}

fn just_booted() -> Healthy {
    let node = h100(8).idle().uptime(240).of_base_ports("healthy-h100-8").registered(NVIDIA_GPU, Vec::new());
    let (node, mut cluster) = with_operator(node);
    let node = node.host(|host| {
        let traces = host.nvidia_stack.get_or_insert_default();
        (traces.plugin_sockets, traces.processes) = (Some(Vec::new()), Vec::new());
        traces.validations.retain(|file| file.name == "driver-ready");
    });
    for pod in cluster.nvidia_pods.iter_mut().flatten() {
        // The DaemonSet created the pods weeks ago; their containers start again after the boot.
        pod.created = Some(ago(days(31)));
        let is_ready = matches!(pod.component, Component::Driver | Component::ContainerToolkit);
        if !is_ready {
            (pod.phase, pod.ready) = ("Pending".to_owned(), false);
            for container in &mut pod.containers {
                (container.ready, container.restarts) = (false, 1);
                container.state.kind = ContainerStateKind::Waiting;
                (container.state.reason, container.state.since) = (text("PodInitializing"), None);
            }
        }
    }
    (node, KubernetesFacts { gpu_capacity: Some(0), gpu_allocatable: Some(0), ..cluster })
}

/// Returns a port of a network card.
fn port(device: &str, address: &str, numa: u32, layer: &str, state: &str, rate: f64, near: &[(u32, &str)]) -> NicPort {
    NicPort {
        device: device.to_owned(),
        port: 1,
        pci_address: PciAddress::parse(address),
        numa_node: Some(numa),
        link_layer: text(layer),
        state: text(state),
        rate_gigabits_per_second: Some(rate),
        near: near.iter().map(|(gpu, via)| NearGpu { gpu: *gpu, via: (*via).to_owned() }).collect(),
        ..NicPort::default()
    }
}

impl Node {
    /// Adds ports of network cards.
    fn of_ports(mut self, ports: impl IntoIterator<Item = NicPort>) -> Self {
        data(&mut self.report.sections.topology).nics.extend(ports);
        self
    }
}

fn spare_infiniband_ports() -> Healthy {
    let first = [(0, "NODE"), (1, "NODE"), (2, "NODE"), (3, "NODE")];
    let second = [(4, "NODE"), (5, "NODE"), (6, "NODE"), (7, "NODE")];
    let node = h100(8).of_base_ports("healthy-h100-8").of_ports([
        port("mlx5_8", "0000:3a:00.0", 0, "InfiniBand", "ACTIVE", 200.0, &first),
        port("mlx5_9", "0000:3a:00.1", 0, "InfiniBand", "DOWN", 10.0, &first),
        port("mlx5_10", "0000:ba:00.0", 1, "InfiniBand", "ACTIVE", 200.0, &second),
        port("mlx5_11", "0000:ba:00.1", 1, "InfiniBand", "DOWN", 10.0, &second),
    ]);
    with_operator(node)
}

fn oke_with_spare_roce_ports() -> Healthy {
    let buses = ["0c", "16", "48", "4c", "8a", "94", "c3", "d1"];
    let ports = (0..8).flat_map(|gpu: u32| {
        (0..2).map(move |number: u32| {
            let address = format!("0000:{}:00.{number}", buses[gpu as usize]);
            port(&format!("mlx5_{}", 2 * gpu + number), &address, gpu / 4, "Ethernet", "ACTIVE", 100.0, &[(gpu, "PXB")])
        })
    });
    let spare = |number: u32, address: &str, numa| {
        let near: Vec<(u32, &str)> = (4 * numa..4 * numa + 4).map(|gpu| (gpu, "NODE")).collect();
        port(&format!("mlx5_{number}"), address, numa, "Ethernet", "DOWN", 40.0, &near)
    };
    let spares = [
        spare(16, "0000:2e:00.0", 0),
        spare(17, "0000:2e:00.1", 0),
        spare(18, "0000:ae:00.0", 1),
        spare(19, "0000:ae:00.1", 1),
    ];
    let node = a100s(8)
        .system("Oracle Linux Server 8.10", "5.15.0-300.163.18.1.el8uek.x86_64")
        .of_ports(ports.chain(spares))
        .container_runtime(cri_o(HOST))
        .of_cdi();
    let (node, cluster) = with_stack(node, plugin_stack(["nvidia-gpu.sock"]));
    (node, KubernetesFacts { runtime_version: text("cri-o://1.33.2"), ..cluster })
}

/// Returns CRI-O with NVIDIA's runtime.
fn cri_o(binary: &str) -> Runtime {
    let drop_in = "/etc/crio/crio.conf.d/99-nvidia.conf";
    let mut runtime = containerd(CONFIG, 3, []);
    runtime.0.name = "cri-o".to_owned();
    (runtime.0.config_path, runtime.0.config_version) = (text("/etc/crio/crio.conf"), None);
    runtime.0.default_handler = text("crun");
    runtime.0.handlers =
        vec![handler("crun", "oci", None), handler("nvidia", "oci", Some(binary)), handler("runc", "oci", None)];
    runtime.drop_in(drop_in)
}

fn eks_with_efa() -> Healthy {
    let ports = (0..32).map(|number: u32| {
        let gpu = number / 4;
        let address = format!("0000:{:02x}:{:02x}.0", 0x4f + 16 * gpu, 0x19 + number % 4);
        let name = format!("rdmap{}s{}", 0x4f + 16 * gpu, 0x19 + number % 4);
        port(&name, &address, gpu / 4, "Unspecified", "ACTIVE", 100.0, &[(gpu, "PIX")])
    });
    let node = h100(8)
        .system("Amazon Linux 2023.9.20251105", "6.12.53-69.119.amzn2023.x86_64")
        .of_ports(ports)
        .each_inventory(|gpu| gpu.virtualization_mode = text("passthrough"))
        .host(|host| {
            host.modules = ["nvidia", "nvidia_modeset", "nvidia_uvm", "gdrdrv"].map(str::to_owned).to_vec();
            host.iommu = Some(false);
            host.pci_gpus.iter_mut().for_each(|gpu| gpu.iommu_group = None);
        })
        .container_runtime(
            containerd(CONFIG, 3, [nvidia(HOST)]).default_handler("nvidia").with(|it| it.cdi_enabled = Some(true)),
        )
        .of_cdi();
    with_stack(node, plugin_stack(["nvidia-gpu.sock", "aws-efa-device-plugin.sock"]))
}

fn user_bugs_on_several_gpus() -> Healthy {
    let fault = "Ch 00000008, intr 00000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_3 faulted @ 0x7f3a_5b8c9000. \
                 Fault is of type FAULT_PDE ACCESS_TYPE_VIRT_READ";
    let exception = "Graphics SM Warp Exception on (GPC 2, TPC 1, SM 0): Out Of Range Address";
    let node = h100(8)
        .of_base_ports("healthy-h100-8")
        .xid(ago(hours(51)), 1, 13, "pid=18011, name=python3", exception)
        .xid(ago(hours(51)), 1, 43, "pid=18011, name=python3", "Ch 00000010")
        .xid(ago(hours(30)), 3, 31, "pid=22940, name=train", fault)
        .xid(ago(hours(30)) + seconds(1), 3, 43, "pid=22940, name=train", "Ch 00000008")
        .xid(ago(hours(11)), 6, 31, "pid=30177, name=a.out", fault)
        .xid(ago(hours(11)) + seconds(2), 6, 45, "pid=30177, name=a.out", "Ch 00000009")
        .xid(ago(hours(2)), 0, 45, "pid=40218, name=python3", "Ch 00000008");
    with_operator(node)
}

fn crash_loop_on_the_only_gpu() -> Healthy {
    let node = (0..9).fold(t4(), |node, round: i64| {
        let process = format!("pid={}, name=tritonserver", 61_000 + 37 * round);
        let fault = "Ch 0000001c, intr 10000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_0 faulted @ 0x7f11_08000000. \
                     Fault is of type FAULT_PDE ACCESS_TYPE_VIRT_WRITE";
        let when = ago(minutes(20 * round + 7));
        node.xid(when, 0, 31, &process, fault).xid(when + seconds(1), 0, 43, &process, "Ch 0000001c")
    });
    with_plugin(node)
}

fn old_events_with_a_reset_after() -> Healthy {
    let node = h100(8)
        .uptime(45 * 86_400)
        .of_base_ports("healthy-h100-8")
        .xid(
            ago(days(33)),
            4,
            63,
            UNKNOWN,
            "Row Remapper: New row (0x0000000001b6c31a) marked for remapping, reset gpu to activate.",
        )
        .xid(ago(days(33)) + seconds(1), 4, 94, "pid=29011, name=python3", "Contained: SM (0x1). RST: No, D-RST: Yes")
        .recovery_changed(ago(days(33)) + seconds(2), 4, "0x0 (None) to 0x4 (Drain and Reset)")
        .recovery_changed(ago(days(33)) + hours(5), 4, "0x4 (Drain and Reset) to 0x0 (None)")
        .ecc(4, |gpu| gpu.aggregate = errors("dram", 0, 1))
        .remapped_rows(4, |rows| {
            rows.uncorrectable = 1;
            rows.histogram = Some(RemapHistogram { max: 2_559, high: 1, ..RemapHistogram::default() });
        });
    with_operator(node)
}

fn few_corrected_errors() -> Healthy {
    let node = a100s(8)
        .of_base_ports("a100-mig-8")
        .ecc(2, |gpu| (gpu.volatile, gpu.aggregate) = (errors("dram", 3, 0), errors("dram", 14, 0)))
        .ecc(5, |gpu| {
            (gpu.volatile, gpu.aggregate) = (errors("sram", 1, 0), errors("sram", 2, 0));
            let sram = gpu.sram.get_or_insert_default();
            (sram.volatile_corrected, sram.aggregate_corrected) = (1, 2);
        });
    with_plugin(node)
}

fn few_remapped_rows() -> Healthy {
    let rows = |node: Node, gpu: u32, corrected: u32, uncorrected: u32| {
        let high = corrected + uncorrected;
        let counts = errors("dram", u64::from(5 * corrected), u64::from(uncorrected));
        node.ecc(gpu, |gpu| gpu.aggregate = counts).remapped_rows(gpu, |rows| {
            (rows.correctable, rows.uncorrectable) = (corrected, uncorrected);
            rows.histogram = Some(RemapHistogram { max: 2_560 - high, high, ..RemapHistogram::default() });
        })
    };
    let node = h100(8).of_base_ports("healthy-h100-8");
    with_operator(rows(rows(rows(node, 1, 2, 0), 2, 0, 1), 7, 1, 2))
}

const V100_PCIE: Product = Product {
    name: "Tesla V100-PCIE-32GB",
    brand: "Tesla",
    architecture: "Volta",
    capability: "7.0",
    part: "900-2G500-0010-030",
    device: "1db610de",
    subsystem: "124a10de",
    vbios: "88.00.98.00.01",
    image: "G500.0212.00.02",
    mib: 32_768,
    bar1_mib: 32_768,
    generation: 3,
    cores: 5_120,
    watts: (100, 250, 250, 26),
    mhz: (1_380, 877, 1_237),
};

const V100_SXM2: Product = Product {
    name: "Tesla V100-SXM2-32GB",
    device: "1db510de",
    part: "692-2G503-0203-002",
    watts: (150, 300, 300, 42),
    mhz: (1_530, 877, 1_372),
    image: "G503.0203.00.04",
    ..V100_PCIE
};

const P4: Product = Product {
    name: "Tesla P4",
    brand: "Tesla",
    architecture: "Pascal",
    capability: "6.1",
    part: "900-2G414-0000-000",
    device: "1bb310de",
    subsystem: "11d810de",
    vbios: "86.04.8C.00.10",
    image: "G414.0200.00.03",
    mib: 7_680,
    bar1_mib: 256,
    generation: 3,
    cores: 2_560,
    watts: (60, 75, 75, 7),
    mhz: (1_531, 3_003, 1_379),
};

const A10: Product = Product {
    name: "NVIDIA A10",
    brand: "NVIDIA",
    architecture: "Ampere",
    capability: "8.6",
    part: "900-2G133-0020-000",
    device: "223610de",
    subsystem: "148210de",
    vbios: "94.02.75.00.01",
    image: "G133.0210.00.04",
    mib: 23_028,
    bar1_mib: 32_768,
    generation: 4,
    cores: 9_216,
    watts: (100, 150, 150, 16),
    mhz: (1_695, 6_251, 1_500),
};

const H100_PCIE: Product = Product {
    name: "NVIDIA H100 PCIe",
    brand: "NVIDIA",
    architecture: "Hopper",
    capability: "9.0",
    part: "900-21010-0000-000",
    device: "233110de",
    subsystem: "162610de",
    vbios: "96.00.30.00.01",
    image: "1010.0200.00.02",
    mib: 81_559,
    bar1_mib: 131_072,
    generation: 5,
    cores: 14_592,
    watts: (200, 350, 350, 48),
    mhz: (1_755, 1_593, 1_545),
};

const H100_NVL: Product = Product {
    name: "NVIDIA H100 NVL",
    device: "232110de",
    part: "900-21010-0020-000",
    mib: 95_830,
    watts: (200, 400, 400, 62),
    mhz: (1_785, 2_619, 1_545),
    cores: 16_896,
    ..H100_PCIE
};

const RTX_4090: Product = Product {
    name: "NVIDIA GeForce RTX 4090",
    brand: "GeForce",
    architecture: "Ada",
    capability: "8.9",
    part: "",
    device: "268410de",
    subsystem: "889e1043",
    vbios: "95.02.3C.40.5A",
    image: "G002.0000.00.03",
    mib: 24_564,
    bar1_mib: 32_768,
    generation: 4,
    cores: 16_384,
    watts: (150, 450, 600, 19),
    mhz: (3_105, 10_501, 2_415),
};

const RTX_6000: Product = Product {
    name: "NVIDIA RTX 6000 Ada Generation",
    brand: "NVIDIA RTX",
    part: "900-5G133-2250-000",
    device: "26b110de",
    subsystem: "16a110de",
    vbios: "95.02.47.00.02",
    image: "G133.0500.00.05",
    mib: 49_140,
    bar1_mib: 65_536,
    cores: 18_176,
    watts: (100, 300, 300, 22),
    mhz: (3_105, 10_001, 2_415),
    ..RTX_4090
};

const GH200: Product = Product {
    name: "NVIDIA GH200 480GB",
    brand: "NVIDIA",
    architecture: "Hopper",
    capability: "9.0",
    part: "900-2G530-0060-000",
    device: "234210de",
    subsystem: "16eb10de",
    vbios: "96.00.84.00.01",
    image: "G530.0206.00.01",
    mib: 97_871,
    bar1_mib: 131_072,
    generation: 5,
    cores: 16_896,
    watts: (100, 900, 900, 96),
    mhz: (1_980, 2_619, 1_545),
};

const A100_PCIE: Product = Product {
    name: "NVIDIA A100 80GB PCIe",
    brand: "NVIDIA",
    architecture: "Ampere",
    capability: "8.0",
    part: "900-21001-0020-000",
    device: "20b510de",
    subsystem: "153310de",
    vbios: "92.00.A0.00.05",
    image: "1001.0230.00.03",
    mib: 81_920,
    bar1_mib: 131_072,
    generation: 4,
    cores: 6_912,
    watts: (150, 300, 300, 44),
    mhz: (1_410, 1_512, 1_290),
};

impl Node {
    /// Removes fields from the list of unsupported fields of the ecc section.
    fn ecc_has(mut self, field: &str) -> Self {
        let lists = &mut data(&mut self.report.sections.ecc).unsupported;
        lists.iter_mut().for_each(|list| list.fields.retain(|one| one != field));
        self
    }

    /// Changes values to those of GPUs before Ampere: no GSP, no T.Limit, page retirement instead of row remapping.
    fn of_pre_ampere(self, gpus: &[u32]) -> Self {
        self.each_inventory(|gpu| {
            (gpu.gsp_firmware_version, gpu.gsp_enabled, gpu.mig_mode, gpu.module_id) = (None, None, None, None);
        })
        .each_telemetry(|gpu| {
            let now = &mut gpu.temperature;
            (now.tlimit_margin_celsius, now.tlimit_thresholds) = (None, None);
            now.margin_to_slowdown_celsius = now.slowdown_celsius.zip(now.gpu_celsius).map(|(limit, now)| limit - now);
            gpu.power.instant_milliwatts = None;
            (gpu.utilization.jpeg_percent, gpu.utilization.ofa_percent) = (None, None);
        })
        .each_ecc(|gpu| {
            (gpu.sram, gpu.remapped_rows, gpu.recovery_action) = (None, None, None);
            gpu.retired_pages = Some(RetiredPages { single_bit: Some(0), double_bit: Some(0), pending: Some(false) });
        })
        .each_mig(|gpu| (gpu.mode, gpu.max_devices) = (None, None))
        .ecc_has("retired_pages")
        .inventory_lacks(gpus, &["gsp_firmware_version", "gsp_enabled", "mig_mode", "module_id", "platform"])
        .telemetry_lacks(
            gpus,
            &[
                "temperature.tlimit_margin_celsius",
                "temperature.tlimit_thresholds",
                "power.instant_milliwatts",
                "utilization.jpeg_percent",
                "utilization.ofa_percent",
            ],
        )
        .ecc_lacks(gpus, &["sram", "remapped_rows", "recovery_action", "channel_repair_pending", "tpc_repair_pending"])
        .mig_lacks(gpus, &["mode", "max_devices"])
        .host(|host| host.driver.flavor = text("proprietary"))
    }

    /// Removes the NVSwitches, the fabric and Fabric Manager. No NVLink is connected.
    fn of_no_nvswitch(mut self, links: u32, gpus: &[u32]) -> Self {
        self = self.each_topology(|gpu| (gpu.fabric, gpu.nvlinks) = (None, vec![links_down(0..links)]));
        let topology = data(&mut self.report.sections.topology);
        topology.nvswitches.clear();
        let numa: Vec<Option<u32>> = topology.gpus.iter().map(|gpu| gpu.numa_node).collect();
        for (row, cells) in topology.matrix.iter_mut().enumerate() {
            for (column, cell) in cells.iter_mut().enumerate().filter(|(column, _)| *column != row) {
                *cell = if numa[row] == numa[column] { "NODE" } else { "SYS" }.to_owned();
            }
        }
        let node = if gpus.len() > 1 { self.lacks_peers("not_supported", &["atomics"]) } else { self };
        node.topology_lacks(gpus, &["fabric"]).host(|host| {
            host.device_nodes.retain(|name| !name.contains("nvswitch"));
            host.daemons.fabric_manager = Some(false);
        })
    }
}

fn v100_with_retired_pages() -> Healthy {
    let node = l40s(2)
        .driver("535.261.03", "12.2")
        .of_product(0, &V100_PCIE)
        .of_product(1, &V100_PCIE)
        .of_pre_ampere(&[0, 1])
        .ecc(0, |gpu| {
            gpu.aggregate = errors("dram", 412, 1);
            gpu.retired_pages = Some(RetiredPages { single_bit: Some(3), double_bit: Some(1), pending: Some(false) });
        })
        .ecc(1, |gpu| {
            gpu.retired_pages = Some(RetiredPages { single_bit: Some(2), double_bit: Some(0), pending: Some(false) })
        });
    with_plugin(node)
}

fn t4_with_driver_470() -> Healthy {
    let node = t4()
        .driver("470.256.02", "11.4")
        .system("Ubuntu 20.04.6 LTS", "5.4.0-216-generic")
        .of_pre_ampere(&[0])
        .each_telemetry(|gpu| {
            // The driver of this node counts the reserved memory as used.
            let memory = &mut gpu.memory;
            memory.used_bytes = memory.used_bytes.zip(memory.reserved_bytes).map(|(used, reserved)| used + reserved);
            (memory.reserved_bytes, gpu.throttling.violations) = (None, Vec::new());
        })
        .telemetry_lacks(&[0], &["memory.reserved_bytes"])
        .each_inventory(|gpu| (gpu.memory_reserved_bytes, gpu.cores) = (None, None))
        .inventory_lacks(&[0], &["memory_reserved_bytes", "cores"])
        .each_topology(|gpu| gpu.fabric = None)
        .host(|host| {
            host.gsp_firmware_versions = vec!["470.256.02".to_owned()];
            host.cdi_spec = None;
        })
        .container_runtime(containerd(CONFIG, 2, [nvidia(HOST)]).default_handler("nvidia"))
        .cdi([]);
    with_stack(node, plugin_stack(["nvidia-gpu.sock"]))
}

fn p4_with_driver_535() -> Healthy {
    let node = l40s(2)
        .driver("535.261.03", "12.2")
        .of_product(0, &P4)
        .of_product(1, &P4)
        .of_pre_ampere(&[0, 1])
        .host(|host| host.gsp_firmware_versions.clear());
    with_plugin(node)
}

fn v100_cube_mesh() -> Healthy {
    let all = [0, 1, 2, 3, 4, 5, 6, 7];
    // For each GPU: the connected GPUs, each with the number of links.
    let mesh: [[(u32, u32); 4]; 8] = [
        [(1, 1), (2, 1), (3, 2), (4, 2)],
        [(0, 1), (2, 2), (3, 1), (5, 2)],
        [(0, 1), (1, 2), (3, 2), (6, 1)],
        [(0, 2), (1, 1), (2, 2), (7, 1)],
        [(0, 2), (5, 1), (6, 1), (7, 2)],
        [(1, 2), (4, 1), (6, 2), (7, 1)],
        [(2, 1), (4, 1), (5, 2), (7, 2)],
        [(3, 1), (4, 2), (5, 1), (6, 2)],
    ];
    let node = a100s(8).driver("535.261.03", "12.2");
    let mut node = all.into_iter().fold(node, |node, gpu| node.of_product(gpu, &V100_SXM2));
    node = node.of_pre_ampere(&all).of_no_nvswitch(6, &all);
    let topology = data(&mut node.report.sections.topology);
    let addresses: Vec<Option<PciAddress>> = topology.gpus.iter().map(|gpu| gpu.pci_address.clone()).collect();
    for (gpu, peers) in topology.gpus.iter_mut().zip(mesh) {
        // In this generation of servers, the ports and switches support at most PCIe generation 3.
        gpu.pcie_path.iter_mut().for_each(|hop| hop.max_generation = hop.max_generation.map(|most| most.min(3)));
        let mut next = 0;
        gpu.nvlinks = Vec::new();
        for (peer, count) in peers {
            gpu.nvlinks.push(NvlinkGroup {
                links: (next..next + count).collect(),
                active: Some(true),
                version: Some(2),
                speed_megabytes_per_second: Some(25_781),
                remote_type: text("gpu"),
                remote_pci_address: addresses[peer as usize].clone(),
                ..NvlinkGroup::default()
            });
            topology.matrix[gpu.index as usize][peer as usize] = format!("NV{count}");
            next += count;
        }
    }
    let linked = |pair: &[u32; 2]| mesh[pair[0] as usize].iter().any(|(peer, _)| *peer == pair[1]);
    topology.p2p_lacking.iter_mut().for_each(|lack| lack.pairs.retain(|pair| !linked(pair)));
    with_plugin(node)
}

fn two_baseboards_of_eight() -> Healthy {
    with_operator(a100s(8).of_second_board())
}

impl Node {
    /// Adds a second baseboard that is equal to the first one.
    fn of_second_board(mut self) -> Self {
        let name = self.name().to_owned();
        let count = self.gpu_count();
        let moved = |address: &Option<PciAddress>| {
            let text = address.as_ref().map(|address| format!("00000001{}", &address.as_str()[8..]))?;
            PciAddress::parse(&text)
        };
        let own = |index: u32| text(gpu_uuid(&name, index));
        macro_rules! doubled {
            ($section:ident) => {{
                let section = data(&mut self.report.sections.$section);
                let more: Vec<_> = section
                    .gpus
                    .iter()
                    .cloned()
                    .map(|mut gpu| {
                        gpu.index += count;
                        gpu.uuid = own(gpu.index);
                        gpu
                    })
                    .collect();
                section.gpus.extend(more);
                for list in &mut section.unsupported {
                    let more: Vec<u32> = list.gpus.iter().map(|gpu| gpu + count).collect();
                    list.gpus.extend(more);
                }
            }};
        }
        doubled!(inventory);
        doubled!(telemetry);
        doubled!(topology);
        doubled!(ecc);
        doubled!(mig);
        let is_second = |index: u32| index >= count;
        for gpu in data(&mut self.report.sections.inventory).gpus.iter_mut().filter(|gpu| is_second(gpu.index)) {
            (gpu.pci_address, gpu.minor_number) = (moved(&gpu.pci_address), Some(gpu.index));
            gpu.serial = text(crate::identity::serial(&name, gpu.index));
            gpu.board_id = gpu.board_id.as_ref().map(|id| id.replace("0x", "0x1"));
        }
        for gpu in data(&mut self.report.sections.telemetry).gpus.iter_mut().filter(|gpu| is_second(gpu.index)) {
            gpu.pci_address = moved(&gpu.pci_address);
        }
        for gpu in data(&mut self.report.sections.ecc).gpus.iter_mut().filter(|gpu| is_second(gpu.index)) {
            gpu.pci_address = moved(&gpu.pci_address);
        }
        let topology = data(&mut self.report.sections.topology);
        for gpu in topology.gpus.iter_mut().filter(|gpu| is_second(gpu.index)) {
            gpu.pci_address = moved(&gpu.pci_address);
            gpu.numa_node = gpu.numa_node.map(|numa| numa + 2);
            gpu.cpu_affinity = text(if gpu.numa_node == Some(2) { "224-279" } else { "280-335" });
            gpu.nvlinks.iter_mut().for_each(|group| group.remote_pci_address = moved(&group.remote_pci_address));
            gpu.pcie_path.iter_mut().for_each(|hop| hop.pci_address = moved(&hop.pci_address));
        }
        let switches: Vec<PciAddress> =
            topology.nvswitches.iter().filter_map(|address| moved(&Some(address.clone()))).collect();
        let switch_count = topology.nvswitches.len();
        topology.nvswitches.extend(switches);
        topology.matrix = (0..2 * count)
            .map(|row| (0..2 * count).map(|column| if row == column { "X" } else { "NV12" }.to_owned()).collect())
            .collect();
        self.loads.extend(self.loads.clone());
        let second: Vec<Allocation> = (0..count)
            .map(|gpu| Allocation {
                devices: vec![gpu_uuid(&name, gpu + count)],
                ..self.allocation(&format!("job-{}", gpu + count), gpu)
            })
            .collect();
        let uuids = self.gpu_uuids();
        let jobs: Vec<_> = data_of(&self.report.sections.processes).processes.clone();
        let jobs = jobs.into_iter().filter(|process| !process.uses.is_empty()).map(|mut process| {
            process.pid += count;
            process.uses[0].gpu += count;
            process
        });
        let jobs: Vec<_> = jobs.collect();
        let node = jobs.into_iter().fold(self, |node, process| {
            let pod = format!("job-{}", process.uses[0].gpu);
            node.running(Some(&pod), process)
        });
        let files: Vec<String> = (0..2 * count).map(|gpu| format!("/dev/nvidia{gpu}")).collect();
        node.processes(|all| {
            all.processes.iter_mut().filter(|one| !one.open_device_files.is_empty()).for_each(|process| {
                process.open_device_files.clone_from(&files);
            });
        })
        .registered(NVIDIA_GPU, uuids)
        .kubelet(|kubelet| kubelet.allocations.extend(second))
        .host(|host| {
            let mut more = host.pci_gpus.clone();
            for gpu in &mut more {
                gpu.pci_address = moved(&gpu.pci_address);
                gpu.numa_node = gpu.numa_node.map(|numa| numa + 2);
                gpu.iommu_group = gpu.iommu_group.map(|group| group + 200);
            }
            host.pci_gpus.extend(more);
            host.numa_nodes = Some(4);
            host.device_nodes.extend((count..2 * count).map(|gpu| format!("nvidia{gpu}")));
            host.device_nodes.extend((switch_count..2 * switch_count).map(|number| format!("nvidia-nvswitch{number}")));
        })
    }
}

fn cards_with_module_0() -> Healthy {
    with_plugin(l40s(4).each_inventory(|gpu| gpu.module_id = Some(0)))
}

fn nvl_bridge_on_two_of_four_cards() -> Healthy {
    let all = [0, 1, 2, 3];
    let mut node = all.into_iter().fold(h100(4), |node, gpu| node.of_product(gpu, &H100_NVL));
    node = node.of_no_nvswitch(18, &all).each_inventory(|gpu| gpu.module_id = Some(1));
    let topology = data(&mut node.report.sections.topology);
    let addresses: Vec<Option<PciAddress>> = topology.gpus.iter().map(|gpu| gpu.pci_address.clone()).collect();
    for (gpu, other) in topology.gpus.iter_mut().zip([1, 0]) {
        let bridge = NvlinkGroup {
            links: (0..12).collect(),
            active: Some(true),
            version: Some(4),
            speed_megabytes_per_second: Some(25_781),
            remote_type: text("gpu"),
            remote_pci_address: addresses[other].clone(),
            ..NvlinkGroup::default()
        };
        gpu.nvlinks = vec![bridge, links_down(12..18)];
        topology.matrix[gpu.index as usize][other] = "NV12".to_owned();
    }
    topology.p2p_lacking.iter_mut().for_each(|lack| lack.pairs.retain(|pair| *pair != [0, 1]));
    with_operator(node)
}

fn mixed_models() -> Healthy {
    with_plugin(l40s(4).of_product(2, &A10).of_product(3, &A10))
}

fn h100_pcie_without_fabric_manager() -> Healthy {
    let all = [0, 1, 2, 3];
    let node = all.into_iter().fold(h100(4), |node, gpu| node.of_product(gpu, &H100_PCIE));
    with_operator(node.of_no_nvswitch(18, &all))
}

fn consumer_cards_on_k3s() -> Healthy {
    let all = [0, 1, 2, 3];
    let path = "/var/lib/rancher/k3s/agent/etc/containerd/config.toml";
    let node = all
        .into_iter()
        .fold(l40s(4), |node, gpu| node.of_product(gpu, &RTX_4090))
        .of_no_ecc(&all)
        .each_inventory(|gpu| {
            (gpu.serial, gpu.board_part_number, gpu.inforom.oem) = (None, None, None);
            // PCIe cards return the same module number in every slot.
            gpu.module_id = Some(1);
        })
        .inventory_lacks(&all, &["serial", "board_part_number", "inforom.oem"])
        .each_telemetry(|gpu| gpu.fan_percent = Some(41 + gpu.index))
        .lacks_peers("chipset_not_supported", &["read", "write", "atomics"])
        .processes(|all| all.processes.retain(|process| process.name.as_deref() != Some("nv-hostengine")))
        .host(|host| host.daemons.dcgm = Some(false))
        .operating_system("Ubuntu 24.04.3 LTS")
        .container_runtime(containerd(
            path,
            3,
            [nvidia(HOST), nvidia_named("nvidia-cdi", "/usr/bin/nvidia-container-runtime.cdi")],
        ))
        .of_cdi();
    let (node, cluster) = with_stack(node, plugin_stack(["nvidia-gpu.sock"]));
    let class = runtime_class("nvidia", "kube-system/nvidia-device-plugin-x7p2q");
    (node, KubernetesFacts { runtime_classes: class, runtime_version: text("containerd://2.1.4-k3s1"), ..cluster })
}

fn workstation_with_a_desktop() -> Healthy {
    let node = (0..2).fold(l40s(2), |node, gpu| node.of_product(gpu, &RTX_6000).ecc_off(gpu));
    let node = node
        .inventory(0, |gpu| gpu.display_active = Some(true))
        .each_inventory(|gpu| gpu.module_id = Some(1))
        .each_telemetry(|gpu| gpu.fan_percent = Some(38 + gpu.index))
        .host(|host| host.modules.push("nvidia_drm".to_owned()));
    let use_of = |gpu: u32, mib: u64| GpuUse {
        gpu,
        kind: "graphics".to_owned(),
        memory_bytes: Some(mib * MIB),
        ..GpuUse::default()
    };
    let node = node
        .running(None, process(2_911, "Xorg", "/usr/lib/xorg/Xorg", 70, vec![use_of(0, 94), use_of(1, 4)]))
        .running(None, process(3_240, "gnome-shell", "/usr/bin/gnome-shell", 95, vec![use_of(0, 31)]));
    with_plugin(node)
}

fn gh200_with_numa_memory() -> Healthy {
    let node = Node::like("gb200-4", "gh200-5", 1, &["0-71"])
        .system("Ubuntu 24.04.3 LTS", "6.8.0-1041-nvidia-64k")
        .working(|index| Load { watts: 610, ..training(index) })
        .of_product(0, &GH200)
        .of_no_nvswitch(18, &[0])
        .inventory(0, |gpu| (gpu.platform, gpu.module_id) = (None, Some(0)))
        .inventory_lacks(&[0], &["platform"])
        .ecc(0, |gpu| (gpu.channel_repair_pending, gpu.tpc_repair_pending) = (None, None))
        .ecc_lacks(&[0], &["channel_repair_pending", "tpc_repair_pending"])
        .host(|host| {
            (host.daemons.imex, host.numa_nodes, host.numa_balancing) = (Some(false), Some(9), Some(false));
            host.memory_total_bytes = Some(614_180_323_328);
            host.memory_available_bytes = Some(421_907_365_888);
        });
    with_operator(node)
}

fn gb200_in_a_rack() -> Healthy {
    let node = Node::like("gb200-4", "gb200-b02-t11", 4, &["0-71", "72-143"])
        .working(|index| Load { watts: 1_171 + index, degrees: 61, mhz: Some(1_920), ..training(index) })
        .of_base_ports("gb200-4")
        .host(|host| {
            (host.numa_nodes, host.numa_balancing) = (Some(34), Some(false));
            host.device_nodes.push("nvidia-caps-imex-channels/channel0".to_owned());
        })
        .each_topology(|gpu| {
            gpu.fabric = Some(Fabric {
                state: "completed".to_owned(),
                status: text("success"),
                clique_id: Some(32_766),
                cluster_uuid: text("5f2c9a31-7b64-4c0e-9b1d-2b86d6f0a4e7"),
                health: text("healthy"),
                health_issues: Vec::new(),
                misconfiguration: None,
            });
        });
    with_operator(node)
}

fn closed_module_without_gsp() -> Healthy {
    let all = [0, 1, 2, 3, 4, 5, 6, 7];
    let node = a100s(8)
        .driver("550.163.01", "12.4")
        .of_base_ports("a100-mig-8")
        .each_inventory(|gpu| (gpu.gsp_firmware_version, gpu.gsp_enabled) = (None, Some(false)))
        .inventory_lacks(&all, &["gsp_firmware_version"])
        .host(|host| host.driver.flavor = text("proprietary"));
    with_operator(node)
}

fn confidential_virtual_machine() -> Healthy {
    let node = Node::like("healthy-h100-8", "cvm-h100-2", 1, &["0-31"])
        .system("Ubuntu 24.04.3 LTS", "6.8.0-1041-azure-fde")
        .working(|index| Load { watts: 331, ..serving(index) })
        .of_no_nvswitch(18, &[0])
        .each_topology(|gpu| {
            gpu.nvlinks.clear();
            gpu.pcie_path.truncate(1);
            gpu.numa_node = None;
        })
        .topology_lacks(&[0], &["nvlinks"])
        .each_inventory(|gpu| gpu.virtualization_mode = text("passthrough"))
        .host(|host| {
            host.modules.retain(|module| module != "nvidia_peermem");
            (host.iommu, host.numa_nodes) = (Some(false), Some(1));
            host.pci_gpus.iter_mut().for_each(|gpu| (gpu.iommu_group, gpu.numa_node) = (None, None));
        });
    let boot = node.boot();
    let node = node
        .kernel_line_of_level(6, boot + seconds(1), "Memory Encryption Features active: AMD SEV SEV-ES SEV-SNP")
        .kernel_line_of_level(
            6,
            boot + seconds(2),
            "software IO TLB: Memory encryption is active and system is using DMA bounce buffers",
        );
    with_plugin(node)
}

fn kvm_guest() -> Healthy {
    let mut node = l40s(4)
        .each_inventory(|gpu| gpu.virtualization_mode = text("passthrough"))
        .each_topology(|gpu| {
            (gpu.numa_node, gpu.cpu_affinity) = (None, text("0-63"));
            let port = &mut gpu.pcie_path[1];
            (port.generation, port.width, port.max_generation, port.max_width) = (Some(1), Some(1), Some(1), Some(1));
        })
        .lacks_peers("chipset_not_supported", &["read", "write", "atomics"])
        .host(|host| {
            (host.iommu, host.numa_nodes) = (Some(false), Some(1));
            host.pci_gpus.iter_mut().for_each(|gpu| (gpu.iommu_group, gpu.numa_node) = (None, None));
        });
    let cells = data(&mut node.report.sections.topology).matrix.iter_mut().flatten();
    cells.filter(|cell| *cell != "X").for_each(|cell| *cell = "PHB".to_owned());
    with_operator(node)
}

fn aks_on_hyper_v() -> Healthy {
    let address = PciAddress::parse("0001:00:00.0");
    let node = a100s(1)
        .system("Ubuntu 22.04.5 LTS", "5.15.0-1098-azure")
        .of_product(0, &A100_PCIE)
        .of_no_nvswitch(12, &[0])
        .inventory(0, |gpu| {
            gpu.pci_address.clone_from(&address);
            (gpu.virtualization_mode, gpu.board_id, gpu.module_id) = (text("passthrough"), text("0x10000"), Some(0));
        })
        .telemetry(0, |gpu| gpu.pci_address.clone_from(&address))
        .ecc(0, |gpu| gpu.pci_address.clone_from(&address))
        .topology(0, |gpu| {
            gpu.pci_address.clone_from(&address);
            gpu.pcie_path.truncate(1);
            gpu.pcie_path[0].pci_address.clone_from(&address);
        })
        .host(|host| {
            (host.iommu, host.numa_nodes) = (Some(false), Some(1));
            host.modules.retain(|module| module != "nvidia_peermem");
            host.pci_gpus[0].pci_address.clone_from(&address);
            host.pci_gpus[0].iommu_group = None;
        });
    let name = "nvidia-container-runtime";
    let handlers = [nvidia_named(name, HOST), nvidia_named("untrusted", HOST)];
    let node = node.container_runtime(containerd(CONFIG, 2, handlers).default_handler(name)).of_cdi();
    let (node, cluster) = with_stack(node, plugin_stack(["nvidia-gpu.sock"]));
    (node, named_plugin(cluster, "gpu-resources/nvidia-device-plugin-daemonset-8w2xp", "nvidia-device-plugin-ctr"))
}

fn talos() -> Healthy {
    let runtime = containerd("/etc/cri/containerd.toml", 3, [nvidia("/usr/local/bin/nvidia-container-runtime")])
        .drop_in("/etc/cri/conf.d/10-nvidia-container-runtime.part");
    let node = l40s(2)
        .system("Talos (v1.11.3)", "6.12.48-talos")
        .host(|host| {
            host.driver.library_path = text("/usr/local/glibc/usr/lib/libnvidia-ml.so.570.124.06");
            (host.container_toolkit, host.cdi_spec) = (text("/usr/local/bin/nvidia-container-runtime"), None);
        })
        .container_runtime(runtime)
        .cdi([]);
    let (node, cluster) = with_stack(node, plugin_stack(["nvidia-gpu.sock"]));
    let class = runtime_class("nvidia", "kube-system/nvidia-device-plugin-x7p2q");
    (node, KubernetesFacts { runtime_classes: class, ..cluster })
}

fn bottlerocket() -> Healthy {
    let system = "Bottlerocket OS 1.50.0 (aws-k8s-1.34-nvidia)";
    let binary = "/x86_64-bottlerocket-linux-gnu/sys-root/usr/bin/nvidia-oci";
    let node = t4()
        .system(system, "6.12.53")
        .host(|host| {
            let folder = "/x86_64-bottlerocket-linux-gnu/sys-root/usr/lib/nvidia/tesla";
            host.driver.library_path = text(format!("{folder}/libnvidia-ml.so.550.163.01"));
            (host.container_toolkit, host.cdi_spec) = (text(binary), None);
        })
        .container_runtime(containerd(CONFIG, 3, [nvidia(binary)]).default_handler("nvidia").without_toolkit())
        .cdi([]);
    with_stack(node, stack(["nvidia-gpu.sock"], "nvidia-device-p", None))
}

fn openshift_with_cri_o() -> Healthy {
    let node = l40s(4)
        .system("Red Hat Enterprise Linux CoreOS 9.6.20251103-0", "5.14.0-570.60.1.el9_6.x86_64")
        .host(|host| {
            host.driver.library_path = text("/run/nvidia/driver/usr/lib64/libnvidia-ml.so.570.124.06");
            host.driver.module_on_disk = None;
            (host.container_toolkit, host.cdi_spec) = (text(TOOLKIT), text("/var/run/cdi/nvidia.yaml"));
        })
        .container_runtime(cri_o(TOOLKIT))
        .of_cdi();
    let (node, mut cluster) = of_operator(node);
    for pod in cluster.nvidia_pods.iter_mut().flatten() {
        pod.namespace = "nvidia-gpu-operator".to_owned();
    }
    let class = runtime_class("nvidia", "nvidia-gpu-operator/nvidia-device-plugin-daemonset-x7p2q");
    let runtime_version = text("cri-o://1.33.5-3.rhaos4.20.git2b2f0d4.el9");
    (node, KubernetesFacts { runtime_classes: class, runtime_version, ..cluster })
}

fn training_at_the_power_limit() -> Healthy {
    let mut node = h100(8).of_base_ports("healthy-h100-8").loads(|index, load| {
        (load.watts, load.gpu, load.mhz) = (698, 100, Some(1_440 + 15 * (index % 4)));
        (load.degrees, load.reasons) = (72 + (index as i32 % 3), Some(0x4));
        load.capped_ms = 880_000_000 + 51_003 * u64::from(index);
    });
    // GPU 5 is 1 °C below its highest operating temperature. Its memory has 7 °C left.
    node = node.load(5, |load| (load.degrees, load.reasons, load.mhz) = (84, Some(0x24), Some(1_455))).telemetry(
        5,
        |gpu| {
            gpu.temperature.memory_celsius = Some(88);
            gpu.throttling.violations.push(Violation { policy: "thermal".to_owned(), duration_ms: 48_120 });
        },
    );
    with_operator(node)
}

fn up_for_400_days() -> Healthy {
    with_plugin(l40s(2).uptime(412 * 86_400 + 3_811))
}

fn hundreds_of_processes() -> Healthy {
    let mib = 950;
    let used = (80 * mib + 523) as f64 / 81_008.0;
    let node = h100(8).of_base_ports("healthy-h100-8").without_processes().loads(|index, load| {
        *load = Load { used, watts: 505 + index, degrees: 60, mhz: Some(1_980), ..serving(index) };
    });
    let workers = (0..8_u32).flat_map(|gpu| (0..80_u32).map(move |number| (gpu, number)));
    let node = workers.fold(node, |node, (gpu, number)| {
        let started = 4_180 + u64::from(number) / 8;
        let worker =
            process(100_000 + 1_000 * gpu + number, "python3", "python3 worker.py", started, on_gpu(gpu, mib * MIB));
        node.running(Some(&format!("job-{gpu}")), worker)
    });
    with_operator(node)
}

fn plugins_of_other_vendors() -> Healthy {
    let sockets = [
        "gpu.intel.com-i915.sock",
        "kubevirt-kvm.sock",
        "nvidia-gpu.sock",
        "qat.intel.com-cy.sock",
        "rdma_shared_device_a.sock",
    ];
    let registry = ["rook-ceph.rbd.csi.ceph.com-reg.sock", "gpu.intel.com-reg.sock"];
    let registry = registry.map(|name| TimestampedFile { name: name.to_owned(), at: None }).to_vec();
    let node = h100(8)
        .of_base_ports("healthy-h100-8")
        .host(|host| {
            host.modules.extend(["mlx5_core", "ib_core"].map(str::to_owned));
            host.numa_balancing = Some(true);
        })
        .container_runtime(containerd(CONFIG, 3, [nvidia(HOST)]))
        .of_cdi();
    let traces = NvidiaStack { registry_sockets: Some(registry), ..plugin_stack(sockets) };
    let (node, mut cluster) = with_stack(node, traces);
    let start = node.boot() + seconds(90);
    let network =
        daemon("nvidia-network-operator/mofed-ubuntu22.04-ds-4v8n2", Component::Other, "mofed-container", start);
    let network = NvidiaPod { uid: uuid(&["stack", "mofed"]), owner: "mofed-ubuntu22.04-ds".to_owned(), ..network };
    cluster.live_pod_uids.get_or_insert_default().push(network.uid.clone());
    cluster.nvidia_pods.get_or_insert_default().push(network);
    (node, cluster)
}

fn gke_part_of_a_board() -> Healthy {
    let mut node = a100s(4)
        .driver("550.163.01", "12.4")
        .system("Container-Optimized OS from Google", "6.6.93+")
        .each_inventory(|gpu| (gpu.virtualization_mode, gpu.module_id) = (text("passthrough"), Some(gpu.index + 1)))
        .each_topology(|gpu| {
            gpu.nvlinks.iter_mut().for_each(|group| group.remote_pci_address = None);
            gpu.pcie_path.truncate(1);
        })
        .kubelet(|kubelet| {
            for (allocation, gpu) in kubelet.allocations.iter_mut().zip(0..) {
                allocation.devices = vec![format!("nvidia{gpu}")];
            }
            kubelet.registered[0].devices = (0..4).map(|gpu| format!("nvidia{gpu}")).collect();
        })
        .host(|host| {
            host.device_nodes.retain(|name| !name.contains("nvswitch"));
            (host.daemons.fabric_manager, host.daemons.dcgm, host.iommu) = (Some(false), Some(true), Some(false));
            (host.container_toolkit, host.cdi_spec) = (None, None);
            host.driver.library_path = text("/home/kubernetes/bin/nvidia/lib64/libnvidia-ml.so.550.163.01");
            host.pci_gpus.iter_mut().for_each(|gpu| gpu.iommu_group = None);
        })
        .container_runtime(containerd(CONFIG, 2, [handler("gvisor", "io.containerd.runsc.v1", None)]).without_toolkit())
        .cdi([]);
    data(&mut node.report.sections.topology).nvswitches.clear();
    let sockets = ["nvidiaGPU-1794192300.sock"];
    let (node, cluster) = with_stack(node, stack(sockets, "nvidia-gpu-devi", Some("nvidia-gpu-device-plugin")));
    let labels = GpuLabels { gke_driver_version: text("default"), ..GpuLabels::default() };
    let cluster = KubernetesFacts { labels, ..cluster };
    (node, named_plugin(cluster, "kube-system/nvidia-gpu-device-plugin-medium-cos-9k2xw", "nvidia-gpu-device-plugin"))
}

// ---- what the Kubernetes API returns

/// Adds containerd, CDI and a device plugin of a DaemonSet. The driver and the toolkit are packages of the host.
fn with_plugin(node: Node) -> Healthy {
    let node = node.container_runtime(containerd(CONFIG, 3, [nvidia(HOST)])).of_cdi();
    with_stack(node, plugin_stack(["nvidia-gpu.sock"]))
}

/// Adds the traces of a device plugin. All times are after the boot of the node.
fn with_stack(node: Node, stack: NvidiaStack) -> Healthy {
    let node = node.nvidia_stack(stack).of_boot();
    let cluster = facts_of(&node);
    (node, cluster)
}

/// Adds the GPU Operator, which installs the toolkit and the device plugin.
fn with_operator(node: Node) -> Healthy {
    let node = node.container_runtime(containerd(CONFIG, 2, [nvidia(TOOLKIT)]).with(|it| it.cdi_enabled = Some(true)));
    of_operator(node.of_cdi())
}

/// Adds the traces of the GPU Operator to a node with a container runtime.
fn of_operator(node: Node) -> Healthy {
    let node = node.nvidia_stack(validated(plugin_stack(["nvidia-gpu.sock"]))).of_boot();
    let count = u32::try_from(data_of(&node.report.sections.inventory).gpus.len()).ok();
    let started = node.boot() + seconds(95);
    let pods = [
        ("nvidia-driver-daemonset", Component::Driver, "nvidia-driver-ctr"),
        ("nvidia-container-toolkit-daemonset", Component::ContainerToolkit, "nvidia-container-toolkit-ctr"),
        ("nvidia-operator-validator", Component::Validator, "nvidia-operator-validator"),
        ("gpu-feature-discovery", Component::FeatureDiscovery, "gpu-feature-discovery"),
        ("nvidia-dcgm-exporter", Component::Monitoring, "nvidia-dcgm-exporter"),
    ];
    let mut cluster = facts_of(&node);
    let all = cluster.nvidia_pods.get_or_insert_default();
    for pod in all.iter_mut() {
        (pod.namespace, pod.owner) = ("gpu-operator".to_owned(), "nvidia-device-plugin-daemonset".to_owned());
        pod.runtime_class = text("nvidia");
    }
    all.extend(pods.map(|(owner, component, container)| {
        let is_first = matches!(component, Component::Driver | Component::ContainerToolkit);
        let uid = match component {
            Component::Monitoring => pod_uid(node.name(), "dcgm"),
            _ => uuid(&["stack", owner]),
        };
        NvidiaPod {
            uid,
            owner: owner.to_owned(),
            runtime_class: (!is_first).then(|| "nvidia".to_owned()),
            ..daemon(&format!("gpu-operator/{owner}-x7p2q"), component, container, started)
        }
    }));
    let uids = cluster.live_pod_uids.get_or_insert_default();
    uids.extend(cluster.nvidia_pods.iter().flatten().map(|pod| pod.uid.clone()));
    uids.sort_unstable();
    uids.dedup();
    let parts = [
        "container-toolkit",
        "dcgm-exporter",
        "device-plugin",
        "driver",
        "gpu-feature-discovery",
        "operator-validator",
    ];
    cluster.gpu_label_count = count;
    cluster.runtime_classes = runtime_class("nvidia", "gpu-operator/nvidia-device-plugin-daemonset-x7p2q");
    cluster.labels = GpuLabels {
        deploy: parts.iter().map(|part| ((*part).to_owned(), "true".to_owned())).collect(),
        driver_upgrade_state: text("upgrade-done"),
        pci_present: true,
        feature_discovery: true,
        ..GpuLabels::default()
    };
    (node, cluster)
}

/// Returns a pod of a DaemonSet whose container has been running since `started`.
fn daemon(full_name: &str, component: Component, container: &str, started: Timestamp) -> NvidiaPod {
    let pod = nvidia_pod(full_name, component, container, ago(seconds(0)).duration_since(started));
    NvidiaPod { created: Some(started - seconds(20)), ..pod }
}

/// Returns the API data about a node: its resources, the pods of its allocations, and the pod of the device plugin.
fn facts_of(node: &Node) -> KubernetesFacts {
    let sections = &node.report.sections;
    let (host, kubelet) = (data_of(&sections.host), data_of(&sections.kubelet));
    let is_gpu = |registered: &&RegisteredDevices| registered.resource == NVIDIA_GPU;
    let devices = kubelet.registered.iter().find(is_gpu).map(|registered| registered.devices.len() as u32);
    let others = kubelet.registered.iter().filter(|registered| !is_gpu(registered));
    let mut pods: BTreeMap<&str, Vec<&Allocation>> = BTreeMap::new();
    for allocation in &kubelet.allocations {
        pods.entry(&allocation.pod_uid).or_default().push(allocation);
    }
    let started = node.boot() + seconds(4_150);
    let mut gpu_pods: Vec<GpuPod> = pods.iter().map(|(uid, held)| gpu_pod(uid, held, started)).collect();
    let processes = data_of(&sections.processes).processes.iter();
    let of_processes: BTreeSet<&String> = processes.filter_map(|process| process.pod_uid.as_ref()).collect();
    let dcgm = pod_uid(node.name(), "dcgm");
    let rest = of_processes.into_iter().filter(|uid| !pods.contains_key(uid.as_str()));
    gpu_pods.extend(rest.map(|uid| GpuPod { is_node_software: *uid == dcgm, ..gpu_pod(uid, &[], started) }));
    let plugins = host.nvidia_stack.iter().flat_map(|stack| &stack.processes);
    let plugins: Vec<&String> = plugins.filter_map(|process| process.pod_uid.as_ref()).collect();
    let live = gpu_pods.iter().map(|pod| pod.uid.clone()).chain(plugins.iter().copied().cloned());
    let plugin = "nvidia-device-plugin";
    let start = node.boot() + seconds(95);
    let nvidia_pods = plugins.iter().map(|uid| NvidiaPod {
        uid: (*uid).clone(),
        owner: plugin.to_owned(),
        ..daemon("kube-system/nvidia-device-plugin-x7p2q", Component::DevicePlugin, plugin, start)
    });
    KubernetesFacts {
        gpu_capacity: devices,
        gpu_allocatable: devices,
        other_gpu_resources: others.filter(|other| other.resource.starts_with("nvidia.com/")).count() > 0,
        gpu_dra: Some(false),
        gpu_plugin_in_cluster: Some(true),
        live_pod_uids: Some(live.collect()),
        gpu_pods: Some(gpu_pods),
        starting_pods: Some(Vec::new()),
        read_at: node.report.taken_at,
        ready: Some(true),
        ready_since: Some(node.boot() + seconds(55)),
        os_image: host.operating_system.clone(),
        runtime_version: text("containerd://2.1.4"),
        nvidia_pods: Some(nvidia_pods.collect()),
        pci_label_elsewhere: Some(false),
        runtime_classes: Some(Vec::new()),
        ..cluster(node.name())
    }
}

/// Returns a pod that was started at this time, with the containers of its allocations.
fn gpu_pod(uid: &str, held: &[&Allocation], started: Timestamp) -> GpuPod {
    let containers = held.iter().filter(|allocation| allocation.claim.is_none()).map(|allocation| {
        let count = allocation.replicas.map_or(allocation.devices.len() as u64, u64::from);
        GpuContainer {
            name: allocation.container.clone(),
            requests: [(allocation.resource.clone(), count)].into(),
            running_since: Some(started + seconds(9)),
        }
    });
    GpuPod {
        namespace: "workloads".to_owned(),
        name: format!("pod-{}", &uid[..8]),
        uid: uid.to_owned(),
        phase: "Running".to_owned(),
        created: Some(started),
        observed: Some(started + seconds(1)),
        has_claims: held.iter().any(|allocation| allocation.claim.is_some()),
        containers: containers.collect(),
        ..GpuPod::default()
    }
}

fn data_of<T>(section: &Option<Section<T>>) -> &T {
    Section::data_of(section).expect("a section with data")
}

// ---- changes of nodes

/// Returns an HGX board with A100 GPUs. GPU 5 of the base node has a memory error; this board has none.
fn a100s(count: u32) -> Node {
    let mut healthy = None;
    let node = a100(count).ecc(0, |gpu| healthy = Some(gpu.clone()));
    let healthy = healthy.expect("the entry of GPU 0");
    node.each_ecc(|gpu| {
        let (index, uuid, pci_address) = (gpu.index, gpu.uuid.clone(), gpu.pci_address.clone());
        *gpu = GpuEcc { index, uuid, pci_address, ..healthy.clone() };
    })
}

/// Marks fields as unsupported on these GPUs.
fn mark(list: &mut Vec<Unsupported>, gpus: &[u32], fields: &[&str]) {
    let mut by_gpu: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for entry in list.drain(..) {
        for gpu in entry.gpus {
            by_gpu.entry(gpu).or_default().extend(entry.fields.iter().cloned());
        }
    }
    for gpu in gpus {
        let own = by_gpu.entry(*gpu).or_default();
        for field in fields {
            if !own.iter().any(|one| one == field) {
                own.push((*field).to_owned());
            }
        }
    }
    let mut grouped: BTreeMap<Vec<String>, Vec<u32>> = BTreeMap::new();
    for (gpu, fields) in by_gpu {
        grouped.entry(fields).or_default().push(gpu);
    }
    list.extend(grouped.into_iter().map(|(fields, gpus)| Unsupported { gpus, fields }));
}

/// Defines methods that change the entries of all GPUs in a section, and methods that mark unsupported fields.
macro_rules! sections {
    ($($each:ident $lacks:ident: $section:ident $gpu:ty;)*) => {
        impl Node {$(
            pub(crate) fn $each(mut self, change: impl Fn(&mut $gpu)) -> Self {
                data(&mut self.report.sections.$section).gpus.iter_mut().for_each(change);
                self
            }

            fn $lacks(mut self, gpus: &[u32], fields: &[&str]) -> Self {
                mark(&mut data(&mut self.report.sections.$section).unsupported, gpus, fields);
                self
            }
        )*}
    };
}

sections! {
    each_inventory inventory_lacks: inventory GpuInventory;
    each_telemetry telemetry_lacks: telemetry GpuTelemetry;
    each_topology topology_lacks: topology GpuTopology;
    each_ecc ecc_lacks: ecc GpuEcc;
    each_mig mig_lacks: mig GpuMig;
}

impl Node {
    /// Adds one CDI specification with all GPUs and MIG devices of NVML.
    fn of_cdi(self) -> Self {
        let divided: Vec<&GpuMig> =
            data_of(&self.report.sections.mig).gpus.iter().filter(|gpu| !gpu.devices.is_empty()).collect();
        let gpus = data_of(&self.report.sections.inventory).gpus.iter();
        let whole = gpus.filter(|gpu| divided.iter().all(|one| one.index != gpu.index));
        let names = whole.flat_map(|gpu| gpu.uuid.clone().into_iter().chain([gpu.index.to_string()]));
        // A GPU with MIG devices does not have its own name in a specification.
        let parts = divided.iter().flat_map(|gpu| {
            let devices = gpu.devices.iter().zip(0..);
            devices
                .flat_map(|(device, number)| device.uuid.clone().into_iter().chain([format!("{}:{number}", gpu.index)]))
        });
        let mut one = spec();
        one.devices = names.chain(parts).chain(["all".to_owned()]).collect();
        self.cdi([one])
    }

    /// Sets all times of Kubernetes software on the host to the first minutes after the boot.
    fn of_boot(self) -> Self {
        let boot = self.boot();
        let at = |after: i64| Some(boot + seconds(after));
        self.host(|host| {
            if let Some(stack) = &mut host.nvidia_stack {
                stack.kubelet_started_at = at(45);
                let sockets = stack.plugin_sockets.iter_mut().chain(&mut stack.registry_sockets).flatten();
                sockets.for_each(|socket| socket.at = at(97));
                stack.validations.iter_mut().for_each(|file| file.at = at(99));
                stack.processes.iter_mut().for_each(|process| process.started_at = at(95));
            }
            if let Some(runtime) = &mut host.container_runtime {
                (runtime.started_at, runtime.config_changed_at) = (at(38), Some(boot - days(3)));
            }
            host.cdi.iter_mut().flat_map(|cdi| &mut cdi.specs).for_each(|spec| spec.changed_at = at(30));
        })
    }

    /// Removes the daemon that keeps the driver loaded, and DCGM.
    fn of_no_daemons(self) -> Self {
        self.processes(|all| all.processes.retain(|process| process.open_device_files.is_empty()))
            .each_inventory(|gpu| gpu.persistence_mode = Some(false))
            .host(|host| (host.daemons.persistenced, host.daemons.dcgm) = (Some(false), Some(false)))
    }

    /// Adds the InfiniBand ports of the base node.
    fn of_base_ports(mut self, base: &str) -> Self {
        let nics = data_of(&Node::of_base(base).report.sections.topology).nics.clone();
        data(&mut self.report.sections.topology).nics = nics;
        self
    }

    /// Sets the power limit of a GPU below its default.
    fn of_limit(self, gpu: u32, watts: u32) -> Self {
        self.telemetry(gpu, |gpu| {
            let power = &mut gpu.power;
            (power.limit_milliwatts, power.enforced_limit_milliwatts) = (Some(watts * 1000), Some(watts * 1000));
            power.margin_to_limit_milliwatts =
                power.draw_milliwatts.map(|draw| i64::from(watts * 1000) - i64::from(draw));
        })
    }

    /// Divides GPUs into MIG devices. No process uses the GPUs.
    fn of_mig(mut self, gpus: &[u32], profile: &str, slices: u32, count: u32, mib: u64) -> Self {
        let name = self.name().to_owned();
        let on = Some(Mode { current: true, pending: true });
        for gpu in gpus {
            self = self
                .inventory(*gpu, |gpu| gpu.mig_mode = on)
                .telemetry(*gpu, |gpu| gpu.utilization = Default::default())
                .ecc(*gpu, |gpu| gpu.remapped_rows = None)
                .mig(*gpu, |entry| {
                    entry.mode = on;
                    entry.devices = (0..count)
                        .map(|number| MigDevice {
                            uuid: text(mig_uuid(&name, *gpu, number)),
                            gpu_instance: Some(if slices == 1 { 7 + number } else { 1 + number }),
                            compute_instance: Some(0),
                            profile: text(profile),
                            gpu_slices: Some(slices),
                            compute_slices: Some(slices),
                            multiprocessors: Some(14 * slices),
                            memory_total_bytes: Some(mib * MIB),
                            memory_used_bytes: Some(12 * MIB),
                        })
                        .collect();
                });
        }
        let fields =
            ["gpu_percent", "memory_percent", "encoder_percent", "decoder_percent", "jpeg_percent", "ofa_percent"]
                .map(|field| format!("utilization.{field}"));
        self.telemetry_lacks(gpus, &fields.each_ref().map(String::as_str)).ecc_lacks(gpus, &["remapped_rows"])
    }
}

/// Returns the UUID of a MIG device.
fn mig_uuid(node: &str, gpu: u32, number: u32) -> String {
    format!("MIG-{}", uuid(&[node, "mig", &gpu.to_string(), &number.to_string()]))
}
