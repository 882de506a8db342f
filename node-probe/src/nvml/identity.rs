//! The identity of a GPU.

use syringe_core::pci::PciAddress;

/// The identity of a GPU, read when the session opens.
#[derive(Clone, Debug, Default)]
pub(super) struct Identity {
    /// NVML index.
    pub(super) index: u32,
    /// `nvmlDeviceGetUUID`.
    pub(super) uuid: Option<String>,
    /// `nvmlDeviceGetPciInfo_v3`.
    pub(super) pci_address: Option<PciAddress>,
}
