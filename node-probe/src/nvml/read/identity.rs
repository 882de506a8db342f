//! The identity of a GPU.

use syringe_core::pci::PciAddress;

/// The identity of a GPU, read when the session opens.
#[derive(Clone, Debug, Default)]
pub(in crate::nvml) struct Identity {
    /// NVML index.
    pub(in crate::nvml) index: u32,
    /// `nvmlDeviceGetUUID`.
    pub(in crate::nvml) uuid: Option<String>,
    /// `nvmlDeviceGetPciInfo_v3`.
    pub(in crate::nvml) pci_address: Option<PciAddress>,
}
