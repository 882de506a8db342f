//! Modules of the facts of a node: the sections of a report and their parts.
//! `Unsupported`, `Unread`, `LostGpu`, `availability`: missing values. `Mode`: a setting that takes effect later.
//!
//! A field name ends in the unit of the value. `None` means that there is no value: the driver does not support the
//! field (it is then in the list `unsupported` of the section), or it could not be read (it is then in the list
//! `unread`, and the problems of the section contain the reason). The same applies to an empty list or map.
//! [`availability`] distinguishes these cases.

pub mod action;
pub mod cdi;
pub mod clock_events;
pub mod container;
pub mod container_runtime;
pub mod container_view;
pub mod cuda;
pub mod driver_load;
pub mod ecc;
pub mod host;
pub mod host_levels;
pub mod inventory;
pub mod kernel_log;
pub mod kubelet;
pub mod kubernetes;
pub mod mig;
pub mod nccl;
pub mod nvidia_stack;
pub mod processes;
pub mod rates;
pub mod rdma_counters;
pub mod stack_log;
pub mod telemetry;
pub mod topology;

use syringe_macros::facts;

use crate::pci::PciAddress;

/// Fields that the driver does not support on these GPUs. A `null` in such a field is not an error.
#[facts]
pub struct Unsupported {
    /// NVML indices.
    pub gpus: Vec<u32>,
    /// Field paths inside the entry of the GPU, e.g. `fan_percent`, `temperature.memory_celsius`.
    pub fields: Vec<String>,
}

/// Fields of these GPUs that could not be read or had invalid values. A `null` or an empty list in such a field has no
/// meaning. The problems of the section contain the reason.
#[facts]
pub struct Unread {
    /// NVML indices.
    pub gpus: Vec<u32>,
    /// Field paths inside the entry of the GPU.
    pub fields: Vec<String>,
}

/// A GPU that does not respond, or no longer responds. The values come from an earlier read, from PCI and from the kernel
/// log; unknown values are absent.
#[facts(omit(Option))]
pub struct LostGpu {
    /// NVML index; absent for a GPU that NVML does not list.
    pub index: Option<u32>,
    /// PCI address.
    pub pci_address: Option<PciAddress>,
    /// UUID (from NVML before the loss, otherwise `/proc/driver/nvidia/gpus/*/information`).
    pub uuid: Option<String>,
    /// Serial number of the board (from the kernel log).
    pub serial: Option<String>,
    /// Name of the physical slot (`/sys/bus/pci/slots`).
    pub slot: Option<String>,
    /// Why the GPU does not respond: the code of the problem (`gpu_lost`, `timeout`, …), or `not_in_nvml` for a GPU that is
    /// bound to the nvidia driver and missing from NVML.
    pub code: String,
}

/// Availability of one field of one GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// The field was read.
    Read,
    /// The hardware or the driver does not support the field.
    Unsupported,
    /// The field could not be read, or the GPU does not respond.
    Unread,
}

/// Returns whether `field` (a path inside the entry of the GPU) was read. A path in one of the lists includes the paths
/// below it.
///
/// If a value is `None` and its field is not [`Availability::Unsupported`], the value was not read: a facts file that
/// was written by hand can omit values without listing them.
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

/// Adds the method `availability` to a section of NVML facts.
macro_rules! availability_of {
    ($section:ty) => {
        impl $section {
            /// Returns the availability of `field` (a path inside the entry of the GPU) for the GPU with this NVML
            /// index. A GPU without an entry was not read.
            pub fn availability(&self, gpu: u32, field: &str) -> $crate::facts::Availability {
                if !self.gpus.iter().any(|entry| entry.index == gpu) {
                    return $crate::facts::Availability::Unread;
                }
                $crate::facts::availability(&self.unsupported, &self.unread, &self.lost, gpu, field)
            }
        }
    };
}
pub(crate) use availability_of;

/// Returns whether a count is zero, for the attributes of `syringe_macros`.
pub fn is_zero<T: Default + PartialEq>(count: &T) -> bool {
    *count == T::default()
}

/// A setting that takes effect at the next reset or reboot.
#[facts]
#[derive(Copy, Eq)]
pub struct Mode {
    /// Current value.
    pub current: bool,
    /// Value after the next reset or reboot.
    pub pending: bool,
}

#[cfg(test)]
mod tests {
    use super::ecc::{Ecc, GpuEcc};
    use super::{Availability, LostGpu, Unread, Unsupported};

    #[test]
    fn unsupported_and_unread_fields_are_distinguished() {
        let ecc = Ecc {
            gpus: (0..3).map(|index| GpuEcc { index, ..GpuEcc::default() }).collect(),
            unsupported: vec![Unsupported { gpus: vec![0, 1], fields: vec!["retired_pages".into()] }],
            unread: vec![Unread { gpus: vec![1], fields: vec!["volatile.locations".into(), "retired_pages".into()] }],
            lost: vec![LostGpu { index: Some(2), ..LostGpu::default() }],
        };
        let told = |gpu, field| ecc.availability(gpu, field);
        assert_eq!(told(0, "retired_pages"), Availability::Unsupported);
        assert_eq!(told(0, "retired_pages.pending"), Availability::Unsupported, "the list has the field above");
        assert_eq!(told(0, "retired_pages_of_another_name"), Availability::Read);
        assert_eq!(told(1, "retired_pages"), Availability::Unread, "a failure has priority over missing support");
        assert_eq!(told(1, "volatile.locations"), Availability::Unread);
        assert_eq!(told(1, "volatile"), Availability::Read);
        assert_eq!(told(2, "recovery_action"), Availability::Unread, "lost");
        assert_eq!(told(7, "recovery_action"), Availability::Unread, "not there");
    }
}
