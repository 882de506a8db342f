//! The types of the `mig` section: MIG mode and MIG devices of each GPU, from NVML.

use syringe_macros::facts;

use super::Mode;
use super::{Unread, Unsupported};

/// MIG state of every GPU that supports MIG.
#[facts(omit(Vec, !gpus))]
pub struct Mig {
    /// One entry per GPU that supports MIG, in NVML's order.
    pub gpus: Vec<GpuMig>,
    /// Fields that the driver does not support.
    pub unsupported: Vec<Unsupported>,
    /// Fields that could not be read.
    pub unread: Vec<Unread>,
}

/// MIG state of one GPU.
#[facts]
pub struct GpuMig {
    /// NVML index.
    pub index: u32,
    /// UUID of the GPU.
    pub uuid: Option<String>,
    /// MIG mode; `None` if the GPU does not support MIG.
    pub mode: Option<Mode>,
    /// Maximum number of MIG devices of the GPU.
    pub max_devices: Option<u32>,
    /// The MIG devices. A MIG device is a compute instance in a GPU instance.
    pub devices: Vec<MigDevice>,
}

/// One MIG device.
#[facts]
pub struct MigDevice {
    /// UUID (`MIG-…`).
    pub uuid: Option<String>,
    /// GPU instance id.
    pub gpu_instance: Option<u32>,
    /// Compute instance id.
    pub compute_instance: Option<u32>,
    /// Name of the profile, e.g. `1g.10gb`, `1c.3g.40gb`.
    pub profile: Option<String>,
    /// Number of GPU instance slices.
    pub gpu_slices: Option<u32>,
    /// Number of compute instance slices.
    pub compute_slices: Option<u32>,
    /// Number of multiprocessors.
    pub multiprocessors: Option<u32>,
    /// Total memory.
    pub memory_total_bytes: Option<u64>,
    /// Memory in use.
    pub memory_used_bytes: Option<u64>,
}
