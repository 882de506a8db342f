//! `start_threads`: starts the threads that read the sections `host`, `kubelet` and `xid`. `deliver`: sends a section.
//! `SectionResult`: a message of any thread that reads.

use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use syringe_core::facts::host::Host;
use syringe_core::facts::kernel_log::KernelLog;
use syringe_core::facts::kubelet::Kubelet;
use syringe_core::facts::processes::Processes;
use syringe_core::probe_command::ReadCommand;
use syringe_core::raw_file::RawFile;
use syringe_core::report::{Problem, Section};
use syringe_core::section_name::SectionName;

use super::needed_sections::NeededSections;
use crate::document::millis;
use crate::nvml::Message;
use crate::paths::{Owner, Paths};
use crate::request::Request;
use crate::{bounded, host, kernel_log};

/// The result of a thread.
pub(super) enum SectionResult {
    Nvml(Box<Message>),
    Kubelet(Section<Kubelet>),
    Host(Box<Section<Host>>),
    Xid(Section<KernelLog>),
    /// The records of the kernel log, before its section.
    RawLog(Vec<String>),
    /// The raw files, before the section `host`.
    RawFiles(Vec<RawFile>),
    Processes(Section<Processes>),
}

/// Starts the threads that read the sections `host`, `kubelet` and `xid`, if these sections are requested.
/// While a GPU is being reset, no raw files are read.
pub(super) fn start_threads(
    needed: &NeededSections,
    request: &Request,
    taken_at: Timestamp,
    paths: &Paths,
    sender: &Sender<SectionResult>,
    may_read_raw_files: bool,
) {
    let time = request.timeout;
    if needed.has(SectionName::Host) {
        let (paths, sender) = (paths.clone(), sender.clone());
        let ReadCommand { container, stack_log, raw_log, .. } = request.read.clone();
        thread::spawn(move || {
            let options = host::ContainerOptions { container: container.as_ref(), stack_log: stack_log.as_ref() };
            deliver(
                &sender,
                time,
                |section| SectionResult::Host(Box::new(section)),
                || {
                    let mut section = host::read(&paths, options);
                    // The facts are read before the files, because a file that blocks would use up the time for the
                    // facts. A device that is being reset must not be read.
                    if raw_log && may_read_raw_files {
                        bounded::add_problems(&mut section);
                        let _ = sender.send(SectionResult::RawFiles(host::raw_files::read(&paths)));
                        // No rule reads these files, so problems with them are not problems of the section.
                        bounded::take_problems();
                    }
                    section
                },
            );
        });
    }
    if needed.has(SectionName::Kubelet) {
        let (paths, sender) = (paths.clone(), sender.clone());
        thread::spawn(move || {
            deliver(&sender, time, SectionResult::Kubelet, || match paths.owner {
                Owner::Node => host::kubelet(&paths),
                Owner::Workload => Section::failed(no_kubelet()),
            });
        });
    }
    if needed.has(SectionName::Xid) {
        let (paths, sender, file) = (paths.clone(), sender.clone(), request.files.kernel_log.clone());
        let since = request.read.since.as_ref().map(|since| since.resolve(taken_at));
        let with_raw = request.read.raw_log;
        thread::spawn(move || {
            deliver(&sender, time, SectionResult::Xid, || {
                let options = kernel_log::Options { since, journal: true };
                match &file {
                    Some(file) => kernel_log::read_file(file, &options),
                    None if with_raw => {
                        let mut raw = Vec::new();
                        let section = kernel_log::read_with_raw(&paths, &options, Some(&mut raw));
                        let _ = sender.send(SectionResult::RawLog(raw));
                        section
                    }
                    None => kernel_log::read(&paths, &options),
                }
            });
        });
    }
}

/// Returns the problem for a probe that sees only the root of a workload: a workload has no kubelet, and its files
/// could be fake.
fn no_kubelet() -> Problem {
    Problem {
        what: SectionName::Kubelet.to_string(),
        why: "only the root of a workload is visible, not the root of the node".into(),
        next_step: "Probe the node itself: --via pod.".into(),
        gpu: None,
        code: "not_the_node".into(),
    }
}

/// Sends a section with its duration and the problems of its reads. It is not an error if the receiver no longer exists
/// after the deadline.
pub(super) fn deliver<T>(
    sender: &Sender<SectionResult>,
    time: Duration,
    result: impl FnOnce(Section<T>) -> SectionResult,
    read: impl FnOnce() -> Section<T>,
) {
    let started = Instant::now();
    bounded::begin(time);
    let mut section = read();
    bounded::add_problems(&mut section);
    section.duration_ms = millis(started.elapsed());
    let _ = sender.send(result(section));
}
