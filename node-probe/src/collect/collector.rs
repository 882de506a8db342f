//! `Collector`: receives sections from the reading threads until the deadline. A missing section becomes a problem.

use std::sync::mpsc::{Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use syringe_core::facts::topology::Topology;
use syringe_core::nvml_codes;
use syringe_core::raw_file::RawFile;
use syringe_core::report::{Problem, Section, Sections};
use syringe_core::section_name::SectionName;

use super::needed_sections::NeededSections;
use super::source_threads::{SectionResult, deliver};
use crate::nvml::{NvmlProcesses, Uses};
use crate::paths::Paths;
use crate::{bounded, child, host};

/// Sections that only NVML fills.
const OF_NVML: [SectionName; 5] =
    [SectionName::Inventory, SectionName::Telemetry, SectionName::Ecc, SectionName::Mig, SectionName::Topology];

/// Maximum time for the NVML process to exit after it is killed. A process that hangs in the kernel stays.
const END_TIME: Duration = Duration::from_millis(200);

/// Pause between two checks of whether NVML hangs.
const CHECK: Duration = Duration::from_millis(20);

/// Divisor of the timeout. The result is the time that reads after the deadline may take.
pub(super) const LATE_PART: u32 = 4;

/// The results so far.
pub(super) struct Collector {
    needed: NeededSections,
    pub(super) sections: Sections,
    pub(super) raw_log: Vec<String>,
    pub(super) raw_files: Vec<RawFile>,
    nvml_problem: Option<Problem>,
    nvml_settled: bool,
    nvml_ended: bool,
    processes_started: bool,
    sender: Sender<SectionResult>,
    pub(super) paths: Paths,
    pub(super) nvml: NvmlProcesses,
    /// ID of an NVML process that could not be killed.
    left_behind: Option<u32>,
    /// Time at which the report must be complete.
    deadline: Instant,
}

impl Collector {
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
            raw_log: Vec::new(),
            raw_files: Vec::new(),
            nvml_problem: None,
            nvml_settled: false,
            nvml_ended: false,
            processes_started: false,
        }
    }

    /// Receives results until all have arrived or the time is over. Each missing result becomes a problem.
    pub(super) fn wait(&mut self, results: &Receiver<SectionResult>, started: Instant, timeout: Duration) {
        if !self.needed.nvml() {
            self.nvml_settled = true;
        }
        // NVML gets five eighths of the time. After that, facts that do not need NVML are read without NVML, so that they
        // arrive in time.
        for deadline in [timeout * 5 / 8, timeout] {
            loop {
                self.watch_nvml();
                if self.complete() {
                    self.end_nvml(Duration::ZERO);
                    return;
                }
                let left = deadline.saturating_sub(started.elapsed());
                match results.recv_timeout(left.min(CHECK)) {
                    Ok(result) => self.take(result),
                    Err(_) if left.is_zero() => break,
                    Err(_) => {}
                }
            }
            self.nvml_settled = true;
            self.start_process_thread(deadline);
        }
        let call = self.nvml.call();
        self.end_nvml(END_TIME);
        // Replacements of missing sections are read after the deadline.
        bounded::begin(timeout / LATE_PART);
        let late = self.timed_out(SectionName::Inventory, timeout, call.as_deref());
        // The timeout does not show which GPU hangs.
        self.fill(&Problem { code: nvml_codes::NOT_REACHED.into(), ..late });
        for name in self.missing() {
            self.fail(name, self.timed_out(name, timeout, call.as_deref()));
        }
    }

    /// Stops the NVML process, if the kernel allows it. Closing a GPU that no other process has open takes seconds. If
    /// everything was read, this method does not wait until the GPU is closed.
    fn end_nvml(&mut self, time: Duration) {
        self.left_behind = self.nvml.end(time);
    }

    /// Returns whether all requested sections have arrived, and NVML has listed its GPUs (for kernel events) or is out of
    /// time.
    fn complete(&self) -> bool {
        self.nvml_settled && self.missing().is_empty()
    }

    fn take(&mut self, result: SectionResult) {
        match result {
            SectionResult::Nvml(message) => self.nvml.take(*message),
            SectionResult::Kubelet(section) => self.sections.kubelet = Some(section),
            SectionResult::Host(section) => self.sections.host = Some(*section),
            SectionResult::Xid(section) => self.sections.xid = Some(section),
            SectionResult::RawLog(lines) => self.raw_log = lines,
            SectionResult::RawFiles(files) => self.raw_files = files,
            SectionResult::Processes(section) => self.sections.processes = Some(section),
        }
    }

    /// Handles the messages of the NVML processes, and processes that hang.
    fn watch_nvml(&mut self) {
        if self.nvml_ended || !self.needed.nvml() {
            return;
        }
        self.nvml.watch();
        self.nvml_settled |= self.nvml.is_open();
        if self.nvml.has_all_uses() {
            self.start_process_thread(Duration::ZERO);
        }
        if self.nvml.have_ended() {
            self.nvml_ended = true;
            match self.nvml.failure().cloned() {
                Some(problem) => self.without_nvml(problem),
                None => self.fill(&defect()),
            }
        }
    }

    /// Writes the sections for which NVML sent at least a part. A GPU whose part is missing has the problem `absent`.
    fn fill(&mut self, absent: &Problem) {
        let had_topology = self.sections.topology.is_some();
        self.nvml.fill(&self.needed.sections, absent, &mut self.sections);
        if let Some(section) = self.sections.topology.as_mut().filter(|_| !had_topology) {
            if let Some(topology) = &mut section.data {
                host::complete_topology(&self.paths, topology);
            }
            bounded::add_problems(section);
        }
        self.start_process_thread(Duration::ZERO);
    }

    /// Returns the requested sections that have not arrived.
    fn missing(&self) -> Vec<SectionName> {
        let is_missing = |name: &SectionName| self.sections.get(*name).status().is_none();
        self.needed.sections.iter().copied().filter(is_missing).collect()
    }

    /// Handles a failure of NVML. Each missing NVML section fails with this problem. Only the topology is filled with facts
    /// from the kernel.
    fn without_nvml(&mut self, problem: Problem) {
        self.nvml_settled = true;
        self.nvml_problem = Some(problem.clone());
        self.fill(&problem);
        for name in self.missing() {
            // The other sections do not need NVML.
            if OF_NVML.contains(&name) {
                self.fail(name, Problem { what: name.to_string(), ..problem.clone() });
            }
        }
    }

    /// Reads `/proc` once, for the processes that NVML lists and for processes with an open device file.
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
        let uses = self.nvml.take_uses(&absent).unwrap_or_else(|| Uses {
            uses: Section::failed(absent),
            memory_used: Vec::new(),
            minors: Vec::new(),
        });
        thread::spawn(move || {
            let Uses { uses, memory_used, minors } = uses;
            deliver(&sender, time, SectionResult::Processes, || host::processes(&paths, uses, &memory_used, &minors));
        });
    }

    /// Writes a section that could not be read. Facts from the kernel replace the topology.
    fn fail(&mut self, name: SectionName, problem: Problem) {
        if name == SectionName::Topology {
            self.sections.topology = Some(topology_without_nvml(&self.paths, problem));
        } else {
            self.sections.get_mut(name).fail(problem);
        }
    }

    /// Explains why a section is missing, with the NVML call that blocks, if any.
    fn timed_out(&self, name: SectionName, waited: Duration, call: Option<&str>) -> Problem {
        let seconds = waited.as_secs_f32();
        let needs_nvml = !matches!(name, SectionName::Host | SectionName::Kubelet | SectionName::Xid);
        let mut why = match call.filter(|_| needs_nvml) {
            Some(call) => format!("NVML did not answer within {seconds:.1} s; it is still in {call}"),
            None => format!("not read within {seconds:.1} s"),
        };
        if let Some(process) = self.left_behind.filter(|_| needs_nvml) {
            why.push_str(&child::left_behind(process));
        }
        let next_step = "Try again: without persistence mode, the first call can take half a minute. If NVML hangs \
            again, check for Xid 79, Xid 119 and processes in state D, and reboot the node.";
        Problem { what: name.to_string(), why, next_step: next_step.into(), gpu: None, code: "timeout".into() }
    }
}

/// Returns the problem for a part that is missing although NVML sent everything.
fn defect() -> Problem {
    Problem {
        what: "NVML".into(),
        why: "the process that calls NVML did not send this data".into(),
        next_step: "This is a defect of node-probe: please report it.".into(),
        gpu: None,
        code: "defect".into(),
    }
}

/// Returns the part of the topology that comes from PCI and needs no driver.
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
        let nvml = NvmlProcesses::new(NvmlRequest::new(nowhere.clone(), Duration::ZERO), |_| {});
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
