//! Causes that Kubernetes reports: refused and evicted pods, nodes that are not Ready, preempted and deleted pods.

use crate::explanation::causes::{Case, event_quote};
use crate::explanation::types::{Cause, Certainty, Explanation};
use syringe_core::classification::ActionCode;

pub(crate) fn refused_or_evicted(case: &Case<'_>) -> Option<Explanation> {
    let reason = case.pod.reason.as_deref()?;
    let message = case.pod.message.clone().unwrap_or_default();
    let (cause, what, action) = match reason {
        "Evicted" => (
            Cause::Node,
            "its node evicted it",
            "Check the node's disk, memory and PID pressure, then recreate the pod.".to_owned(),
        ),
        "NodeLost" | "NodeShutdown" | "Terminated" => (
            Cause::Node,
            "its node was shut down or lost",
            "Check the node; recreate the pod on another node.".to_owned(),
        ),
        "NodeAffinity" => (
            Cause::Node,
            "its node's labels no longer match its node selector",
            "Compare the node's labels with the pod's node selector; recreate the pod.".to_owned(),
        ),
        "Preempting" | "Preempted" => (
            Cause::Cluster,
            "a pod of higher priority preempted it",
            "Recreate the pod, or raise its priority.".to_owned(),
        ),
        "DeadlineExceeded" => (
            Cause::Application,
            "it ran longer than its activeDeadlineSeconds",
            "Raise the deadline, or reduce the run time.".to_owned(),
        ),
        reason if reason.starts_with("OutOf") => (
            Cause::Node,
            "its node had too few resources for it",
            "Recreate the pod: the scheduler will choose a node again.".to_owned(),
        ),
        _ => return None,
    };
    let code = if cause == Cause::Application { ActionCode::None } else { ActionCode::RestartPod };
    Some(
        case.explain(cause, Certainty::Certain, what)
            .with_evidence([format!("pod status: {reason}: {message}")])
            .with_action(code, action),
    )
}

pub(crate) fn node_not_ready(case: &Case<'_>) -> Option<Explanation> {
    (case.pod.node_ready == Some(false) && case.pod.phase != "Succeeded").then(|| {
        let what = format!("its node {} is not Ready", case.node);
        case.explain(Cause::Node, Certainty::Certain, what)
            .with_evidence([format!("node {}: Ready is not True", case.node)])
            .with_action(
                ActionCode::DrainAndReboot,
                format!(
                    "Repair {} (kubelet, network, power). The controller recreates the pod on another node.",
                    case.node
                ),
            )
    })
}

pub(crate) fn preempted_or_deleted(case: &Case<'_>) -> Option<Explanation> {
    let reasons = ["Preempted", "TaintManagerEviction", "Killing", "NodeNotReady", "Evicted"];
    let ended = case.ended().is_some_and(|end| matches!(end.exit_code, 137 | 143));
    let event = case.events(&reasons).next()?;
    let asked = event.reason != "Killing" || case.pod.deleted.is_some();
    (asked && (ended || case.pod.deleted.is_some())).then(|| {
        case.explain(Cause::Cluster, Certainty::Likely, "Kubernetes terminated it on request")
            .with_evidence([event_quote(event)])
            .with_action(
                ActionCode::RestartPod,
                "This is not a GPU problem. Find out what deleted or preempted the pod.",
            )
    })
}
