//! Reads this machine: every requested section, NVML opened once, nothing waited for longer than its deadline.
//!
//! A GPU that fell off the bus can block NVML for ever, and reading `/proc/PID/cmdline` of a process stuck in the driver can
//! block too. So each source has a thread of its own (a *lane*), and this thread only waits for what arrives. NVML has a process
//! of its own as well, since its library can crash:
//!
//! ```text
//!   nvml lane    the answers of the process that asks NVML ───────────────────────────┐
//!   host lane    host, kubelet                                                        ├─▶ Gathered ─▶ Report
//!   log lane     kernel log                                                           │
//!   process lane (starts when NVML's lists are there, or never will be) ──────────────┘
//! ```

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use syringe_core::diagnosis;
use syringe_core::facts::host::Host;
use syringe_core::facts::kernel_log::KernelLog;
use syringe_core::facts::kubelet::Kubelet;
use syringe_core::facts::processes::Processes;
use syringe_core::facts::topology::{self, Topology};
use syringe_core::report::{Extent, Problem, Report, Section, Sections, Source};
use syringe_core::xid::LogOf;

use crate::args::Request;
use crate::kernel_log;
use crate::nvml::{Answer, Answers, GpuAddress, NvmlProcess, Questions, Uses};
use crate::paths::{Owner, Paths};
use crate::section::SectionName;
use crate::{blank, host};

/// What a lane delivers.
enum Part {
    /// NVML said something.
    Nvml(Answer),
    /// The process that asks NVML ended before it had said everything.
    NvmlLost(Problem),
    Kubelet(Section<Kubelet>),
    Host(Box<Section<Host>>),
    Xid(Section<KernelLog>),
    Processes(Section<Processes>),
}

/// Time for the process that asks NVML to end once it is told to. One that hangs in the kernel stays.
const END_TIME: Duration = Duration::from_millis(200);

/// Reads what `request` asks for.
pub(crate) fn collect(request: &Request) -> Report {
    let started = Instant::now();
    let taken_at = Timestamp::now();
    let paths = request.files.root.as_deref().map_or_else(Paths::of_this_machine, Paths::below);
    let foreign = request.files.kernel_log.is_some() && request.sections == [SectionName::Xid];
    let wanted = Wanted { nothing_of_this_machine: foreign, ..Wanted::of(&request.sections) };
    let (sender, parts) = channel();
    // First: it takes the longest. From this thread, with which it ends.
    let nvml = wanted.nvml().then(|| start_nvml(&wanted, request, &paths, &sender)).flatten();
    let identity = host::identity(&paths);
    start_lanes(&wanted, request, taken_at, &paths, &sender);
    let mut gathered = Gathered {
        wanted,
        sender,
        paths,
        nvml,
        left_behind: None,
        sections: Sections::default(),
        addresses: None,
        nvml_problem: None,
        nvml_settled: false,
        processes_started: false,
    };
    gathered.wait(&parts, started, request.timeout);
    let mut report = Report {
        hostname: identity.hostname,
        boot_id: identity.boot_id,
        kernel: identity.kernel,
        taken_at: Some(taken_at),
        // A saved tree is no place to look from.
        scope: request.files.root.is_none().then(|| host::scope(&gathered.paths)).flatten(),
        sections: gathered.sections,
        ..blank()
    };
    if foreign {
        // A saved log is not of this machine, as far as anybody knows.
        report = Report { source: Source::File, hostname: None, boot_id: None, kernel: None, scope: None, ..report };
    }
    let whose = if request.files.kernel_log.is_some() { LogOf::Anyone } else { LogOf::ThisNode };
    finish(&mut report, whose, gathered.addresses.as_deref(), &gathered.paths, &request.sections);
    report.duration_ms = crate::millis(started.elapsed());
    report
}

/// Joins what different lanes read, computes what follows, and leaves out what was only a means.
fn finish(
    report: &mut Report,
    whose: LogOf,
    addresses: Option<&[GpuAddress]>,
    paths: &Paths,
    requested: &[SectionName],
) {
    if let Some(log) = report.sections.xid.as_mut().and_then(|section| section.data.as_mut()) {
        let mine = whose == LogOf::ThisNode || report.source == Source::Hardware;
        let here = if mine { host::pci_topology(paths) } else { Vec::new() };
        let ports = topology::ports_above_one_gpu(&here);
        syringe_core::xid::join(log, whose, addresses.unwrap_or_default(), &ports);
    }
    if let Some(host) = report.sections.host.as_mut().and_then(|section| section.data.as_mut()) {
        mark_listed(host, addresses);
    }
    if let Some(addresses) = addresses {
        let sees_all = report.scope.is_none_or(|scope| scope.gpus == Extent::Node);
        host::name_lost(paths, addresses, sees_all, &mut report.sections);
    }
    if requested.contains(&SectionName::Health) {
        report.sections.health = Some(Section::read(diagnosis::health(report), Vec::new()));
    }
    let Sections { inventory, telemetry, topology, ecc, processes, mig, kubelet, host, xid, health: _ } =
        &mut report.sections;
    let unasked = |name| !requested.contains(&name);
    drop_if(inventory, unasked(SectionName::Inventory));
    drop_if(telemetry, unasked(SectionName::Telemetry));
    drop_if(topology, unasked(SectionName::Topology));
    drop_if(ecc, unasked(SectionName::Ecc));
    drop_if(processes, unasked(SectionName::Processes));
    drop_if(mig, unasked(SectionName::Mig));
    drop_if(kubelet, unasked(SectionName::Kubelet));
    drop_if(host, unasked(SectionName::Host));
    drop_if(xid, unasked(SectionName::Xid));
}

/// Says of each GPU on the bus whether NVML lists it, where NVML could say.
fn mark_listed(host: &mut Host, addresses: Option<&[GpuAddress]>) {
    for gpu in &mut host.pci_gpus {
        let listed = |all: &[GpuAddress]| all.iter().any(|(address, ..)| Some(address) == gpu.pci_address.as_ref());
        gpu.in_nvml = addresses.map(listed);
    }
}

fn drop_if<T>(section: &mut Option<Section<T>>, unasked: bool) {
    if unasked {
        *section = None;
    }
}

/// Which parts have to be read for the requested sections.
#[derive(Clone, Default)]
struct Wanted {
    sections: Vec<SectionName>,
    /// Only a log that somebody saved is read: the GPUs here say nothing about it.
    nothing_of_this_machine: bool,
}

impl Wanted {
    /// `health` is computed from all others.
    fn of(requested: &[SectionName]) -> Self {
        let all = requested.contains(&SectionName::Health);
        let sections = SectionName::ALL.into_iter().filter(|name| *name != SectionName::Health);
        let sections = sections.filter(|name| all || requested.contains(name)).collect();
        Self { sections, nothing_of_this_machine: false }
    }

    fn has(&self, name: SectionName) -> bool {
        self.sections.contains(&name)
    }

    /// Kernel events are joined to GPUs, host devices to NVML's list: they profit from NVML without needing it.
    fn nvml(&self) -> bool {
        !self.nothing_of_this_machine && self.sections.iter().any(|name| *name != SectionName::Kubelet)
    }
}

/// Starts the process that asks NVML, and the lane that hears its answers.
fn start_nvml(wanted: &Wanted, request: &Request, paths: &Paths, sender: &Sender<Part>) -> Option<Arc<NvmlProcess>> {
    let questions = Questions {
        library: request.files.nvml_library.clone(),
        paths: paths.clone(),
        sections: wanted.sections.clone(),
        gpu: None,
    };
    match NvmlProcess::start(questions) {
        Ok((process, answers)) => {
            let (asked, sender) = (Arc::clone(&process), sender.clone());
            thread::spawn(move || nvml_lane(&asked, answers, &sender));
            Some(process)
        }
        Err(problem) => {
            let _ = sender.send(Part::NvmlLost(problem));
            None
        }
    }
}

fn start_lanes(wanted: &Wanted, request: &Request, taken_at: Timestamp, paths: &Paths, sender: &Sender<Part>) {
    if wanted.has(SectionName::Host) || wanted.has(SectionName::Kubelet) {
        let (wanted, paths, sender) = (wanted.clone(), paths.clone(), sender.clone());
        let container = request.container.clone();
        thread::spawn(move || {
            if wanted.has(SectionName::Host) {
                deliver(&sender, |section| Part::Host(Box::new(section)), || host::read(&paths, container.as_deref()));
            }
            if wanted.has(SectionName::Kubelet) {
                deliver(&sender, Part::Kubelet, || match paths.owner {
                    Owner::Node => host::kubelet(&paths),
                    Owner::Workload => Section::failed(no_kubelet()),
                });
            }
        });
    }
    if wanted.has(SectionName::Xid) {
        let (paths, sender, file) = (paths.clone(), sender.clone(), request.files.kernel_log.clone());
        let since = request.since.as_ref().map(|since| since.resolve(taken_at));
        thread::spawn(move || {
            deliver(&sender, Part::Xid, || {
                let options = kernel_log::Options { since, journal: true };
                match &file {
                    Some(file) => kernel_log::read_file(file, &options),
                    None => kernel_log::read(&paths, &options),
                }
            });
        });
    }
}

/// A workload's root has no kubelet: what looks like one there is the workload's word.
fn no_kubelet() -> Problem {
    Problem {
        what: SectionName::Kubelet.word().into(),
        why: "only the root of a workload can be seen from here, not the node's".into(),
        next_step: "Probe the node itself: --via pod.".into(),
        gpu: None,
        code: "not_the_node".into(),
    }
}

/// Sends a section with the time that it took. Nobody listens any more once the deadline has passed: that is no error.
fn deliver<T>(sender: &Sender<Part>, part: impl FnOnce(Section<T>) -> Part, read: impl FnOnce() -> Section<T>) {
    let started = Instant::now();
    let mut section = read();
    section.duration_ms = crate::millis(started.elapsed());
    let _ = sender.send(part(section));
}

fn nvml_lane(process: &NvmlProcess, answers: Answers, sender: &Sender<Part>) {
    for answer in answers {
        if matches!(answer, Answer::Done) {
            return;
        }
        let _ = sender.send(Part::Nvml(answer));
    }
    let _ = sender.send(Part::NvmlLost(process.failure()));
}

/// What has arrived so far.
struct Gathered {
    wanted: Wanted,
    sections: Sections,
    /// NVML's GPUs. `None`: NVML did not open, not in time, or none of its GPUs answers; empty: it has none.
    addresses: Option<Vec<GpuAddress>>,
    nvml_problem: Option<Problem>,
    nvml_settled: bool,
    processes_started: bool,
    sender: Sender<Part>,
    paths: Paths,
    nvml: Option<Arc<NvmlProcess>>,
    /// Process that asks NVML and could not be ended.
    left_behind: Option<u32>,
}

impl Gathered {
    /// Takes parts until all are there or the time is up; what is missing then becomes an error that says so.
    fn wait(&mut self, parts: &Receiver<Part>, started: Instant, timeout: Duration) {
        if !self.wanted.nvml() {
            self.nvml_settled = true;
        }
        // Half of the time is NVML's. After that, what needs no NVML is read without it, so that it is there in time.
        for deadline in [timeout / 2, timeout] {
            while !self.complete() {
                match parts.recv_timeout(deadline.saturating_sub(started.elapsed())) {
                    Ok(part) => self.take(part),
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                }
            }
            if self.complete() {
                self.end_nvml(Duration::ZERO);
                return;
            }
            self.nvml_settled = true;
            self.start_process_lane(None, deadline);
        }
        let call = self.nvml.as_ref().and_then(|process| process.call());
        self.end_nvml(END_TIME);
        for name in self.missing() {
            self.give_up(name, timeout, call.as_deref());
        }
    }

    /// Nothing of ours stays on the node, as far as the kernel lets it end. A GPU that nobody else has open takes seconds to be
    /// closed, which is not waited for where everything was read.
    fn end_nvml(&mut self, time: Duration) {
        self.left_behind = self.nvml.as_ref().and_then(|process| process.end(time));
    }

    /// Everything wanted is there, and NVML has named its GPUs (kernel events are joined to them) or had its time.
    fn complete(&self) -> bool {
        self.nvml_settled && self.missing().is_empty()
    }

    fn take(&mut self, part: Part) {
        match part {
            Part::Nvml(answer) => self.hear(answer),
            Part::NvmlLost(problem) => self.without_nvml(problem),
            Part::Kubelet(section) => self.sections.kubelet = Some(section),
            Part::Host(section) => self.sections.host = Some(*section),
            Part::Xid(section) => self.sections.xid = Some(section),
            Part::Processes(section) => self.sections.processes = Some(section),
        }
    }

    fn hear(&mut self, answer: Answer) {
        let sections = &mut self.sections;
        match answer {
            Answer::Opened(addresses) => {
                self.addresses = addresses;
                self.nvml_settled = true;
            }
            Answer::Failed(problem) => self.without_nvml(problem),
            Answer::Inventory(section) => sections.inventory = Some(section),
            Answer::Telemetry(section) => sections.telemetry = Some(section),
            Answer::Ecc(section) => sections.ecc = Some(section),
            Answer::Mig(section) => sections.mig = Some(section),
            Answer::Topology(mut section) => {
                if let Some(topology) = &mut section.data {
                    host::complete_topology(&self.paths, topology);
                }
                sections.topology = Some(section);
            }
            Answer::Uses(uses) => self.start_process_lane(Some(uses), Duration::ZERO),
            Answer::Gpu(_) | Answer::Done => {}
        }
    }

    /// The sections that are wanted and not there.
    fn missing(&self) -> Vec<SectionName> {
        let present = self.sections.statuses();
        let there = |name: &SectionName| present.iter().any(|(word, _)| *word == name.word());
        self.wanted.sections.iter().copied().filter(|name| !there(name)).collect()
    }

    /// NVML says nothing more: what it has not said yet fails with the reason, and what the kernel alone can tell takes its
    /// place.
    fn without_nvml(&mut self, problem: Problem) {
        if self.nvml_problem.is_some() {
            return;
        }
        self.nvml_settled = true;
        self.nvml_problem = Some(problem.clone());
        for name in self.missing() {
            let problem = Problem { what: name.word().into(), ..problem.clone() };
            let sections = &mut self.sections;
            match name {
                SectionName::Inventory => sections.inventory = Some(Section::failed(problem)),
                SectionName::Telemetry => sections.telemetry = Some(Section::failed(problem)),
                SectionName::Ecc => sections.ecc = Some(Section::failed(problem)),
                SectionName::Mig => sections.mig = Some(Section::failed(problem)),
                SectionName::Topology => sections.topology = Some(topology_without_nvml(&self.paths, problem)),
                // These need no NVML.
                SectionName::Processes
                | SectionName::Kubelet
                | SectionName::Host
                | SectionName::Xid
                | SectionName::Health => {}
            }
        }
        self.start_process_lane(None, Duration::ZERO);
    }

    /// Reads `/proc` for the processes that NVML lists, and for those that hold a device file. Once.
    fn start_process_lane(&mut self, uses: Option<Uses>, waited: Duration) {
        if self.processes_started || !self.wanted.has(SectionName::Processes) {
            return;
        }
        self.processes_started = true;
        let (sender, paths) = (self.sender.clone(), self.paths.clone());
        let uses = uses.unwrap_or_else(|| Uses {
            uses: Section::failed(self.nvml_problem.clone().unwrap_or_else(|| {
                let call = self.nvml.as_ref().and_then(|process| process.call());
                self.timed_out(SectionName::Processes, waited, call.as_deref())
            })),
            memory_used: Vec::new(),
            minors: Vec::new(),
        });
        thread::spawn(move || {
            let Uses { uses, memory_used, minors } = uses;
            deliver(&sender, Part::Processes, || host::processes(&paths, uses, &memory_used, &minors));
        });
    }

    /// The deadline has passed without this section.
    fn give_up(&mut self, name: SectionName, waited: Duration, call: Option<&str>) {
        let problem = self.timed_out(name, waited, call);
        let sections = &mut self.sections;
        match name {
            SectionName::Inventory => sections.inventory = Some(Section::failed(problem)),
            SectionName::Telemetry => sections.telemetry = Some(Section::failed(problem)),
            SectionName::Topology => sections.topology = Some(topology_without_nvml(&self.paths, problem)),
            SectionName::Ecc => sections.ecc = Some(Section::failed(problem)),
            SectionName::Processes => sections.processes = Some(Section::failed(problem)),
            SectionName::Mig => sections.mig = Some(Section::failed(problem)),
            SectionName::Kubelet => sections.kubelet = Some(Section::failed(problem)),
            SectionName::Host => sections.host = Some(Section::failed(problem)),
            SectionName::Xid => sections.xid = Some(Section::failed(problem)),
            SectionName::Health => {}
        }
    }

    /// Why a section is not there, with the NVML call that blocks where one does.
    fn timed_out(&self, name: SectionName, waited: Duration, call: Option<&str>) -> Problem {
        let seconds = waited.as_secs_f32();
        let needs_nvml = !matches!(name, SectionName::Host | SectionName::Kubelet | SectionName::Xid);
        let mut why = match call.filter(|_| needs_nvml) {
            Some(call) => format!("NVML did not answer within {seconds:.1} s; it is still inside {call}"),
            None => format!("not read within {seconds:.1} s"),
        };
        if let Some(process) = self.left_behind.filter(|_| needs_nvml) {
            why.push_str(&left_behind(process));
        }
        let next_step = "Ask again: without persistence mode a first call takes half a minute. If it hangs again, look \
                         for Xid 79, Xid 119 and processes in state D; then only a reboot helps.";
        Problem { what: name.word().into(), why, next_step: next_step.into(), gpu: None, code: "timeout".into() }
    }
}

/// What is said of a process that takes no signal.
fn left_behind(process: u32) -> String {
    format!(
        "; process {process} of the probe hangs in the kernel and could not be ended: it stays until that call returns"
    )
}

/// The PCI half of the topology, which needs no driver.
fn topology_without_nvml(paths: &Paths, problem: Problem) -> Section<Topology> {
    let gpus = host::pci_topology(paths);
    if gpus.is_empty() {
        return Section::failed(problem);
    }
    let mut topology = Topology { gpus, ..Topology::default() };
    host::complete_topology(paths, &mut topology);
    Section::read(topology, vec![problem])
}

#[cfg(test)]
mod tests {
    use syringe_core::facts::host::PciGpu;
    use syringe_core::pci::PciAddress;

    use super::*;

    #[test]
    fn a_gpu_on_the_bus_is_absent_from_an_nvml_that_works_and_unknown_without_one() {
        let at = |bus| PciAddress::new(0, bus, 0, 0);
        let on_bus = |bus| PciGpu { pci_address: Some(at(bus)), ..PciGpu::default() };
        let mut host = Host { pci_gpus: vec![on_bus(0x5d), on_bus(0x5e)], ..Host::default() };
        let mut seen = |addresses: Option<&[GpuAddress]>| -> Vec<Option<bool>> {
            mark_listed(&mut host, addresses);
            host.pci_gpus.iter().map(|gpu| gpu.in_nvml).collect()
        };
        assert_eq!(seen(Some(&[(at(0x5e), 0, None)])), [Some(false), Some(true)]);
        assert_eq!(seen(Some(&[])), [Some(false), Some(false)], "it works and lists none");
        assert_eq!(seen(None), [None, None]);
    }

    #[test]
    fn a_process_that_could_not_be_ended_is_named_where_nvml_was_needed() {
        let (sender, _parts) = channel();
        let gathered = Gathered {
            wanted: Wanted::default(),
            sections: Sections::default(),
            addresses: None,
            nvml_problem: None,
            nvml_settled: true,
            processes_started: true,
            sender,
            paths: Paths::below(std::path::Path::new("/nonexistent")),
            nvml: None,
            left_behind: Some(4242),
        };
        let why = |name| gathered.timed_out(name, Duration::from_secs(8), Some("nvmlInit_v2")).why;
        assert!(
            why(SectionName::Ecc).contains("inside nvmlInit_v2; process 4242 of the probe"),
            "{}",
            why(SectionName::Ecc)
        );
        assert!(!why(SectionName::Xid).contains("4242"), "{}", why(SectionName::Xid));
    }
}
