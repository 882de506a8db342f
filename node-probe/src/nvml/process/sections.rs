//! `Parts`: joins the answers of the NVML process into sections. `Absent`, `LeftOut`: the reasons for missing parts.
//! A GPU without a part is a problem of the section. `Uses`: the process lists of NVML.

use std::collections::BTreeMap;

use syringe_core::facts::ecc::{Ecc, GpuEcc};
use syringe_core::facts::inventory::{GpuInventory, Inventory};
use syringe_core::facts::mig::{GpuMig, Mig};
use syringe_core::facts::processes::GpuUse;
use syringe_core::facts::rates::Sample;
use syringe_core::facts::telemetry::{GpuTelemetry, Telemetry};
use syringe_core::facts::topology::{GpuTopology, Topology};
use syringe_core::facts::{LostGpu, Unsupported};
use syringe_core::report::{Problem, Section, Sections};
use syringe_core::section_name::SectionName;

use crate::nvml::answer::{Answer, GpuAddress, GpuState, GpuUses, Pairs, Part, Versions};
use crate::nvml::errors::{Kind, NvmlError};
use crate::nvml::read::field_errors::{FieldErrors, with_duplicate_identities};
use crate::nvml::read::peer_to_peer::PeerToPeer;
use crate::nvml::read::session::MAX_GPUS;

/// The answers so far.
#[derive(Default)]
pub(super) struct Parts {
    count: Option<u32>,
    versions: Option<Versions>,
    inventory: OfGpus<GpuInventory>,
    telemetry: OfGpus<GpuTelemetry>,
    samples: OfGpus<Sample>,
    ecc: OfGpus<GpuEcc>,
    mig: OfGpus<GpuMig>,
    topology: OfGpus<GpuTopology>,
    pairs: OfGpus<Pairs>,
    uses: OfGpus<GpuUses>,
    addresses: Option<Vec<GpuAddress>>,
    /// The GPU that an action needs.
    state: Option<Option<GpuState>>,
}

/// NVML's process lists; the memory in use on each GPU; N of each `/dev/nvidiaN`.
#[derive(Debug)]
pub(crate) struct Uses {
    pub(crate) uses: Section<Vec<(u32, GpuUse)>>,
    pub(crate) memory_used: Vec<(u32, u64)>,
    pub(crate) minors: Vec<(u32, u32)>,
}

/// The reasons why parts are missing.
pub(super) struct Absent {
    problem: Problem,
    left_out: Vec<LeftOut>,
}

/// A GPU that is left out, because a call on it crashed a process or did not return.
#[derive(Clone)]
pub(super) struct LeftOut {
    gpu: u32,
    problem: Problem,
    /// Set if the GPU does not respond.
    lost: Option<LostGpu>,
}

impl LeftOut {
    /// Returns the entry for a GPU if a call for this GPU crashed a process.
    pub(super) fn crashed(gpu: u32, problem: &Problem) -> Self {
        let problem = Problem { what: format!("GPU {gpu}"), gpu: Some(gpu), ..problem.clone() };
        Self { gpu, problem, lost: None }
    }

    /// Returns the entry for a GPU if a call for this GPU did not return.
    pub(super) fn hung(gpu: u32, error: &NvmlError) -> Self {
        let code = error.code().to_owned();
        let lost = LostGpu { index: Some(gpu), code, ..LostGpu::default() };
        let problem = error.problem(format!("GPU {gpu}"), Some(gpu));
        Self { gpu, problem, lost: Some(lost).filter(|_| error.kind() == Kind::Gone) }
    }
}

impl Absent {
    /// Returns `problem` for all parts, except for GPUs that were left out. `addresses` identifies these GPUs.
    pub(super) fn new(problem: &Problem, mut left_out: Vec<LeftOut>, addresses: &[GpuAddress]) -> Self {
        for LeftOut { gpu, lost, .. } in &mut left_out {
            let address = addresses.iter().find(|(_, index, _)| index == gpu);
            if let Some((lost, (pci_address, _, uuid))) = lost.as_mut().zip(address) {
                (lost.pci_address, lost.uuid) = (Some(pci_address.clone()), uuid.clone());
            }
        }
        Self { problem: problem.clone(), left_out }
    }

    fn left_out(&self, gpu: u32) -> Option<&LeftOut> {
        self.left_out.iter().find(|left_out| left_out.gpu == gpu)
    }

    /// Returns the reason why the part of this GPU is missing.
    fn problem(&self, gpu: u32) -> Problem {
        let problem = self.left_out(gpu).map_or(&self.problem, |left_out| &left_out.problem);
        Problem { what: format!("GPU {gpu}"), gpu: Some(gpu), ..problem.clone() }
    }
}

/// The parts of one section, by NVML index.
struct OfGpus<T>(BTreeMap<u32, Part<T>>);

impl<T> Default for OfGpus<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

/// The entries of a section, the missing values, and the time for reading the entries.
struct Joined<T> {
    entries: Vec<T>,
    field_errors: FieldErrors,
    duration_ms: u64,
}

impl<T> OfGpus<T> {
    /// Adds a part. A complete part is not replaced by an incomplete part.
    fn add(&mut self, part: Part<T>) {
        let known = self.0.get(&part.gpu);
        if part.gpu < MAX_GPUS && (part.complete || known.is_none_or(|known| !known.complete)) {
            self.0.insert(part.gpu, part);
        }
    }

    /// Joins the parts; `None` if no part arrived although there are GPUs. A GPU without a part has the problem `absent`.
    fn join(&mut self, count: Option<u32>, absent: &Absent) -> Option<Joined<T>> {
        let count = count.filter(|count| *count == 0 || !self.0.is_empty())?;
        let mut joined = Joined { entries: Vec::new(), field_errors: FieldErrors::default(), duration_ms: 0 };
        let mut duration_us = 0_u64;
        for gpu in 0..count {
            let Some(part) = self.0.remove(&gpu) else {
                joined.field_errors.problems.push(absent.problem(gpu));
                joined.field_errors.lost.extend(absent.left_out(gpu).and_then(|left_out| left_out.lost.clone()));
                continue;
            };
            joined.entries.extend(part.entry);
            joined.field_errors.add(gpu, part.missing);
            duration_us = duration_us.saturating_add(part.duration_us);
        }
        joined.duration_ms = duration_us / 1000;
        Some(joined)
    }
}

impl Parts {
    pub(super) fn add(&mut self, answer: Answer) {
        match answer {
            Answer::Opened { count, addresses } => {
                self.count = Some(count.min(MAX_GPUS));
                // If none of the GPUs responds, the addresses are unknown.
                if !addresses.is_empty() || count == 0 {
                    let known = self.addresses.get_or_insert_default();
                    let is_new = |new: &GpuAddress| !known.iter().any(|(_, index, _)| *index == new.1);
                    let new: Vec<GpuAddress> = addresses.into_iter().filter(is_new).collect();
                    known.extend(new);
                    known.sort_by_key(|(_, index, _)| *index);
                }
            }
            // It is possible that only one of the processes has read the versions.
            Answer::Versions(_) if self.versions.as_ref().is_some_and(|known| known.problems.is_empty()) => {}
            Answer::Versions(versions) => self.versions = Some(versions),
            Answer::Inventory(part) => self.inventory.add(part),
            Answer::Telemetry(part) => self.telemetry.add(part),
            Answer::Sample(part) => self.samples.add(part),
            Answer::Ecc(part) => self.ecc.add(part),
            Answer::Mig(part) => self.mig.add(part),
            Answer::Topology(part) => self.topology.add(part),
            Answer::Pairs(part) => self.pairs.add(part),
            Answer::Uses(part) => self.uses.add(part),
            Answer::Gpu(state) => self.state = Some(state),
            Answer::Failed(_) | Answer::Done => {}
        }
    }

    /// Returns the parts that are complete, for another process that reads the rest. That process reads the topology again,
    /// because the pairs need the links of all GPUs.
    pub(super) fn complete(&self) -> Vec<(SectionName, u32)> {
        fn of<T>(name: SectionName, parts: &OfGpus<T>) -> impl Iterator<Item = (SectionName, u32)> {
            parts.0.values().filter(|part| part.complete).map(move |part| (name, part.gpu))
        }
        of(SectionName::Inventory, &self.inventory)
            .chain(of(SectionName::Telemetry, &self.telemetry))
            .chain(of(SectionName::Ecc, &self.ecc))
            .chain(of(SectionName::Mig, &self.mig))
            .chain(of(SectionName::Processes, &self.uses))
            .collect()
    }

    pub(super) fn addresses(&self) -> Option<&[GpuAddress]> {
        self.addresses.as_deref()
    }

    pub(super) fn take_state(&mut self) -> Option<Option<GpuState>> {
        self.state.take()
    }

    /// Returns whether the process lists of all GPUs arrived.
    pub(super) fn has_all_uses(&self) -> bool {
        let complete = self.uses.0.values().filter(|part| part.complete).count();
        self.count.is_some_and(|count| usize::try_from(count) == Ok(complete))
    }

    pub(super) fn take_uses(&mut self, absent: &Absent) -> Option<Uses> {
        let (mut memory_used, mut minors) = (Vec::new(), Vec::new());
        for (gpu, part) in &self.uses.0 {
            let uses = part.entry.as_ref();
            memory_used.extend(uses.and_then(|uses| Some((*gpu, uses.memory_used?))));
            minors.extend(uses.and_then(|uses| Some((*gpu, uses.minor?))));
        }
        let Joined { entries, field_errors, .. } = self.uses.join(self.count, absent)?;
        let uses = entries.into_iter().flat_map(|uses| uses.uses).collect();
        Some(Uses { uses: Section::read(uses, field_errors.problems), memory_used, minors })
    }

    pub(super) fn fill(&mut self, wanted: &[SectionName], absent: &Absent, sections: &mut Sections) {
        for name in wanted {
            match name {
                SectionName::Inventory => fill(&mut sections.inventory, || self.inventory(absent)),
                SectionName::Telemetry => fill(&mut sections.telemetry, || self.telemetry(absent)),
                SectionName::Ecc => fill(&mut sections.ecc, || self.ecc(absent)),
                SectionName::Mig => fill(&mut sections.mig, || self.mig(absent)),
                SectionName::Topology => fill(&mut sections.topology, || self.topology(absent)),
                SectionName::Processes | SectionName::Kubelet | SectionName::Host | SectionName::Xid => {}
            }
        }
    }

    fn inventory(&mut self, absent: &Absent) -> Option<Section<Inventory>> {
        let Joined { entries: gpus, mut field_errors, duration_ms } = self.inventory.join(self.count, absent)?;
        let not_sent = || Versions { problems: vec![absent.problem.clone()], ..Versions::default() };
        let Versions { driver, nvml, cuda, library, excluded, draining, problems } =
            self.versions.take().unwrap_or_else(not_sent);
        field_errors.problems.extend(problems);
        let FieldErrors { unsupported, unread, lost, problems } = with_duplicate_identities(field_errors, &gpus);
        let inventory = Inventory {
            driver_version: driver,
            nvml_version: nvml,
            cuda_version: cuda,
            nvml_library: Some(library).filter(|library| !library.is_empty()),
            gpus,
            excluded,
            draining,
            unsupported,
            unread,
            lost,
        };
        Some(Section { duration_ms, ..Section::read(inventory, problems) })
    }

    fn telemetry(&mut self, absent: &Absent) -> Option<Section<Telemetry>> {
        let Joined { entries: mut gpus, mut field_errors, duration_ms } = self.telemetry.join(self.count, absent)?;
        for gpu in &mut gpus {
            let Some(Part { entry, missing, .. }) = self.samples.0.remove(&gpu.index) else { continue };
            gpu.sample = entry;
            // The GPU can be lost between the two readings.
            if !field_errors.lost.iter().any(|lost| lost.index == Some(gpu.index)) {
                field_errors.add(gpu.index, missing);
            }
        }
        let FieldErrors { unsupported, unread, lost, problems } = with_duplicate_identities(field_errors, &gpus);
        Some(Section { duration_ms, ..Section::read(Telemetry { gpus, unsupported, unread, lost }, problems) })
    }

    fn ecc(&mut self, absent: &Absent) -> Option<Section<Ecc>> {
        let Joined { entries: gpus, field_errors, duration_ms } = self.ecc.join(self.count, absent)?;
        let FieldErrors { unsupported, unread, lost, problems } = with_duplicate_identities(field_errors, &gpus);
        Some(Section { duration_ms, ..Section::read(Ecc { gpus, unsupported, unread, lost }, problems) })
    }

    fn mig(&mut self, absent: &Absent) -> Option<Section<Mig>> {
        let Joined { entries: gpus, field_errors, duration_ms } = self.mig.join(self.count, absent)?;
        let FieldErrors { unsupported, unread, lost: _, problems } = field_errors;
        Some(Section { duration_ms, ..Section::read(Mig { gpus, unsupported, unread }, problems) })
    }

    fn topology(&mut self, absent: &Absent) -> Option<Section<Topology>> {
        let Joined { entries: gpus, mut field_errors, duration_ms } = self.topology.join(self.count, absent)?;
        let mut topology = Topology { gpus, ..Topology::default() };
        let took = self.relate(&mut topology, &mut field_errors, absent);
        let FieldErrors { unsupported, unread, lost, problems } =
            with_duplicate_identities(field_errors, &topology.gpus);
        let topology = Topology { unsupported, unread, lost, ..topology };
        Some(Section { duration_ms: duration_ms + took, ..Section::read(topology, problems) })
    }

    /// Adds the facts about pairs of GPUs. Returns the time that was needed to read them.
    fn relate(&mut self, topology: &mut Topology, field_errors: &mut FieldErrors, absent: &Absent) -> u64 {
        let place = |index: u32| topology.gpus.iter().position(|gpu| gpu.index == index);
        let mut matrix = vec![vec![String::from("?"); topology.gpus.len()]; topology.gpus.len()];
        let mut peers = PeerToPeer::default();
        let mut duration_us = 0_u64;
        for own in &topology.gpus {
            let Some(row) = place(own.index) else { continue };
            matrix[row][row] = "X".into();
            let Some(part) = self.pairs.0.remove(&own.index) else {
                field_errors.problems.push(Problem { what: "p2p".into(), ..absent.problem(own.index) });
                continue;
            };
            duration_us = duration_us.saturating_add(part.duration_us);
            let pairs = part.entry.unwrap_or_default();
            for (other, word) in &pairs.words {
                let Some(column) = place(*other) else { continue };
                matrix[row][column].clone_from(word);
                matrix[column][row].clone_from(word);
            }
            peers.add(pairs);
            // Problems of the GPU itself are the same in all sections.
            let mut missing = part.missing;
            missing.problems.retain(|problem| !field_errors.problems.contains(problem));
            missing.lost = missing.lost.filter(|lost| !field_errors.lost.contains(lost));
            field_errors.add(own.index, missing);
        }
        topology.matrix = matrix;
        topology.p2p_all_ok = peers.common_to_all_pairs();
        topology.p2p_lacking = peers.lacking;
        if peers.absent {
            let gpus = topology.gpus.iter().map(|gpu| gpu.index).collect();
            field_errors.unsupported.push(Unsupported { gpus, fields: vec!["p2p".into()] });
        }
        duration_us / 1000
    }
}

/// Sets a section if it is not set yet.
fn fill<T>(section: &mut Option<Section<T>>, read: impl FnOnce() -> Option<Section<T>>) {
    if section.is_none() {
        *section = read();
    }
}
