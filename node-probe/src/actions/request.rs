//! The arguments of `kill` and `reset`, and the validated action.

use std::str::FromStr;
use std::time::Duration;

use crate::request::Request;

#[derive(Debug)]
pub(crate) struct KillArguments {
    /// UUID of the GPU that the process uses
    pub(crate) gpu: String,
    pub(crate) pid: u32,
    /// start_ticks of the process as the processes section reported it: another process of the same number is refused
    pub(crate) start_ticks: u64,
    /// Time between SIGTERM and SIGKILL
    pub(crate) grace_seconds: u64,
    /// Check everything and send nothing
    pub(crate) plan: bool,
}

#[derive(Debug)]
pub(crate) struct ResetArguments {
    /// UUID of the GPU
    pub(crate) gpu: String,
    /// Print the plan and what blocks it, without acting
    pub(crate) plan: bool,
    /// The node is cordoned (unschedulable)
    pub(crate) cordoned: bool,
    /// Whether to refuse while the node is schedulable or pods hold the GPU
    pub(crate) drain_check: Switch,
    /// Time for nvidia-smi; what is not done then is not known
    pub(crate) reset_seconds: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Switch {
    #[default]
    On,
    Off,
}

impl FromStr for Switch {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err("on or off"),
        }
    }
}

#[derive(Debug)]
pub(crate) struct ActionRequest {
    /// Whether `--operator` was given.
    pub(crate) operator: bool,
    pub(crate) action: ActionKind,
    /// ID of the action, so that a repeated call does not run it again.
    pub(crate) once: Option<String>,
    /// The source of the facts, and the time limit of the read.
    pub(crate) request: Request,
}

#[derive(Debug)]
pub(crate) enum ActionKind {
    Kill(KillRequest),
    Reset(ResetRequest),
}

/// A process to end.
#[derive(Clone, Debug)]
pub(crate) struct KillRequest {
    pub(crate) gpu: String,
    pub(crate) pid: u32,
    pub(crate) start_ticks: u64,
    pub(crate) grace: Duration,
    pub(crate) plan: bool,
}

/// A GPU to reset.
#[derive(Clone, Debug)]
pub(crate) struct ResetRequest {
    pub(crate) gpu: String,
    pub(crate) plan: bool,
    pub(crate) cordoned: bool,
    pub(crate) drain_check: bool,
    /// Time for nvidia-smi: 5 to 60 seconds are usual.
    pub(crate) time: Duration,
}

impl ActionRequest {
    pub(crate) fn kill(words: KillArguments, operator: bool, once: Option<String>, request: Request) -> Self {
        let KillArguments { gpu, pid, start_ticks, grace_seconds, plan } = words;
        let grace = Duration::from_secs(grace_seconds);
        Self { operator, action: ActionKind::Kill(KillRequest { gpu, pid, start_ticks, grace, plan }), once, request }
    }

    pub(crate) fn reset(words: ResetArguments, operator: bool, once: Option<String>, request: Request) -> Self {
        let ResetArguments { gpu, plan, cordoned, drain_check, reset_seconds } = words;
        let time = Duration::from_secs(reset_seconds);
        let request_of_gpu = ResetRequest { gpu, plan, cordoned, drain_check: drain_check == Switch::On, time };
        Self { operator, action: ActionKind::Reset(request_of_gpu), once, request }
    }
}
