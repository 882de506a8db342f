//! `NvmlProcesses`: starts and watches the processes that call NVML. Usually one process reads everything.
//!
//! If a call for a GPU crashes the process or does not return, another process reads the missing parts, without that GPU.
//!
//! A call that hangs in the driver cannot be interrupted, and it may hold a lock of the library that all calls of its
//! process need. Another process does not wait for that lock. The process that hangs is only killed at the end of the read.
//! If the call returns before the end, the process reads the rest.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use syringe_core::report::{Problem, Sections};

use super::sections::{Absent, LeftOut, Parts, Uses};
use super::subprocess::NvmlProcess;
use crate::child_task::NvmlRequest;
use crate::document::millis;
use crate::nvml::answer::{Answer, GpuAddress, GpuState};
use crate::nvml::current_call::OpenCall;
use crate::nvml::errors::NvmlError;
use syringe_core::section_name::SectionName;

/// Maximum number of processes of one read.
const MAX_PROCESSES: usize = 4;
/// Divisor of the time limit: after a call has taken this fraction of the limit, another process reads the other GPUs.
/// An early start does no harm: if the call returns, its process continues.
const STALL_PART: u32 = 8;
/// Minimum time before another process is started, because a busy machine delays processes.
const MIN_STALL: Duration = Duration::from_millis(200);
/// Time limit for a call that initializes a GPU. The driver takes one to three seconds.
const INITIALIZATION_TIME: Duration = Duration::from_secs(4);
/// Divisor of the time limit: a call that has taken this fraction of the limit counts as hung. A shorter call may only
/// be slow.
const HUNG_PART: u32 = 4;

/// The processes of one read, and the parts that these processes sent.
pub(crate) struct NvmlProcesses {
    request: NvmlRequest,
    started: Instant,
    processes: Vec<Reading>,
    parts: Parts,
    /// GPUs whose calls crashed a process.
    crashed: Vec<LeftOut>,
    /// GPUs whose calls had not returned when the processes were killed.
    hung_at_end: Option<Vec<LeftOut>>,
    failure: Option<Problem>,
    send: Arc<dyn Fn(Message) + Send + Sync>,
}

/// A message from the process with this number: an answer, or the end of its answers.
pub(crate) struct Message {
    process: usize,
    answer: Option<Answer>,
}

struct Reading {
    process: Arc<NvmlProcess>,
    /// Whether the process has opened all its GPUs.
    is_open: bool,
    /// Whether the process has sent everything, or crashed.
    has_ended: bool,
}

impl NvmlProcesses {
    /// Prepares a read. `send` forwards the messages of the processes to [`Self::take`].
    pub(crate) fn new(request: NvmlRequest, send: impl Fn(Message) + Send + Sync + 'static) -> Self {
        Self {
            request,
            started: Instant::now(),
            processes: Vec::new(),
            parts: Parts::default(),
            crashed: Vec::new(),
            hung_at_end: None,
            failure: None,
            send: Arc::new(send),
        }
    }

    /// Starts the first process. All processes are killed when the thread that calls this function exits.
    pub(crate) fn start(&mut self) {
        self.start_process(self.request.clone());
    }

    /// Starts another process, without this GPU and without the parts that are complete.
    fn start_without(&mut self, gpu: u32) {
        let time_ms = self.request.time_ms.saturating_sub(millis(self.started.elapsed()));
        if self.processes.len() < MAX_PROCESSES && time_ms > 0 && !self.request.without.contains(&gpu) {
            self.request.without.push(gpu);
            self.start_process(NvmlRequest { time_ms, have: self.parts.complete(), ..self.request.clone() });
        }
    }

    fn start_process(&mut self, request: NvmlRequest) {
        let (place, send) = (self.processes.len(), Arc::clone(&self.send));
        match NvmlProcess::start(request) {
            Ok((process, answers)) => {
                thread::spawn(move || {
                    answers.for_each(|answer| send(Message { process: place, answer: Some(answer) }));
                    send(Message { process: place, answer: None });
                });
                self.processes.push(Reading { process, is_open: false, has_ended: false });
            }
            Err(problem) => self.fail(problem),
        }
    }

    /// Records the first reason why NVML could not be read.
    pub(crate) fn fail(&mut self, problem: Problem) {
        self.failure.get_or_insert(problem);
    }

    /// Adds a message of a process.
    pub(crate) fn take(&mut self, Message { process: place, answer }: Message) {
        let Some(reading) = self.processes.get_mut(place) else { return };
        match answer {
            Some(Answer::Done) => reading.has_ended = true,
            Some(Answer::Failed(problem)) => self.fail(problem),
            Some(answer) => {
                reading.is_open |= matches!(answer, Answer::Opened { .. });
                self.parts.add(answer);
            }
            None if reading.has_ended => {}
            None => {
                reading.has_ended = true;
                let problem = reading.process.failure();
                if let Some(gpu) = reading.process.call().and_then(|call| call.gpu()) {
                    self.crashed.push(LeftOut::crashed(gpu, &problem));
                    self.start_without(gpu);
                }
                self.fail(problem);
            }
        }
    }

    /// Starts another process if the last process is in a call that does not return. Call this several times per second.
    pub(crate) fn watch(&mut self) {
        let Some(Reading { process, is_open, has_ended: false }) = self.processes.last() else { return };
        let initializes = self.request.slow_start && !is_open;
        let stall = if initializes { self.stall().max(INITIALIZATION_TIME) } else { self.stall() };
        let call =
            process.call().filter(|call| call.duration >= stall && self.is_of_its_gpu(self.processes.len(), call));
        if let Some(gpu) = call.and_then(|call| call.gpu()) {
            self.start_without(gpu);
        }
    }

    fn stall(&self) -> Duration {
        (self.time() / STALL_PART).max(MIN_STALL)
    }

    fn time(&self) -> Duration {
        Duration::from_millis(self.request.time_ms)
    }

    /// Returns whether a call hangs because of its own GPU. If the process is not the first process (`number`) and none
    /// of its GPU calls has returned, the call may be waiting for a call of an earlier process.
    fn is_of_its_gpu(&self, number: usize, call: &OpenCall) -> bool {
        number == 1 || call.returned > 0
    }

    /// Returns the GPUs that are left out because of a call that has not returned.
    fn hung(&self) -> Vec<LeftOut> {
        let running = (1..).zip(&self.processes).filter(|(_, reading)| !reading.has_ended);
        let calls = running.filter_map(|(number, reading)| Some((number, reading.process.call()?)));
        let stuck = calls.filter(|(number, call)| call.duration >= self.stall() && self.is_of_its_gpu(*number, call));
        stuck.filter_map(|(_, call)| Some(LeftOut::hung(call.gpu()?, &self.error(&call)))).collect()
    }

    fn error(&self, call: &OpenCall) -> NvmlError {
        let duration_ms = millis(call.duration);
        // It is not known which of the two GPUs hangs.
        if call.duration >= self.time() / HUNG_PART && !call.is_on_two_gpus() {
            NvmlError::Hung { function: call.function().to_owned(), duration_ms }
        } else {
            NvmlError::NotReached(format!("{} had not returned after {duration_ms} ms", call.text))
        }
    }

    /// Returns the reason why parts are missing: `problem`, except for GPUs that were left out.
    fn absent(&self, problem: &Problem) -> Absent {
        let hung = self.hung_at_end.clone().unwrap_or_else(|| self.hung());
        let left_out = self.crashed.iter().cloned().chain(hung).collect();
        Absent::new(problem, left_out, self.addresses().unwrap_or_default())
    }

    /// Returns whether every process has sent everything, or exited.
    pub(crate) fn have_ended(&self) -> bool {
        self.processes.iter().all(|reading| reading.has_ended)
    }

    /// Returns the problem of the first process that failed.
    pub(crate) fn failure(&self) -> Option<&Problem> {
        self.failure.as_ref()
    }

    /// Returns whether NVML has listed its GPUs.
    pub(crate) fn is_open(&self) -> bool {
        self.processes.iter().any(|reading| reading.is_open)
    }

    /// Returns the GPUs of NVML. `None` if NVML did not open or none of its GPUs responds; empty if NVML has no GPUs.
    pub(crate) fn addresses(&self) -> Option<&[GpuAddress]> {
        self.parts.addresses()
    }

    /// Returns the state of the GPU that an action needs, as soon as the state is read.
    pub(crate) fn take_state(&mut self) -> Option<Option<GpuState>> {
        self.parts.take_state()
    }

    /// Returns whether the process lists of all GPUs arrived.
    pub(crate) fn has_all_uses(&self) -> bool {
        self.parts.has_all_uses()
    }

    /// Returns the process lists; `None` if no list arrived. A GPU without a list has the problem `absent`, unless the GPU
    /// was left out.
    pub(crate) fn take_uses(&mut self, absent: &Problem) -> Option<Uses> {
        let absent = self.absent(absent);
        self.parts.take_uses(&absent)
    }

    /// Writes the sections for which at least one part arrived. A GPU without a part has the problem `absent`, unless the
    /// GPU was left out.
    pub(crate) fn fill(&mut self, wanted: &[SectionName], absent: &Problem, sections: &mut Sections) {
        let absent = self.absent(absent);
        self.parts.fill(wanted, &absent, sections);
    }

    /// Returns the current NVML call of the first process that is in a call.
    pub(crate) fn call(&self) -> Option<String> {
        self.processes.iter().find_map(|reading| Some(reading.process.call()?.text))
    }

    /// Kills the processes. Returns the ID of a process that does not exit in `time`, because it hangs in the kernel.
    pub(crate) fn end(&mut self, time: Duration) -> Option<u32> {
        self.hung_at_end = Some(self.hung());
        // The IDs are collected in a list, so that every process is killed, not only the processes before the first
        // process that hangs.
        let left: Vec<u32> = self.processes.iter().filter_map(|reading| reading.process.end(time)).collect();
        left.first().copied()
    }
}
