//! The child process that calls NVML: loads the library, reads the requested values, prints each answer at once, and ends.
//!
//! It ends by a signal to itself, without `nvmlShutdown` and the exit handlers of the library: the kernel closes all files,
//! and a crash at exit must not look like a failed read.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::Instant;

use rustix::process::{Signal, getpid, kill_process};
use syringe_core::report::{Problem, Section};
use syringe_core::text::clean;

use super::current_call::CallRecorder;
use super::session::Session;
use super::subprocess::{Answer, GpuState, Uses};
use crate::child_task::NvmlRequest;
use crate::paths::Owner;
use crate::privileges;
use crate::section::SectionName;

/// Prints the answers on standard output and ends.
pub(crate) fn run_in_child(nvml_request: &NvmlRequest) -> ! {
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    if let Ok(output) = take_output() {
        let mut output = Output(output);
        let defect = output.0.try_clone();
        std::panic::set_hook(Box::new(move |panic| {
            if let Ok(output) = &defect {
                let why = clean(&panic.to_string(), 400);
                Output(output).send(&Answer::Failed(problem(
                    "defect",
                    why,
                    "This is a defect of node-probe: please report it.",
                )));
            }
        }));
        if let Err(problem) = answer(nvml_request, &mut output) {
            output.send(&Answer::Failed(problem));
        }
        output.send(&Answer::Done);
    }
    let _ = kill_process(getpid(), Signal::KILL);
    std::process::exit(0)
}

/// Reserves standard output for the answers, so that output of the library cannot mix with them.
fn take_output() -> io::Result<File> {
    let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    rustix::stdio::dup2_stdout(File::options().write(true).open("/dev/null")?)?;
    Ok(output)
}

struct Output<W>(W);

impl<W: Write> Output<W> {
    fn send(&mut self, answer: &Answer) {
        let mut line = serde_json::to_vec(answer).unwrap_or_default();
        line.push(b'\n');
        // The parent no longer reads, and kills this process.
        let _ = self.0.write_all(&line);
    }
}

fn answer(nvml_request: &NvmlRequest, output: &mut Output<impl Write>) -> Result<(), Problem> {
    let NvmlRequest { library, paths, sections, gpu } = nvml_request;
    let recorder = CallRecorder::into_standard_error().unwrap_or_default();
    let libraries = super::library::found(library.as_deref(), paths);
    if paths.owner == Owner::Workload {
        privileges::drop_all().map_err(|error| {
            let why =
                format!("the library belongs to a workload, and this process could not drop its privileges: {error}");
            problem("privileges", why, "Probe the node itself: --via pod.")
        })?;
        // The change of the user has reset it.
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    }
    // Never dropped, because that would call nvmlShutdown.
    let session = std::mem::ManuallyDrop::new(Session::open_one_of(libraries, paths, &recorder)?);
    let addresses = session.pci_addresses();
    // If none of the counted GPUs responds, their addresses are unknown.
    let known = !addresses.is_empty() || session.device_count() == 0;
    output.send(&Answer::Opened(known.then_some(addresses)));
    if let Some(uuid) = gpu {
        output.send(&Answer::Gpu(gpu_state(&session, uuid)));
    }
    read(&session, sections, output);
    Ok(())
}

fn read(session: &Session, sections: &[SectionName], output: &mut Output<impl Write>) {
    let wants = |name| sections.contains(&name);
    if wants(SectionName::Inventory) {
        output.send(&Answer::Inventory(timed(|| session.inventory())));
    }
    if wants(SectionName::Processes) {
        let uses = session.gpu_uses();
        output.send(&Answer::Uses(Uses { uses, memory_used: session.memory_used(), minors: session.minor_numbers() }));
    }
    if wants(SectionName::Telemetry) {
        output.send(&Answer::Telemetry(timed(|| session.telemetry())));
    }
    if wants(SectionName::Ecc) {
        output.send(&Answer::Ecc(timed(|| session.ecc())));
    }
    if wants(SectionName::Mig) {
        output.send(&Answer::Mig(timed(|| session.mig())));
    }
    if wants(SectionName::Topology) {
        output.send(&Answer::Topology(timed(|| session.topology())));
    }
}

fn timed<T>(read: impl FnOnce() -> Section<T>) -> Section<T> {
    let started = Instant::now();
    let mut section = read();
    section.duration_ms = crate::envelope::millis(started.elapsed());
    section
}

fn gpu_state(session: &Session, uuid: &str) -> Option<GpuState> {
    let (_, index, _) = session.pci_addresses().into_iter().find(|(_, _, of)| of.as_deref() == Some(uuid))?;
    let uses = session.gpu_uses();
    let problem = uses.problems.into_iter().find(|problem| problem.gpu == Some(index));
    let uses = uses.data.unwrap_or_default().into_iter().filter(|(_, gpu_use)| gpu_use.gpu == index).collect();
    Some(GpuState {
        index,
        minor: session.minor_numbers().into_iter().find(|(gpu, _)| *gpu == index).map(|(_, minor)| minor),
        memory_used: session.memory_used().into_iter().find(|(gpu, _)| *gpu == index).map(|(_, bytes)| bytes),
        uses,
        problem,
    })
}

fn problem(code: &str, why: String, next_step: &str) -> Problem {
    Problem { what: "NVML".into(), why, next_step: next_step.into(), gpu: None, code: code.into() }
}
