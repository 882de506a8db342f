//! The shape of an explanation: the cause, how sure it is, the evidence, and what happened when.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::diagnosis::Action;

/// Why a pod is as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Explanation {
    /// Where the cause lies.
    pub cause: Cause,
    /// How sure that is.
    pub certainty: Certainty,
    /// In a sentence.
    pub summary: String,
    /// What speaks for it.
    pub evidence: Vec<String>,
    /// What was looked at and speaks for nothing else: why the other causes were not chosen.
    pub ruled_out: Vec<String>,
    /// The one thing to do.
    pub action: Action,
    /// UUIDs of the GPUs or MIG devices that the pod held, as far as the node still knows.
    pub devices: Vec<String>,
    /// Its processes on those GPUs that still exist.
    pub pids: Vec<u32>,
    /// What happened, oldest first.
    pub timeline: Vec<Moment>,
    /// Moments left out of `timeline`, the oldest.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeline_omitted: usize,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Where the cause lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The program in the pod, or its settings.
    Application,
    /// The GPU that it had, or the link of that GPU.
    Gpu,
    /// The node: driver, kernel, memory, kubelet.
    Node,
    /// The cluster: scheduling, quota, preemption, images.
    Cluster,
    /// Nothing is wrong with it.
    None,
    /// The facts do not suffice.
    #[default]
    Unknown,
}

/// How sure a cause is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// Somebody who knows said so: the kernel, the kubelet, the driver about this pod's GPU.
    Certain,
    /// It fits in time and place, and nothing else does.
    Likely,
    /// It may be; something that would tell could not be read.
    #[default]
    Possible,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Moment {
    /// When.
    pub time: Timestamp,
    /// Who says so: `kubernetes` or `kernel`.
    pub source: String,
    /// What.
    pub what: String,
}
