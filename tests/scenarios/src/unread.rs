//! Methods of `Node` that mark GPUs as lost, and sections or values as unreadable in NVML.
//! `problem`, `of_gpu`: create a problem, and set its GPU.

use syringe_core::facts::inventory::Inventory;
use syringe_core::facts::{LostGpu, Unread};
use syringe_core::pci::PciAddress;
use syringe_core::report::{Problem, Section};

use crate::identity::text;
use crate::node::{NVIDIA_GPU, Node, data, gpu_uuid};
use crate::nvml_section::Part;

impl Node {
    /// Replaces sections with sections that could not be read because of this problem.
    pub(crate) fn unreadable<const N: usize>(mut self, parts: [Part; N], problem: Problem) -> Self {
        for part in parts {
            self.part(part).fail(Problem { what: part.name().to_owned(), ..problem.clone() });
        }
        self
    }

    /// Changes the problems of the sections that NVML fills, and of the processes section.
    pub(crate) fn change_problems(mut self, change: impl Fn(&mut Problem)) -> Self {
        Part::ALL.into_iter().for_each(|part| self.part(part).problems().iter_mut().for_each(&change));
        let processes = self.report.sections.processes.iter_mut();
        processes.flat_map(|section| &mut section.problems).for_each(change);
        self
    }

    /// Removes a GPU from sections in which the GPU could not be read because of this problem.
    pub(crate) fn unreadable_gpu<const N: usize>(mut self, parts: [Part; N], gpu: u32, problem: Problem) -> Self {
        for part in parts {
            self.part(part).retain_gpus(&|index| index != gpu);
            self.part(part).add_problem(of_gpu(gpu, problem.clone()));
        }
        self
    }

    /// Marks fields of one GPU as unread, because an NVML function returned an error.
    pub(crate) fn unread(mut self, part: Part, gpu: u32, function: &str, fields: &[&str]) -> Self {
        let next_step = "Look at the kernel log (xid section) for what the driver says about this GPU.";
        let what = format!("{} ({function})", fields.join(", "));
        let problem = Problem { what, gpu: Some(gpu), ..problem("NVML: Unknown Error", "unknown", next_step) };
        self.part(part)
            .add_unread(Unread { gpus: vec![gpu], fields: fields.iter().map(|&field| field.into()).collect() });
        self.part(part).add_problem(problem);
        self
    }

    /// Marks a GPU as lost: NVML lists the GPU and reports the loss. The device does not respond on PCI.
    pub(crate) fn lost(mut self, gpu: u32) -> Self {
        let next_step =
            "Drain the node and power-cycle it; a GPU reset cannot bring it back. If it happens again, return the GPU.";
        let problem = of_gpu(gpu, problem("NVML: GPU is lost", "gpu_lost", next_step));
        let row =
            LostGpu { index: Some(gpu), uuid: text(gpu_uuid(self.name(), gpu)), ..self.lost_row(gpu, "gpu_lost") };
        self.keep_gpus(&|index| index != gpu);
        for part in Part::ALL {
            self.part(part).add_lost(row.clone());
            self.part(part).add_problem(problem.clone());
        }
        let topology = data(&mut self.report.sections.topology);
        topology.matrix.remove(gpu as usize);
        topology.matrix.iter_mut().for_each(|cells| drop(cells.remove(gpu as usize)));
        if topology.matrix.len() == 1 {
            topology.p2p_all_ok.clear();
        }
        self.report.sections.processes.iter_mut().for_each(|section| section.add_problems([problem.clone()]));
        self.host(|host| {
            let pci = &mut host.pci_gpus[gpu as usize];
            (pci.in_nvml, pci.answers) = (Some(false), Some(false));
        })
    }

    /// Removes a GPU from NVML but not from PCI: the GPUs after it get other indices. No process uses the GPU.
    pub(crate) fn not_in_nvml(mut self, gpu: u32) -> Self {
        let row = self.lost_row(gpu, "not_in_nvml");
        for part in Part::ALL {
            let section = self.part(part);
            section.retain_gpus(&|index| index != gpu);
            section.add_lost(row.clone());
            section.identities().into_iter().for_each(|(index, _)| *index -= u32::from(*index > gpu));
        }
        let processes = &mut data(&mut self.report.sections.processes).processes;
        processes.retain(|process| process.uses.iter().all(|used| used.gpu != gpu));
        let uses = processes.iter_mut().flat_map(|process| &mut process.uses);
        uses.for_each(|used| used.gpu -= u32::from(used.gpu > gpu));
        let mut others = self.gpu_uuids();
        others.remove(gpu as usize);
        self.allocations([])
            .registered(NVIDIA_GPU, others)
            .host(|host| host.pci_gpus[gpu as usize].in_nvml = Some(false))
    }

    /// Like [`not_in_nvml`](Self::not_in_nvml), but without a bound driver. NVML can only list GPUs that have a driver.
    pub(crate) fn not_bound(self, gpu: u32) -> Self {
        self.not_in_nvml(gpu).host(|host| host.pci_gpus[gpu as usize].driver = None)
    }

    /// Like [`not_in_nvml`](Self::not_in_nvml), for a reason that the inventory has: a list of addresses.
    pub(crate) fn hidden(self, gpu: u32, list: impl FnOnce(&mut Inventory) -> &mut Vec<PciAddress>) -> Self {
        let address = self.lost_row(gpu, "not_in_nvml").pci_address.expect("an address");
        let mut node = self.not_in_nvml(gpu).no_gpu_lost();
        list(data(&mut node.report.sections.inventory)).push(address);
        node
    }

    /// Removes the lists of GPUs that do not respond from all sections.
    pub(crate) fn no_gpu_lost(mut self) -> Self {
        Part::ALL.into_iter().for_each(|part| self.part(part).remove_lost());
        self
    }

    /// Removes the facts that show whether NVML lists the GPUs on the PCI bus.
    pub(crate) fn nvml_not_available(self) -> Self {
        self.host(|host| host.pci_gpus.iter_mut().for_each(|gpu| gpu.in_nvml = None))
    }

    /// Returns the entry of a GPU for the list of GPUs that do not respond.
    pub(crate) fn lost_row(&self, gpu: u32, code: &str) -> LostGpu {
        let host = Section::data_of(&self.report.sections.host).expect("the host section");
        let pci_address = host.pci_gpus[gpu as usize].pci_address.clone();
        LostGpu { pci_address, code: code.to_owned(), ..LostGpu::default() }
    }
}

/// Returns a problem. The field `what` is set later.
pub(crate) fn problem(why: &str, code: &str, next_step: &str) -> Problem {
    Problem { why: why.to_owned(), code: code.to_owned(), next_step: next_step.to_owned(), ..Problem::default() }
}

/// Returns the problem with a reference to a GPU.
pub(crate) fn of_gpu(gpu: u32, problem: Problem) -> Problem {
    Problem { what: format!("GPU {gpu}"), gpu: Some(gpu), ..problem }
}
