//! `Session::read`: reads the requested sections from NVML, the most useful first.
//! `Session::state`: reads the state of one GPU for an action.
//!
//! The facts that help most to find a fault are read first, for all GPUs, in case NVML is slow or stops responding: NVLinks
//! (one call), errors and repairs, processes, temperatures and clocks, then properties, connections, and the pairs of GPUs,
//! whose number grows with the square of the number of GPUs.

use std::time::Duration;

use syringe_core::section_name::SectionName;

use super::rates::Counted;
use super::session::{Gpu, Session};
use super::{ecc, inventory, mig, processes, telemetry};
use crate::child_task::NvmlRequest;
use crate::nvml::answer::{Answer, GpuState, Part};

/// Reads one section of one GPU.
type Step = fn(&Session, &Gpu) -> Option<Answer>;

const STEPS: [(SectionName, Step); 8] = [
    (SectionName::Topology, |session, gpu| {
        session.read_links(gpu);
        None
    }),
    (SectionName::Ecc, |session, gpu| Some(Answer::Ecc(session.part(gpu, ecc::read)))),
    (SectionName::Processes, |session, gpu| Some(Answer::Uses(session.part(gpu, processes::read)))),
    (SectionName::Telemetry, |session, gpu| Some(Answer::Telemetry(session.part(gpu, telemetry::read)))),
    (SectionName::Inventory, |session, gpu| Some(Answer::Inventory(session.part(gpu, inventory::read)))),
    (SectionName::Topology, |session, gpu| Some(Answer::Topology(session.topology(gpu)))),
    (SectionName::Mig, |session, gpu| Some(Answer::Mig(session.part(gpu, mig::read)))),
    (SectionName::Topology, |session, gpu| Some(Answer::Pairs(session.pairs(gpu)))),
];

impl Session {
    /// Returns the state of the GPU with this UUID, for an action; `None` if there is no such GPU.
    pub(in crate::nvml) fn state(&self, uuid: &str) -> Option<GpuState> {
        let gpu = self.gpus.iter().find(|gpu| gpu.identity.uuid.as_deref() == Some(uuid))?;
        let Part { gpu: index, entry, missing, .. } = self.part(gpu, processes::read);
        let uses = entry.unwrap_or_default();
        let problem = missing.problems.into_iter().next();
        Some(GpuState { index, minor: uses.minor, memory_used: uses.memory_used, uses: uses.uses, problem })
    }

    /// Reads the sections that `request` needs, and sends each answer as soon as it is complete.
    pub(in crate::nvml) fn read(&self, request: &NvmlRequest, mut send: impl FnMut(Answer)) {
        let NvmlRequest { sections, have, sample_ms, .. } = request;
        let mut counted = Counted::default();
        if sections.contains(&SectionName::Inventory) {
            send(Answer::Versions(self.versions(&request.paths)));
        }
        for (section, step) in STEPS.iter().filter(|(section, _)| sections.contains(section)) {
            for gpu in self.gpus.iter().filter(|gpu| !have.contains(&(*section, gpu.identity.index))) {
                if let Some(answer) = step(self, gpu) {
                    counted.note(&answer);
                    send(answer);
                }
            }
        }
        // This step is the last step, because it waits.
        if sections.contains(&SectionName::Telemetry) {
            self.sample(sample_ms.map(Duration::from_millis), &counted, send);
        }
    }
}
