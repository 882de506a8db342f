//! Why a pod failed, hangs or waits: what Kubernetes says and what the node says, put into one order of time.
//!
//! ```text
//!   PodFacts (Kubernetes) ─┐
//!   Report (the node)      ├─▶ footprint: its GPUs, its processes, its lifetime ─▶ causes ─▶ Explanation
//!   Diagnosis (the rules)  ┘                                                  └─▶ timeline
//! ```
//!
//! Pure, like the rules of [`diagnosis`](crate::diagnosis). The first cause that has evidence wins, in the order of
//! [`causes`]: what Kubernetes saw itself, then the GPU, then the driver and the node, and the program last, since a
//! program that dies is what every other cause looks like from outside.

mod causes;
mod facts;
mod footprint;
#[cfg(test)]
mod tests;
mod timeline;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use facts::{ContainerFacts, ContainerState, End, PodEvent, PodFacts, Preemption, Room};

use crate::diagnosis::{Action, Diagnosis};
use crate::report::Report;
use footprint::Footprint;

/// Moments in one timeline; the newest are kept.
const MOST_MOMENTS: usize = 40;

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

/// Explains a pod. `node` is what its node says; `None` where it has none or could not be read (`why_not`).
pub fn explain(pod: &PodFacts, node: Option<(&Report, &Diagnosis)>, why_not: Option<&str>) -> Explanation {
    let footprint = Footprint::of(pod, node.map(|(report, _)| report));
    let mut explanation = causes::first(pod, &footprint, node, why_not);
    let moments = timeline::of(pod, &footprint);
    explanation.timeline_omitted = moments.len().saturating_sub(MOST_MOMENTS);
    explanation.timeline = moments.into_iter().skip(explanation.timeline_omitted).collect();
    explanation.devices = footprint.devices;
    explanation.pids = footprint.pids;
    explanation
}
