//! Rules about direct transfers between GPUs and network cards, or between GPUs over PCIe, that are not possible.
//!
//! GPUDirect RDMA needs DMA-BUF, or the module nvidia-peermem that is registered with the RDMA stack. ACS and the IOMMU
//! can route PCIe transfers through the processor. In a virtual machine, the host controls both.

use crate::evidence;
use crate::input::boards;
use crate::input::node::{Gpu, Node};
use crate::rule::{Draft, NCCL_DOC, rules};
use crate::rules::links::rdma_ports::{distance, is_active};
use syringe_core::classification::Severity;
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind};
use syringe_core::facts::topology::{GpuDirect, NicPort, Topology};

/// NVIDIA's documentation of GPUDirect RDMA.
const GPUDIRECT_DOC: Option<&str> = Some("https://docs.nvidia.com/cuda/gpudirect-rdma/");

rules! {
    ACS: "pcie-acs-redirects" Warning Fabric NCCL_DOC, "PCIe switches send direct transfers through the processor",
        UpdateSoftware "Switch ACS off in the BIOS of {node}, or with setpci at each boot for the ports in the \
            evidence. Do not do this if virtual machines use the devices of {node}. Transfers between the GPUs and to network cards are slow, and NCCL can hang.",
        means "Access control services (ACS) of PCIe ports redirect the transfers between devices below one switch to the processor.",
        reads "topology.gpudirect, topology.nics, topology.matrix", in_plan WorkContinues;
    IOMMU: "iommu-translates-transfers" Info Fabric NCCL_DOC, "The IOMMU translates the addresses of GPU transfers",
        Watch "If NCCL hangs or transfers between GPUs over PCIe are slow or wrong, boot {node} with iommu=pt, or switch the IOMMU off in the BIOS.",
        means "The IOMMU domain of the GPUs is not in the mode `identity` on a machine without virtualization. Direct transfers between \
            PCIe devices can be slow, and programs can hang.",
        reads "host.pci_gpus, topology.nics, topology.gpus", in_plan WorkContinues;
    UNAVAILABLE: "gpudirect-rdma-unavailable" Warning Driver GPUDIRECT_DOC, "GPUDirect RDMA cannot be used",
        UpdateSoftware "Load nvidia_peermem on {node} (modprobe nvidia_peermem; GPU Operator: driver.rdma.enabled), or install the open kernel \
            module on Linux 5.12 or later, which offers DMA-BUF. Without nvidia_peermem or DMA-BUF, NCCL copies data through the memory of the host.",
        means "The node has active InfiniBand or RoCE ports next to its GPUs, but they are not connected by \
            nvidia-peermem or DMA-BUF.",
        reads "host.modules, host.driver, topology.nics, topology.gpudirect", in_plan WorkContinues;
    REFUSED: "rdma-module-refused" Warning Driver None, "The kernel does not load a module of RDMA",
        UpdateSoftware "Install the RDMA modules in the evidence for the running kernel of {node} (reinstall DOCA or MLNX_OFED after an update of \
            the kernel, or remove it to use the modules of the kernel), and reboot {node}. This is not a GPU fault, but jobs on several nodes \
            cannot use InfiniBand or RoCE.",
        means "A module of the RDMA stack does not fit the kernel or the other RDMA modules, and is not loaded now.",
        reads "xid: module_refused, host.modules", in_plan WorkContinues;
    UNREGISTERED: "nvidia-peermem-not-registered" Warning Driver GPUDIRECT_DOC, "nvidia-peermem is loaded but not registered",
        UpdateSoftware "Reload nvidia_peermem on {node} (rmmod nvidia_peermem; modprobe nvidia_peermem) after the RDMA modules. If it does not register, \
            it was built for other RDMA modules: reinstall the driver after DOCA or MLNX_OFED.",
        means "The module nvidia-peermem is loaded, but the RDMA modules do not list it as a client (`memory_peers`), so NCCL does not use \
            GPUDirect RDMA. This happens if the RDMA modules were replaced or reloaded after the load of \
                nvidia-peermem.",
        reads "host.modules, topology.gpudirect, topology.nics", in_plan WorkContinues;
}

/// The first version of Linux in which RDMA cards can use DMA-BUF.
const DMA_BUF_SINCE: (u32, u32) = (5, 12);
/// The first release of the open kernel module.
const OPEN_SINCE: u32 = 515;
/// Minimum number of GPUs with ports at their PCIe switches on a node that is built for jobs on several nodes.
const RAILS: usize = 4;

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = refused_module(node).into_iter().collect();
    let Some(topology) = node.topology() else { return drafts };
    drafts.extend(peer_memory(node, topology));
    if boards::is_bare_metal(node) {
        drafts.extend(topology.gpudirect.as_ref().and_then(|settings| acs(node, topology, settings)));
        drafts.extend(iommu(node, topology));
    }
    drafts
}

/// Returns a finding if a module of RDMA was rejected and is not loaded now.
fn refused_module(node: &Node<'_>) -> Option<Draft> {
    let modules = node.host().map(|host| &host.modules);
    let is_of_rdma = |name: &String| ["mlx5_", "ib_", "rdma_"].iter().any(|start| name.starts_with(start));
    let is_absent = |event: &&KernelEvent| {
        event
            .details
            .get("module")
            .is_some_and(|name| is_of_rdma(name) && modules.is_none_or(|modules| !modules.contains(name)))
    };
    // A load of the nvidia module does not change these modules, so all lines of this boot count.
    let of_boot = node.kernel_log()?.events.iter().filter(|event| event.boot_id.is_none());
    let of_kind = of_boot.filter(|event| event.kind == KernelEventKind::ModuleRefused);
    let lines: Vec<&KernelEvent> = of_kind.filter(is_absent).collect();
    let newest = lines.last()?;
    let draft = Draft::on_node(REFUSED).with_events(lines.iter().copied());
    Some(draft.with_evidence(evidence::kernel_line(newest)))
}

/// Returns the active ports that GPUs can reach. EFA uses its own client.
fn active_ports(topology: &Topology) -> Vec<&NicPort> {
    let is_rdma = |port: &NicPort| matches!(port.link_layer.as_deref(), Some("InfiniBand" | "Ethernet"));
    topology.nics.iter().filter(|port| is_active(port) && is_rdma(port) && !port.near.is_empty()).collect()
}

/// Returns whether there are several GPUs, and none of them has NVLinks.
fn is_on_pcie_alone(topology: &Topology) -> bool {
    topology.gpus.len() > 1 && topology.gpus.iter().all(|gpu| gpu.nvlinks.is_empty())
}

fn acs(node: &Node<'_>, topology: &Topology, settings: &GpuDirect) -> Option<Draft> {
    // Virtual machines need ACS.
    let for_machines = node.host().is_some_and(|host| host.modules.iter().any(|module| module == "vfio_pci"));
    let pairs = topology.matrix.iter().flatten().any(|cell| matches!(cell.as_str(), "PIX" | "PXB"));
    let gpus_share = is_on_pcie_alone(topology) && pairs;
    let cards_share = active_ports(topology).into_iter().any(|port| distance(port) == Some(0));
    let (ports, kind) = match (&settings.acs_switch_ports, &settings.acs_root_ports) {
        (ports, _) if !ports.is_empty() && (gpus_share || cards_share) => (ports, "switch"),
        (_, ports) if !ports.is_empty() && is_on_pcie_alone(topology) => (ports, "root"),
        _ => return None,
    };
    // If the devices are below different root ports, transfers pass through the processor with or without ACS.
    let severity = if kind == "switch" && !for_machines { Severity::Warning } else { Severity::Info };
    let names: Vec<String> = ports.iter().map(|port| port.sysfs().to_owned()).collect();
    let all = settings.acs_ports_read.unwrap_or_default();
    let line = format!(
        "ACS redirects transfers at {} {} (of {all} ports above GPUs and network cards): {}",
        ports.len(),
        if ports.len() == 1 { format!("{kind} port") } else { format!("{kind} ports") },
        evidence::some(&names, 4)
    );
    Some(Draft::on_node(ACS).with_severity(severity).with_evidence(line))
}

/// Returns a finding about GPUs whose addresses the IOMMU translates. Distributions enable this by default on some
/// machines.
fn iommu(node: &Node<'_>, topology: &Topology) -> Option<Draft> {
    let domain = |gpu: &Gpu| node.pci_of(gpu).and_then(|pci| pci.iommu_domain.as_deref());
    let translated: Vec<(&Gpu, &str)> = node
        .answering()
        .filter_map(|gpu| Some((gpu, domain(gpu)?)))
        .filter(|(_, domain)| domain.starts_with("DMA"))
        .collect();
    let (_, domain) = translated.first()?;
    if !is_on_pcie_alone(topology) && active_ports(topology).is_empty() {
        return None;
    }
    let line = format!("IOMMU domain {} for {}", evidence::data(domain), evidence::count(translated.len(), "GPU"));
    Some(Draft::on_node(IOMMU).with_evidence(line))
}

fn peer_memory(node: &Node<'_>, topology: &Topology) -> Vec<Draft> {
    let ports = active_ports(topology);
    let Some(host) = node.host().filter(|host| host.driver.loaded.is_some() && !ports.is_empty()) else {
        return Vec::new();
    };
    // Consumer cards and virtual GPUs do not support GPUDirect RDMA.
    let can = |gpu: &Gpu| {
        let mode = node.inventory_of(gpu).and_then(|gpu| gpu.virtualization_mode.as_deref());
        matches!(mode, Some("none" | "passthrough"))
            && !gpu.name.as_deref().is_some_and(|name| name.contains("GeForce"))
    };
    if node.answering().next().is_none() || !node.answering().all(can) {
        return Vec::new();
    }
    let Some(dma_buf) = offers_dma_buf(node) else { return Vec::new() };
    let near = |gpu: &Gpu| {
        let is_near = |port: &&NicPort| port.near.iter().any(|near| Some(near.gpu) == gpu.index);
        ports.iter().copied().filter(|port| distance(port) == Some(0)).any(|port| is_near(&port))
    };
    let rails = node.answering().filter(|gpu| near(gpu)).count();
    let severity = if rails >= RAILS && !dma_buf { Severity::Warning } else { Severity::Info };
    let clients = topology.gpudirect.as_ref().and_then(|settings| settings.memory_peers.as_ref());
    let is_registered = clients.is_some_and(|clients| clients.iter().any(|client| client.starts_with("nv_mem")));
    let is_loaded = host.modules.iter().any(|module| module == "nvidia_peermem");
    let kernel = evidence::data(node.report.kernel.as_deref().unwrap_or_default());
    let flavor = evidence::data(host.driver.flavor.as_deref().unwrap_or_default());
    let ports = evidence::count(ports.len(), "active RDMA port");
    match (is_loaded, clients) {
        (false, _) if !dma_buf && !is_registered => {
            let line = format!(
                "nvidia_peermem is not loaded; DMA-BUF needs the open kernel module and Linux 5.12 (here: {flavor}, {kernel}); {ports}"
            );
            vec![Draft::on_node(UNAVAILABLE).with_severity(severity).with_evidence(line)]
        }
        (true, Some(clients)) if !is_registered => {
            let names = if clients.is_empty() { "none".to_owned() } else { evidence::names(clients, 4) };
            let or = if dma_buf { "; DMA-BUF can be used instead" } else { "" };
            let line = format!("clients in /sys/kernel/mm/memory_peers: {names}; {ports}{or}");
            vec![Draft::on_node(UNREGISTERED).with_severity(severity).with_evidence(line)]
        }
        _ => Vec::new(),
    }
}

/// Returns whether kernel and driver provide DMA-BUF to RDMA cards. `None` if this is not known.
fn offers_dma_buf(node: &Node<'_>) -> Option<bool> {
    let driver = &node.host()?.driver;
    let mut numbers = node.report.kernel.as_deref()?.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let kernel = (numbers.next()?, numbers.next()?);
    let release: u32 = driver.loaded.as_deref()?.split('.').next()?.parse().ok()?;
    Some(driver.flavor.as_deref()? == "open" && kernel >= DMA_BUF_SINCE && release >= OPEN_SINCE)
}
