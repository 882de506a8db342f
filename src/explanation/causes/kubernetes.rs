//! What Kubernetes itself says: the kubelet's refusals, evictions, a node that is away, an end that was asked for.

use super::{Case, event_quote};
use crate::diagnosis::ActionCode;
use crate::explanation::{Cause, Certainty, Explanation};

pub(super) fn refused_or_evicted(case: &Case<'_>) -> Option<Explanation> {
    let reason = case.pod.reason.as_deref()?;
    let message = case.pod.message.clone().unwrap_or_default();
    let (cause, what, action) = match reason {
        "Evicted" => (
            Cause::Node,
            "its node evicted it",
            "Look at the node's disk, memory and PID pressure, then start the pod again.".to_owned(),
        ),
        "NodeLost" | "NodeShutdown" | "Terminated" => {
            (Cause::Node, "its node went away", "Look at the node; start the pod again elsewhere.".to_owned())
        }
        "NodeAffinity" => (
            Cause::Node,
            "its node's labels no longer match what it selects",
            "Compare the node's labels with the pod's selector; start the pod again.".to_owned(),
        ),
        "Preempting" | "Preempted" => (
            Cause::Cluster,
            "a pod of higher priority took its place",
            "Start it again, or raise its priority.".to_owned(),
        ),
        "DeadlineExceeded" => (
            Cause::Application,
            "it ran longer than its activeDeadlineSeconds",
            "Raise the deadline, or make it faster.".to_owned(),
        ),
        reason if reason.starts_with("OutOf") => {
            (Cause::Node, "its node had no room for it", "Start it again: the scheduler will choose anew.".to_owned())
        }
        _ => return None,
    };
    let code = if cause == Cause::Application { ActionCode::None } else { ActionCode::RestartPod };
    Some(
        case.explain(cause, Certainty::Certain, what)
            .with_evidence([format!("pod status: {reason}: {message}")])
            .with_action(code, action),
    )
}

pub(super) fn node_not_ready(case: &Case<'_>) -> Option<Explanation> {
    (case.pod.node_ready == Some(false) && case.pod.phase != "Succeeded").then(|| {
        let what = format!("its node {} is not Ready", case.node);
        case.explain(Cause::Node, Certainty::Certain, what)
            .with_evidence([format!("node {}: Ready is not True", case.node)])
            .with_action(
                ActionCode::DrainAndReboot,
                format!("Bring {} back (kubelet, network, power); the pod starts again elsewhere.", case.node),
            )
    })
}

pub(super) fn preempted_or_deleted(case: &Case<'_>) -> Option<Explanation> {
    let reasons = ["Preempted", "TaintManagerEviction", "Killing", "NodeNotReady", "Evicted"];
    let ended = case.ended().is_some_and(|end| matches!(end.exit_code, 137 | 143));
    let event = case.events(&reasons).next()?;
    let asked = event.reason != "Killing" || case.pod.deleted.is_some();
    (asked && (ended || case.pod.deleted.is_some())).then(|| {
        case.explain(Cause::Cluster, Certainty::Likely, "Kubernetes ended it on purpose")
            .with_evidence([event_quote(event)])
            .with_action(ActionCode::RestartPod, "Nothing is wrong with the GPU; see who deleted or preempted the pod.")
    })
}
