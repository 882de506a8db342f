//! The types of the `topology` section: NVLink and C2C links, NVSwitch fabric, peer-to-peer, PCIe paths, NUMA nodes of
//! the GPUs, and network cards with their ports. `ports_above_one_gpu`: the PCIe ports above exactly one GPU.
//!
//! Source: NVML and sysfs.

use std::collections::BTreeMap;

use syringe_macros::facts;

use super::{LostGpu, Unread, Unsupported, availability_of};
use crate::pci::PciAddress;

/// Connections of every GPU.
#[facts(omit(p2p_lacking, nics, cards_without_ports, bonds, gpudirect, unsupported, unread, lost))]
pub struct Topology {
    /// One entry per GPU, in NVML's order.
    pub gpus: Vec<GpuTopology>,
    /// Connection of each pair of GPUs, with rows and columns in the order of `gpus`: `X` (the same GPU), `NV18` (18
    /// NVLinks), `PIX`, `PXB`, `PHB`, `NODE`, `SYS`, or `?`. These are the terms of `nvidia-smi topo -m`.
    pub matrix: Vec<Vec<String>>,
    /// Peer-to-peer capabilities that some pairs of GPUs do not have. See also `p2p_all_ok`.
    pub p2p_lacking: Vec<MissingP2p>,
    /// Capabilities that every pair of GPUs has (`read`, `write`, `atomics`).
    pub p2p_all_ok: Vec<String>,
    /// InfiniBand and RoCE ports.
    pub nics: Vec<NicPort>,
    /// Cards for InfiniBand, RoCE or EFA on the PCI bus that have no RDMA device.
    pub cards_without_ports: Vec<NetworkCard>,
    /// Bonds of network interfaces.
    pub bonds: Vec<Bond>,
    /// Settings that decide whether GPUs and network cards exchange data directly. Read only if there are GPUs.
    pub gpudirect: Option<GpuDirect>,
    /// NVSwitches on the PCI bus of this node.
    pub nvswitches: Vec<PciAddress>,
    /// Fields that the driver does not support.
    pub unsupported: Vec<Unsupported>,
    /// Fields that could not be read.
    pub unread: Vec<Unread>,
    /// GPUs that do not respond, or no longer respond.
    pub lost: Vec<LostGpu>,
}

availability_of!(Topology);

/// Connections of one GPU.
#[facts(omit(c2c, fabric))]
pub struct GpuTopology {
    /// NVML index.
    pub index: u32,
    /// UUID.
    pub uuid: Option<String>,
    /// PCI address.
    pub pci_address: Option<PciAddress>,
    /// NUMA node of the GPU (sysfs); `None` if the machine has no NUMA.
    pub numa_node: Option<u32>,
    /// CPUs near the GPU, e.g. `0-47,96-143`.
    pub cpu_affinity: Option<String>,
    /// All NVLinks of the GPU, including inactive links. Links with identical values are one entry.
    pub nvlinks: Vec<NvlinkGroup>,
    /// Links between the GPU and the CPU of its module (C2C, on Grace boards).
    pub c2c: Option<C2cLinks>,
    /// Registration with the NVSwitch fabric (Hopper and later, on NVSwitch systems).
    pub fabric: Option<Fabric>,
    /// The PCIe path from the GPU (first) up to the root port, as sysfs shows it.
    pub pcie_path: Vec<PcieHop>,
    /// Number of PCIe replays since the driver was loaded.
    pub pcie_replays: Option<u64>,
}

/// The C2C links of one GPU (fields 170 to 172 and 231 to 233).
#[facts(omit(Vec, Option, BTreeMap))]
pub struct C2cLinks {
    /// Number of links.
    pub count: u32,
    /// Numbers of the links that are not active.
    pub down: Vec<u32>,
    /// Speed of the slowest active link.
    pub megabytes_per_second: Option<u32>,
    /// Error counters that are not zero, by name, each the sum of all links since the driver was loaded: `crc`, `replay`,
    /// `replay_back_to_back`.
    pub errors: BTreeMap<String, u64>,
}

/// NVLinks of one GPU with identical values.
#[facts(omit(BTreeMap, traffic_disabled))]
pub struct NvlinkGroup {
    /// Link numbers.
    pub links: Vec<u32>,
    /// Whether the links are up. `None` if the driver does not report it.
    pub active: Option<bool>,
    /// Whether the driver has disabled traffic on the links, which are up (`NVML_NVLINK_STATE_ACTIVE_TRAFFIC_DISABLED`,
    /// R615).
    pub traffic_disabled: bool,
    /// NVLink version, e.g. `4`.
    pub version: Option<u32>,
    /// Speed of one link in one direction (field 164, in megabytes per second); `None` on links that are not up.
    pub speed_megabytes_per_second: Option<u32>,
    /// Type of the remote device: `gpu`, `switch`, `ibm_npu`, `unknown`.
    pub remote_type: Option<String>,
    /// PCI address of the remote device.
    pub remote_pci_address: Option<PciAddress>,
    /// Error counters that are not zero, by name, since the driver was loaded: `crc_flit`, `crc_data`, `replay`,
    /// `recovery`, `ecc`, and on NVLink 5 `malformed_packets`, `buffer_overrun`, `local_link_integrity`,
    /// `link_recovery_successful`, `link_recovery_failed`, `symbol_errors`, `effective_errors`, … The map is also empty
    /// if the counters could not be read: see [`Topology::availability`], field `nvlinks.errors`.
    pub errors: BTreeMap<String, u64>,
    /// Bit error rates of NVLink 5 links that are higher than 1e-15: `effective` and `symbol` after error correction,
    /// `raw` before error correction (fields 220, 222 and 218).
    pub bit_error_rates: BTreeMap<String, f64>,
}

/// Registration with the NVSwitch fabric (`nvmlDeviceGetGpuFabricInfoV`).
#[facts(omit(cluster_uuid, health, misconfiguration, Vec))]
pub struct Fabric {
    /// State of the registration: `not_supported`, `not_started`, `in_progress`, `completed`.
    pub state: String,
    /// Result of the completed registration: `success`, or the NVML error.
    pub status: Option<String>,
    /// NVLink clique id.
    pub clique_id: Option<u32>,
    /// Cluster UUID after the registration; absent if all digits are zero (a single node).
    pub cluster_uuid: Option<String>,
    /// Health summary (R570 and later): `healthy`, `unhealthy`, `limited_capacity`, `not_supported`.
    pub health: Option<String>,
    /// Problems in the health mask: `degraded_bandwidth`, `route_recovery`, `route_unhealthy`, `access_timeout`,
    /// `incorrect_configuration`.
    pub health_issues: Vec<String>,
    /// Kind of `incorrect_configuration` in the health mask: `incorrect_sysguid`, `incorrect_chassis_sn`, `no_partition`,
    /// `insufficient_nvlinks`, `incompatible_gpu_fw`, `invalid_location`, `gpu_state_invalid`.
    pub misconfiguration: Option<String>,
}

/// One device on the PCIe path.
#[facts(omit(BTreeMap))]
pub struct PcieHop {
    /// PCI address.
    pub pci_address: Option<PciAddress>,
    /// Kind of the device: `gpu`, `switch_downstream`, `switch_upstream`, `root_port`, `bridge`.
    pub kind: String,
    /// Current generation (from `current_link_speed`).
    pub generation: Option<u32>,
    /// Current number of lanes.
    pub width: Option<u32>,
    /// Highest generation of this device.
    pub max_generation: Option<u32>,
    /// Highest number of lanes of this device.
    pub max_width: Option<u32>,
    /// AER totals that are not zero: `correctable`, `nonfatal`, `fatal` (`aer_dev_*`).
    pub aer: BTreeMap<String, u64>,
}

/// A peer-to-peer capability that is missing between some pairs of GPUs, for one common reason.
#[facts]
pub struct MissingP2p {
    /// The missing capability: `read`, `write` or `atomics`.
    pub capability: String,
    /// Reason in NVML: `chipset_not_supported`, `topology_not_supported`, `disabled_by_regkey`, `not_supported`,
    /// `unknown`, …
    pub status: String,
    /// The pairs, by NVML index.
    pub pairs: Vec<[u32; 2]>,
}

/// One InfiniBand or RoCE port (`/sys/class/infiniband`).
#[facts(omit(Vec, physical_state, firmware, board_id, roce_v2_address, counters, interface, slot))]
pub struct NicPort {
    /// Device name, e.g. `mlx5_0`.
    pub device: String,
    /// Port number.
    pub port: u32,
    /// PCI address.
    pub pci_address: Option<PciAddress>,
    /// NUMA node.
    pub numa_node: Option<u32>,
    /// `InfiniBand` or `Ethernet`.
    pub link_layer: Option<String>,
    /// State of the port, e.g. `ACTIVE`, `DOWN`.
    pub state: Option<String>,
    /// Physical state of the port: `LinkUp`, `Polling` (no signal), `Disabled` (switched off),
    /// `PortConfigurationTraining`, …
    pub physical_state: Option<String>,
    /// Data rate of the port.
    pub rate_gigabits_per_second: Option<f64>,
    /// Firmware version of the card.
    pub firmware: Option<String>,
    /// Model of the card's board (PSID). Cards with the same id can have the same firmware.
    pub board_id: Option<String>,
    /// Whether an Ethernet port has a RoCE v2 address (GID) that is not link-local.
    pub roce_v2_address: Option<bool>,
    /// Counters of faults that are not zero, since the driver of the card was loaded: see [`super::rdma_counters`].
    pub counters: BTreeMap<String, u64>,
    /// The network interface of an Ethernet port.
    pub interface: Option<NicInterface>,
    /// PCIe link and settings of the card.
    pub slot: Option<NicSlot>,
    /// The GPUs nearest to the port, each with the kind of the connection (`PIX`, `PXB`, `PHB`, `NODE`).
    pub near: Vec<NearGpu>,
}

/// A network card on the PCI bus. In a virtual machine, this can be a virtual function.
#[facts(omit(Option))]
pub struct NetworkCard {
    /// PCI address.
    pub pci_address: Option<PciAddress>,
    /// Vendor and device on the PCI bus, e.g. `15b3:1021`.
    pub device_id: String,
    /// `infiniband`, `ethernet` or `efa`.
    pub kind: String,
    /// Bound driver: `mlx5_core`, `efa`, `vfio-pci`, or `None`.
    pub driver: Option<String>,
}

/// The network interface of a port (`/sys/class/net`).
#[facts(omit(Option, default_route))]
pub struct NicInterface {
    /// Name, e.g. `eth2`.
    pub name: String,
    /// State (`operstate`): `up`, `down`, `lowerlayerdown`, `dormant`, `unknown`, …
    pub operational_state: Option<String>,
    /// Whether the interface is switched on (`IFF_UP`).
    pub enabled: Option<bool>,
    /// Whether the node reaches other networks through this interface or its bond.
    pub default_route: bool,
    /// Name of the bond that the interface is a member of.
    pub bond: Option<String>,
}

/// The PCIe link of a network card, and its settings for transfers.
#[facts(omit(Option))]
pub struct NicSlot {
    /// Current generation.
    pub generation: Option<u32>,
    /// Current number of lanes.
    pub width: Option<u32>,
    /// Highest generation of the card.
    pub max_generation: Option<u32>,
    /// Highest number of lanes of the card.
    pub max_width: Option<u32>,
    /// Highest generation of the PCIe port above the card.
    pub port_max_generation: Option<u32>,
    /// Highest number of lanes of the PCIe port above the card.
    pub port_max_width: Option<u32>,
    /// Largest payload of a packet that the card sends (Device Control).
    pub max_payload_bytes: Option<u32>,
    /// Largest payload of the PCIe port above the card.
    pub port_max_payload_bytes: Option<u32>,
    /// Largest read request of the card (Device Control).
    pub max_read_request_bytes: Option<u32>,
}

/// A bond of network interfaces (`/sys/class/net/bonding_masters`).
#[facts]
pub struct Bond {
    /// Name, e.g. `bond0`.
    pub name: String,
    /// Whether the node reaches other networks through the bond.
    pub default_route: bool,
    /// Names of the members with a link.
    pub up: Vec<String>,
    /// Names of the members without a link.
    pub down: Vec<String>,
}

/// Settings of the node that decide whether GPUs and network cards exchange data without the processor.
#[facts(omit(Option, Vec))]
pub struct GpuDirect {
    /// Number of PCIe ports above GPUs and network cards whose access control services (ACS) could be read.
    pub acs_ports_read: Option<u32>,
    /// Ports of PCIe switches where ACS redirects transfers between devices below the switch to the processor.
    pub acs_switch_ports: Vec<PciAddress>,
    /// Root ports with ACS enabled.
    pub acs_root_ports: Vec<PciAddress>,
    /// Clients of the RDMA stack that provide memory of other devices (`/sys/kernel/mm/memory_peers`), e.g. `nv_mem`.
    pub memory_peers: Option<Vec<String>>,
}

/// A GPU near a NIC.
#[facts]
pub struct NearGpu {
    /// NVML index.
    pub gpu: u32,
    /// Kind of the connection: `PIX`, `PXB`, `PHB`, `NODE`.
    pub via: String,
}

/// Returns the PCIe ports above exactly one GPU, each with that GPU. An error of such a port affects the link of the GPU.
pub fn ports_above_one_gpu(gpus: &[GpuTopology]) -> Vec<(PciAddress, PciAddress)> {
    let mut below: BTreeMap<&PciAddress, Vec<&PciAddress>> = BTreeMap::new();
    for gpu in gpus {
        let Some(address) = &gpu.pci_address else { continue };
        for port in gpu.pcie_path.iter().filter_map(|hop| hop.pci_address.as_ref()).filter(|port| *port != address) {
            below.entry(port).or_default().push(address);
        }
    }
    let only = below.into_iter().filter_map(|(port, gpus)| match gpus.as_slice() {
        [gpu] => Some((port.clone(), (*gpu).clone())),
        _ => None,
    });
    only.collect()
}
