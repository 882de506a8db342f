//! Joins the answers of the NVML process to the sections of a report. A GPU whose part is missing is a problem of the section.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use syringe_core::facts::Unsupported;
use syringe_core::facts::ecc::{Ecc, GpuEcc};
use syringe_core::facts::inventory::{GpuInventory, Inventory};
use syringe_core::facts::mig::{GpuMig, Mig};
use syringe_core::facts::processes::GpuUse;
use syringe_core::facts::telemetry::{GpuTelemetry, Telemetry};
use syringe_core::facts::topology::{GpuTopology, Topology};
use syringe_core::report::{Problem, Section, Sections};
use syringe_core::section_name::SectionName;

use super::supervisor::HUNG_PART;
use crate::nvml::answer::{Answer, GpuUses, Pairs, Part, Versions};
use crate::nvml::errors::NvmlError;
use crate::nvml::read::field_errors::{FieldErrors, with_duplicate_identities};
use crate::nvml::read::peer_to_peer::PeerToPeer;
use crate::nvml::read::session::MAX_GPUS;

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
    /// Calls that have not returned, by GPU, and since when.
    stuck: BTreeMap<u32, (String, Instant)>,
}

/// NVML's process lists; the memory in use on each GPU; N of each `/dev/nvidiaN`.
#[derive(Debug)]
pub(crate) struct Uses {
    pub(crate) uses: Section<Vec<(u32, GpuUse)>>,
    pub(crate) memory_used: Vec<(u32, u64)>,
    pub(crate) minors: Vec<(u32, u32)>,
}

/// Why parts are missing.
struct Absent {
    problem: Problem,
    /// GPUs in whose calls NVML hangs, and why.
    hung: Vec<(u32, NvmlError)>,
}

impl Absent {
    /// Why the part of this GPU is missing.
    fn of(&self, gpu: u32) -> Problem {
        let what = format!("GPU {gpu}");
        match self.hung_problem(gpu) {
            Some(problem) => problem,
            None => Problem { what, gpu: Some(gpu), ..self.problem.clone() },
        }
    }

    fn hung_problem(&self, gpu: u32) -> Option<Problem> {
        let (_, error) = self.hung.iter().find(|(hung, _)| *hung == gpu)?;
        Some(error.problem(format!("GPU {gpu}"), Some(gpu)))
    }
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
    fn join(&mut self, count: Option<u32>, absent: &Absent) -> Option<Joined<T>> {
        let count = count.filter(|count| *count == 0 || !self.0.is_empty())?;
        let mut joined = Joined { entries: Vec::new(), field_errors: FieldErrors::default(), duration_ms: 0 };
        let mut duration_us = 0_u64;
        for gpu in 0..count {
            match self.0.remove(&gpu) {
                Some(part) => {
                    let hangs = absent.hung_problem(gpu).filter(|_| !part.complete);
                    joined.field_errors.problems.extend(hangs);
                    joined.entries.extend(part.entry);
                    joined.field_errors.add(gpu, part.missing);
                    duration_us = duration_us.saturating_add(part.duration_us);
                }
                None => joined.field_errors.problems.push(absent.of(gpu)),
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
            Answer::Stuck { gpu, function, duration_ms } => {
                let since = Instant::now().checked_sub(Duration::from_millis(duration_ms));
                self.stuck.insert(gpu, (function, since.unwrap_or_else(Instant::now)));
            }
            Answer::Returned(gpu) => {
                self.stuck.remove(&gpu);
            }
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

    /// Why parts are missing. A call of less than `hung_after` may only be slow.
    fn absent(&self, problem: &Problem, hung_after: Duration) -> Absent {
        let hung = self.stuck.iter().filter(|(_, (_, since))| since.elapsed() >= hung_after);
        let error = |(gpu, (function, since)): (&u32, &(String, Instant))| {
            let duration_ms = crate::document::millis(since.elapsed());
            (*gpu, NvmlError::Hung { function: function.clone(), duration_ms })
        };
        Absent { problem: problem.clone(), hung: hung.map(error).collect() }
    }

    /// Whether the process lists of all GPUs arrived.
    pub(crate) fn has_all_uses(&self) -> bool {
        let complete = self.uses.0.values().filter(|part| part.complete).count();
        self.count.is_some_and(|count| usize::try_from(count) == Ok(complete))
    }

    /// The process lists. A GPU without one has the problem `absent`, or hangs if its call takes a part of `time`.
    /// `None` if none arrived.
    pub(crate) fn take_uses(&mut self, absent: &Problem, time: Duration) -> Option<Uses> {
        let absent = &self.absent(absent, time / HUNG_PART);
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

    /// Writes the sections of which at least one part arrived. A GPU without a part has the problem `absent`, or hangs if its call
    /// takes a part of `time`.
    pub(crate) fn fill(&mut self, wanted: &[SectionName], absent: &Problem, time: Duration, sections: &mut Sections) {
        let absent = &self.absent(absent, time / HUNG_PART);
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

    fn telemetry(&mut self, absent: &Absent) -> Option<Section<Telemetry>> {
        let Joined { entries: gpus, field_errors, duration_ms } = self.telemetry.join(self.count, absent)?;
        let FieldErrors { unsupported, unread, lost, problems } =
            with_duplicate_identities(field_errors, &gpus, |gpu| {
                (gpu.index, gpu.uuid.as_deref(), gpu.pci_address.as_ref())
            });
        Some(Section { duration_ms, ..Section::read(Telemetry { gpus, unsupported, unread, lost }, problems) })
    }

    fn ecc(&mut self, absent: &Absent) -> Option<Section<Ecc>> {
        let Joined { entries: gpus, field_errors, duration_ms } = self.ecc.join(self.count, absent)?;
        let FieldErrors { unsupported, unread, lost, problems } =
            with_duplicate_identities(field_errors, &gpus, |gpu| {
                (gpu.index, gpu.uuid.as_deref(), gpu.pci_address.as_ref())
            });
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
            with_duplicate_identities(field_errors, &topology.gpus, |gpu| {
                (gpu.index, gpu.uuid.as_deref(), gpu.pci_address.as_ref())
            });
        let topology = Topology { unsupported, unread, lost, ..topology };
        Some(Section { duration_ms: duration_ms + took, ..Section::read(topology, problems) })
    }

    /// Adds the facts about pairs of GPUs. Returns how long it took to read them.
    fn relate(&mut self, topology: &mut Topology, field_errors: &mut FieldErrors, absent: &Absent) -> u64 {
        let place = |index: u32| topology.gpus.iter().position(|gpu| gpu.index == index);
        let mut matrix = vec![vec![String::from("?"); topology.gpus.len()]; topology.gpus.len()];
        let mut peers = PeerToPeer::default();
        let mut duration_us = 0_u64;
        for own in &topology.gpus {
            let Some(row) = place(own.index) else { continue };
            matrix[row][row] = "X".into();
            let Some(part) = self.pairs.0.remove(&own.index) else {
                field_errors.problems.push(Problem { what: "p2p".into(), ..absent.of(own.index) });
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
