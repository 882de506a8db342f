//! Joins the answers of the NVML process to the sections of a report. A GPU whose part is missing is a problem of the section.

use std::collections::BTreeMap;

use syringe_core::facts::Unsupported;
use syringe_core::facts::ecc::{Ecc, GpuEcc};
use syringe_core::facts::inventory::{GpuInventory, Inventory};
use syringe_core::facts::mig::{GpuMig, Mig};
use syringe_core::facts::processes::GpuUse;
use syringe_core::facts::telemetry::{GpuTelemetry, Telemetry};
use syringe_core::facts::topology::{GpuTopology, Topology};
use syringe_core::report::{Problem, Section, Sections};

use super::answer::{Answer, GpuUses, Pairs, Part, Versions};
use super::field_errors::{FieldErrors, with_duplicate_identities};
use super::peer_to_peer::PeerToPeer;
use super::session::MAX_GPUS;
use crate::section::SectionName;

/// The answers so far.
#[derive(Default)]
pub(crate) struct Parts {
    count: Option<u32>,
    versions: Option<Versions>,
    inventory: OfGpus<GpuInventory>,
    telemetry: OfGpus<GpuTelemetry>,
    ecc: OfGpus<GpuEcc>,
    mig: OfGpus<GpuMig>,
    topology: OfGpus<GpuTopology>,
    pairs: OfGpus<Pairs>,
    uses: OfGpus<GpuUses>,
}

/// NVML's process lists; the memory in use on each GPU; N of each `/dev/nvidiaN`.
#[derive(Debug)]
pub(crate) struct Uses {
    pub(crate) uses: Section<Vec<(u32, GpuUse)>>,
    pub(crate) memory_used: Vec<(u32, u64)>,
    pub(crate) minors: Vec<(u32, u32)>,
}

/// The parts of one section, by NVML index.
struct OfGpus<T>(BTreeMap<u32, Part<T>>);

impl<T> Default for OfGpus<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

/// The entries of a section, what they lack, and how long it took to read them.
struct Joined<T> {
    entries: Vec<T>,
    field_errors: FieldErrors,
    duration_ms: u64,
}

impl<T> OfGpus<T> {
    /// Adds a part. A complete part is not replaced by an incomplete one.
    fn add(&mut self, part: Part<T>) {
        let known = self.0.get(&part.gpu);
        if part.gpu < MAX_GPUS && (part.complete || known.is_none_or(|known| !known.complete)) {
            self.0.insert(part.gpu, part);
        }
    }

    /// `None` if no part arrived, although there are GPUs. A GPU without a part has the problem `absent`.
    fn join(&mut self, count: Option<u32>, absent: &Problem) -> Option<Joined<T>> {
        let count = count.filter(|count| *count == 0 || !self.0.is_empty())?;
        let mut joined = Joined { entries: Vec::new(), field_errors: FieldErrors::default(), duration_ms: 0 };
        let mut duration_us = 0_u64;
        for gpu in 0..count {
            match self.0.remove(&gpu) {
                Some(part) => {
                    joined.entries.extend(part.entry);
                    joined.field_errors.add(gpu, part.missing);
                    duration_us = duration_us.saturating_add(part.duration_us);
                }
                None => {
                    let problem = Problem { what: format!("GPU {gpu}"), gpu: Some(gpu), ..absent.clone() };
                    joined.field_errors.problems.push(problem);
                }
            }
        }
        joined.duration_ms = duration_us / 1000;
        Some(joined)
    }
}

impl Parts {
    /// Adds an answer.
    pub(crate) fn add(&mut self, answer: Answer) {
        match answer {
            Answer::Opened { count, .. } => self.count = Some(count.min(MAX_GPUS)),
            // Of two processes, one may not have got them.
            Answer::Versions(_) if self.versions.as_ref().is_some_and(|known| known.problems.is_empty()) => {}
            Answer::Versions(versions) => self.versions = Some(versions),
            Answer::Inventory(part) => self.inventory.add(part),
            Answer::Telemetry(part) => self.telemetry.add(part),
            Answer::Ecc(part) => self.ecc.add(part),
            Answer::Mig(part) => self.mig.add(part),
            Answer::Topology(part) => self.topology.add(part),
            Answer::Pairs(part) => self.pairs.add(part),
            Answer::Uses(part) => self.uses.add(part),
            Answer::Failed(_) | Answer::Gpu(_) | Answer::Blocked(_) | Answer::Done => {}
        }
    }

    /// The parts that are complete, for another process that reads the rest. The pairs need the links of all GPUs, so those are read
    /// again.
    pub(crate) fn complete(&self) -> Vec<(SectionName, u32)> {
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

    /// Whether the process lists of all GPUs arrived.
    pub(crate) fn has_all_uses(&self) -> bool {
        let complete = self.uses.0.values().filter(|part| part.complete).count();
        self.count.is_some_and(|count| usize::try_from(count) == Ok(complete))
    }

    /// The process lists. A GPU without one has the problem `absent`. `None` if none arrived.
    pub(crate) fn take_uses(&mut self, absent: &Problem) -> Option<Uses> {
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

    /// Writes the sections of which at least one part arrived.
    pub(crate) fn fill(&mut self, wanted: &[SectionName], absent: &Problem, sections: &mut Sections) {
        for name in wanted {
            match name {
                SectionName::Inventory => fill(&mut sections.inventory, || self.inventory(absent)),
                SectionName::Telemetry => fill(&mut sections.telemetry, || self.telemetry(absent)),
                SectionName::Ecc => fill(&mut sections.ecc, || self.ecc(absent)),
                SectionName::Mig => fill(&mut sections.mig, || self.mig(absent)),
                SectionName::Topology => fill(&mut sections.topology, || self.topology(absent)),
                SectionName::Processes
                | SectionName::Kubelet
                | SectionName::Host
                | SectionName::Xid
                | SectionName::Health => {}
            }
        }
    }

    fn inventory(&mut self, absent: &Problem) -> Option<Section<Inventory>> {
        let Joined { entries: gpus, mut field_errors, duration_ms } = self.inventory.join(self.count, absent)?;
        let not_sent = || Versions { problems: vec![absent.clone()], ..Versions::default() };
        let Versions { driver, nvml, cuda, library, problems } = self.versions.take().unwrap_or_else(not_sent);
        field_errors.problems.extend(problems);
        let FieldErrors { unsupported, unread, lost, problems } =
            with_duplicate_identities(field_errors, &gpus, |gpu| {
                (gpu.index, gpu.uuid.as_deref(), gpu.pci_address.as_ref())
            });
        let inventory = Inventory {
            driver_version: driver,
            nvml_version: nvml,
            cuda_version: cuda,
            nvml_library: Some(library).filter(|library| !library.is_empty()),
            gpus,
            unsupported,
            unread,
            lost,
        };
        Some(Section { duration_ms, ..Section::read(inventory, problems) })
    }

    fn telemetry(&mut self, absent: &Problem) -> Option<Section<Telemetry>> {
        let Joined { entries: gpus, field_errors, duration_ms } = self.telemetry.join(self.count, absent)?;
        let FieldErrors { unsupported, unread, lost, problems } =
            with_duplicate_identities(field_errors, &gpus, |gpu| {
                (gpu.index, gpu.uuid.as_deref(), gpu.pci_address.as_ref())
            });
        Some(Section { duration_ms, ..Section::read(Telemetry { gpus, unsupported, unread, lost }, problems) })
    }

    fn ecc(&mut self, absent: &Problem) -> Option<Section<Ecc>> {
        let Joined { entries: gpus, field_errors, duration_ms } = self.ecc.join(self.count, absent)?;
        let FieldErrors { unsupported, unread, lost, problems } =
            with_duplicate_identities(field_errors, &gpus, |gpu| {
                (gpu.index, gpu.uuid.as_deref(), gpu.pci_address.as_ref())
            });
        Some(Section { duration_ms, ..Section::read(Ecc { gpus, unsupported, unread, lost }, problems) })
    }

    fn mig(&mut self, absent: &Problem) -> Option<Section<Mig>> {
        let Joined { entries: gpus, field_errors, duration_ms } = self.mig.join(self.count, absent)?;
        let FieldErrors { unsupported, unread, lost: _, problems } = field_errors;
        Some(Section { duration_ms, ..Section::read(Mig { gpus, unsupported, unread }, problems) })
    }

    fn topology(&mut self, absent: &Problem) -> Option<Section<Topology>> {
        let Joined { entries: gpus, mut field_errors, duration_ms } = self.topology.join(self.count, absent)?;
        let mut topology = Topology { gpus, ..Topology::default() };
        let took = self.relate(&mut topology, &mut field_errors, absent);
        let FieldErrors { unsupported, unread, lost, problems } =
            with_duplicate_identities(field_errors, &topology.gpus, |gpu| {
                (gpu.index, gpu.uuid.as_deref(), gpu.pci_address.as_ref())
            });
        let topology = Topology { unsupported, unread, lost, ..topology };
        Some(Section { duration_ms: duration_ms + took, ..Section::read(topology, problems) })
    }

    /// Adds the facts about pairs of GPUs. Returns how long it took to read them.
    fn relate(&mut self, topology: &mut Topology, field_errors: &mut FieldErrors, absent: &Problem) -> u64 {
        let place = |index: u32| topology.gpus.iter().position(|gpu| gpu.index == index);
        let mut matrix = vec![vec![String::from("?"); topology.gpus.len()]; topology.gpus.len()];
        let mut peers = PeerToPeer::default();
        let mut duration_us = 0_u64;
        for own in &topology.gpus {
            let Some(row) = place(own.index) else { continue };
            matrix[row][row] = "X".into();
            let Some(part) = self.pairs.0.remove(&own.index) else {
                let problem = Problem { what: "p2p".into(), gpu: Some(own.index), ..absent.clone() };
                field_errors.problems.push(problem);
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
            // The sections have the same for the GPU itself.
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

/// Sets a section that is not set yet.
fn fill<T>(section: &mut Option<Section<T>>, read: impl FnOnce() -> Option<Section<T>>) {
    if section.is_none() {
        *section = read();
    }
}
