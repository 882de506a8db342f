//! The types of an explanation of a pod's state: `Explanation`, `Cause`, `Certainty`, `TimelineEntry`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::finding::Action;
use syringe_core::unknown::Unknown;

/// The reason why a pod failed, hangs or waits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct Explanation {
    /// The kind of cause.
    pub cause: Cause,
    /// Certainty of the cause.
    pub certainty: Certainty,
    /// The explanation in one sentence.
    pub summary: String,
    /// Evidence for the cause.
    pub evidence: Vec<String>,
    /// Causes that were ruled out.
    pub ruled_out: Vec<String>,
    /// Facts that could not be read, and causes that could not be ruled out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<Unknown>,
    /// The recommended action.
    pub action: Action,
    /// UUIDs of the GPUs or MIG devices of the pod. Empty if the node no longer has them.
    pub devices: Vec<String>,
    /// Processes of the pod on these GPUs.
    pub pids: Vec<u32>,
    /// Timeline, oldest first.
    pub timeline: Vec<TimelineEntry>,
    /// Number of oldest entries that were omitted from `timeline`.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeline_omitted: usize,
}

/// Text of an explanation whose cause is not identified.
pub(crate) const NOT_IDENTIFIED: &str = "cause not identified";

impl Explanation {
    /// Returns whether there is a problem and its cause is identified. For some problems only the part of the system
    /// with the cause is known.
    pub fn is_identified(&self) -> bool {
        !matches!(self.cause, Cause::None | Cause::Unknown) && !self.summary.contains(NOT_IDENTIFIED)
    }
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// The part of the system with the cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The program in the pod, or its configuration.
    Application,
    /// The GPU of the pod, or a link of that GPU.
    Gpu,
    /// The node: driver, kernel, memory, kubelet.
    Node,
    /// The cluster: scheduling, quota, preemption, images.
    Cluster,
    /// No problem was found.
    None,
    /// The cause was not found, or a problem is not ruled out.
    #[default]
    Unknown,
}

/// Certainty of a cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// The kernel, the kubelet or the driver reported the cause for this pod, its container, its process or its GPU.
    Certain,
    /// Time and place match, and no other cause was found.
    Likely,
    /// The cause is possible. Facts that would confirm it could not be read.
    #[default]
    Possible,
}

/// One entry of the timeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TimelineEntry {
    /// Time.
    pub time: Timestamp,
    /// Source: `kubernetes` or `kernel`.
    pub source: String,
    /// The event.
    pub what: String,
}
