//! `Identity`: the index, UUID and PCI address of a GPU. `Entry`: a trait for the values of one GPU in a section.

use syringe_core::facts::ecc::GpuEcc;
use syringe_core::facts::inventory::GpuInventory;
use syringe_core::facts::mig::GpuMig;
use syringe_core::facts::rates::Sample;
use syringe_core::facts::telemetry::GpuTelemetry;
use syringe_core::facts::topology::GpuTopology;
use syringe_core::pci::PciAddress;

use crate::nvml::answer::{GpuUses, Pairs};

/// The identity of a GPU, read when the session opens.
#[derive(Clone, Debug, Default)]
pub(in crate::nvml) struct Identity {
    /// NVML index.
    pub(in crate::nvml) index: u32,
    /// The value of `nvmlDeviceGetUUID`.
    pub(in crate::nvml) uuid: Option<String>,
    /// The value of `nvmlDeviceGetPciInfo_v3`.
    pub(in crate::nvml) pci_address: Option<PciAddress>,
}

/// The entry of a GPU in a section.
pub(in crate::nvml) trait Entry {
    /// Returns an entry without values.
    fn of(identity: Identity) -> Self;
}

macro_rules! entries {
    ($($entry:ident)*) => { $(
        impl Entry for $entry {
            fn of(Identity { index, uuid, pci_address }: Identity) -> Self {
                Self { index, uuid, pci_address, ..Self::default() }
            }
        }

        impl From<&$entry> for Identity {
            fn from($entry { index, uuid, pci_address, .. }: &$entry) -> Self {
                Self { index: *index, uuid: uuid.clone(), pci_address: pci_address.clone() }
            }
        }
    )* };
}

entries! { GpuInventory GpuTelemetry GpuEcc GpuTopology }

impl Entry for GpuMig {
    fn of(Identity { index, uuid, .. }: Identity) -> Self {
        Self { index, uuid, ..Self::default() }
    }
}

impl Entry for GpuUses {
    fn of(_: Identity) -> Self {
        Self::default()
    }
}

impl Entry for Sample {
    fn of(_: Identity) -> Self {
        Self::default()
    }
}

impl Entry for Pairs {
    fn of(_: Identity) -> Self {
        Self::default()
    }
}
