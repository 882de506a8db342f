//! `explain`: explains why a pod failed, hangs or waits, from the Kubernetes data and the report of its node.
//! Submodules: the causes, the timeline, the pod on its node, and the types.
//!
//! ```text
//!   PodFacts (Kubernetes) ─┐
//!   Report (the node)      ├─▶ on_node: its GPUs, its processes, its lifetime ─▶ causes ─▶ Explanation
//!   Diagnosis (the rules)  ┘                                                  └─▶ timeline
//! ```
//!
//! The functions are pure, like the rules of [`diagnosis`](crate). `CAUSES` in `causes/evaluate.rs` defines the order
//! of the causes. The first cause with evidence is chosen.

mod causes;
pub(crate) mod pod_on_node;
#[cfg(test)]
mod tests;
mod timeline;
pub mod types;

pub use types::{Cause, Certainty, Explanation, TimelineEntry};

use crate::finding::Diagnosis;
use pod_on_node::PodOnNode;
use syringe_core::facts::kubernetes::PodFacts;
use syringe_core::report::Report;

/// Maximum number of entries of a timeline. The newest entries are kept.
const MAX_ENTRIES: usize = 40;

/// Explains a pod. `node` is the report and diagnosis of its node. It is `None` if the pod has no node, or if the node
/// could not be read (`unread_reason`).
pub fn explain(pod: &PodFacts, node: Option<(&Report, &Diagnosis)>, unread_reason: Option<&str>) -> Explanation {
    let on_node = node.map(|(report, _)| PodOnNode::of_one(pod, report)).unwrap_or_default();
    let mut explanation = causes::evaluate::first_cause(pod, &on_node, node, unread_reason);
    let entries = timeline::of(pod, &on_node);
    explanation.timeline_omitted = entries.len().saturating_sub(MAX_ENTRIES);
    explanation.timeline = entries.into_iter().skip(explanation.timeline_omitted).collect();
    explanation.devices = on_node.devices;
    explanation.pids = on_node.pids;
    explanation
}
