//! Reads this machine: every requested section, NVML opened once, nothing waited for longer than its deadline.
//!
//! A GPU that fell off the bus can block NVML for ever, and reading `/proc/PID/cmdline` of a process stuck in the driver can
//! block too. So each source has a thread of its own (a *lane*), and this thread only waits for what arrives:
//!
//! ```text
//!   nvml lane    open ─ inventory ─ telemetry ─ topology ─ ecc ─ mig ─ process lists ─┐
//!   host lane    host, kubelet                                                        ├─▶ Gathered ─▶ Report
//!   log lane     kernel log                                                           │
//!   process lane (starts when NVML's lists are there, or never will be) ──────────────┘
//! ```

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use syringe_core::diagnosis;
use syringe_core::facts::ecc::Ecc;
use syringe_core::facts::host::Host;
use syringe_core::facts::inventory::Inventory;
use syringe_core::facts::kernel_log::KernelLog;
use syringe_core::facts::kubelet::Kubelet;
use syringe_core::facts::mig::Mig;
use syringe_core::facts::processes::{GpuUse, Processes};
use syringe_core::facts::telemetry::Telemetry;
use syringe_core::facts::topology::{self, Topology};
use syringe_core::pci::PciAddress;
use syringe_core::report::{Extent, Problem, Report, Section, Sections, Source};
use syringe_core::xid::LogOf;

use crate::args::Request;
use crate::kernel_log;
use crate::nvml::{Session, Trace};
use crate::paths::Paths;
use crate::section::SectionName;
use crate::{blank, host};

/// What a lane delivers.
enum Part {
    /// NVML is open, or is not.
    Nvml(Result<Option<Vec<GpuAddress>>, Problem>),
    Inventory(Section<Inventory>),
    Telemetry(Section<Telemetry>),
    Topology(Section<Topology>),
    Ecc(Section<Ecc>),
    Mig(Section<Mig>),
    Uses(Uses),
    Kubelet(Section<Kubelet>),
    Host(Box<Section<Host>>),
    Xid(Section<KernelLog>),
    Processes(Section<Processes>),
}

type GpuAddress = (PciAddress, u32, Option<String>);

/// NVML's process lists and the memory in use on each GPU.
struct Uses {
    uses: Section<Vec<(u32, GpuUse)>>,
    memory_used: Vec<(u32, u64)>,
    minors: Vec<(u32, u32)>,
}

/// Reads what `request` asks for.
pub(crate) fn collect(request: &Request) -> Report {
    let started = Instant::now();
    let taken_at = Timestamp::now();
    let paths = request.root.as_deref().map_or_else(Paths::of_this_machine, Paths::below);
    let identity = host::identity(&paths);
    let foreign = request.kernel_log.is_some() && request.sections == [SectionName::Xid];
    let wanted = Wanted { nothing_of_this_machine: foreign, ..Wanted::of(&request.sections) };
    let trace = Trace::default();
    let (sender, parts) = channel();
    start_lanes(&wanted, request, taken_at, &paths, &trace, &sender);
    let mut gathered = Gathered {
        wanted,
        sender,
        paths,
        trace,
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
        scope: request.root.is_none().then(|| host::scope(&gathered.paths)).flatten(),
        sections: gathered.sections,
        ..blank()
    };
    if foreign {
        // A saved log is not of this machine, as far as anybody knows.
        report = Report { source: Source::File, hostname: None, boot_id: None, kernel: None, scope: None, ..report };
    }
    let whose = if request.kernel_log.is_some() { LogOf::Anyone } else { LogOf::ThisNode };
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

fn start_lanes(
    wanted: &Wanted,
    request: &Request,
    taken_at: Timestamp,
    paths: &Paths,
    trace: &Trace,
    sender: &Sender<Part>,
) {
    if wanted.nvml() {
        let (wanted, paths, trace, sender) = (wanted.clone(), paths.clone(), trace.clone(), sender.clone());
        let library = request.nvml_library.clone();
        thread::spawn(move || nvml_lane(&wanted, library.as_deref(), &paths, &trace, &sender));
    }
    if wanted.has(SectionName::Host) || wanted.has(SectionName::Kubelet) {
        let (wanted, paths, sender) = (wanted.clone(), paths.clone(), sender.clone());
        let container = request.container.clone();
        thread::spawn(move || {
            if wanted.has(SectionName::Host) {
                deliver(&sender, |section| Part::Host(Box::new(section)), || host::read(&paths, container.as_deref()));
            }
            if wanted.has(SectionName::Kubelet) {
                deliver(&sender, Part::Kubelet, || host::kubelet(&paths));
            }
        });
    }
    if wanted.has(SectionName::Xid) {
        let (paths, sender, file) = (paths.clone(), sender.clone(), request.kernel_log.clone());
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

/// Sends a section with the time that it took. Nobody listens any more once the deadline has passed: that is no error.
fn deliver<T>(sender: &Sender<Part>, part: impl FnOnce(Section<T>) -> Part, read: impl FnOnce() -> Section<T>) {
    let started = Instant::now();
    let mut section = read();
    section.duration_ms = crate::millis(started.elapsed());
    let _ = sender.send(part(section));
}

fn nvml_lane(wanted: &Wanted, library: Option<&std::path::Path>, paths: &Paths, trace: &Trace, sender: &Sender<Part>) {
    let session = match Session::open(library, paths, trace) {
        Ok(session) => session,
        Err(problem) => {
            let _ = sender.send(Part::Nvml(Err(problem)));
            return;
        }
    };
    let addresses = session.pci_addresses();
    // Where it counts GPUs of which none answers, it lists them, nobody knows where.
    let known = !addresses.is_empty() || session.device_count() == 0;
    let _ = sender.send(Part::Nvml(Ok(known.then_some(addresses))));
    if wanted.has(SectionName::Inventory) {
        deliver(sender, Part::Inventory, || session.inventory());
    }
    if wanted.has(SectionName::Processes) {
        let uses = session.gpu_uses();
        let uses = Uses { uses, memory_used: session.memory_used(), minors: session.minor_numbers() };
        let _ = sender.send(Part::Uses(uses));
    }
    if wanted.has(SectionName::Telemetry) {
        deliver(sender, Part::Telemetry, || session.telemetry());
    }
    if wanted.has(SectionName::Ecc) {
        deliver(sender, Part::Ecc, || session.ecc());
    }
    if wanted.has(SectionName::Mig) {
        deliver(sender, Part::Mig, || session.mig());
    }
    if wanted.has(SectionName::Topology) {
        deliver(sender, Part::Topology, || {
            let mut section = session.topology();
            if let Some(topology) = &mut section.data {
                host::complete_topology(paths, topology);
            }
            section
        });
    }
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
    trace: Trace,
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
                return;
            }
            self.nvml_settled = true;
            self.start_process_lane(None, deadline);
        }
        for name in self.missing() {
            self.give_up(name, timeout);
        }
    }

    /// Everything wanted is there, and NVML has named its GPUs (kernel events are joined to them) or had its time.
    fn complete(&self) -> bool {
        self.nvml_settled && self.missing().is_empty()
    }

    fn take(&mut self, part: Part) {
        let sections = &mut self.sections;
        match part {
            Part::Nvml(Ok(addresses)) => {
                self.addresses = addresses;
                self.nvml_settled = true;
            }
            Part::Nvml(Err(problem)) => self.without_nvml(problem),
            Part::Inventory(section) => sections.inventory = Some(section),
            Part::Telemetry(section) => sections.telemetry = Some(section),
            Part::Topology(section) => sections.topology = Some(section),
            Part::Ecc(section) => sections.ecc = Some(section),
            Part::Mig(section) => sections.mig = Some(section),
            Part::Uses(uses) => self.start_process_lane(Some(uses), Duration::ZERO),
            Part::Kubelet(section) => sections.kubelet = Some(section),
            Part::Host(section) => sections.host = Some(*section),
            Part::Xid(section) => sections.xid = Some(section),
            Part::Processes(section) => sections.processes = Some(section),
        }
    }

    /// The sections that are wanted and not there.
    fn missing(&self) -> Vec<SectionName> {
        let present = self.sections.statuses();
        let there = |name: &SectionName| present.iter().any(|(word, _)| *word == name.word());
        self.wanted.sections.iter().copied().filter(|name| !there(name)).collect()
    }

    /// NVML did not open: its sections fail with its reason, and what the kernel alone can tell takes their place.
    fn without_nvml(&mut self, problem: Problem) {
        self.nvml_settled = true;
        self.nvml_problem = Some(problem.clone());
        let wanted = self.wanted.clone();
        let named = |name: SectionName| Problem { what: name.word().into(), ..problem.clone() };
        if wanted.has(SectionName::Inventory) {
            self.sections.inventory = Some(Section::failed(named(SectionName::Inventory)));
        }
        if wanted.has(SectionName::Telemetry) {
            self.sections.telemetry = Some(Section::failed(named(SectionName::Telemetry)));
        }
        if wanted.has(SectionName::Ecc) {
            self.sections.ecc = Some(Section::failed(named(SectionName::Ecc)));
        }
        if wanted.has(SectionName::Mig) {
            self.sections.mig = Some(Section::failed(named(SectionName::Mig)));
        }
        if wanted.has(SectionName::Topology) {
            self.sections.topology = Some(topology_without_nvml(&self.paths, named(SectionName::Topology)));
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
            uses: Section::failed(
                self.nvml_problem.clone().unwrap_or_else(|| self.timed_out(SectionName::Processes, waited)),
            ),
            memory_used: Vec::new(),
            minors: Vec::new(),
        });
        thread::spawn(move || {
            let Uses { uses, memory_used, minors } = uses;
            deliver(&sender, Part::Processes, || host::processes(&paths, uses, &memory_used, &minors));
        });
    }

    /// The deadline has passed without this section.
    fn give_up(&mut self, name: SectionName, waited: Duration) {
        let problem = self.timed_out(name, waited);
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
    fn timed_out(&self, name: SectionName, waited: Duration) -> Problem {
        let seconds = waited.as_secs_f32();
        let needs_nvml = !matches!(name, SectionName::Host | SectionName::Kubelet | SectionName::Xid);
        let why = match self.trace.current().filter(|_| needs_nvml) {
            Some(call) => format!("NVML did not answer within {seconds:.1} s; it is still inside {call}"),
            None => format!("not read within {seconds:.1} s"),
        };
        let next_step = "Ask again: without persistence mode a first call takes half a minute. If it hangs again, look \
                         for Xid 79, Xid 119 and processes in state D; then only a reboot helps.";
        Problem { what: name.word().into(), why, next_step: next_step.into(), gpu: None, code: "timeout".into() }
    }
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
}
