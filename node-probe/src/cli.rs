//! `shipped`, `development`: parse the arguments of the shipped and the development program into an [`Invocation`].
//! `command`: parses arguments of the shipped program into a `ProbeCommand`.
//!
//! There are two parsers. [`Shipped`] is for the program that runs on nodes: no option is a path of a file, a
//! program or a library, because any user with exec rights in the probe's container chooses the options.
//! [`Development`] adds such options. The tasks of child processes have no options at all (see `child`).

use std::ffi::OsString;
use std::str::FromStr;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use syringe_core::probe_command::{
    ActionCommand, ContainerId, HoldCommand, KillCommand, MAX_SAMPLE_SECONDS, NodeAction, PodUid, ProbeCommand,
    RESET_TIME, ReadCommand, ResetCommand, StackContainer,
};
use syringe_core::section_name::SectionName;
use syringe_core::since::Since;

use crate::actions::ActionRequest;
use crate::request::{Files, Request};

/// Maximum length of a GPU UUID. UUIDs of GPUs have 40 characters, UUIDs of MIG devices up to 60.
const MAX_UUID: usize = 80;

/// Reads the GPUs of this node, prints one JSON document on standard output and exits.
///
/// Exit status: 0 data was read (possibly only in part), 1 nothing could be read, 2 wrong usage. A document is always
/// printed.
#[derive(Parser)]
#[command(name = "node-probe", version = crate::document::VERSION, disable_help_subcommand = true)]
pub(crate) struct Shipped {
    #[command(flatten)]
    cli: Cli,
}

/// node-probe with the development options, which name files to read and a library to load.
///
/// Reads the GPUs of this node, prints one JSON document on standard output and exits.
///
/// Exit status: 0 data was read (possibly only in part), 1 nothing could be read, 2 wrong usage. A document is always
/// printed.
#[derive(Parser)]
#[command(name = "node-probe-dev", version = crate::document::VERSION, disable_help_subcommand = true)]
pub(crate) struct Development {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    cli: Cli,
}

#[derive(Args)]
struct Cli {
    /// Deadline for everything that is read: 100 to 60000
    #[arg(long, value_name = "MS", global = true, default_value_t = 8000,
        value_parser = clap::value_parser!(u64).range(100..=60_000))]
    timeout_ms: u64,
    /// Allow kill and reset, which change the node. In the probe's container, the main process (hold) must also have
    /// this option
    #[arg(long, global = true)]
    operator: bool,
    #[command(subcommand)]
    command: Command,
}

/// Only events that ended after this time
#[derive(Args)]
struct WindowArgs {
    /// Only events that ended after this time: a duration back from now (24h, 7d), or an RFC 3339 time
    #[arg(long, value_name = "WHEN")]
    since: Option<Since>,
}

#[derive(Args)]
struct ContainerArgs {
    /// Also read which devices this container can open (ID of the container runtime, 64 hex digits)
    #[arg(long, value_name = "ID")]
    container: Option<ContainerId>,
    /// Also read the end of the log of a container of NVIDIA's software for Kubernetes
    #[arg(long, value_name = "POD_UID/CONTAINER")]
    stack_log: Option<StackContainer>,
}

#[derive(Subcommand)]
enum Command {
    /// Properties of the GPUs: model, UUID, serial, firmware, driver, limits
    Inventory,
    /// Current state: temperature, power, clocks, utilization, throttling
    Telemetry {
        /// Read the counters of errors and throttled time again after this time: 0 (never) to 10. By default, only counters
        /// that are not zero are read again, after a second
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u8).range(0..=i64::from(MAX_SAMPLE_SECONDS)))]
        sample_seconds: Option<u8>,
    },
    /// How GPUs, NVLinks, NVSwitches, NICs and CPUs are connected
    Topology,
    /// Memory errors and repairs
    Ecc,
    /// GPU processes, with pod and container
    Processes,
    /// MIG mode and instances
    Mig,
    /// Devices that the kubelet allocated, by container
    Kubelet,
    /// Driver, modules, device nodes, PCI, daemons
    Host(ContainerArgs),
    /// GPU events in the kernel log: Xid and others
    Xid(WindowArgs),
    /// Every section in one pass
    All {
        #[command(flatten)]
        window: WindowArgs,
        #[command(flatten)]
        container_args: ContainerArgs,
        /// Also print the records of the kernel log (at most 2 MiB), /proc/driver/nvidia and PCI configuration spaces
        #[arg(long)]
        raw_log: bool,
        /// Also query NCCL in this pod for the status of its job, twice
        #[arg(long, value_name = "POD_UID")]
        nccl_ras: Option<PodUid>,
        /// Also start CUDA of the node in a process without privileges (cuInit, cuDeviceGetCount; no context)
        #[arg(long)]
        deep: bool,
    },
    /// Several sections in one pass: inventory,kubelet,processes
    Read {
        /// Names of sections, separated by commas
        #[arg(value_name = "SECTIONS", value_delimiter = ',', required = true, num_args = 1)]
        sections: Vec<SectionName>,
        #[command(flatten)]
        container_args: ContainerArgs,
    },
    /// Stop a process that uses a GPU (needs --operator)
    Kill(Kill),
    /// Reset a GPU (needs --operator)
    Reset(Reset),
    /// Wait: the main process of the probe's container
    Hold(Hold),
    /// Stop the process that runs hold --releasable in this container
    Release,
}

#[derive(Args)]
struct Kill {
    /// UUID of the GPU that the process uses
    #[arg(long, value_name = "UUID")]
    gpu: GpuUuid,
    /// Process ID
    #[arg(long, value_name = "N")]
    pid: u32,
    /// start_ticks of the process, from the processes section
    #[arg(long, value_name = "TICKS")]
    start_ticks: u64,
    /// Time between SIGTERM and SIGKILL: 1 to 60
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60))]
    grace_seconds: u64,
    #[command(flatten)]
    action_args: ActionArgs,
}

#[derive(Args)]
struct Reset {
    /// UUID of the GPU
    #[arg(long, value_name = "UUID")]
    gpu: GpuUuid,
    /// The node is cordoned (unschedulable)
    #[arg(long)]
    cordoned: bool,
    /// Reject the reset while the node is schedulable or pods hold the GPU: on or off
    #[arg(long, value_name = "on|off", value_enum, default_value_t = Switch::On, hide_possible_values = true)]
    drain_check: Switch,
    /// Time for nvidia-smi: 1 to 600; a reset that takes longer has an unknown result
    #[arg(long, value_name = "SECONDS", default_value_t = RESET_TIME.as_secs(), value_parser = clap::value_parser!(u64).range(1..=600))]
    reset_seconds: u64,
    #[command(flatten)]
    action_args: ActionArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

#[derive(Args)]
struct ActionArgs {
    /// Check everything and print the plan, without acting
    #[arg(long)]
    plan: bool,
    /// Reject the action if an action with this ID was run in this container before
    #[arg(long, value_name = "ID")]
    once: Option<OnceId>,
}

#[derive(Args)]
struct Hold {
    /// Time until the wait stops on its own: 1 to 3600
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Exit early when the command release is run in the same container
    #[arg(long)]
    releasable: bool,
}

/// The task of a run.
#[derive(Debug)]
pub(crate) enum Invocation {
    /// Read sections and print the report.
    Read(Box<Request>),
    /// Change the node and print the report about it.
    Act(Box<ActionRequest>),
    /// Wait, then exit.
    Hold(HoldCommand),
    /// Stop the wait of another process.
    Release,
}

/// The reason why the arguments contain no task.
#[derive(Debug)]
pub(crate) enum UsageError {
    /// Help or version was requested. Contains the text.
    Text(String),
    /// The arguments are wrong. Contains the reason.
    Wrong(String),
}

/// Parses the arguments (without the program name) of the shipped program.
pub(crate) fn shipped(args: impl Iterator<Item = OsString>) -> Result<Invocation, UsageError> {
    let Shipped { cli } = parse(args)?;
    Ok(task(cli, Files::default(), false))
}

/// Parses the arguments of the development program.
pub(crate) fn development(args: impl Iterator<Item = OsString>) -> Result<Invocation, UsageError> {
    let Development { files, cli } = parse(args)?;
    Ok(task(cli, files, true))
}

fn parse<P: Parser>(args: impl Iterator<Item = OsString>) -> Result<P, UsageError> {
    let program = std::iter::once(OsString::from("node-probe"));
    P::try_parse_from(program.chain(args)).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => UsageError::Text(error.render().to_string()),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => UsageError::Wrong("no command was given".into()),
        // The first paragraph is the error; the usage and hints follow.
        _ => {
            let text = error.render().to_string();
            let first = text.split("\n\n").next().unwrap_or_default();
            UsageError::Wrong(first.strip_prefix("error: ").unwrap_or(first).to_owned())
        }
    })
}

fn task(cli: Cli, files: Files, development: bool) -> Invocation {
    let Cli { timeout_ms, operator, command } = cli;
    let request = |read| Request { read, timeout: Duration::from_millis(timeout_ms), files, development };
    match probe_command(command, operator) {
        ProbeCommand::Read(read) => Invocation::Read(Box::new(request(read))),
        ProbeCommand::Act(command) => {
            let request = request(ReadCommand::of([]));
            Invocation::Act(Box::new(ActionRequest { operator, command, request }))
        }
        ProbeCommand::Hold(hold) => Invocation::Hold(hold),
        ProbeCommand::Release => Invocation::Release,
    }
}

fn probe_command(command: Command, operator: bool) -> ProbeCommand {
    let act = |action, once: Option<OnceId>| ActionCommand { action, once: once.map(|id| id.0) };
    ProbeCommand::Read(match command {
        Command::Inventory => SectionName::Inventory.into(),
        Command::Telemetry { sample_seconds } => ReadCommand { sample_seconds, ..SectionName::Telemetry.into() },
        Command::Topology => SectionName::Topology.into(),
        Command::Ecc => SectionName::Ecc.into(),
        Command::Processes => SectionName::Processes.into(),
        Command::Mig => SectionName::Mig.into(),
        Command::Kubelet => SectionName::Kubelet.into(),
        Command::Host(container_args) => container_args.with(vec![SectionName::Host]),
        Command::Xid(WindowArgs { since }) => ReadCommand { since, ..SectionName::Xid.into() },
        Command::All { window: WindowArgs { since }, container_args, raw_log, nccl_ras, deep } => {
            ReadCommand { since, raw_log, nccl_ras, deep, ..container_args.with(SectionName::ALL.to_vec()) }
        }
        Command::Read { sections, container_args } => container_args.with(sections),
        Command::Kill(Kill { gpu, pid, start_ticks, grace_seconds, action_args: ActionArgs { plan, once } }) => {
            let grace = Duration::from_secs(grace_seconds);
            let kill = KillCommand { gpu: gpu.0, pid, start_ticks, grace, plan };
            return ProbeCommand::Act(act(NodeAction::Kill(kill), once));
        }
        Command::Reset(Reset { gpu, cordoned, drain_check, reset_seconds, action_args: ActionArgs { plan, once } }) => {
            let (drain_check, time) = (drain_check == Switch::On, Duration::from_secs(reset_seconds));
            let reset = ResetCommand { gpu: gpu.0, plan, cordoned, drain_check, time };
            return ProbeCommand::Act(act(NodeAction::Reset(reset), once));
        }
        Command::Hold(Hold { seconds, releasable }) => {
            return ProbeCommand::Hold(HoldCommand { seconds, releasable, operator });
        }
        Command::Release => return ProbeCommand::Release,
    })
}

/// Parses the arguments of the shipped program into its command.
pub(crate) fn command(args: impl Iterator<Item = OsString>) -> Option<ProbeCommand> {
    let Shipped { cli: Cli { operator, command, .. } } = parse(args).ok()?;
    Some(probe_command(command, operator))
}

impl ContainerArgs {
    fn with(self, sections: Vec<SectionName>) -> ReadCommand {
        ReadCommand { container: self.container, stack_log: self.stack_log, ..ReadCommand::of(sections) }
    }
}

/// A GPU UUID (`GPU-…` or `MIG-…`). The prefix ensures that no program reads the value as an option.
#[derive(Clone)]
struct GpuUuid(String);

impl FromStr for GpuUuid {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let known = text.starts_with("GPU-") || text.starts_with("MIG-");
        if known && text.len() <= MAX_UUID && text.bytes().all(plain) {
            return Ok(Self(text.to_owned()));
        }
        Err("a GPU UUID has the form GPU-5b2c0a4e-….")
    }
}

/// An ID of letters and digits, because the ID becomes a file name.
#[derive(Clone)]
struct OnceId(String);

impl FromStr for OnceId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = !text.is_empty() && text.len() <= 40 && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if plain { Ok(Self(text.to_owned())) } else { Err("an ID consists of 1 to 40 letters and digits") }
    }
}

#[cfg(test)]
#[path = "cli_tests.rs"]
mod tests;
