//! The processes that call NVML: one, and a second one if the first crashed in a call on a GPU, or such a call does not return and
//! all others wait for it. The second one leaves that GPU out. It is tried once: a driver that hangs also stops it.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use syringe_core::report::Problem;
use syringe_core::section_name::SectionName;

use super::source_threads::{SectionResult, start_nvml};
use crate::child_task::NvmlRequest;
use crate::document::millis;
use crate::nvml::NvmlProcess;

/// The processes of one read.
pub(super) struct NvmlProcesses {
    request: NvmlRequest,
    started: Instant,
    processes: Vec<Arc<NvmlProcess>>,
    /// Processes that have not sent everything.
    running: u32,
    /// Why the first one ended.
    pub(super) crash: Option<Problem>,
    sender: Sender<SectionResult>,
}

impl NvmlProcesses {
    /// Prepares the processes for these request.
    pub(super) fn new(request: NvmlRequest, sender: Sender<SectionResult>) -> Self {
        Self { request, started: Instant::now(), processes: Vec::new(), running: 0, crash: None, sender }
    }

    /// Starts the first process. It ends with the thread that calls this.
    pub(super) fn start(&mut self) {
        self.start_with(self.request.clone());
    }

    /// Starts the second process, without this GPU and without what is known. Returns whether it could be.
    pub(super) fn start_second(&mut self, gpu: u32, have: Vec<(SectionName, u32)>) -> bool {
        let time_ms = self.request.time_ms.saturating_sub(millis(self.started.elapsed()));
        if self.processes.len() != 1 || time_ms == 0 {
            return false;
        }
        self.start_with(NvmlRequest { time_ms, without: vec![gpu], have, ..self.request.clone() });
        self.processes.len() == 2
    }

    fn start_with(&mut self, request: NvmlRequest) {
        if let Some(process) = start_nvml(request, &self.sender) {
            self.processes.push(process);
            self.running += 1;
        }
    }

    /// Whether the second process was started.
    pub(super) fn is_second(&self) -> bool {
        self.processes.len() == 2
    }

    /// Notes that a process has sent everything, or ended. Returns whether it was the last one.
    pub(super) fn ended(&mut self) -> bool {
        self.running = self.running.saturating_sub(1);
        self.running == 0
    }

    /// The current NVML call of the first process that is in one.
    pub(super) fn call(&self) -> Option<String> {
        self.processes.iter().find_map(|process| process.call())
    }

    /// Kills the processes. Returns the ID of one that does not end in `time`: a call that hangs in the kernel cannot be interrupted.
    pub(super) fn end(&self, time: Duration) -> Option<u32> {
        // Each is killed.
        let left: Vec<u32> = self.processes.iter().filter_map(|process| process.end(time)).collect();
        left.first().copied()
    }
}
