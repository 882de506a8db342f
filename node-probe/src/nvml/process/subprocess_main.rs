//! The child process that calls NVML: loads the library, reads the requested values, prints each answer at once, and ends.
//!
//! It ends by a signal to itself, without `nvmlShutdown` and the exit handlers of the library: the kernel closes all files,
//! and a crash at exit must not look like a failed read.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid, kill_process};
use syringe_core::report::Problem;
use syringe_core::text::clean;

use super::supervisor::Supervisor;
use crate::child_task::NvmlRequest;
use crate::nvml::answer::Answer;
use crate::nvml::answer::Output;
use crate::nvml::current_call::CallRecorder;
use crate::nvml::read::session::Session;
use crate::nvml::read::step;
use crate::paths::Owner;
use crate::privileges;

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

fn answer(nvml_request: &NvmlRequest, output: &mut Output<impl Write>) -> Result<(), Problem> {
    let started = Instant::now();
    let NvmlRequest { library, paths, gpu, time_ms, slow_start, .. } = nvml_request;
    let recorder = CallRecorder::into_standard_error().unwrap_or_default();
    let libraries = crate::nvml::read::library::found(library.as_deref(), paths);
    if paths.owner == Owner::Workload {
        privileges::drop_all().map_err(|error| {
            let why =
                format!("the library belongs to a workload, and this process could not drop its privileges: {error}");
            problem("privileges", why, "Probe the node itself: --via pod.")
        })?;
        // The change of the user has reset it.
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    }
    let session = Session::open_one_of(libraries, nvml_request, recorder)?;
    let steps = step::plan(session.gpus.len(), nvml_request);
    let time = Duration::from_millis(*time_ms).saturating_sub(started.elapsed());
    Supervisor::new(session, steps, gpu.as_deref(), time, *slow_start, output).run();
    Ok(())
}

fn problem(code: &str, why: String, next_step: &str) -> Problem {
    Problem { what: "NVML".into(), why, next_step: next_step.into(), gpu: None, code: code.into() }
}
