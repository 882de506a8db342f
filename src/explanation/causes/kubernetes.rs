//! What Kubernetes itself says: the scheduler, the kubelet's refusals, a node that is away, an end that was asked for.

use super::Case;
use crate::diagnosis::ActionCode;
use crate::explanation::{Cause, Certainty, ContainerState, Explanation};

pub(super) fn waiting_for_a_node(case: &Case<'_>) -> Option<Explanation> {
    let waits = case.pod.phase == "Pending" && case.pod.node.is_none();
    let why = case.pod.message.clone().unwrap_or_else(|| "the scheduler has not said why".into());
    waits.then(|| {
        case.say(Cause::Cluster, Certainty::Certain, "no node can take it yet")
            .because([format!("scheduler: {why}")])
            .so(ActionCode::Watch, "See what stands against each GPU node; free GPUs, or change what the pod asks for.")
    })
}

pub(super) fn refused_or_evicted(case: &Case<'_>) -> Option<Explanation> {
    let reason = case.pod.reason.as_deref()?;
    let message = case.pod.message.clone().unwrap_or_default();
    let (cause, what, action) = match reason {
        "Evicted" => (
            Cause::Node,
            "its node evicted it",
            "Look at the node's disk, memory and PID pressure, then start the pod again.",
        ),
        "UnexpectedAdmissionError" => (
            Cause::Node,
            "the kubelet could not give it its devices",
            "Look at the device plugin on the node, then start the pod again.",
        ),
        "NodeLost" | "NodeShutdown" | "Terminated" => {
            (Cause::Node, "its node went away", "Look at the node; start the pod again elsewhere.")
        }
        "Preempting" | "Preempted" => {
            (Cause::Cluster, "a pod of higher priority took its place", "Start it again, or raise its priority.")
        }
        "DeadlineExceeded" => (
            Cause::Application,
            "it ran longer than its activeDeadlineSeconds",
            "Raise the deadline, or make it faster.",
        ),
        reason if reason.starts_with("OutOf") => {
            (Cause::Node, "its node had no room for it", "Start it again: the scheduler will choose anew.")
        }
        _ => return None,
    };
    let code = if cause == Cause::Application { ActionCode::None } else { ActionCode::RestartPod };
    Some(
        case.say(cause, Certainty::Certain, what)
            .because([format!("pod status: {reason}: {message}")])
            .so(code, action),
    )
}

pub(super) fn node_away(case: &Case<'_>) -> Option<Explanation> {
    (case.pod.node_ready == Some(false) && case.pod.phase != "Succeeded").then(|| {
        let what = format!("its node {} is not Ready", case.node);
        case.say(Cause::Node, Certainty::Certain, what).because([format!("node {}: Ready is not True", case.node)]).so(
            ActionCode::DrainAndReboot,
            format!("Bring {} back (kubelet, network, power); the pod starts again elsewhere.", case.node),
        )
    })
}

pub(super) fn cannot_start(case: &Case<'_>) -> Option<Explanation> {
    let (name, reason, message) = case.pod.containers.iter().find_map(|container| match &container.state {
        ContainerState::Waiting { reason, message } => {
            Some((container.name.as_str(), reason.as_str(), message.as_str()))
        }
        _ => None,
    })?;
    let (cause, what) = match reason {
        "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => {
            (Cause::Application, format!("the image of container {name} cannot be pulled"))
        }
        "CreateContainerConfigError" => {
            (Cause::Application, format!("container {name} refers to a secret or config map that is not there"))
        }
        "CreateContainerError" | "RunContainerError" => {
            (Cause::Node, format!("the container runtime cannot start container {name}"))
        }
        _ => return None,
    };
    Some(
        case.say(cause, Certainty::Certain, what)
            .because([format!("container {name}: {reason}: {message}")])
            .so(ActionCode::None, "Correct what the message names; nothing is wrong with the GPU."),
    )
}

pub(super) fn preempted_or_deleted(case: &Case<'_>) -> Option<Explanation> {
    let reasons = ["Preempted", "TaintManagerEviction", "Killing", "NodeNotReady", "Evicted"];
    let ended = case.ended().is_some_and(|(_, code, ..)| matches!(code, 137 | 143));
    let event =
        case.pod.events.iter().rev().find(|event| reasons.contains(&event.reason.as_str()) && !event.is_ours())?;
    let asked = event.reason != "Killing" || case.pod.deleted.is_some();
    (asked && (ended || case.pod.deleted.is_some())).then(|| {
        case.say(Cause::Cluster, Certainty::Likely, "Kubernetes ended it on purpose")
            .because([format!("event {}: {}", event.reason, event.message)])
            .so(ActionCode::RestartPod, "Nothing is wrong with the GPU; see who deleted or preempted the pod.")
    })
}
