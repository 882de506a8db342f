//! `ProbeCommand`: the commands and options of `node-probe`, and their conversion to command-line arguments.
//! `ReadCommand`, `ActionCommand` and others: the options of a command. `ContainerId`, `PodUid`: checked ids.
//!
//! The launcher writes the arguments, and `node-probe` parses them. `deploy/admission-policy.yaml` allows only
//! arguments that [`ProbeCommand::to_args`] writes.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::section_name::SectionName;
use crate::since::Since;

/// Name of the program.
pub const NODE_PROBE: &str = "node-probe";

/// Default time limit for nvidia-smi in a reset.
pub const RESET_TIME: Duration = Duration::from_secs(300);

/// Longest time between two readings of counters.
pub const MAX_SAMPLE_SECONDS: u8 = 10;

/// One command of `node-probe`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeCommand {
    /// Reads sections and prints the report.
    Read(ReadCommand),
    /// Changes the node, or plans the change, and prints the report about the change.
    Act(ActionCommand),
    /// Waits. This is the main process of the probe container.
    Hold(HoldCommand),
    /// Stops the `hold` command that is running in the same container, if that command is releasable.
    Release,
}

/// The sections to read, with options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadCommand {
    pub sections: Vec<SectionName>,
    /// Start of the window for kernel events. Allowed only with all sections, or with [`SectionName::Xid`] alone.
    pub since: Option<Since>,
    /// A container whose devices are also read.
    pub container: Option<ContainerId>,
    /// A container whose log is also read.
    pub stack_log: Option<StackContainer>,
    /// Whether the report also has raw data for people and vendors: kernel log records, files of the driver, and
    /// configuration spaces. Only with all sections.
    pub raw_log: bool,
    /// A pod whose NCCL status service is queried. Only with all sections.
    pub nccl_ras: Option<PodUid>,
    /// Time between two readings of GPU counters, at most [`MAX_SAMPLE_SECONDS`]; 0 for one reading. Only with
    /// [`SectionName::Telemetry`] alone. By default, counters that are not zero are read again after a second.
    pub sample_seconds: Option<u8>,
    /// Whether CUDA of the node is started in a process without privileges. Only with all sections.
    pub deep: bool,
}

/// An action. A second action with the same `once` does not run in the same container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionCommand {
    pub action: NodeAction,
    pub once: Option<String>,
}

/// The kind of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeAction {
    Kill(KillCommand),
    Reset(ResetCommand),
}

/// A process to kill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KillCommand {
    /// UUID of the GPU that the process uses.
    pub gpu: String,
    pub pid: u32,
    /// `start_ticks` of the process in the processes section. If another process has this PID, the action is rejected.
    pub start_ticks: u64,
    /// Time between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// Whether to check everything without sending a signal.
    pub plan: bool,
}

/// A GPU to reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResetCommand {
    /// UUID of the GPU.
    pub gpu: String,
    /// Whether to check everything and only print what blocks the reset.
    pub plan: bool,
    /// Whether the node is cordoned (unschedulable).
    pub cordoned: bool,
    /// Whether to reject the reset while the node is schedulable or the GPU is allocated to pods.
    pub drain_check: bool,
    /// Time limit for nvidia-smi. A reset usually takes 5 to 60 seconds. The result of a reset that takes longer is unknown.
    pub time: Duration,
}

/// A wait that ends after a fixed time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldCommand {
    pub seconds: u64,
    /// Whether [`ProbeCommand::Release`] stops the wait.
    pub releasable: bool,
    /// Whether actions may run in the container.
    pub operator: bool,
}

/// ID of a container in the container runtime: 64 hex digits, as containerd, CRI-O and Docker write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerId(String);

/// UID of a pod: hex digits and dashes. The UID of a static pod is a hash of 32 hex digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodUid(String);

/// A container of NVIDIA's software for Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackContainer {
    /// UID of the pod. Validated: hex digits and dashes.
    pub pod_uid: String,
    /// Name of the container. Validated: a DNS label.
    pub container: String,
}

impl ProbeCommand {
    /// Returns the arguments of `node-probe`, without the name of the program.
    pub fn to_args(&self) -> Vec<String> {
        match self {
            Self::Read(read) => read.to_args(),
            Self::Act(act) => act.to_args(),
            Self::Hold(HoldCommand { seconds, releasable, operator }) => {
                let mut args = words(&["hold"]);
                args.extend(flag(*releasable, "--releasable"));
                args.extend(words(&["--seconds", &seconds.to_string()]));
                args.extend(flag(*operator, "--operator"));
                args
            }
            Self::Release => words(&["release"]),
        }
    }

    /// Returns the command line, with the name of the program.
    pub fn argv(&self) -> Vec<String> {
        std::iter::once(NODE_PROBE.to_owned()).chain(self.to_args()).collect()
    }

    /// Adds a container to a read command, if the command has an option for a container.
    #[must_use]
    pub fn with_container(self, container: Option<ContainerId>) -> Self {
        match self {
            Self::Read(read) => Self::Read(read.with_container(container)),
            other => other,
        }
    }

    /// Returns the command without its slow parts: the query to NCCL and the start of CUDA.
    pub fn without_slow_parts(self) -> Self {
        match self {
            Self::Read(read) => Self::Read(ReadCommand { nccl_ras: None, deep: false, ..read }),
            other => other,
        }
    }

    /// Returns whether the command needs a container for actions. The plan of an action also needs a container.
    pub fn is_for_actions(&self) -> bool {
        matches!(self, Self::Act(_))
    }
}

impl From<ReadCommand> for ProbeCommand {
    fn from(read: ReadCommand) -> Self {
        Self::Read(read)
    }
}

impl ReadCommand {
    pub fn of(sections: impl Into<Vec<SectionName>>) -> Self {
        Self {
            sections: sections.into(),
            since: None,
            container: None,
            stack_log: None,
            raw_log: false,
            nccl_ras: None,
            sample_seconds: None,
            deep: false,
        }
    }

    pub fn everything() -> Self {
        Self::of(SectionName::ALL)
    }

    pub fn is_of_everything(&self) -> bool {
        self.sections == SectionName::ALL
    }

    /// Adds a container, if the command has an option for a container and does not already specify another container.
    #[must_use]
    pub fn with_container(mut self, container: Option<ContainerId>) -> Self {
        let is_possible = self.sections.len() > 1 || self.sections == [SectionName::Host];
        self.container = self.container.or(container.filter(|_| is_possible));
        self
    }

    fn to_args(&self) -> Vec<String> {
        let Self { sections, since, container, stack_log, raw_log, nccl_ras, sample_seconds, deep } = self;
        let mut args = match sections.as_slice() {
            _ if self.is_of_everything() => words(&["all"]),
            [section] => words(&[section.as_str()]),
            several => words(&["read", &SectionName::join(several, ",")]),
        };
        args.extend(option("--since", since.as_ref().map(Since::word)));
        args.extend(option("--container", container.as_ref().map(|id| id.0.clone())));
        args.extend(option("--stack-log", stack_log.as_ref().map(StackContainer::to_string)));
        args.extend(flag(*raw_log, "--raw-log"));
        args.extend(option("--nccl-ras", nccl_ras.as_ref().map(|uid| uid.0.clone())));
        args.extend(option("--sample-seconds", sample_seconds.as_ref().map(u8::to_string)));
        args.extend(flag(*deep, "--deep"));
        args
    }
}

impl From<SectionName> for ReadCommand {
    fn from(section: SectionName) -> Self {
        Self::of([section])
    }
}

impl ActionCommand {
    fn to_args(&self) -> Vec<String> {
        let mut args = words(&["--operator"]);
        let plan = match &self.action {
            NodeAction::Kill(KillCommand { gpu, pid, start_ticks, grace, plan }) => {
                let (pid, ticks, grace) = (pid.to_string(), start_ticks.to_string(), grace.as_secs().to_string());
                let numbers = ["--pid", &pid, "--start-ticks", &ticks, "--grace-seconds", &grace];
                args.extend(words(&["kill", "--gpu", gpu]));
                args.extend(words(&numbers));
                plan
            }
            NodeAction::Reset(ResetCommand { gpu, plan, cordoned, drain_check, time }) => {
                args.extend(words(&["reset", "--gpu", gpu]));
                args.extend(flag(*cordoned, "--cordoned"));
                args.extend(option("--drain-check", (!drain_check).then(|| "off".to_owned())));
                args.extend(option("--reset-seconds", (*time != RESET_TIME).then(|| time.as_secs().to_string())));
                plan
            }
        };
        args.extend(flag(*plan, "--plan"));
        args.extend(option("--once", self.once.clone()));
        args
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn flag(is_set: bool, name: &str) -> Option<String> {
    is_set.then(|| name.to_owned())
}

fn option(name: &str, value: Option<String>) -> impl Iterator<Item = String> {
    value.into_iter().flat_map(move |value| [name.to_owned(), value])
}

impl ContainerId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if plain {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err("a container ID consists of 64 hex digits, without the name of the runtime")
        }
    }
}

impl PodUid {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PodUid {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'));
        if plain && (32..=36).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err("a pod UID consists of 32 to 36 hex digits and dashes")
        }
    }
}

/// The UID and the name are validated, because they become parts of a path that must stay inside its folder.
impl FromStr for StackContainer {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const LABEL: std::ops::RangeInclusive<usize> = 1..=63;
        let label = |name: &str| {
            let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
            LABEL.contains(&name.len()) && plain && !name.starts_with('-') && !name.ends_with('-')
        };
        match text.split_once('/') {
            Some((pod_uid, container)) if pod_uid.parse::<PodUid>().is_ok() && label(container) => {
                Ok(Self { pod_uid: pod_uid.to_owned(), container: container.to_owned() })
            }
            _ => Err("expected a pod UID, a slash, and the name of a container"),
        }
    }
}

impl fmt::Display for StackContainer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.pod_uid, self.container)
    }
}
