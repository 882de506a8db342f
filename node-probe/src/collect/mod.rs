//! `collect`, `collect_for_reset`: read the requested sections of this machine in threads, with a deadline.
//!
//! A GPU that fell off the bus can block NVML forever, and reading `/proc/PID/cmdline` can also block if the process
//! hangs in the driver. Therefore, each source has its own thread, and the main thread only waits for results. NVML
//! also has its own process, because its library can crash:
//!
//! ```text
//!   NVML thread     the answers of the process that calls NVML ───────────────────────────┐
//!   host thread     host, kubelet                                                         ├─▶ Collector ─▶ Report
//!   log thread      kernel log                                                            │
//!   process thread  (starts when NVML's lists have arrived or failed) ────────────────────┘
//!   NCCL thread     the status of NCCL in a pod, if requested (not a section)
//!   after that      CUDA is started, if requested (earlier, the start would change what the threads read)
//! ```

#[cfg(test)]
mod blocked_read_tests;
mod collector;
#[cfg(test)]
mod hostile_tree_tests;
mod needed_sections;
mod source_threads;
#[cfg(test)]
mod test_node;

use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use syringe_core::facts::host::Host;
use syringe_core::facts::topology;
use syringe_core::kernel_log::LogOrigin;
use syringe_core::report::{Extent, Problem, Report, Sections, Source};
use syringe_core::section_name::SectionName;

use self::collector::{Collector, LATE_PART};
use self::needed_sections::NeededSections;
use self::source_threads::{SectionResult, start_threads};
use crate::actions::reset_lock::reset_is_running;
use crate::child_task::NvmlRequest;
use crate::document::{blank, millis};
use crate::nvml::{GpuAddress, NvmlProcesses};
use crate::paths::Paths;
use crate::request::Request;
use crate::{bounded, cuda, host, nccl};

/// Time that the driver takes to initialize one GPU.
const INITIALIZATION_TIME: Duration = Duration::from_secs(3);

/// Reads the sections of `request`. NVML is left out while a reset is running.
pub(crate) fn collect(request: &Request) -> Report {
    collect_unless(request, reset_is_running)
}

/// Reads the sections of `request` for the process that carries out the reset.
pub(crate) fn collect_for_reset(request: &Request) -> Report {
    collect_unless(request, |_| None)
}

fn collect_unless(request: &Request, reason_against_nvml: impl Fn(&Path) -> Option<Problem>) -> Report {
    let started = Instant::now();
    bounded::begin(request.timeout);
    let taken_at = Timestamp::now();
    let paths = request.files.root.as_deref().map_or_else(Paths::of_this_machine, Paths::below);
    let foreign = request.files.kernel_log.is_some() && request.read.sections == [SectionName::Xid];
    let needed = NeededSections { nothing_of_this_machine: foreign, ..NeededSections::of(&request.read.sections) };
    let (sender, results) = channel();
    // NVML is started first, because it takes the longest. This thread starts it, because the child is killed when the
    // starting thread exits.
    let more = if needed.nvml() { initialization_time(&paths, request.timeout) } else { Duration::ZERO };
    let sample = request.read.sample_seconds.map(|seconds| Duration::from_secs(seconds.into()));
    let timeout = request.timeout + more + sample.unwrap_or_default();
    let nvml_request = NvmlRequest {
        library: request.files.nvml_library.clone(),
        sections: needed.sections.clone(),
        slow_start: !more.is_zero(),
        sample_ms: sample.map(millis),
        ..NvmlRequest::new(paths.clone(), nvml_time(timeout))
    };
    let messages = sender.clone();
    // After the read has ended, the receiver no longer exists.
    let mut nvml = NvmlProcesses::new(nvml_request, move |message| {
        let _ = messages.send(SectionResult::Nvml(Box::new(message)));
    });
    if needed.nvml() {
        match reason_against_nvml(&paths.host) {
            Some(problem) => nvml.fail(problem),
            None => nvml.start(),
        }
    }
    let identity = host::identity(&paths);
    let mut problems = bounded::take_problems();
    let asked = request.read.nccl_ras.clone().map(|uid| {
        let paths = paths.clone();
        let (sender, answer) = channel();
        thread::spawn(move || drop(sender.send(nccl::ask(&paths, &uid))));
        (answer, Instant::now() + nccl::MOST_TIME)
    });
    let may_read_raw_files = reason_against_nvml(&paths.host).is_none();
    start_threads(&needed, request, taken_at, &paths, &sender, may_read_raw_files);
    let mut collector = Collector::new(needed, sender, paths, nvml, started + timeout);
    collector.wait(&results, started, timeout);
    if request.read.deep {
        let reset = reason_against_nvml(&collector.paths.host);
        let cuda = cuda::start(&collector.paths, reset, started.elapsed(), more);
        if let Some(host) = collector.sections.host.as_mut().and_then(|section| section.data.as_mut()) {
            host.cuda = Some(cuda);
        }
    }
    bounded::begin(request.timeout / LATE_PART);
    let mut report = Report {
        hostname: identity.hostname,
        boot_id: identity.boot_id,
        kernel: identity.kernel,
        taken_at: Some(taken_at),
        // It is not known how much of the node a saved tree contains.
        scope: request.files.root.is_none().then(|| host::scope(&collector.paths)).flatten(),
        sections: collector.sections,
        kernel_log: collector.raw_log,
        raw_files: collector.raw_files,
        // The child has its own time limit. The report does not wait longer than that.
        nccl: asked.and_then(|(answer, end)| answer.recv_timeout(end.saturating_duration_since(Instant::now())).ok()),
        ..blank()
    };
    if foreign {
        // A saved log may be from another machine.
        report = Report { source: Source::File, hostname: None, boot_id: None, kernel: None, scope: None, ..report };
    }
    problems.extend(bounded::take_problems());
    add_to_first(&mut report.sections, &problems);
    let whose = if request.files.kernel_log.is_some() { LogOrigin::AnyNode } else { LogOrigin::ThisNode };
    finish(&mut report, whose, collector.nvml.addresses(), &collector.paths, &request.read.sections);
    report.duration_ms = millis(started.elapsed());
    report
}

/// Returns the extra time for a driver that has to initialize GPUs first. The time is at most doubled, because the caller
/// also has a limit.
fn initialization_time(paths: &Paths, timeout: Duration) -> Duration {
    (INITIALIZATION_TIME * host::uninitialized_gpus(paths)).min(timeout)
}

/// Returns the time for NVML. The rest of the time is for sending incomplete parts.
fn nvml_time(timeout: Duration) -> Duration {
    timeout.saturating_sub((timeout / 6).clamp(Duration::from_millis(50), Duration::from_millis(500)))
}

/// Joins the results of the threads, and removes sections that were not requested.
fn finish(
    report: &mut Report,
    whose: LogOrigin,
    addresses: Option<&[GpuAddress]>,
    paths: &Paths,
    requested: &[SectionName],
) {
    if let Some(log) = report.sections.xid.as_mut().and_then(|section| section.data.as_mut()) {
        let mine = whose == LogOrigin::ThisNode || report.source == Source::Hardware;
        let here = if mine { host::pci_topology(paths) } else { Vec::new() };
        let ports = topology::ports_above_one_gpu(&here);
        syringe_core::kernel_log::join_gpus(log, whose, addresses.unwrap_or_default(), &ports);
    }
    if let Some(xid) = &mut report.sections.xid {
        bounded::add_problems(xid);
    }
    if let Some(host) = report.sections.host.as_mut().and_then(|section| section.data.as_mut()) {
        mark_listed(host, addresses);
    }
    if let Some(addresses) = addresses {
        let sees_all = report.scope.is_none_or(|scope| scope.gpus == Extent::Node);
        host::name_lost(paths, addresses, sees_all, &mut report.sections);
        add_to_nvml(&mut report.sections, &bounded::take_problems());
    }
    for name in SectionName::ALL.into_iter().filter(|name| !requested.contains(name)) {
        report.sections.get_mut(name).remove();
    }
}

/// Adds problems of reads that belong to no section to `host`, or to the first section that was read.
fn add_to_first(sections: &mut Sections, problems: &[Problem]) {
    let mut names = [SectionName::Host].into_iter().chain(SectionName::ALL);
    let _ = names.find(|name| sections.get_mut(*name).add_problems(problems));
}

/// Adds problems to the sections that list lost GPUs.
fn add_to_nvml(sections: &mut Sections, problems: &[Problem]) {
    for name in [SectionName::Inventory, SectionName::Telemetry, SectionName::Topology, SectionName::Ecc] {
        sections.get_mut(name).add_problems(problems);
    }
}

/// Sets for each GPU on the bus whether NVML lists it, if NVML responded.
fn mark_listed(host: &mut Host, addresses: Option<&[GpuAddress]>) {
    for gpu in &mut host.pci_gpus {
        let listed = |all: &[GpuAddress]| all.iter().any(|(address, ..)| Some(address) == gpu.pci_address.as_ref());
        gpu.in_nvml = addresses.map(listed);
    }
}

#[cfg(test)]
mod tests {
    use syringe_core::facts::host::PciGpu;
    use syringe_core::pci::PciAddress;
    use syringe_core::probe_command::ReadCommand;

    use super::*;

    #[test]
    fn only_the_flag_adds_the_files_for_people() {
        let tree = super::test_node::node(true);
        let report = |raw_log| {
            let files = crate::request::Files { root: Some(tree.path().to_owned()), ..Default::default() };
            let read = ReadCommand { raw_log, ..ReadCommand::everything() };
            collect(&Request { read, timeout: Duration::from_secs(10), files, development: true })
        };
        let paths: Vec<_> = report(true).raw_files.into_iter().map(|file| file.path).collect();
        let expected = ["version", "gpus/0000:5d:00.0/information"].map(|name| format!("/proc/driver/nvidia/{name}"));
        assert_eq!(paths[..2], expected);
        assert_eq!(paths[2..], ["/sys/bus/pci/devices/0000:5d:00.0/config"]);
        assert_eq!(report(false).raw_files, []);
    }

    #[test]
    fn a_gpu_on_the_bus_that_nvml_does_not_list_is_marked_only_if_nvml_works() {
        let at = |bus| PciAddress::new(0, bus, 0, 0);
        let on_bus = |bus| PciGpu { pci_address: Some(at(bus)), ..PciGpu::default() };
        let mut host = Host { pci_gpus: vec![on_bus(0x5d), on_bus(0x5e)], ..Host::default() };
        let mut seen = |addresses: Option<&[GpuAddress]>| -> Vec<Option<bool>> {
            mark_listed(&mut host, addresses);
            host.pci_gpus.iter().map(|gpu| gpu.in_nvml).collect()
        };
        assert_eq!(seen(Some(&[(at(0x5e), 0, None)])), [Some(false), Some(true)]);
        assert_eq!(seen(Some(&[])), [Some(false), Some(false)], "NVML works and lists no GPUs");
        assert_eq!(seen(None), [None, None]);
    }
}
