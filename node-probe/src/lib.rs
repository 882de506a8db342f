//! node-probe: reads a GPU node, prints one JSON document, exits. Synchronous; holds nothing open; changes nothing, unless
//! `--operator` allows `kill` and `reset`.
//!
//! ```text
//!   args ──▶ Request ──▶ collect (hardware) ─┐
//!                   └──▶ replay (facts file) ─┴──▶ Report ──▶ one JSON document
//!        └──▶ actions (kill, reset) ───────────▶ Report
//! ```
//!
//! What needs a process of its own is this program again, with a task in place of words (`child`).
//!
//! The library exists so that the demo cluster can run the same code as a container would; it is not an API
//! for others.

mod actions;
mod args;
#[cfg(target_os = "linux")]
mod child;
#[cfg(target_os = "linux")]
mod collect;
mod hold;
#[cfg(target_os = "linux")]
pub mod host;
#[cfg(target_os = "linux")]
pub mod kernel_log;
#[cfg(target_os = "linux")]
pub mod nvml;
#[cfg(target_os = "linux")]
pub mod paths;
#[cfg(target_os = "linux")]
mod privileges;
mod replay;
mod section;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use syringe_core::report::{Problem, Report, SCHEMA_VERSION, Sections, Source, Status};

use crate::args::{Refusal, Request, Task};
pub use crate::hold::RELEASE_FILE;
pub use crate::section::SectionName;

/// Version that reports carry.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Answered, also in part.
const ANSWERED: i32 = 0;
/// Nothing could be read.
const NOTHING_READ: i32 = 1;
/// The words on the command line made no sense.
const WRONG_USAGE: i32 = 2;

/// A program of the node could not be started: what a shell answers for a command that it finds and cannot run.
#[cfg(target_os = "linux")]
const NOT_STARTED: u8 = 126;

/// What one run printed and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Standard output: one JSON document and a newline (or the help text).
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// 0 answered, 1 nothing could be read, 2 wrong usage.
    pub exit_code: i32,
}

/// The program that is put on nodes: reads the process's arguments, prints, and says how to exit.
pub fn main() -> ExitCode {
    begin(args::shipped)
}

/// The program of development: the same, with options that name files.
pub fn dev_main() -> ExitCode {
    begin(args::development)
}

fn begin(grammar: impl FnOnce(std::iter::Skip<std::env::ArgsOs>) -> Result<Task, Refusal>) -> ExitCode {
    #[cfg(target_os = "linux")]
    if let Some(task) = child::task() {
        return carry_out(task);
    }
    std::panic::set_hook(Box::new(|panic| last_words(&panic.to_string())));
    let outcome = match grammar(std::env::args_os().skip(1)).map_err(refused) {
        Ok(Task::Hold(hold)) => {
            hold::hold(&hold);
            return ExitCode::SUCCESS;
        }
        Ok(Task::Release) => return if hold::release() { ExitCode::SUCCESS } else { ExitCode::FAILURE },
        Ok(Task::Read(request)) => answer(&report(&request, None), std::io::stdout().is_terminal()),
        Ok(Task::Act(act)) => answer(&actions::run(&act, None), std::io::stdout().is_terminal()),
        Err(outcome) => outcome,
    };
    let written = std::io::stdout().write_all(&outcome.stdout).and_then(|()| std::io::stdout().flush());
    let _ = std::io::stderr().write_all(&outcome.stderr);
    let code = if written.is_ok() { outcome.exit_code } else { NOTHING_READ };
    // A reader that is stuck inside the kernel must not keep the process (and the exec stream behind it) alive.
    std::process::exit(code)
}

/// What this process was started for by another of this program.
#[cfg(target_os = "linux")]
fn carry_out(task: child::Task) -> ExitCode {
    let not_started = |program: &str, error: &std::io::Error| {
        let _ = writeln!(std::io::stderr(), "{program} could not be run: {error}");
        ExitCode::from(NOT_STARTED)
    };
    match task {
        child::Task::Nvml(questions) => nvml::serve(&questions),
        child::Task::Journal(journal) => not_started("the host's journalctl", &kernel_log::become_in_root(&journal)),
        child::Task::DriverTool(tool) => {
            not_started(&tool.program.display().to_string(), &actions::replace_process(&tool))
        }
        child::Task::DeviceAccess(request) => match host::container::answer(&request) {
            Ok(answer) => {
                let written = std::io::stdout().write_all(answer.as_bytes());
                if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
            }
            Err(error) => {
                let _ = write!(std::io::stderr(), "{error}");
                ExitCode::FAILURE
            }
        },
    }
}

/// A defect of ours is a document too: whoever reads standard output must not be left with nothing.
fn last_words(panic: &str) {
    let problem = Problem {
        what: "node-probe".into(),
        why: syringe_core::text::clean(panic, 400),
        next_step: "This is a defect of node-probe: please report it.".into(),
        code: "defect".into(),
        gpu: None,
    };
    let outcome = answer(&Report { error: Some(problem), ..blank() }, false);
    let _ = std::io::stdout().write_all(&outcome.stdout);
    std::process::exit(outcome.exit_code)
}

/// Runs one command line of the shipped program (without its name) in place of a container. `replay` stands in for the node's
/// hardware. `hold` and `release` return at once: whoever embeds this decides what holding means.
pub fn run(args: &[String], replay: Option<&Report>) -> Outcome {
    match args::shipped(args.iter().map(OsString::from)).map_err(refused) {
        // None of them has anything to print for whoever embeds this.
        Ok(Task::Hold(_) | Task::Release) => Outcome { stdout: Vec::new(), stderr: Vec::new(), exit_code: ANSWERED },
        Ok(Task::Read(request)) => answer(&report(&request, replay), false),
        Ok(Task::Act(act)) => answer(&actions::run(&act, replay), false),
        Err(outcome) => outcome,
    }
}

/// Words that make no task, as a document; help as a text.
fn refused(refusal: Refusal) -> Outcome {
    match refusal {
        Refusal::Text(text) => Outcome { stdout: text.into_bytes(), stderr: Vec::new(), exit_code: ANSWERED },
        Refusal::Wrong(why) => {
            let why = syringe_core::text::clean(&why, 400);
            let stderr = format!("node-probe: {why}\n").into_bytes();
            let problem = Problem {
                what: "command line".into(),
                why,
                next_step: "node-probe --help lists the commands and their options.".into(),
                code: "usage".into(),
                gpu: None,
            };
            Outcome { stderr, ..answer(&Report { error: Some(problem), ..blank() }, false) }
        }
    }
}

/// The report that a request asks for. Never fails: what goes wrong is in it.
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
        why: format!("node-probe reads Linux nodes, this is {}", std::env::consts::OS),
        next_step: "Replay a saved report with node-probe-dev --facts FILE.".into(),
        code: "not_linux".into(),
        gpu: None,
    };
    Report { error: Some(problem), ..blank() }
}

/// Milliseconds, as reports have them.
fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// An envelope with nothing in it.
fn blank() -> Report {
    Report { schema_version: SCHEMA_VERSION, probe_version: VERSION.into(), ..Report::default() }
}

fn answer(report: &Report, pretty: bool) -> Outcome {
    let document = if pretty { serde_json::to_vec_pretty(report) } else { serde_json::to_vec(report) };
    // A report holds strings, numbers, lists and string-keyed maps: writing it to memory cannot fail.
    let mut stdout = document.unwrap_or_default();
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
