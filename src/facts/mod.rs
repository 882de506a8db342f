//! What was read from a node: one file per section. Facts carry no opinion; `diagnosis` has those.
//!
//! Field names end in their unit. `None` means that the value could not be had: either the driver does not offer it (the
//! section's `unsupported` list names it) or reading it failed (the section's `unread` list names it, and its problems
//! say why). A list or map that is empty holds none of what it counts, unless one of the two lists names it.
//! [`availability`] tells the cases apart.

pub mod action;
pub mod cdi;
pub mod clock_events;
pub mod container;
pub mod container_runtime;
pub mod driver_load;
pub mod ecc;
pub mod health;
pub mod host;
pub mod inventory;
pub mod kernel_log;
pub mod kubelet;
pub mod mig;
pub mod node_stack;
pub mod processes;
pub mod stack_log;
pub mod telemetry;
pub mod topology;

use serde::{Deserialize, Serialize};

use crate::pci::PciAddress;

/// Fields that the driver does not offer on these GPUs, so that `null` there is no defect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Unsupported {
    /// NVML indices.
    pub gpus: Vec<u32>,
    /// Field paths inside the GPU's entry, e.g. `fan_percent`, `temperature.memory_celsius`.
    pub fields: Vec<String>,
}

/// Fields that these GPUs should have, and that could not be read or made no sense: nothing follows from `null`, or from
/// an empty list, there. The section's problems say why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Unread {
    /// NVML indices.
    pub gpus: Vec<u32>,
    /// Field paths inside the GPU's entry.
    pub fields: Vec<String>,
}

/// A GPU that answers nothing, or nothing any more. What is known of it comes from the time before, from PCI and from the
/// kernel; what nobody told is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct LostGpu {
    /// NVML index; absent for a GPU that NVML does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// PCI address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pci_address: Option<PciAddress>,
    /// UUID (NVML before the loss, else `/proc/driver/nvidia/gpus/*/information`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Serial number of the board (the driver's line in the kernel log).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Name of the physical slot (`/sys/bus/pci/slots`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    /// Why it does not answer: the code of the section's problem (`gpu_lost`, `timeout`, …), or `not_in_nvml` for a GPU that
    /// the nvidia driver has and NVML does not count.
    pub code: String,
}

/// What became of one field of one GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// The driver offers it, and it was read.
    Read,
    /// The hardware or the driver does not offer it.
    Unsupported,
    /// It could not be read, or the GPU does not answer.
    Unread,
}

/// Whether `field` (a path inside the GPU's entry) of a GPU was read. A path in one of the lists covers those below it.
///
/// For a value that may be `None` this holds only where it is `Some`: a facts file written by hand may leave values out
/// without naming them. `None` that is not [`Availability::Unsupported`] was not read.
pub fn availability(
    unsupported: &[Unsupported],
    unread: &[Unread],
    lost: &[LostGpu],
    gpu: u32,
    field: &str,
) -> Availability {
    let covers =
        |path: &String| field.strip_prefix(path.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let among = |gpus: &[u32], fields: &[String]| gpus.contains(&gpu) && fields.iter().any(covers);
    if lost.iter().any(|lost| lost.index == Some(gpu)) || unread.iter().any(|list| among(&list.gpus, &list.fields)) {
        Availability::Unread
    } else if unsupported.iter().any(|list| among(&list.gpus, &list.fields)) {
        Availability::Unsupported
    } else {
        Availability::Read
    }
}

/// Gives a section of NVML's facts the method that tells what became of a field.
macro_rules! availability_of {
    ($section:ty) => {
        impl $section {
            /// What became of `field` (a path inside the GPU's entry) of the GPU with this NVML index. A GPU without an
            /// entry was not read.
            pub fn availability(&self, gpu: u32, field: &str) -> super::Availability {
                if !self.gpus.iter().any(|entry| entry.index == gpu) {
                    return super::Availability::Unread;
                }
                super::availability(&self.unsupported, &self.unread, &self.lost, gpu, field)
            }
        }
    };
}
pub(crate) use availability_of;

/// A setting that takes effect at the next reset or reboot: what is and what will be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Mode {
    /// In force now.
    pub current: bool,
    /// In force after the next reset or reboot.
    pub pending: bool,
}

#[cfg(test)]
mod tests {
    use super::ecc::{Ecc, GpuEcc};
    use super::{Availability, LostGpu, Unread, Unsupported};

    #[test]
    fn what_is_not_offered_is_told_from_what_could_not_be_read() {
        let ecc = Ecc {
            gpus: (0..3).map(|index| GpuEcc { index, ..GpuEcc::default() }).collect(),
            unsupported: vec![Unsupported { gpus: vec![0, 1], fields: vec!["retired_pages".into()] }],
            unread: vec![Unread { gpus: vec![1], fields: vec!["volatile.locations".into(), "retired_pages".into()] }],
            lost: vec![LostGpu { index: Some(2), ..LostGpu::default() }],
        };
        let told = |gpu, field| ecc.availability(gpu, field);
        assert_eq!(told(0, "retired_pages"), Availability::Unsupported);
        assert_eq!(told(0, "retired_pages.pending"), Availability::Unsupported, "covered by the path above it");
        assert_eq!(told(0, "retired_pages_of_another_name"), Availability::Read);
        assert_eq!(told(1, "retired_pages"), Availability::Unread, "a failure outweighs a lack");
        assert_eq!(told(1, "volatile.locations"), Availability::Unread);
        assert_eq!(told(1, "volatile"), Availability::Read);
        assert_eq!(told(2, "recovery_action"), Availability::Unread, "lost");
        assert_eq!(told(7, "recovery_action"), Availability::Unread, "not there");
    }
}
