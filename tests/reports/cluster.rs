//! Functions that create clusters for the cases: the node `gpu-1` with the facts of a scenario, pods and events.
#![allow(dead_code, reason = "each case uses only some of the functions")]

use demo_cluster::{Fixture, NodeFixture, pods_of_facts};
use k8s_openapi::api::core::v1::{Event, Pod};
use serde_json::{Value, json};
use syringe_core::report::{Report, Section};

/// Namespace of the pods in the calls.
pub(crate) const NAMESPACE: &str = "research";

/// Returns the facts of a scenario.
pub(crate) fn facts(scenario: &str) -> Report {
    scenarios::named(scenario).unwrap_or_else(|| panic!("there is no scenario {scenario}")).report()
}

/// Returns the data of a section for changes: `section(&mut report.sections.host)`.
pub(crate) fn section<T>(section: &mut Option<Section<T>>) -> &mut T {
    section.as_mut().and_then(|section| section.data.as_mut()).expect("the section was read")
}

/// Returns the node `gpu-1` with these facts, and with the labels and capacity that NVIDIA's operator sets.
pub(crate) fn node(facts: Report) -> NodeFixture {
    NodeFixture::from_facts("gpu-1", facts)
}

/// Returns a cluster that consists of this node, with the pods that have allocations of the kubelet or other GPU
/// processes.
pub(crate) fn cluster(node: NodeFixture) -> Fixture {
    let pods = pods_of_facts(&node);
    Fixture { pods, ..Fixture::of([node]) }
}

/// Returns a cluster with one node, `gpu-1`, that has the facts of this scenario.
pub(crate) fn scenario(name: &str) -> Fixture {
    cluster(node(facts(name)))
}

/// Returns a cluster with one node, `gpu-1`, that has the facts of this scenario after a change.
pub(crate) fn changed(name: &str, change: impl FnOnce(&mut Report)) -> Fixture {
    let mut facts = facts(name);
    change(&mut facts);
    cluster(node(facts))
}

/// Returns a timestamp. Scenarios are read at 2026-11-21T02:41:38Z or some minutes later.
pub(crate) fn at(time: &str) -> String {
    format!("2026-11-21T{time}Z")
}

/// Returns a pod on `gpu-1` that requests this number of GPUs and has this status.
pub(crate) fn pod(name: &str, gpus: u32, status: Value) -> Pod {
    let limits = if gpus > 0 { json!({"nvidia.com/gpu": gpus.to_string()}) } else { json!({}) };
    from_json(json!({
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": format!("uid-{name}"), "creationTimestamp": at("02:00:00")},
        "spec": {"nodeName": "gpu-1", "containers": [{"name": "main", "image": "registry.example/train:1",
            "resources": {"limits": limits.clone(), "requests": limits}}]},
        "status": status,
    }))
}

/// Returns the status of a pod in this phase whose container `main` is in this state.
pub(crate) fn status(phase: &str, state: Value) -> Value {
    json!({
        "phase": phase,
        "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": at("02:00:01")}],
        "containerStatuses": [{"name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}],
    })
}

/// Returns a warning event of a pod in [`NAMESPACE`].
pub(crate) fn event(pod: &str, reason: &str, message: &str) -> Event {
    from_json(json!({
        "metadata": {"name": format!("{pod}.{reason}").to_lowercase(), "namespace": NAMESPACE},
        "involvedObject": {"kind": "Pod", "name": pod, "namespace": NAMESPACE, "uid": format!("uid-{pod}")},
        "type": "Warning", "reason": reason, "message": message, "count": 3, "lastTimestamp": at("02:29:40"),
    }))
}

/// Parses an object of the API.
pub(crate) fn from_json<T: serde::de::DeserializeOwned>(object: Value) -> T {
    let text = object.to_string();
    serde_json::from_value(object).unwrap_or_else(|error| panic!("{error}: {text}"))
}
