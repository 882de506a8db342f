//! The types of the `host` section: driver versions, GPUs on PCI, daemons and their logs, huge pages, and other facts
//! that do not need NVML.
//!
//! Source: procfs, sysfs and the file system of the host.

use jiff::Timestamp;
use syringe_macros::facts;

use super::cdi::Cdi;
use super::container::ContainerAccess;
use super::container_runtime::ContainerRuntime;
use super::cuda::CudaStart;
use super::driver_load::DriverLoad;
use super::host_levels::HostLevels;
use super::is_zero;
use super::nvidia_stack::{NvidiaStack, StackProcess};
use super::stack_log::StackLog;
use crate::pci::PciAddress;

/// Facts of the host.
#[facts(omit(
    numa_balancing,
    rdma_modules_missing,
    container,
    container_runtime,
    cdi,
    driver_load,
    nvidia_stack,
    stack_log,
    cuda,
    device_nodes_missing,
    gsp_firmware_versions,
    hugepages,
    levels,
    services,
    services_not_running,
    service_logs
))]
pub struct Host {
    /// Operating system (`PRETTY_NAME` of `/etc/os-release`).
    pub operating_system: Option<String>,
    /// Seconds since boot.
    pub uptime_seconds: Option<u64>,
    /// Versions of the driver parts. They must match.
    pub driver: DriverVersions,
    /// Loaded kernel modules that matter for GPUs: `nvidia`, `nvidia_uvm`, `nvidia_peermem`, `nouveau`, `vfio_pci`, …
    pub modules: Vec<String>,
    /// RDMA kernel modules that are missing: the module of a Mellanox card or the RDMA core is loaded, and one of
    /// `mlx5_ib`, `ib_uverbs`, `ib_umad`, `rdma_ucm` is not. Empty if the RDMA core is built into the kernel.
    pub rdma_modules_missing: Vec<String>,
    /// NVIDIA display devices on the PCI bus (vendor 10de, class 0300 or 0302).
    pub pci_gpus: Vec<PciGpu>,
    /// Character devices that are present: `nvidiactl`, `nvidia0`, `nvidia-uvm`, `nvidia-caps/nvidia-cap1`, …
    pub device_nodes: Vec<String>,
    /// Expected character devices that are missing.
    pub device_nodes_missing: Vec<String>,
    /// Daemons of a GPU node, and whether they are running.
    pub daemons: Daemons,
    /// GSP firmware files on disk, by driver version.
    pub gsp_firmware_versions: Vec<String>,
    /// Path of a CDI specification for NVIDIA devices, if it exists.
    pub cdi_spec: Option<String>,
    /// Path of the NVIDIA container runtime, if it is installed.
    pub container_toolkit: Option<String>,
    /// Whether an IOMMU is active.
    pub iommu: Option<bool>,
    /// Number of NUMA nodes.
    pub numa_nodes: Option<u32>,
    /// Whether the kernel automatically moves pages between NUMA nodes (`kernel.numa_balancing`).
    pub numa_balancing: Option<bool>,
    /// Huge pages by size in KiB: total and free.
    pub hugepages: Vec<HugePages>,
    /// Total memory of the node.
    pub memory_total_bytes: Option<u64>,
    /// Available memory of the node.
    pub memory_available_bytes: Option<u64>,
    /// File systems, limits, clock, CPUs and memory of the host. Read only if the file system belongs to the node.
    pub levels: Option<HostLevels>,
    /// Processes of the daemons, of `compute-domain-daemon` (which starts IMEX in a pod), and of the toolkit.
    pub services: Vec<StackProcess>,
    /// Services that systemd starts at boot but that have no process: the persistence daemon, DCGM, kubelet, container
    /// runtimes.
    pub services_not_running: Vec<String>,
    /// The last start of Fabric Manager and IMEX according to their logs.
    pub service_logs: Vec<ServiceLog>,
    /// GPU devices of one container, if a container was passed to the probe.
    pub container: Option<ContainerAccess>,
    /// The configuration and the process of the container runtime.
    pub container_runtime: Option<ContainerRuntime>,
    /// CDI specifications of NVIDIA devices, compared with the node.
    pub cdi: Option<Cdi>,
    /// Facts about whether the kernel accepts the nvidia module. Read only if there are GPUs and the module is not loaded.
    pub driver_load: Option<DriverLoad>,
    /// Traces of NVIDIA's software for Kubernetes on the node: sockets, registrations, processes.
    pub nvidia_stack: Option<NvidiaStack>,
    /// The last log lines of one container of NVIDIA's software for Kubernetes, if the probe request specifies the
    /// container.
    pub stack_log: Option<StackLog>,
    /// What CUDA answers to a new process. Read only with `--deep`.
    pub cuda: Option<CudaStart>,
}

/// Driver versions. NVML does not work if they differ.
#[facts(omit(module_listed, module_use_count))]
pub struct DriverVersions {
    /// Version of the loaded kernel module (`/sys/module/nvidia/version`); `None` if the module is not loaded.
    pub loaded: Option<String>,
    /// Flavor of the kernel module: `open` or `proprietary`, from `/proc/driver/nvidia/version`.
    pub flavor: Option<String>,
    /// Version of the module file that will be loaded next (`/lib/modules/…/nvidia.ko`), if the file was found.
    pub module_on_disk: Option<String>,
    /// Whether `modules.dep` of the running kernel lists `nvidia.ko`, on the host or below the driver root of the GPU
    /// Operator. `None` if `modules.dep` could not be read. If `module_on_disk` is absent, this field shows whether the file
    /// is missing or only the version is unknown.
    pub module_listed: Option<bool>,
    /// Number of modules, files and processes that hold the loaded module (`/sys/module/nvidia/refcnt`).
    pub module_use_count: Option<u32>,
    /// Version of the NVML library on disk, from its file name (`libnvidia-ml.so.570.124.06`).
    pub library: Option<String>,
    /// Path of that library.
    pub library_path: Option<String>,
}

/// An NVIDIA GPU on the PCI bus, with or without a bound driver.
#[facts(omit(iommu_group, iommu_domain))]
pub struct PciGpu {
    /// PCI address.
    pub pci_address: Option<PciAddress>,
    /// PCI device id, e.g. `2330`.
    pub device_id: Option<String>,
    /// Bound driver: `nvidia`, `nouveau`, `vfio-pci`, or `None`.
    pub driver: Option<String>,
    /// Whether NVML lists the GPU; `None` if NVML was not available.
    pub in_nvml: Option<bool>,
    /// NUMA node.
    pub numa_node: Option<u32>,
    /// IOMMU group.
    pub iommu_group: Option<u32>,
    /// Mode of the IOMMU for the group: `identity` (addresses are not translated), `DMA` or `DMA-FQ` (translated), …
    pub iommu_domain: Option<String>,
    /// Whether the device responds on the bus (the bytes of its configuration space are not all `ff`).
    pub answers: Option<bool>,
}

/// State of each daemon: `Some(true)` running, `Some(false)` not running, `None` unknown.
#[facts]
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

/// The end of a daemon's log in `/var/log` of the host or of a driver container. Only root can write this log.
#[facts(omit(Option, starts))]
pub struct ServiceLog {
    /// `fabricmanager` or `nvidia-imex`.
    pub service: String,
    /// Version in the line about the last start.
    pub version: Option<String>,
    /// Number of starts in the last 64 KiB of the log, on the date of the last line or the day before.
    pub starts: u32,
    /// Time of the last change of the file.
    pub written_at: Option<Timestamp>,
    /// The last line with `[ERROR]` after the last start.
    pub last_error: Option<String>,
}

/// Huge pages of one size.
#[facts]
pub struct HugePages {
    /// Page size.
    pub size_kib: u64,
    /// Number of configured pages.
    pub total: u64,
    /// Number of unused pages.
    pub free: u64,
}
