//! The `action` of a report: what `node-probe kill` or `node-probe reset` found, did and left. One report has one at most.

use serde::{Deserialize, Serialize};

use super::ecc::RecoveryAction;
use super::processes::GpuProcess;
use crate::pci::PciAddress;

/// An action on the node, or the plan of one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Action {
    /// Ending a process that uses a GPU.
    Kill(Box<KillAction>),
    /// Resetting a GPU.
    Reset(Box<ResetAction>),
}

/// Why an action was refused, or what is in its way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Obstacle {
    /// A stable word: `recycled_pid`, `protected`, `no_gpu`, `processes`, `not_cordoned`, …
    pub code: String,
    /// In words, with names.
    pub why: String,
    /// What a person can do about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub next_step: String,
}

impl Obstacle {
    /// An obstacle.
    pub fn new(code: &str, why: impl Into<String>, next_step: impl Into<String>) -> Self {
        Self { code: code.to_owned(), why: why.into(), next_step: next_step.into() }
    }
}

/// Ending one process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct KillAction {
    /// What became of it.
    pub outcome: KillOutcome,
    /// UUID of the GPU that the caller named.
    pub gpu: String,
    /// NVML index of that GPU, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_index: Option<u32>,
    /// Process id.
    pub pid: u32,
    /// Start time that the caller named, in clock ticks since boot.
    pub start_ticks: u64,
    /// The process as it was before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<GpuProcess>,
    /// How it was known to be on the GPU: `nvml`, `device_file`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
    /// Why nothing was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Obstacle>,
    /// The signal that ended it: `SIGTERM` or `SIGKILL`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<String>,
    /// From the first signal until it had ended, or was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waited_ms: Option<u64>,
    /// Frame buffer in use on the GPU before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_before_bytes: Option<u64>,
    /// And afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_after_bytes: Option<u64>,
    /// Descendants of the process that hold the GPU, seen before: they do not end with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children_on_gpu: Vec<u32>,
    /// What a reader should know: state D, memory that stays in use, …
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What became of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum KillOutcome {
    /// Checked, and nothing is in the way; no signal was sent.
    #[default]
    Planned,
    /// Nothing was done; `refusal` says why.
    Refused,
    /// It has ended.
    Ended,
    /// It had ended by itself before any signal.
    AlreadyGone,
    /// It did not end, not even by SIGKILL.
    Survived,
    /// A facts file was replayed: nothing was done to anything.
    Simulated,
}

/// Resetting one GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ResetAction {
    /// What became of it.
    pub outcome: ResetOutcome,
    /// What was to be done, and what is in the way.
    pub plan: ResetPlan,
    /// What was done, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepDone>,
    /// The GPU afterwards; absent where nothing was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub now: Option<GpuNow>,
    /// One sentence: what happened, and in which state the GPU is now.
    pub summary: String,
}

/// The plan of a reset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ResetPlan {
    /// UUID of the GPU.
    pub gpu: String,
    /// NVML index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// PCI address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pci_address: Option<PciAddress>,
    /// Product name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What is in the way. Empty: the reset can be done.
    pub blockers: Vec<Obstacle>,
    /// What is worth knowing and no reason to refuse.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What speaks for a reset: a remap that waits for it, the driver's own request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// Indices of GPUs that can only be reset together with this one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub together_with: Vec<u32>,
    /// Whether persistence mode is on: it is switched off before and on again after.
    pub persistence_mode: bool,
    /// What would be done, in order.
    pub steps: Vec<String>,
}

impl ResetPlan {
    /// Adds an obstacle.
    pub(crate) fn block(&mut self, code: &str, why: impl Into<String>, next_step: impl Into<String>) {
        self.blockers.push(Obstacle::new(code, why, next_step));
    }

    /// In a sentence, that nothing was done, and the first of the reasons.
    pub fn refusal(&self) -> String {
        let first = self.blockers.first().map_or("something is in the way", |blocker| blocker.why.as_str());
        let more = self.blockers.len().saturating_sub(1);
        let more = if more > 0 { format!(" ({more} more in plan.blockers)") } else { String::new() };
        format!("GPU {} was not reset: {first}{more}.", self.gpu)
    }

    /// Whether nothing is in the way.
    pub fn is_clear(&self) -> bool {
        self.blockers.is_empty()
    }
}

/// What became of a reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ResetOutcome {
    /// Nothing is in the way; nothing was done.
    #[default]
    Planned,
    /// Something is in the way (`plan.blockers`), or the reset could not be started; nothing was reset.
    Refused,
    /// Reset, and found in order afterwards.
    Reset,
    /// `nvidia-smi` reported success, but the GPU is not in order: see `now`.
    ResetNotVerified,
    /// `nvidia-smi` reported failure.
    Failed,
    /// `nvidia-smi` did not end in time. It goes on at most as long as the probe's container: the GPU may be left half reset.
    TimedOut,
    /// A facts file was replayed: nothing was done to anything.
    Simulated,
}

/// One command that was run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct StepDone {
    /// The command, e.g. `nvidia-smi --gpu-reset -i GPU-…`.
    pub command: String,
    /// Exit code; absent when it did not end, or could not be started.
    pub exit_code: Option<i32>,
    /// What it printed, cleaned and capped. Data, not advice.
    pub said: String,
    /// How long it took.
    pub duration_ms: u64,
}

/// A GPU after a reset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct GpuNow {
    /// Whether NVML lists a GPU of this UUID and it answers; `None` where NVML could not be asked.
    pub answers: Option<bool>,
    /// Whether a row remap still waits for a reset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remap_pending: Option<bool>,
    /// What the driver asks for now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery_action: Option<RecoveryAction>,
    /// Persistence mode; the reset leaves it as it was before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistence_mode: Option<bool>,
    /// Xids of this GPU since the reset began.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub new_xids: Vec<u32>,
    /// Whether the kernel log could be read for them.
    pub kernel_log_read: bool,
    /// Sections that could not be read, so that nothing is known of what they would show: `ecc`, `topology`, `xid`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_read: Vec<String>,
    /// What is not in order, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<String>,
}
