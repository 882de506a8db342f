//! `of_node`, `of_pod`, `of_events`: create the timeline entries of a node from Kubernetes: conditions, pods with GPUs,
//! and events. `is_shown`: whether a pod is in the timeline.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube_read::objects::api_objects::meta::Time;
use kube_read::objects::api_objects::pod_status::{ContainerStatus, Running, Terminated};
use kube_read::objects::gpu_pod::Pod;
use kube_read::objects::node_conditions;
use kube_read::objects::pod_rows;
use kube_read::reads::events::ObjectEvent;
use syringe_core::classification::Severity;
use syringe_core::facts::kubernetes::lifecycle::NodeConditionFact;
use syringe_core::text::{clean, clean_keeping_end};

use super::entry::{Entry, EntryKind, Lane, NODE_LANE, Run};

/// Maximum length of a message.
const MAX_MESSAGE: usize = 400;

/// Reasons of normal pod events in the timeline. Other normal events repeat the states of the containers.
const POD_REASONS: [&str; 5] = ["Killing", "Preempted", "Evicted", "TaintManagerEviction", "NodeNotReady"];
/// Reasons of normal node events that report a fault.
const NODE_FAULTS: [&str; 2] = ["NodeNotReady", "Rebooted"];

/// Returns an entry for each current condition of a node, at the time of its last change.
pub(super) fn of_node(name: &str, node: &Node) -> Vec<Entry> {
    let of_gpus = node_conditions::unhealthy_gpu_conditions(node);
    let mut facts: Vec<NodeConditionFact> = of_gpus.map(node_conditions::condition_fact).collect();
    facts.extend(node_conditions::unhealthy_conditions(node));
    let is_ready = node_conditions::is_ready(node);
    let ready = node_conditions::ready_since(node).filter(|_| is_ready).map(|since| {
        Entry::new(
            since,
            name,
            NODE_LANE,
            EntryKind::NodeEvent,
            Severity::Info,
            "condition Ready has been True since then",
        )
    });
    let unhealthy =
        facts.into_iter().filter_map(|NodeConditionFact { name: condition, status, reason, message, since }| {
            let what = format!("condition {condition} has been {status} since then ({reason})");
            let entry = Entry::new(since?, name, NODE_LANE, EntryKind::NodeEvent, Severity::Warning, what);
            Some(Entry { text: Some(message).filter(|text| !text.is_empty()), ..entry })
        });
    unhealthy.chain(ready).collect()
}

/// Returns whether a pod is in the timeline: pods with GPUs, and pods of NVIDIA's software.
pub(super) fn is_shown(pod: &Pod) -> bool {
    pod.nvidia.is_some() || !pod.spec.resource_claims.is_empty() || pod_rows::row(pod, None).is_some()
}

pub(super) fn full_name(pod: &Pod) -> String {
    clean(&format!("{}/{}", pod.metadata.namespace, pod.metadata.name), 320)
}

/// Returns the entries of a pod, and the times in which its containers ran. The API keeps only the last two runs of
/// each container.
pub(super) fn of_pod(node: &str, pod: &Pod) -> (Vec<Entry>, Lane) {
    let lane = format!("pod {}", full_name(pod));
    let (mut entries, mut runs) = (Vec::new(), Vec::new());
    let mut add = |at: Timestamp, kind, severity, what: String, text: &str| {
        let text = Some(clean_keeping_end(text, MAX_MESSAGE)).filter(|text| !text.is_empty());
        entries.push(Entry { text, ..Entry::new(at, node, &lane, kind, severity, what) });
    };
    let status = &pod.status;
    if let Some(created) = pod.metadata.created {
        let failed = (status.phase == "Failed").then(|| format!("; the pod failed: {}", clean(&status.reason, 80)));
        let what = format!("the pod was created{}", failed.filter(|_| !status.reason.is_empty()).unwrap_or_default());
        add(created, EntryKind::PodCreated, Severity::Info, what, &status.message);
    }
    let time = |time: Option<Time>| time.and_then(Time::timestamp);
    for ContainerStatus { name, state, last_state, restart_count, .. } in pod_rows::statuses(pod) {
        let name = clean(name, 80);
        let mut started = |at: Timestamp, is_last: bool| {
            let restarts = if is_last { *restart_count } else { restart_count - 1 };
            let what = match restarts {
                ..1 => format!("container {name} started"),
                restarts => format!("container {name} started again (restart {restarts})"),
            };
            add(at, EntryKind::PodStarted, if restarts < 1 { Severity::Info } else { Severity::Warning }, what, "");
        };
        let ended = [(&last_state.terminated, false), (&state.terminated, true)];
        let mut ends = Vec::new();
        for (end, is_last) in ended {
            let Some(Terminated { exit_code, reason, message, started_at, finished_at }) = end else { continue };
            let (from, to) = (time(*started_at), time(*finished_at));
            from.into_iter().for_each(|from| started(from, is_last));
            runs.extend(from.zip(to).map(|(from, to)| Run { from, to: Some(to) }));
            ends.extend(to.map(|to| (to, *exit_code, reason, message)));
        }
        if let Some(from) = state.running.as_ref().and_then(|Running { started_at }| time(*started_at)) {
            started(from, true);
            runs.push(Run { from, to: None });
        }
        for (to, exit_code, reason, message) in ends {
            let severity = if exit_code == 0 { Severity::Info } else { Severity::Warning };
            let what = format!("container {name} ended: {}, exit code {exit_code}", clean(reason, 80));
            add(to, EntryKind::PodEnded, severity, what, message);
        }
    }
    (entries, Lane { name: lane, gpus: Vec::new(), runs })
}

/// Returns the events of a node and of its pods. `shown`, `others`: the names of its pods. For a pod that no longer
/// exists, only a warning from the kubelet of the node counts.
pub(super) fn of_events(
    node: &str,
    events: &[ObjectEvent],
    shown: &BTreeSet<String>,
    others: &BTreeSet<String>,
) -> Vec<Entry> {
    let entry = |ObjectEvent { kind, object, host, event }: &ObjectEvent| {
        let is_warning = event.severity == "Warning";
        let reason = event.reason.as_str();
        let (lane, kind, is_fault) = match *kind {
            "Node" => (NODE_LANE.to_owned(), EntryKind::NodeEvent, is_warning || NODE_FAULTS.contains(&reason)),
            _ => (format!("pod {object}"), EntryKind::PodEvent, is_warning),
        };
        let severity = if is_fault { Severity::Warning } else { Severity::Info };
        let is_deleted = || host.as_deref() == Some(node) && is_warning && !others.contains(object);
        let is_of_pod = || (is_warning || POD_REASONS.contains(&reason)) && shown.contains(object) || is_deleted();
        let is_wanted = if kind == EntryKind::NodeEvent { object == node } else { is_of_pod() };
        let at = event.last.filter(|_| is_wanted)?;
        let count = Some(u64::from(event.count)).filter(|count| *count > 1);
        let text = Some(clean(&event.message, MAX_MESSAGE)).filter(|text| !text.is_empty());
        Some(Entry { text, count, ..Entry::new(at, node, &lane, kind, severity, format!("event {reason}")) })
    };
    events.iter().filter_map(entry).collect()
}
