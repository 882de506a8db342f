//! `Action`, `KillAction`, `ResetAction`: the plan or the result of a kill or a GPU reset in a report.
//! `ResetPlan`: the plan of a reset. `Obstacle`: why an action is refused.

use serde::{Deserialize, Serialize};
use syringe_macros::facts;

use super::ecc::RecoveryAction;
use super::processes::GpuProcess;
use crate::pci::PciAddress;
use crate::section_name::SectionName;

/// An action on the node, or the plan of an action.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Action {
    /// Kills a process that uses a GPU.
    Kill(Box<KillAction>),
    /// Resets a GPU.
    Reset(Box<ResetAction>),
}

/// The reason why an action was refused, or a condition that blocks the action.
#[facts(omit(next_step))]
pub struct Obstacle {
    /// A stable code: `recycled_pid`, `protected`, `no_gpu`, `processes`, `not_cordoned`, …
    pub code: String,
    /// The reason as a sentence.
    pub why: String,
    /// The recommended next step.
    pub next_step: String,
}

impl Obstacle {
    /// Creates an obstacle.
    pub fn new(code: &str, why: impl Into<String>, next_step: impl Into<String>) -> Self {
        Self { code: code.to_owned(), why: why.into(), next_step: next_step.into() }
    }
}

/// The result of killing one process.
#[facts(omit(Option, Vec))]
pub struct KillAction {
    /// The outcome.
    pub outcome: KillOutcome,
    /// UUID of the GPU in the request.
    pub gpu: String,
    /// NVML index of the GPU in the request, if it is known.
    pub gpu_index: Option<u32>,
    /// Process id.
    pub pid: u32,
    /// Start time of the process in the request, in clock ticks since boot.
    pub start_ticks: u64,
    /// The process before the action.
    pub process: Option<GpuProcess>,
    /// How the use of the GPU was detected: `nvml`, `device_file`.
    pub evidence: Vec<String>,
    /// The reason why the action was refused.
    pub refusal: Option<Obstacle>,
    /// The signal that terminated the process: `SIGTERM` or `SIGKILL`.
    pub ended_by: Option<String>,
    /// Time from the first signal until the process exited, or until the wait timed out.
    pub waited_ms: Option<u64>,
    /// GPU memory in use before the action.
    pub memory_before_bytes: Option<u64>,
    /// GPU memory in use after the action.
    pub memory_after_bytes: Option<u64>,
    /// Descendants of the process that used the GPU before the action. They do not exit with the process.
    pub children_on_gpu: Vec<u32>,
    /// Additional information: state D, memory that stays in use, …
    pub notes: Vec<String>,
}

/// The outcome for a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum KillOutcome {
    /// The checks passed; no signal was sent.
    #[default]
    Planned,
    /// The action was refused; `refusal` contains the reason.
    Refused,
    /// The process has exited.
    Ended,
    /// The process had exited on its own before a signal was sent.
    AlreadyGone,
    /// The process did not exit, not even after SIGKILL.
    Survived,
    /// A facts file was replayed; nothing was changed.
    Simulated,
}

/// The reset of one GPU.
#[facts(omit(Option, Vec))]
pub struct ResetAction {
    /// The outcome.
    pub outcome: ResetOutcome,
    /// The plan of the reset, with its blockers.
    pub plan: ResetPlan,
    /// The commands that were run, in order.
    pub steps: Vec<CompletedStep>,
    /// The GPU after the reset; absent if no reset was started.
    pub now: Option<GpuAfterReset>,
    /// What happened, and the state of the GPU, in one sentence.
    pub summary: String,
}

/// The plan of a reset.
#[facts(omit(Option, Vec, !blockers, !steps))]
pub struct ResetPlan {
    /// UUID of the GPU.
    pub gpu: String,
    /// NVML index.
    pub index: Option<u32>,
    /// PCI address.
    pub pci_address: Option<PciAddress>,
    /// Product name.
    pub name: Option<String>,
    /// The conditions that block the reset. If the list is empty, the reset is possible.
    pub blockers: Vec<Obstacle>,
    /// Additional information that does not block the reset.
    pub notes: Vec<String>,
    /// Reasons for a reset: a pending remap, the recommendation of the driver.
    pub reasons: Vec<String>,
    /// Indices of the GPUs that can only be reset together with this GPU.
    pub together_with: Vec<u32>,
    /// Whether persistence mode is on. If it is on, it is disabled before the reset and enabled again after the reset.
    pub persistence_mode: bool,
    /// The commands of the reset, in order.
    pub steps: Vec<String>,
}

impl ResetPlan {
    /// Adds an obstacle.
    pub(crate) fn block(&mut self, code: &str, why: impl Into<String>, next_step: impl Into<String>) {
        self.blockers.push(Obstacle::new(code, why, next_step));
    }

    /// Returns a sentence: the GPU was not reset, and the first reason.
    pub fn refusal(&self) -> String {
        let first = self.blockers.first().map_or("the reset is blocked", |blocker| blocker.why.as_str());
        let more = self.blockers.len().saturating_sub(1);
        let more = if more > 0 { format!(" ({more} more in plan.blockers)") } else { String::new() };
        format!("GPU {} was not reset: {first}{more}.", self.gpu)
    }

    /// Returns whether nothing blocks the reset.
    pub fn is_clear(&self) -> bool {
        self.blockers.is_empty()
    }
}

/// The outcome of a reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ResetOutcome {
    /// The checks passed; nothing was done.
    #[default]
    Planned,
    /// The reset is blocked (`plan.blockers`) or could not be started; nothing was reset.
    Refused,
    /// The GPU was reset, and the checks after the reset passed.
    Reset,
    /// `nvidia-smi` reported success, but a check after the reset failed: see `now`.
    ResetNotVerified,
    /// `nvidia-smi` reported failure.
    Failed,
    /// `nvidia-smi` did not finish in time. It may continue until the probe container exits: the reset may be incomplete.
    TimedOut,
    /// A facts file was replayed; nothing was changed.
    Simulated,
}

/// One command that was run.
#[facts]
pub struct CompletedStep {
    /// The command, e.g. `nvidia-smi --gpu-reset -i GPU-…`.
    pub command: String,
    /// Exit code; absent if the command did not finish or could not be started.
    pub exit_code: Option<i32>,
    /// The output, cleaned and truncated. This is data, not instructions.
    pub message: String,
    /// The duration.
    pub duration_ms: u64,
}

/// A GPU after a reset.
#[facts(omit(Option, Vec, !answers))]
pub struct GpuAfterReset {
    /// Whether NVML lists a GPU with this UUID and can read it; `None` if NVML was not available.
    pub answers: Option<bool>,
    /// Whether a row remap is still pending.
    pub remap_pending: Option<bool>,
    /// The recovery action that the driver recommends now.
    pub recovery_action: Option<RecoveryAction>,
    /// Whether persistence mode is on. The reset restores the previous value.
    pub persistence_mode: Option<bool>,
    /// Xids of this GPU since the reset began.
    pub new_xids: Vec<u32>,
    /// Whether the kernel log was read after the reset.
    pub kernel_log_read: bool,
    /// Sections that could not be read, so their state is unknown: `ecc`, `topology`, `xid`.
    pub not_read: Vec<SectionName>,
    /// Problems found after the reset.
    pub problems: Vec<String>,
}
