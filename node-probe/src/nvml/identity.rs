//! What tells a GPU from others.

use syringe_core::pci::PciAddress;

/// What tells a GPU from others, read when the session opens.
#[derive(Clone, Debug, Default)]
pub(super) struct Identity {
    /// NVML index.
    pub(super) index: u32,
    /// `nvmlDeviceGetUUID`.
    pub(super) uuid: Option<String>,
    /// `nvmlDeviceGetPciInfo_v3`.
    pub(super) pci_address: Option<PciAddress>,
}
