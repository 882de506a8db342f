//! `NvmlSection`: operations that are the same for all report sections that NVML fills. `Part`: the names of these
//! sections.

use syringe_core::facts::ecc::{Ecc, GpuEcc};
use syringe_core::facts::inventory::{GpuInventory, Inventory};
use syringe_core::facts::mig::{GpuMig, Mig};
use syringe_core::facts::telemetry::{GpuTelemetry, Telemetry};
use syringe_core::facts::topology::{GpuTopology, Topology};
use syringe_core::facts::{LostGpu, Unread, Unsupported};
use syringe_core::report::{Problem, Section, Status};

/// A section that NVML fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Inventory,
    Telemetry,
    Topology,
    Ecc,
    Mig,
}

impl Part {
    pub(crate) const ALL: [Self; 5] = [Self::Inventory, Self::Telemetry, Self::Topology, Self::Ecc, Self::Mig];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Inventory => "inventory",
            Self::Telemetry => "telemetry",
            Self::Topology => "topology",
            Self::Ecc => "ecc",
            Self::Mig => "mig",
        }
    }
}

/// A report section that NVML fills.
pub(crate) trait NvmlSection {
    /// Keeps the entries of the GPUs for which `keep` returns true, and removes all other entries.
    fn retain_gpus(&mut self, keep: &dyn Fn(u32) -> bool);
    /// In the list of unsupported fields, keeps the GPUs for which `keep` returns true.
    fn retain_unsupported(&mut self, keep: &dyn Fn(u32) -> bool);
    /// Removes all values of a GPU except its identity.
    fn clear_gpu(&mut self, index: u32);
    /// Returns index and UUID of each GPU.
    fn identities(&mut self) -> Vec<(&mut u32, &mut Option<String>)>;
    fn add_unread(&mut self, fields: Unread);
    /// Adds a GPU that does not respond, if the section has a list of such GPUs.
    fn add_lost(&mut self, gpu: LostGpu);
    fn remove_lost(&mut self);
    fn problems(&mut self) -> &mut [Problem];
    /// Adds a problem. The section is no longer complete.
    fn add_problem(&mut self, problem: Problem);
    /// Replaces the section with a section that could not be read.
    fn fail(&mut self, problem: Problem);
}

macro_rules! nvml_section {
    ($data:ty, $gpu:ident { $($identity:ident),* }, lost: [$($lost:ident)?]) => {
        impl NvmlSection for Section<$data> {
            fn retain_gpus(&mut self, keep: &dyn Fn(u32) -> bool) {
                self.data.iter_mut().for_each(|data| data.gpus.retain(|gpu| keep(gpu.index)));
            }

            fn clear_gpu(&mut self, index: u32) {
                let gpus = self.data.iter_mut().flat_map(|data| &mut data.gpus);
                for gpu in gpus.filter(|gpu| gpu.index == index) {
                    let $gpu { index, $($identity,)* .. } = std::mem::take(gpu);
                    *gpu = $gpu { index, $($identity,)* ..$gpu::default() };
                }
            }

            fn identities(&mut self) -> Vec<(&mut u32, &mut Option<String>)> {
                let gpus = self.data.iter_mut().flat_map(|data| &mut data.gpus);
                gpus.map(|gpu| (&mut gpu.index, &mut gpu.uuid)).collect()
            }

            fn retain_unsupported(&mut self, keep: &dyn Fn(u32) -> bool) {
                for list in self.data.iter_mut().map(|data| &mut data.unsupported) {
                    list.iter_mut().for_each(|Unsupported { gpus, .. }| gpus.retain(|gpu| keep(*gpu)));
                    list.retain(|entry| !entry.gpus.is_empty());
                }
            }

            fn add_unread(&mut self, fields: Unread) {
                self.data.get_or_insert_default().unread.push(fields);
            }

            fn add_lost(&mut self, _gpu: LostGpu) {
                $(self.data.get_or_insert_default().$lost.push(_gpu);)?
            }

            fn remove_lost(&mut self) {
                $(self.data.get_or_insert_default().$lost.clear();)?
            }

            fn problems(&mut self) -> &mut [Problem] {
                &mut self.problems
            }

            fn add_problem(&mut self, problem: Problem) {
                self.add_problems([problem]);
            }

            fn fail(&mut self, problem: Problem) {
                *self = Self { status: Status::Error, duration_ms: 1, data: None, problems: vec![problem] };
            }
        }
    };
}

nvml_section!(Inventory, GpuInventory { uuid, pci_address }, lost: [lost]);
nvml_section!(Telemetry, GpuTelemetry { uuid, pci_address }, lost: [lost]);
nvml_section!(Topology, GpuTopology { uuid, pci_address }, lost: [lost]);
nvml_section!(Ecc, GpuEcc { uuid, pci_address }, lost: [lost]);
nvml_section!(Mig, GpuMig { uuid }, lost: []);
