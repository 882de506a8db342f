//! The steps of the reading, and their order: each reads one section of one GPU.
//!
//! The order is that of the facts that say most about a fault, of all GPUs, so that a node whose NVML is slow or stops to answer
//! still gives those: NVLinks (one call), errors and repairs, processes, temperatures and clocks, then properties, connections, and the pairs of GPUs,
//! whose number grows with the square of the GPUs.

use syringe_core::section_name::SectionName;

use std::collections::VecDeque;

use super::device_reader::Calls;
use super::session::{Gpu, Session};
use super::{ecc, inventory, mig, nvlink, processes, telemetry, topology};
use crate::child_task::NvmlRequest;
use crate::nvml::answer::{Answer, GpuUses};
use crate::nvml::errors::NvmlError;
use crate::nvml::process::call_log::CallLog;

/// What to read of one GPU (by its place), or of the installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nvml) enum Step {
    Open(usize),
    Versions,
    /// The states and counters of NVLinks, for the topology.
    Links(usize),
    Ecc(usize),
    Uses(usize),
    Telemetry(usize),
    Inventory(usize),
    Topology(usize),
    Mig(usize),
    Pairs(usize),
}

/// A step of the GPU at a place.
type StepOf = fn(usize) -> Step;

/// The steps for these questions, in order.
pub(in crate::nvml) fn plan(gpus: usize, nvml_request: &NvmlRequest) -> VecDeque<Step> {
    let NvmlRequest { sections, without, have, .. } = nvml_request;
    let called = |gpu: &usize| !u32::try_from(*gpu).is_ok_and(|gpu| without.contains(&gpu));
    let mut steps: VecDeque<Step> = (0..gpus).filter(called).map(Step::Open).collect();
    let wants = |name| sections.contains(&name);
    let lacks = |section, gpu: &usize| !u32::try_from(*gpu).is_ok_and(|gpu| have.contains(&(section, gpu)));
    if wants(SectionName::Inventory) {
        steps.push_back(Step::Versions);
    }
    let order: [(SectionName, StepOf); 8] = [
        (SectionName::Topology, Step::Links),
        (SectionName::Ecc, Step::Ecc),
        (SectionName::Processes, Step::Uses),
        (SectionName::Telemetry, Step::Telemetry),
        (SectionName::Inventory, Step::Inventory),
        (SectionName::Topology, Step::Topology),
        (SectionName::Mig, Step::Mig),
        (SectionName::Topology, Step::Pairs),
    ];
    for (section, step) in order {
        if wants(section) {
            steps.extend((0..gpus).filter(called).filter(|gpu| lacks(section, gpu)).map(step));
        }
    }
    steps
}

impl Step {
    /// The place of its GPU.
    pub(in crate::nvml) fn gpu(self) -> Option<usize> {
        match self {
            Self::Versions => None,
            Self::Open(gpu)
            | Self::Links(gpu)
            | Self::Ecc(gpu)
            | Self::Uses(gpu)
            | Self::Telemetry(gpu)
            | Self::Inventory(gpu)
            | Self::Topology(gpu)
            | Self::Mig(gpu)
            | Self::Pairs(gpu) => Some(gpu),
        }
    }

    /// Reads it from NVML.
    pub(in crate::nvml) fn read(self, session: &'static Session, log: &CallLog) -> Option<Answer> {
        self.with(session, Calls::Made(log))
    }

    /// Repeats it from the record of its calls. What is not recorded has this error. NVML is not called.
    pub(in crate::nvml) fn repeat(self, session: &'static Session, log: &CallLog, then: &NvmlError) -> Option<Answer> {
        self.with(session, Calls::Repeated(log, then))
    }

    fn with(self, session: &'static Session, calls: Calls<'_>) -> Option<Answer> {
        let Some(place) = self.gpu() else { return Some(Answer::Versions(session.versions(calls))) };
        let gpu: &Gpu = session.gpus.get(place)?;
        Some(match self {
            Self::Versions => return None,
            Self::Open(_) => {
                session.open(gpu, calls);
                return None;
            }
            Self::Links(_) => {
                session.part(gpu, calls, |_| (), |device, reader, ()| nvlink::read_fields(device, reader));
                return None;
            }
            Self::Ecc(_) => Answer::Ecc(session.part(gpu, calls, ecc::entry, ecc::read)),
            Self::Uses(_) => Answer::Uses(session.part(gpu, calls, |_| GpuUses::default(), processes::read)),
            Self::Telemetry(_) => Answer::Telemetry(session.part(gpu, calls, telemetry::entry, telemetry::read)),
            Self::Inventory(_) => Answer::Inventory(session.part(gpu, calls, inventory::entry, inventory::read)),
            Self::Mig(_) => Answer::Mig(session.part(gpu, calls, mig::entry, mig::read)),
            Self::Pairs(_) => Answer::Pairs(session.pairs(gpu, calls)),
            Self::Topology(_) => {
                let part = session.part(gpu, calls, topology::entry, topology::read);
                if let Some(entry) = part.entry.as_ref().filter(|_| part.complete) {
                    // Already set if a call that was given up returned after all.
                    let _ = gpu.topology.set(entry.clone());
                }
                Answer::Topology(part)
            }
        })
    }
}
