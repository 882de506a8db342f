//! The library of node-probe. `main`, `dev_main`: read a GPU node, print one JSON document, and exit.
//! `run`: runs one command line in the demo cluster (`Outcome`). `parse`: parses a command line.
//!
//! The program is synchronous. It changes nothing, unless `--operator` allows `kill` and `reset`.
//!
//! ```text
//!   cli ──▶ Request ──▶ collect (hardware) ─┐
//!                  └──▶ replay (facts file) ─┴──▶ Report ──▶ one JSON document
//!       └──▶ actions (kill, reset) ───────────▶ Report
//! ```
//!
//! Each module imports only from the modules above it:
//!
//! ```text
//!   document       the report as JSON, of limited size; its version and units
//!   request        the sections and files that a run reads
//!   hold           keeps the probe's container running
//!   bounded        a deadline for every read, and the problems of reads
//!   files          reads of procfs, sysfs and /dev
//!   in_root        files of a file system with untrusted links
//!   trusted_file   files that only root can change: what may be loaded or run
//!   cgroup         pod and container of a process
//!   paths          the paths of the host's files, and the owner of the files
//!   child_task     the tasks of child processes
//!   child          starts this program again as a child process with a task
//!   privileges     drops all privileges
//!   host           procfs, sysfs, the host's files, the kubelet
//!   nvml           NVML, in a child process
//!   nccl           queries NCCL in a pod for the status of its job, in a child process
//!   cuda           starts CUDA of the node, in a child process
//!   kernel_log     kernel events
//!   collect        reads all sections concurrently, with a deadline
//!   replay         the same report from a facts file
//!   actions        kill and reset
//!   cli            the command line
//! ```
//!
//! The library exists so that the demo cluster can run the same code as a container. It is not a public API.

mod actions;
#[cfg(target_os = "linux")]
mod bounded;
#[cfg(target_os = "linux")]
mod cgroup;
#[cfg(target_os = "linux")]
mod child;
#[cfg(target_os = "linux")]
mod child_task;
mod cli;
#[cfg(target_os = "linux")]
mod collect;
#[cfg(target_os = "linux")]
mod cuda;
mod document;
#[cfg(target_os = "linux")]
mod files;
#[cfg(all(target_os = "linux", any(test, fuzzing)))]
#[path = "../../fuzz/checks/node_probe.rs"]
pub mod fuzzing;
mod hold;
#[cfg(target_os = "linux")]
mod host;
#[cfg(target_os = "linux")]
mod in_root;
#[cfg(target_os = "linux")]
mod kernel_log;
#[cfg(target_os = "linux")]
mod nccl;
#[cfg(target_os = "linux")]
mod nvml;
#[cfg(target_os = "linux")]
mod paths;
#[cfg(target_os = "linux")]
mod privileges;
mod replay;
mod request;
#[cfg(test)]
mod testing;
#[cfg(target_os = "linux")]
mod trusted_file;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use syringe_core::probe_command::ProbeCommand;
use syringe_core::report::{Problem, Report, Sections, Source, Status};

use crate::cli::{Invocation, UsageError};
pub use crate::document::VERSION;
use crate::document::blank;
pub use crate::hold::RELEASE_FILE;
use crate::request::Request;
pub use syringe_core::section_name::SectionName;

/// Exit status if the report contains at least some of the requested data.
const ANSWERED: i32 = 0;
/// Exit status if nothing could be read.
const NOTHING_READ: i32 = 1;
/// Exit status if the command line is wrong.
const WRONG_USAGE: i32 = 2;

/// Exit status if a program of the node could not be started. A shell uses the same status for a command that it cannot run.
#[cfg(target_os = "linux")]
const NOT_STARTED: u8 = 126;

/// The outputs of one run, and its exit status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Standard output: one JSON document and a newline (or the help text).
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// 0: data was read, 1: nothing could be read, 2: wrong usage.
    pub exit_code: i32,
}

/// Runs the program for nodes: reads the arguments of the process, prints the result, and returns the exit status.
pub fn main() -> ExitCode {
    run_program(cli::shipped)
}

/// Runs the development program, which has additional options for the paths of files.
pub fn dev_main() -> ExitCode {
    run_program(cli::development)
}

fn run_program(parse: impl FnOnce(std::iter::Skip<std::env::ArgsOs>) -> Result<Invocation, UsageError>) -> ExitCode {
    #[cfg(target_os = "linux")]
    if let Some(task) = child::task() {
        return run_child(task);
    }
    std::panic::set_hook(Box::new(|panic| print_panic(&panic.to_string())));
    let outcome = match parse(std::env::args_os().skip(1)).map_err(usage_outcome) {
        Ok(Invocation::Hold(hold)) => {
            hold::hold(Duration::from_secs(hold.seconds), hold.releasable);
            return ExitCode::SUCCESS;
        }
        Ok(Invocation::Release) => return if hold::release() { ExitCode::SUCCESS } else { ExitCode::FAILURE },
        Ok(Invocation::Read(request)) => answer(report(&request, None), std::io::stdout().is_terminal()),
        Ok(Invocation::Act(act)) => answer(actions::run(&act, None), std::io::stdout().is_terminal()),
        Err(outcome) => outcome,
    };
    let written = std::io::stdout().write_all(&outcome.stdout).and_then(|()| std::io::stdout().flush());
    let _ = std::io::stderr().write_all(&outcome.stderr);
    let code = if written.is_ok() { outcome.exit_code } else { NOTHING_READ };
    // A thread that hangs in the kernel keeps the process alive and its files open. Closing the outputs ends the exec
    // stream.
    #[cfg(target_os = "linux")]
    close_output();
    std::process::exit(code)
}

/// Closes standard output and error for all threads of this process.
#[cfg(target_os = "linux")]
fn close_output() {
    if let Ok(nothing) = std::fs::File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&nothing);
        let _ = rustix::stdio::dup2_stderr(&nothing);
    }
}

/// Runs the task of a child process.
#[cfg(target_os = "linux")]
fn run_child(task: child_task::ChildTask) -> ExitCode {
    child::close_inherited();
    bounded::read_directly();
    let not_started = |program: &str, error: &std::io::Error| {
        let _ = writeln!(std::io::stderr(), "{program} could not be run: {error}");
        ExitCode::from(NOT_STARTED)
    };
    match task {
        child_task::ChildTask::Nvml(request) => nvml::run_in_child(&request),
        child_task::ChildTask::Nccl(request) => nccl::run_in_child(&request),
        child_task::ChildTask::Cuda(paths) => cuda::run_in_child(&paths),
        child_task::ChildTask::Journal(journal) => {
            not_started("the host's journalctl", &kernel_log::become_in_root(&journal))
        }
        child_task::ChildTask::NvidiaSmi(tool) => {
            not_started(&tool.program.display().to_string(), &actions::replace_process(&tool))
        }
        child_task::ChildTask::DeviceAccess(request) => {
            match host::runtime::container_devices::check_access(&request) {
                Ok(answer) => {
                    let written = std::io::stdout().write_all(answer.as_bytes());
                    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
                }
                Err(error) => {
                    let _ = write!(std::io::stderr(), "{error}");
                    ExitCode::FAILURE
                }
            }
        }
    }
}

/// Prints a panic as a document, because the reader of standard output always needs a document.
fn print_panic(panic: &str) {
    let problem = Problem {
        what: "node-probe".into(),
        why: syringe_core::text::clean(panic, 400),
        next_step: "This is a defect of node-probe: please report it.".into(),
        code: "defect".into(),
        gpu: None,
    };
    let outcome = answer(Report { error: Some(problem), ..blank() }, false);
    let _ = std::io::stdout().write_all(&outcome.stdout);
    std::process::exit(outcome.exit_code)
}

/// Runs one command line of the shipped program (without the name of the program) in place of a container. `replay`
/// replaces the hardware of the node. `hold` and `release` return at once, because the caller implements the wait.
pub fn run(args: &[String], replay: Option<&Report>) -> Outcome {
    match cli::shipped(args.iter().map(OsString::from)).map_err(usage_outcome) {
        // These tasks have no output for the caller.
        Ok(Invocation::Hold(_) | Invocation::Release) => {
            Outcome { stdout: Vec::new(), stderr: Vec::new(), exit_code: ANSWERED }
        }
        Ok(Invocation::Read(request)) => answer(report(&request, replay), false),
        Ok(Invocation::Act(act)) => answer(actions::run(&act, replay), false),
        Err(outcome) => outcome,
    }
}

/// Parses a command line of the shipped program (without the name of the program) and returns its command; `None` if
/// the command line is invalid.
pub fn parse(args: &[String]) -> Option<ProbeCommand> {
    cli::command(args.iter().map(OsString::from))
}

/// Returns the document for a wrong command line, or the text of the requested help.
fn usage_outcome(error: UsageError) -> Outcome {
    match error {
        UsageError::Text(text) => Outcome { stdout: text.into_bytes(), stderr: Vec::new(), exit_code: ANSWERED },
        UsageError::Wrong(why) => {
            let why = syringe_core::text::clean(&why, 400);
            let stderr = format!("node-probe: {why}\n").into_bytes();
            let problem = Problem {
                what: "command line".into(),
                why,
                next_step: "node-probe --help lists the commands and their options.".into(),
                code: "usage".into(),
                gpu: None,
            };
            Outcome { stderr, ..answer(Report { error: Some(problem), ..blank() }, false) }
        }
    }
}

/// Returns the report for a request. This never fails: errors are in the report.
fn report(request: &Request, replay: Option<&Report>) -> Report {
    match (replay, &request.files.facts) {
        (Some(facts), _) => replay::replay(facts, request),
        (None, Some(path)) => match replay::load(path) {
            Ok(facts) => replay::replay(&facts, request),
            Err(problem) => Report { source: Source::File, error: Some(problem), ..blank() },
        },
        (None, None) => hardware(request),
    }
}

#[cfg(target_os = "linux")]
fn hardware(request: &Request) -> Report {
    collect::collect(request)
}

#[cfg(not(target_os = "linux"))]
fn hardware(_: &Request) -> Report {
    let problem = Problem {
        what: "hardware".into(),
        why: format!("node-probe reads Linux nodes, but this is {}", std::env::consts::OS),
        next_step: "Replay a saved report with node-probe-dev --facts FILE.".into(),
        code: "not_linux".into(),
        gpu: None,
    };
    Report { error: Some(problem), ..blank() }
}

fn answer(report: Report, pretty: bool) -> Outcome {
    let (report, document) = document::fit(report);
    let pretty = if pretty { serde_json::to_vec_pretty(&report).ok() } else { None };
    let mut stdout = pretty.unwrap_or(document);
    stdout.push(b'\n');
    let exit_code = match &report.error {
        Some(problem) if matches!(problem.code.as_str(), "usage" | "operator_mode_off" | "not_for_actions") => {
            WRONG_USAGE
        }
        Some(_) => NOTHING_READ,
        None if report.action.is_some() => ANSWERED,
        None if nothing_read(&report.sections) => NOTHING_READ,
        None => ANSWERED,
    };
    Outcome { stdout, stderr: Vec::new(), exit_code }
}

fn nothing_read(sections: &Sections) -> bool {
    sections.statuses().iter().all(|(_, status)| *status == Status::Error)
}
