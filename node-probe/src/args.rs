//! What can be typed after `node-probe`: raw words in, a validated request out.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use syringe_core::since::Since;

use crate::actions::{ActRequest, DriverTool, KillWords, ResetWords};
use crate::section::SectionName;

/// Reads the GPUs of this node, prints one JSON document on standard output and exits.
///
/// Exit status: 0 answered (also in part), 1 nothing could be read, 2 wrong usage. The document is printed in each case.
#[derive(Debug, Parser)]
#[command(name = "node-probe", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) from: From,
    /// Allow kill and reset, which change the node
    #[arg(long, global = true)]
    pub(crate) operator: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the facts come from.
#[derive(Args, Debug)]
pub(crate) struct From {
    /// Replay a facts file (a saved report) in place of reading hardware
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) facts: Option<PathBuf>,
    /// The NVML library to open, in place of the search for it
    #[arg(long, global = true, value_name = "PATH", env = "NODE_PROBE_NVML_LIBRARY")]
    pub(crate) nvml_library: Option<PathBuf>,
    /// Read below this directory in place of the host's root (a saved tree with etc, proc, sys, dev in it)
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Give up on what has not answered after this many milliseconds
    #[arg(long, global = true, value_name = "MS", default_value_t = 8000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub(crate) timeout_ms: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What the GPUs are: model, UUID, serial, firmware, driver, limits
    Inventory,
    /// What the GPUs do now: temperature, power, clocks, utilization, throttling
    Telemetry,
    /// How GPUs, NVLinks, NVSwitches, NICs and CPUs are connected
    Topology,
    /// Memory errors and repairs
    Ecc,
    /// Who uses the GPUs, with pod and container
    Processes,
    /// MIG mode and instances
    Mig,
    /// Which device the kubelet gave to which container
    Kubelet,
    /// Driver, modules, device nodes, PCI, daemons
    Host,
    /// What the kernel said about GPUs: Xid and other events
    Xid(Xid),
    /// A score per GPU and for the node, each point lost explained
    Health,
    /// Every section in one pass
    All(Xid),
    /// End a process that uses a GPU (needs --operator)
    Kill(KillWords),
    /// Reset a GPU (needs --operator)
    Reset(ResetWords),
    /// What reset starts to run nvidia-smi below the driver's root
    #[command(hide = true)]
    DriverTool(DriverTool),
    /// The host's journalctl, run in the host's root: how `xid` reads earlier boots
    #[command(name = "host-journal", hide = true)]
    HostJournal(HostJournal),
    /// Do nothing for a while: the main process of the probe's container
    Hold(Hold),
    /// End the releasable hold of this container
    Release,
}

#[derive(Args, Debug, Default)]
pub(crate) struct Xid {
    /// Only events that ended after this: a duration back from now (24h, 7d) or an RFC 3339 time
    #[arg(long, value_name = "WHEN")]
    pub(crate) since: Option<Since>,
    /// Read a saved log (/dev/kmsg records, dmesg, journal lines; - for standard input) in place of this machine's
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel_log: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct Hold {
    /// How long to hold before ending by itself
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: u64,
    /// End early when node-probe release is run in the same container
    #[arg(long)]
    pub(crate) releasable: bool,
}

#[derive(Args, Debug)]
pub(crate) struct HostJournal {
    /// The host's root.
    pub(crate) root: PathBuf,
    /// Start of the window, seconds since 1970.
    #[arg(long)]
    pub(crate) since: i64,
}

/// What a run has to do.
#[derive(Debug)]
pub(crate) enum Task {
    /// Read sections and print the report.
    Read(Request),
    /// Change something on the node and print the report of that.
    Act(Box<ActRequest>),
    /// Become the driver's own tool.
    DriverTool(DriverTool, bool),
    /// Wait, then end.
    Hold(Hold),
    /// End another process's wait.
    Release,
    /// Become the host's journalctl.
    HostJournal(HostJournal),
}

/// A validated request for a report.
#[derive(Debug)]
pub(crate) struct Request {
    /// The sections to print.
    pub(crate) sections: Vec<SectionName>,
    /// Start of the window for kernel events.
    pub(crate) since: Option<Since>,
    /// A saved kernel log.
    pub(crate) kernel_log: Option<PathBuf>,
    /// A facts file.
    pub(crate) facts: Option<PathBuf>,
    /// A named NVML library.
    pub(crate) nvml_library: Option<PathBuf>,
    /// A root other than the host's.
    pub(crate) root: Option<PathBuf>,
    /// Time for everything.
    pub(crate) timeout: Duration,
}

impl Cli {
    /// The task that these words ask for.
    pub(crate) fn into_task(self) -> Task {
        let Self { from: From { facts, nvml_library, root, timeout_ms }, operator, command } = self;
        let timeout = Duration::from_millis(timeout_ms);
        let request = move |sections, Xid { since, kernel_log }| Request {
            sections,
            since,
            kernel_log,
            facts,
            nvml_library,
            root,
            timeout,
        };
        let act = |act| Task::Act(Box::new(act));
        let (sections, xid) = match command {
            Command::Inventory => (vec![SectionName::Inventory], Xid::default()),
            Command::Telemetry => (vec![SectionName::Telemetry], Xid::default()),
            Command::Topology => (vec![SectionName::Topology], Xid::default()),
            Command::Ecc => (vec![SectionName::Ecc], Xid::default()),
            Command::Processes => (vec![SectionName::Processes], Xid::default()),
            Command::Mig => (vec![SectionName::Mig], Xid::default()),
            Command::Kubelet => (vec![SectionName::Kubelet], Xid::default()),
            Command::Host => (vec![SectionName::Host], Xid::default()),
            Command::Xid(xid) => (vec![SectionName::Xid], xid),
            Command::Health => (vec![SectionName::Health], Xid::default()),
            Command::All(xid) => (SectionName::ALL.to_vec(), xid),
            Command::Kill(words) => return act(ActRequest::kill(words, operator, request(Vec::new(), Xid::default()))),
            Command::Reset(words) => {
                return act(ActRequest::reset(words, operator, request(Vec::new(), Xid::default())));
            }
            Command::DriverTool(tool) => return Task::DriverTool(tool, operator),
            Command::HostJournal(journal) => return Task::HostJournal(journal),
            Command::Hold(hold) => return Task::Hold(hold),
            Command::Release => return Task::Release,
        };
        Task::Read(request(sections, xid))
    }
}
