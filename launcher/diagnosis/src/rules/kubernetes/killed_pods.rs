//! `check`: finds containers of NVIDIA's software that are killed repeatedly because of their memory limit.

use crate::evidence;
use crate::input::node::Node;
use crate::input::stack::pods;
use crate::rule::{Draft, rules};
use crate::rules::kubernetes::stack_log::MORE_MEMORY;
use jiff::SignedDuration;
use syringe_core::classification::ActionCode;
use syringe_core::facts::kubernetes::node::{NvidiaContainer, NvidiaPod};

rules! {
    about Workload;
    KILLED: "nvidia-pod-out-of-memory" Warning Application None, "A container of NVIDIA's software is killed repeatedly because of its memory limit",
        FixLimits "Raise the memory limit of the container in the evidence.",
        means "A container of NVIDIA's software (the exporter, feature discovery or another part) is killed again and \
            again, because it uses more memory than its limit (OOMKilled). Its metrics or labels are missing. The \
            GPUs are not affected.",
        reads "kubernetes.nvidia_pods";
}

/// Minimum number of restarts. With fewer restarts, the container may have had one large request.
const OFTEN: u32 = 3;

/// If a container has been running for longer than this, it has enough memory now.
const SETTLED: SignedDuration = SignedDuration::from_hours(6);

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let all = node.kubernetes.nvidia_pods.iter().flatten().filter(|pod| !pod.deleting && pod.phase != "Succeeded");
    // The finding about the first broken stage already gives this reason.
    let broken = node.stack.broken.as_ref().map(|broken| broken.failing_pod.pod.uid.as_str());
    let others = all.filter(|pod| broken != Some(pod.uid.as_str()));
    others.flat_map(|pod| pod.containers.iter().filter_map(|container| killed(node, pod, container))).collect()
}

fn killed(node: &Node<'_>, pod: &NvidiaPod, container: &NvidiaContainer) -> Option<Draft> {
    let runs_since = container.state.since.filter(|_| container.ready);
    let runs = pods::now(node).zip(runs_since).is_some_and(|(now, since)| now.duration_since(since) > SETTLED);
    if container.restarts < OFTEN || runs || !pods::is_out_of_memory(container) {
        return None;
    }
    let line = format!(
        "pod {}: container {} has {} restarts; its last end: OOMKilled",
        pods::name(pod),
        evidence::name(&container.name),
        container.restarts
    );
    let mut draft = Draft::on_node(KILLED).with_evidence(line);
    draft.scope.pod_uid = (!pod.uid.is_empty()).then(|| pod.uid.clone());
    Some(draft.with_action(ActionCode::FixLimits, MORE_MEMORY))
}
