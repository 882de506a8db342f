//! Collects the results of the threads until the deadline. A missing result becomes a problem with the reason.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use syringe_core::facts::topology::Topology;
use syringe_core::nvml_codes;
use syringe_core::report::{Problem, Section, Sections};
use syringe_core::section_name::SectionName;

use super::needed_sections::NeededSections;
use super::nvml_processes::NvmlProcesses;
use super::source_threads::{SectionResult, deliver};
use crate::nvml::{Answer, GpuAddress, Parts, Uses};
use crate::paths::Paths;
use crate::{bounded, host};

/// Sections that only NVML fills.
const OF_NVML: [SectionName; 5] =
    [SectionName::Inventory, SectionName::Telemetry, SectionName::Ecc, SectionName::Mig, SectionName::Topology];

/// Time for the NVML process to end after it is killed. A process that hangs in the kernel stays.
const END_TIME: Duration = Duration::from_millis(200);

/// Part of the time that may be spent on reads after the deadline.
pub(super) const LATE_PART: u32 = 4;

/// The results so far.
pub(super) struct Collector {
    needed: NeededSections,
    pub(super) sections: Sections,
    /// The GPUs of NVML. `None` if NVML did not open in time or none of its GPUs responds; empty if it has no GPUs.
    pub(super) addresses: Option<Vec<GpuAddress>>,
    parts: Parts,
    /// Time for everything.
    timeout: Duration,
    nvml_problem: Option<Problem>,
    nvml_settled: bool,
    processes_started: bool,
    sender: Sender<SectionResult>,
    pub(super) paths: Paths,
    nvml: NvmlProcesses,
    /// NVML process that could not be killed.
    left_behind: Option<u32>,
    /// When the report must be complete.
    deadline: Instant,
}

impl Collector {
    /// Starts without results.
    pub(super) fn new(
        needed: NeededSections,
        sender: Sender<SectionResult>,
        paths: Paths,
        nvml: NvmlProcesses,
        deadline: Instant,
    ) -> Self {
        Self {
            needed,
            sender,
            paths,
            nvml,
            deadline,
            left_behind: None,
            sections: Sections::default(),
            addresses: None,
            parts: Parts::default(),
            timeout: Duration::ZERO,
            nvml_problem: None,
            nvml_settled: false,
            processes_started: false,
        }
    }

    /// Receives results until all have arrived or the time is over. A missing result becomes a problem.
    pub(super) fn wait(&mut self, results: &Receiver<SectionResult>, started: Instant, timeout: Duration) {
        self.timeout = timeout;
        if !self.needed.nvml() {
            self.nvml_settled = true;
        }
        // NVML gets five eighths of the time. After that, facts that do not need NVML are read without it, to have them in time.
        for deadline in [timeout * 5 / 8, timeout] {
            while !self.complete() {
                match results.recv_timeout(deadline.saturating_sub(started.elapsed())) {
                    Ok(result) => self.take(result),
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                }
            }
            if self.complete() {
                self.end_nvml(Duration::ZERO);
                return;
            }
            self.nvml_settled = true;
            self.start_process_thread(deadline);
        }
        let call = self.nvml.call();
        self.end_nvml(END_TIME);
        // What replaces a missing section is read after the deadline.
        bounded::begin(timeout / LATE_PART);
        // The NVML process had less time, and did not send what it had.
        let late = self.timed_out(SectionName::Inventory, timeout, call.as_deref());
        // It does not tell which GPU hangs.
        self.fill(&Problem { code: nvml_codes::NOT_REACHED.into(), ..late });
        for name in self.missing() {
            self.fail(name, self.timed_out(name, timeout, call.as_deref()));
        }
    }

    /// Ends the NVML process, if the kernel allows it. Closing a GPU that nobody else has open takes seconds,
    /// which is not awaited if everything was read.
    fn end_nvml(&mut self, time: Duration) {
        self.left_behind = self.nvml.end(time);
    }

    /// Whether all requested sections have arrived, and NVML has listed its GPUs (for the kernel events) or used its time.
    fn complete(&self) -> bool {
        self.nvml_settled && self.missing().is_empty()
    }

    fn take(&mut self, result: SectionResult) {
        match result {
            SectionResult::Nvml(answer) => self.take_nvml(*answer),
            SectionResult::NvmlDone => match (self.nvml.ended(), self.nvml.crash.clone()) {
                (true, Some(problem)) => self.without_nvml(problem),
                (true, None) => self.fill(&defect()),
                (false, _) => {}
            },
            SectionResult::NvmlLost(problem, gpu) => self.lose_nvml(problem, gpu),
            SectionResult::Kubelet(section) => self.sections.kubelet = Some(section),
            SectionResult::Host(section) => self.sections.host = Some(*section),
            SectionResult::Xid(section) => self.sections.xid = Some(section),
            SectionResult::Processes(section) => self.sections.processes = Some(section),
        }
    }

    fn take_nvml(&mut self, answer: Answer) {
        match answer {
            Answer::Opened { count, ref addresses } => {
                // If none of the counted GPUs responds, their addresses are unknown.
                if !addresses.is_empty() || count == 0 {
                    let known = self.addresses.get_or_insert_default();
                    let is_new = |new: &&GpuAddress| !known.iter().any(|(_, index, _)| *index == new.1);
                    let new: Vec<GpuAddress> = addresses.iter().filter(is_new).cloned().collect();
                    known.extend(new);
                    known.sort_by_key(|(_, index, _)| *index);
                }
                self.nvml_settled = true;
                self.parts.add(answer);
            }
            Answer::Blocked(gpu) => {
                self.nvml.start_second(gpu, self.parts.complete());
            }
            Answer::Failed(problem) if self.nvml.is_second() => {
                self.nvml.crash.get_or_insert(problem);
            }
            Answer::Failed(problem) => self.without_nvml(problem),
            answer => self.parts.add(answer),
        }
        if self.parts.has_all_uses() {
            self.start_process_thread(Duration::ZERO);
        }
    }

    /// Writes the sections of which NVML sent a part. A GPU whose part is missing has the problem `absent`.
    fn fill(&mut self, absent: &Problem) {
        let had_topology = self.sections.topology.is_some();
        self.parts.fill(&self.needed.sections, absent, self.timeout, &mut self.sections);
        if let Some(section) = self.sections.topology.as_mut().filter(|_| !had_topology) {
            if let Some(topology) = &mut section.data {
                host::complete_topology(&self.paths, topology);
            }
            bounded::add_problems(section);
        }
        self.start_process_thread(Duration::ZERO);
    }

    /// The requested sections that have not arrived.
    fn missing(&self) -> Vec<SectionName> {
        let is_missing = |name: &SectionName| self.sections.get(*name).status().is_none();
        self.needed.sections.iter().copied().filter(is_missing).collect()
    }

    /// A process that calls NVML ended. If a call on one GPU ended it, another process reads the others.
    fn lose_nvml(&mut self, problem: Problem, gpu: Option<u32>) {
        let is_last = self.nvml.ended();
        let retried = gpu.is_some_and(|gpu| self.nvml.start_second(gpu, self.parts.complete()));
        let why = self.nvml.crash.get_or_insert(problem).clone();
        if is_last && !retried {
            self.without_nvml(why);
        }
    }

    /// NVML gives no more answers: its missing sections fail with the reason, and facts from the kernel replace them
    /// if possible.
    fn without_nvml(&mut self, problem: Problem) {
        if self.nvml_problem.is_some() {
            return;
        }
        self.nvml_settled = true;
        self.nvml_problem = Some(problem.clone());
        self.fill(&problem);
        for name in self.missing() {
            // The others need no NVML.
            if OF_NVML.contains(&name) {
                self.fail(name, Problem { what: name.to_string(), ..problem.clone() });
            }
        }
    }

    /// Reads `/proc` once, for the processes that NVML lists and for those with an open device file.
    fn start_process_thread(&mut self, waited: Duration) {
        if self.processes_started || !self.needed.has(SectionName::Processes) {
            return;
        }
        self.processes_started = true;
        let (sender, paths) = (self.sender.clone(), self.paths.clone());
        let time = self.deadline.saturating_duration_since(Instant::now());
        let absent = self.nvml_problem.clone().unwrap_or_else(|| {
            let call = self.nvml.call();
            self.timed_out(SectionName::Processes, waited, call.as_deref())
        });
        let uses = self.parts.take_uses(&absent, self.timeout).unwrap_or_else(|| Uses {
            uses: Section::failed(absent),
            memory_used: Vec::new(),
            minors: Vec::new(),
        });
        thread::spawn(move || {
            let Uses { uses, memory_used, minors } = uses;
            deliver(&sender, time, SectionResult::Processes, || host::processes(&paths, uses, &memory_used, &minors));
        });
    }

    /// Writes a section that could not be read. Facts of the kernel replace the topology.
    fn fail(&mut self, name: SectionName, problem: Problem) {
        if name == SectionName::Topology {
            self.sections.topology = Some(topology_without_nvml(&self.paths, problem));
        } else {
            self.sections.get_mut(name).fail(problem);
        }
    }

    /// Why a section is missing, with the NVML call that blocks, if any.
    fn timed_out(&self, name: SectionName, waited: Duration, call: Option<&str>) -> Problem {
        let seconds = waited.as_secs_f32();
        let needs_nvml = !matches!(name, SectionName::Host | SectionName::Kubelet | SectionName::Xid);
        let mut why = match call.filter(|_| needs_nvml) {
            Some(call) => format!("NVML did not answer within {seconds:.1} s; it is still in {call}"),
            None => format!("not read within {seconds:.1} s"),
        };
        if let Some(process) = self.left_behind.filter(|_| needs_nvml) {
            why.push_str(&left_behind(process));
        }
        let next_step = "Try again: without persistence mode the first call can take half a minute. If it hangs again, check for Xid 79, \
            Xid 119 and processes in state D, and reboot the node.";
        Problem { what: name.to_string(), why, next_step: next_step.into(), gpu: None, code: "timeout".into() }
    }
}

/// Why a part is missing although NVML sent everything.
fn defect() -> Problem {
    Problem {
        what: "NVML".into(),
        why: "the process that calls NVML did not send it".into(),
        next_step: "This is a defect of node-probe: please report it.".into(),
        gpu: None,
        code: "defect".into(),
    }
}

/// Text for a process that cannot be killed.
fn left_behind(process: u32) -> String {
    format!(
        "; process {process} of the probe hangs in the kernel and could not be killed: it stays until that call returns"
    )
}

/// The part of the topology from PCI, which needs no driver.
fn topology_without_nvml(paths: &Paths, problem: Problem) -> Section<Topology> {
    let gpus = host::pci_topology(paths);
    let mut section = if gpus.is_empty() {
        Section::failed(problem)
    } else {
        let mut topology = Topology { gpus, ..Topology::default() };
        host::complete_topology(paths, &mut topology);
        Section::read(topology, vec![problem])
    };
    bounded::add_problems(&mut section);
    section
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::child_task::NvmlRequest;

    #[test]
    fn a_process_that_could_not_be_killed_is_named_in_sections_of_nvml() {
        let (sender, _results) = channel();
        let nowhere = Paths::below(std::path::Path::new("/nonexistent"));
        let questions = NvmlRequest {
            library: None,
            paths: nowhere.clone(),
            sections: Vec::new(),
            gpu: None,
            time_ms: 0,
            slow_start: false,
            without: Vec::new(),
            have: Vec::new(),
        };
        let nvml = NvmlProcesses::new(questions, sender.clone());
        let mut collector = Collector::new(NeededSections::default(), sender, nowhere, nvml, Instant::now());
        collector.left_behind = Some(4242);
        let why = |name| collector.timed_out(name, Duration::from_secs(8), Some("nvmlInit_v2")).why;
        assert!(
            why(SectionName::Ecc).contains("in nvmlInit_v2; process 4242 of the probe"),
            "{}",
            why(SectionName::Ecc)
        );
        assert!(!why(SectionName::Xid).contains("4242"), "{}", why(SectionName::Xid));
    }
}
