//! The `host` section: facts about the GPUs that need no NVML. Source: procfs, sysfs, the file system of the host.

use serde::{Deserialize, Serialize};

use super::cdi::Cdi;
use super::container::ContainerAccess;
use super::container_runtime::ContainerRuntime;
use super::driver_load::DriverLoad;
use super::nvidia_stack::NvidiaStack;
use super::stack_log::StackLog;
use crate::pci::PciAddress;

/// Facts of the host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Host {
    /// Operating system (`PRETTY_NAME` of `/etc/os-release`).
    pub operating_system: Option<String>,
    /// Seconds since boot.
    pub uptime_seconds: Option<u64>,
    /// Driver versions, which must match.
    pub driver: DriverVersions,
    /// Kernel modules of interest that are loaded: `nvidia`, `nvidia_uvm`, `nvidia_peermem`, `nouveau`, `vfio_pci`, …
    pub modules: Vec<String>,
    /// NVIDIA display devices on the PCI bus (vendor 10de, class 0300 or 0302).
    pub pci_gpus: Vec<PciGpu>,
    /// Character devices present: `nvidiactl`, `nvidia0`, `nvidia-uvm`, `nvidia-caps/nvidia-cap1`, …
    pub device_nodes: Vec<String>,
    /// Expected character devices that are missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_nodes_missing: Vec<String>,
    /// Daemons of a GPU node.
    pub daemons: Daemons,
    /// GSP firmware files on disk, by driver version.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gsp_firmware_versions: Vec<String>,
    /// Path of a CDI specification for NVIDIA devices, if it exists.
    pub cdi_spec: Option<String>,
    /// Path of the NVIDIA container runtime, if installed.
    pub container_toolkit: Option<String>,
    /// Whether an IOMMU is active.
    pub iommu: Option<bool>,
    /// NUMA nodes.
    pub numa_nodes: Option<u32>,
    /// Whether the kernel moves pages between NUMA nodes by itself (`kernel.numa_balancing`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numa_balancing: Option<bool>,
    /// Huge pages by size in KiB: total and free.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hugepages: Vec<HugePages>,
    /// Memory of the node.
    pub memory_total_bytes: Option<u64>,
    /// Available memory of the node.
    pub memory_available_bytes: Option<u64>,
    /// GPU devices of one container, if the probe was given a container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerAccess>,
    /// The container runtime as it is configured and as it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_runtime: Option<ContainerRuntime>,
    /// CDI specifications of NVIDIA devices, compared with the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cdi: Option<Cdi>,
    /// Facts that decide whether the kernel accepts the nvidia module; only if there are GPUs and it is not loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_load: Option<DriverLoad>,
    /// Traces of NVIDIA's software for Kubernetes on the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nvidia_stack: Option<NvidiaStack>,
    /// The end of the log of one container of that software, if the request of the probe names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack_log: Option<StackLog>,
}

/// Driver versions. NVML does not work if they differ.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct DriverVersions {
    /// Version of the loaded kernel module (`/sys/module/nvidia/version`); `None`: not loaded.
    pub loaded: Option<String>,
    /// `open` or `proprietary`, from `/proc/driver/nvidia/version`.
    pub flavor: Option<String>,
    /// Version of the module file that is loaded next (`/lib/modules/…/nvidia.ko`), if it was found.
    pub module_on_disk: Option<String>,
    /// Whether `modules.dep` of the running kernel lists `nvidia.ko`, on the host or below the driver root of the GPU
    /// Operator. `None` if that file could not be read. If `module_on_disk` is absent, this shows whether the file is
    /// missing or only its version is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module_listed: Option<bool>,
    /// Number of modules, files and processes that hold the loaded module (`/sys/module/nvidia/refcnt`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module_use_count: Option<u32>,
    /// Version of the NVML library on disk, from its file name (`libnvidia-ml.so.570.124.06`).
    pub library: Option<String>,
    /// Path of that library.
    pub library_path: Option<String>,
}

/// An NVIDIA GPU on the PCI bus, whether or not a driver is bound to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct PciGpu {
    /// PCI address.
    pub pci_address: Option<PciAddress>,
    /// PCI device id, e.g. `2330`.
    pub device_id: Option<String>,
    /// Bound driver: `nvidia`, `nouveau`, `vfio-pci`, or `None`.
    pub driver: Option<String>,
    /// Whether NVML lists it; `None` if NVML was not available.
    pub in_nvml: Option<bool>,
    /// NUMA node.
    pub numa_node: Option<u32>,
    /// IOMMU group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iommu_group: Option<u32>,
    /// Whether the device responds on the bus (its configuration space is not all ones).
    pub answers: Option<bool>,
}

/// Daemons: `Some(true)` running, `Some(false)` not running, `None` unknown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Daemons {
    /// `nvidia-persistenced`.
    pub persistenced: Option<bool>,
    /// `nv-fabricmanager`.
    pub fabric_manager: Option<bool>,
    /// `nvidia-imex`.
    pub imex: Option<bool>,
    /// `nv-hostengine` (DCGM).
    pub dcgm: Option<bool>,
    /// `nvidia-cuda-mps-control`.
    pub mps: Option<bool>,
}

/// Huge pages of one size.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct HugePages {
    /// Page size.
    pub size_kib: u64,
    /// Configured.
    pub total: u64,
    /// Unused.
    pub free: u64,
}
