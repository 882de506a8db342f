//! One GPU of a node, from whichever source knows it.

use super::{Scope, quote};
use crate::pci::PciAddress;

/// One GPU, from whichever source knows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Gpu {
    /// NVML index.
    pub(super) index: Option<u32>,
    /// UUID.
    pub(super) uuid: Option<String>,
    /// PCI address.
    pub(super) pci: Option<PciAddress>,
    /// Product name.
    pub(super) name: Option<String>,
    /// Whether NVML gave facts about it.
    pub(super) answers: bool,
    /// Whether only the kernel log names it: a GPU that left the PCI bus, any GPU where nothing else was read, or a
    /// function of one (SR-IOV). It is judged like any other and never counted as one more.
    pub(super) from_log: bool,
}

impl Gpu {
    /// `GPU 3 (0000:5d:00.0)`.
    pub(super) fn label(&self) -> String {
        let Self { index, pci, .. } = self;
        quote::place(&Scope { gpu: *index, pci: pci.clone(), ..Scope::default() }, "GPU")
    }
}
