//! `run_in_child`: the code of the child process that calls NVML.
//! It loads the library, reads the requested values, prints each answer, and exits.
//!
//! The process kills itself with a signal, without `nvmlShutdown` and the exit handlers of the library: the kernel closes
//! all files, and a crash at exit must not look like a failed read.

use std::io::Write;
use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid, kill_process};
use syringe_core::report::Problem;
use syringe_core::text::clean;

use super::subprocess::problem;
use crate::child;
use crate::child_task::NvmlRequest;
use crate::nvml::answer::Answer;
use crate::nvml::current_call::CallRecorder;
use crate::nvml::read::library;
use crate::nvml::read::session::Session;
use crate::paths::Owner;
use crate::privileges;

/// Prints the answers on standard output and exits.
pub(crate) fn run_in_child(nvml_request: &NvmlRequest) -> ! {
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    if let Ok(mut output) = child::take_output() {
        let defect = output.try_clone();
        std::panic::set_hook(Box::new(move |panic| {
            if let Ok(mut output) = defect.as_ref() {
                let why = clean(&panic.to_string(), 400);
                let next_step = "This is a defect of node-probe: please report it.";
                Answer::Failed(problem("defect", why, next_step)).send(&mut output);
            }
        }));
        if let Err(problem) = answer(nvml_request, &mut output) {
            Answer::Failed(problem).send(&mut output);
        }
        Answer::Done.send(&mut output);
    }
    let _ = kill_process(getpid(), Signal::KILL);
    std::process::exit(0)
}

fn answer(nvml_request: &NvmlRequest, output: &mut impl Write) -> Result<(), Problem> {
    let NvmlRequest { library, paths, gpu, time_ms, without, .. } = nvml_request;
    let deadline = Instant::now() + Duration::from_millis(*time_ms);
    let recorder = CallRecorder::into_standard_error().unwrap_or_default();
    let libraries = library::found(library.as_deref(), paths);
    if paths.owner == Owner::Workload {
        privileges::drop_all().map_err(|error| {
            let why =
                format!("the library belongs to a workload, and this process could not drop its privileges: {error}");
            problem("privileges", why, "Probe the node itself: --via pod.")
        })?;
        // The change of the user has reset the signal that this process gets when its parent exits.
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    }
    let session = Session::open_one_of(libraries, nvml_request, recorder, deadline)?;
    Answer::Opened { count: session.count, addresses: session.pci_addresses() }.send(output);
    match gpu.as_deref().map(|uuid| session.state(uuid)) {
        None => session.read(nvml_request, |answer| answer.send(output)),
        // The requested GPU may be a GPU that is left out.
        Some(None) if !without.is_empty() => {}
        Some(state) => Answer::Gpu(state).send(output),
    }
    Ok(())
}
