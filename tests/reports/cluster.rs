//! Clusters for the cases: the node `gpu-1` in the state of a facts file, with changes, and pods as JSON.
#![allow(dead_code, reason = "each case takes what it needs")]

use demo_cluster::{Fixture, NodeFixture, workload_pod, workloads_of};
use k8s_openapi::api::core::v1::{Event, Pod};
use serde_json::{Value, json};
use syringe_core::report::{Report, Section};

/// Namespace of pods that are asked about.
pub(crate) const NAMESPACE: &str = "research";

/// The facts of a scenario.
pub(crate) fn facts(scenario: &str) -> Report {
    scenarios::named(scenario).unwrap_or_else(|| panic!("no scenario {scenario}")).report()
}

/// The data of a section, to change it: `section(&mut report.sections.host)`.
pub(crate) fn section<T>(section: &mut Option<Section<T>>) -> &mut T {
    section.as_mut().and_then(|section| section.data.as_mut()).expect("the section was read")
}

/// The node `gpu-1` with these facts, and with the labels and the capacity that NVIDIA's operator gives it.
pub(crate) fn node(facts: Report) -> NodeFixture {
    NodeFixture::from_facts("gpu-1", facts)
}

/// A cluster of this node, with the pods that its kubelet has booked, and those of processes that it has not booked.
pub(crate) fn cluster(node: NodeFixture) -> Fixture {
    let mut pods = workloads_of(&node);
    let processes = Section::data_of(&node.facts.sections.processes).into_iter().flat_map(|all| &all.processes);
    for uid in processes.filter_map(|process| process.pod_uid.as_ref()) {
        if pods.iter().all(|pod| pod.metadata.uid.as_ref() != Some(uid)) {
            let mut pod = workload_pod("workloads", &format!("pod-{}", &uid[..8]), &node.name, 0);
            pod.metadata.uid = Some(uid.clone());
            pods.push(pod);
        }
    }
    Fixture { pods, ..Fixture::of([node]) }
}

/// A cluster of the node `gpu-1` in this scenario.
pub(crate) fn scenario(name: &str) -> Fixture {
    cluster(node(facts(name)))
}

/// A cluster of the node `gpu-1` in this scenario, its facts changed.
pub(crate) fn changed(name: &str, change: impl FnOnce(&mut Report)) -> Fixture {
    let mut facts = facts(name);
    change(&mut facts);
    cluster(node(facts))
}

/// Scenarios are read at 2026-11-21T02:41:38Z or some minutes later.
pub(crate) fn at(time: &str) -> String {
    format!("2026-11-21T{time}Z")
}

/// A pod on `gpu-1` that asks for so many GPUs, with this status.
pub(crate) fn pod(name: &str, gpus: u32, status: Value) -> Pod {
    let limits = if gpus > 0 { json!({"nvidia.com/gpu": gpus.to_string()}) } else { json!({}) };
    from_json(json!({
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": format!("uid-{name}"), "creationTimestamp": at("02:00:00")},
        "spec": {"nodeName": "gpu-1", "containers": [{"name": "main", "image": "registry.example/train:1",
            "resources": {"limits": limits.clone(), "requests": limits}}]},
        "status": status,
    }))
}

/// The status of a pod of this phase whose container `main` is in this state.
pub(crate) fn status(phase: &str, state: Value) -> Value {
    json!({
        "phase": phase,
        "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": at("02:00:01")}],
        "containerStatuses": [{"name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}],
    })
}

/// A warning event of a pod of [`NAMESPACE`].
pub(crate) fn event(pod: &str, reason: &str, message: &str) -> Event {
    from_json(json!({
        "metadata": {"name": format!("{pod}.{reason}").to_lowercase(), "namespace": NAMESPACE},
        "involvedObject": {"kind": "Pod", "name": pod, "namespace": NAMESPACE, "uid": format!("uid-{pod}")},
        "type": "Warning", "reason": reason, "message": message, "count": 3, "lastTimestamp": at("02:29:40"),
    }))
}

/// An object of the API.
pub(crate) fn from_json<T: serde::de::DeserializeOwned>(object: Value) -> T {
    let text = object.to_string();
    serde_json::from_value(object).unwrap_or_else(|error| panic!("{error}: {text}"))
}
