//! `Request`: the request of a run: sections, time limit, time window and container.
//! `Files`: the files that replace the machine in the development program.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use syringe_core::probe_command::ReadCommand;
use syringe_core::section_name::SectionName;

/// Files that replace the machine. Only the development program has options for these files.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Files {
    /// Replay a saved report instead of reading hardware
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) facts: Option<PathBuf>,
    /// NVML library to load, instead of searching for it
    #[arg(long, value_name = "PATH", global = true, env = "NODE_PROBE_NVML_LIBRARY")]
    pub(crate) nvml_library: Option<PathBuf>,
    /// Read a saved tree (with etc, proc, sys, dev) instead of the host
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) root: Option<PathBuf>,
    /// Read a saved kernel log (/dev/kmsg records, dmesg, journal lines; - for standard input)
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) kernel_log: Option<PathBuf>,
}

/// A validated request for a report.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The sections to print, with options.
    pub(crate) read: ReadCommand,
    /// Time limit for the whole run.
    pub(crate) timeout: Duration,
    /// Files that replace the machine; always empty in the shipped program.
    pub(crate) files: Files,
    /// Whether this is the development program, whose caller already has the same rights on the node.
    pub(crate) development: bool,
}

impl Request {
    /// Returns this request with other sections, for an action.
    pub(crate) fn of(&self, sections: Vec<SectionName>) -> Self {
        let files = Files { kernel_log: None, ..self.files.clone() };
        Self { read: ReadCommand::of(sections), files, ..self.clone() }
    }
}
