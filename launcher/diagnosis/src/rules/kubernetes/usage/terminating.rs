//! `check`: finds terminating pods whose GPUs the scheduler counts as used, although the grace period ended long ago.

use jiff::SignedDuration;

use crate::evidence;
use crate::input::node::Node;
use crate::input::stack::pods;
use crate::rule::Draft;
use crate::rules::kubernetes::usage::rules::STAYS_TERMINATING;
use syringe_core::facts::kubernetes::gpu_pod::GpuPod;

/// A pod that still exists this long after its grace period does not end without help.
const LONG_TERMINATING: SignedDuration = SignedDuration::from_mins(30);
/// Maximum number of pods in the evidence.
const NAMED: usize = 4;

pub(super) fn check(node: &Node<'_>) -> Option<Draft> {
    let now = pods::time_of_api(node)?;
    let of = |pod: &GpuPod| {
        let gpus: u64 = pod.containers.iter().flat_map(|container| container.requests.values()).sum();
        let late = now.duration_since(pod.deletion_due?);
        let age = evidence::span(late);
        let name = evidence::name(&pod.full_name());
        (late >= LONG_TERMINATING && gpus > 0)
            .then(|| format!("pod {name} with {gpus} GPUs: its grace period ended {age} ago, and it still exists"))
    };
    let lines: Vec<String> = node.kubernetes.gpu_pods.iter().flatten().filter_map(of).collect();
    let more = lines.len().checked_sub(NAMED).filter(|more| *more > 0).map(|more| format!("and {more} more"));
    (!lines.is_empty())
        .then(|| Draft::on_node(STAYS_TERMINATING).with_all_evidence(lines.into_iter().take(NAMED).chain(more)))
}
