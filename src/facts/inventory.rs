//! The types of the `inventory` section: driver versions, and identity, firmware, modes and license of the GPUs.
//!
//! Source: NVML. The version of the kernel module is from `/proc/driver/nvidia`.

use syringe_macros::facts;

use super::{LostGpu, Mode, Unread, Unsupported, availability_of};
use crate::pci::PciAddress;

/// The driver and the GPUs that NVML lists.
#[facts(omit(Vec, !gpus))]
pub struct Inventory {
    /// Driver version (`nvmlSystemGetDriverVersion`), e.g. `570.124.06`.
    pub driver_version: Option<String>,
    /// NVML version (`nvmlSystemGetNVMLVersion`), e.g. `12.570.124.06`.
    pub nvml_version: Option<String>,
    /// Newest CUDA version that the driver supports (`nvmlSystemGetCudaDriverVersion_v2`), e.g. `12.8`.
    pub cuda_version: Option<String>,
    /// Path of the NVML library that was opened.
    pub nvml_library: Option<String>,
    /// One entry per GPU, in NVML's order. A GPU that could not be opened is listed in the problems of the section.
    pub gpus: Vec<GpuInventory>,
    /// GPUs that an administrator excluded from the driver (`nvmlGetExcludedDeviceInfoByIndex`).
    pub excluded: Vec<PciAddress>,
    /// GPUs on the PCI bus that NVML does not list because they are in the drain state (`nvmlDeviceQueryDrainState`).
    pub draining: Vec<PciAddress>,
    /// Fields that the driver does not support.
    pub unsupported: Vec<Unsupported>,
    /// Fields that could not be read.
    pub unread: Vec<Unread>,
    /// GPUs that do not respond, or no longer respond.
    pub lost: Vec<LostGpu>,
}

availability_of!(Inventory);

/// Properties of one GPU that do not change at run time.
#[facts(omit(vgpu_license, platform))]
pub struct GpuInventory {
    /// NVML index. The index changes when a GPU is lost: identify a GPU by UUID or PCI address.
    pub index: u32,
    /// UUID (`nvmlDeviceGetUUID`), e.g. `GPU-5b…`.
    pub uuid: Option<String>,
    /// PCI address (`nvmlDeviceGetPciInfo`).
    pub pci_address: Option<PciAddress>,
    /// Product name, e.g. `NVIDIA H100 80GB HBM3`.
    pub name: Option<String>,
    /// Product brand, e.g. `NVIDIA`, `Tesla`.
    pub brand: Option<String>,
    /// Architecture, e.g. `Hopper`.
    pub architecture: Option<String>,
    /// CUDA compute capability, e.g. `9.0`.
    pub compute_capability: Option<String>,
    /// Serial number of the board.
    pub serial: Option<String>,
    /// Part number of the board.
    pub board_part_number: Option<String>,
    /// Board id (`nvmlDeviceGetBoardId`), hexadecimal.
    pub board_id: Option<String>,
    /// Minor number: N of `/dev/nvidiaN`.
    pub minor_number: Option<u32>,
    /// Position on the baseboard (`nvmlDeviceGetModuleId`).
    pub module_id: Option<u32>,
    /// PCI device and vendor id, e.g. `233010de`.
    pub pci_device_id: Option<String>,
    /// PCI subsystem id.
    pub pci_subsystem_id: Option<String>,
    /// VBIOS version.
    pub vbios_version: Option<String>,
    /// InfoROM versions.
    pub inforom: InforomVersions,
    /// GSP firmware version; `None` if GSP firmware is disabled or not supported (see `gsp_enabled`).
    pub gsp_firmware_version: Option<String>,
    /// Whether the GPU runs with GSP firmware.
    pub gsp_enabled: Option<bool>,
    /// Whether persistence mode is on.
    pub persistence_mode: Option<bool>,
    /// Compute mode: `default`, `prohibited`, `exclusive_process`.
    pub compute_mode: Option<String>,
    /// Virtualization mode: `none`, `passthrough`, `vgpu`, `host_vgpu`, `host_vsga`.
    pub virtualization_mode: Option<String>,
    /// License of a vGPU (`nvmlDeviceGetGridLicensableFeatures_v4`). Read only if the virtualization mode is `vgpu`.
    pub vgpu_license: Option<VgpuLicense>,
    /// Whether a display is active on the GPU.
    pub display_active: Option<bool>,
    /// MIG mode.
    pub mig_mode: Option<Mode>,
    /// ECC mode.
    pub ecc_mode: Option<Mode>,
    /// Total GPU memory.
    pub memory_total_bytes: Option<u64>,
    /// GPU memory that is reserved for the driver.
    pub memory_reserved_bytes: Option<u64>,
    /// Size of the BAR1 aperture.
    pub bar1_total_bytes: Option<u64>,
    /// Highest PCIe generation that both the GPU and the slot support.
    pub pcie_max_generation: Option<u32>,
    /// Number of PCIe lanes that both the GPU and the slot support.
    pub pcie_max_width: Option<u32>,
    /// Number of GPU cores (`nvmlDeviceGetNumGpuCores`).
    pub cores: Option<u32>,
    /// Position of the GPU in a rack-scale system (`nvmlDeviceGetPlatformInfo`).
    pub platform: Option<Platform>,
}

/// Licensable features of a vGPU. Empty if the driver reports no features.
#[facts]
pub struct VgpuLicense {
    /// Features for which the GPU can be licensed; at most three.
    pub features: Vec<LicensableFeature>,
}

/// One licensable feature.
#[facts(omit(Option))]
pub struct LicensableFeature {
    /// Name of the feature: `vgpu`, `rtx`, `gaming` or `compute`. An unknown feature has its number as its name.
    pub name: String,
    /// Product, e.g. `NVIDIA Virtual Compute Server`.
    pub product: Option<String>,
    /// Whether the feature is in use.
    pub enabled: bool,
    /// Whether the feature is licensed now.
    pub licensed: bool,
    /// The driver's text about the license.
    pub info: Option<String>,
}

/// InfoROM object versions.
#[facts]
pub struct InforomVersions {
    /// Image version, e.g. `G520.0200.00.05`.
    pub image: Option<String>,
    /// OEM object.
    pub oem: Option<String>,
    /// ECC object.
    pub ecc: Option<String>,
    /// Power management object.
    pub power: Option<String>,
}

/// Position in a rack-scale system.
#[facts]
pub struct Platform {
    /// Serial number of the chassis.
    pub chassis_serial: Option<String>,
    /// Slot number.
    pub slot: Option<u32>,
    /// Tray index.
    pub tray: Option<u32>,
    /// Host id inside the tray.
    pub host_id: Option<u32>,
    /// Module id inside the node.
    pub module_id: Option<u32>,
}
