//! The fixture of the pod snapshots: a healthy node, and pods with one problem each, as the Kubernetes API shows it.

use demo_cluster::{Fixture, workloads_of};
use k8s_openapi::api::core::v1::{Event, Pod};
use serde_json::{Value, json};

use crate::bed::node;

/// Namespace of the pods.
pub(crate) const NAMESPACE: &str = "research";
/// Names of the pods.
pub(crate) const NAMES: [&str; 19] = [
    "liveness",
    "start-error",
    "crash-loop",
    "sigkill",
    "not-ready",
    "no-device",
    "sandbox",
    "memory",
    "no-claim",
    "gate",
    "other-vendor",
    "topology",
    "cdi",
    "claim",
    "uncreatable",
    "books",
    "plugin-late",
    "too-many",
    "train-x7k2p",
];

const HOOK: &str = "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create \
    failed: unable to start container process: error during container init: error running prestart hook #0: exit status 1, \
    stdout: , stderr: Auto-detected mode as 'legacy' nvidia-container-cli: requirement error: unsatisfied condition: \
    cuda>=13.2, please update your driver to a newer version, or use an earlier cuda container: unknown";

const CDI: &str = "failed to create containerd container: CDI device injection failed: unresolvable CDI devices \
    nvidia.com/gpu=GPU-604ee4a2-e4dc-4216-a2e4-52f1d2a3ca38";

const CLAIM: &str = "Failed to prepare dynamic resources: NodePrepareResources failed for ResourceClaim claim-gpu-x7k2p: error \
    preparing devices for claim research/claim-gpu-x7k2p: requested device channel-0 is already allocated to different claim \
    4914da61-1a20-42b3-bf26-981025df4289";

const BOOKS: &str =
    "requested number of devices unavailable for nvidia.com/gpu. Requested: 1, Available: 0, which is unexpected";

const UNHEALTHY: &str =
    "no healthy devices present; cannot allocate unhealthy devices nvidia.com/gpu, which is unexpected";

/// Returns the event of a Job that could not create a pod because of a quota.
fn quota() -> Event {
    serde_json::from_value(json!({
        "metadata": {"name": "train.quota", "namespace": NAMESPACE},
        "involvedObject": {"apiVersion": "batch/v1", "kind": "Job", "name": "train", "namespace": NAMESPACE, "uid": "uid-train"},
        "type": "Warning", "reason": "FailedCreate", "count": null, "lastTimestamp": at("02:29:40"),
        "message": "Error creating: pods \"train-x7k2p\" is forbidden: exceeded quota: gpus, requested: \
            requests.nvidia.com/gpu=4, used: requests.nvidia.com/gpu=6, limited: requests.nvidia.com/gpu=8",
    }))
    .unwrap()
}

fn at(time: &str) -> String {
    format!("2026-11-21T{time}Z")
}

/// Returns the state of a terminated container. If `started` is `None`, the start time is in 1970, as the API returns
/// it.
fn ended(code: i32, reason: &str, message: &str, started: Option<&str>) -> Value {
    let started = started.map_or("1970-01-01T00:00:00Z".to_owned(), at);
    json!({"terminated": {"exitCode": code, "reason": reason, "message": message, "startedAt": started,
        "finishedAt": at("02:30:00")}})
}

fn status(state: Value, last: Value, restarts: i32) -> Value {
    json!([{"name": "main", "image": "", "imageID": "", "ready": false, "restartCount": restarts, "state": state,
        "lastState": last}])
}

fn pod(name: &str, on_node: bool, resources: Value, status: Value) -> Pod {
    let mut spec = json!({"containers": [{"name": "main", "image": "registry.example/train:1",
        "resources": {"limits": resources.clone(), "requests": resources}}]});
    if on_node {
        spec["nodeName"] = json!("gpu-1");
    }
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": format!("uid-{name}"), "creationTimestamp": at("02:00:00")},
        "spec": spec,
        "status": status,
    }))
    .unwrap()
}

fn event(pod: &str, number: usize, reason: &str, message: &str, count: i32) -> Event {
    serde_json::from_value(json!({
        "metadata": {"name": format!("{pod}.{number}"), "namespace": NAMESPACE},
        "involvedObject": {"kind": "Pod", "name": pod, "namespace": NAMESPACE, "uid": format!("uid-{pod}"),
            "fieldPath": "spec.containers{main}"},
        "type": "Warning", "reason": reason, "message": message, "count": count, "lastTimestamp": at("02:29:40"),
    }))
    .unwrap()
}

fn conditions(ready: bool) -> Value {
    let mut ready = json!({"type": "Ready", "status": if ready { "True" } else { "False" }});
    if ready["status"] == "False" {
        ready["reason"] = json!("ContainersNotReady");
        ready["message"] = json!("containers with unready status: [main]");
    }
    json!([{"type": "PodScheduled", "status": "True", "lastTransitionTime": at("02:00:01")}, ready])
}

fn unschedulable(message: &str) -> Value {
    json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]})
}

/// Returns a cluster with a healthy node and the pods.
pub(crate) fn fixture() -> Fixture {
    let gpu = || json!({"nvidia.com/gpu": "1"});
    let running = json!({"running": {"startedAt": at("02:00:05")}});
    let started = Some("02:00:05");
    let on = |name: &str, phase: &str, containers: Value| {
        pod(
            name,
            true,
            gpu(),
            json!({"phase": phase, "conditions": conditions(false), "containerStatuses": containers}),
        )
    };
    let loops =
        json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting failed container"}});
    let creating = json!({"waiting": {"reason": "ContainerCreating"}});
    let again = json!({"running": {"startedAt": at("02:30:02")}});
    let mut no_device = on("no-device", "Running", status(running.clone(), Value::Null, 0));
    no_device.status.as_mut().unwrap().conditions = serde_json::from_value(conditions(true)).unwrap();
    // The pod does not request a GPU. Its only problem is the failed readiness probe.
    let mut not_ready = on("not-ready", "Running", status(running, Value::Null, 0));
    not_ready.spec.as_mut().unwrap().containers[0].resources = None;
    let refused = |reason: &str, message: &str| {
        let message = format!("Pod was rejected: {message}");
        json!({"phase": "Failed", "reason": reason, "startTime": at("02:00:01"), "message": message})
    };
    let refused_device =
        |message: &str| refused("UnexpectedAdmissionError", &format!("Allocate failed due to {message}"));
    let topology = refused("TopologyAffinityError", "Resources cannot be allocated with Topology locality");
    let cdi = json!({"waiting": {"reason": "CreateContainerError", "message": CDI}});
    let mut uncreatable = on("uncreatable", "Running", status(loops.clone(), ended(1, "Error", "", started), 2));
    uncreatable.spec.as_mut().unwrap().runtime_class_name = Some("nvidia".into());
    let pods = vec![
        on("liveness", "Running", status(again, ended(137, "Error", "", started), 1)),
        on("start-error", "Running", status(loops.clone(), ended(128, "StartError", HOOK, None), 6)),
        on("crash-loop", "Running", status(loops.clone(), ended(1, "Error", "", started), 6)),
        on("sigkill", "Failed", status(ended(137, "Error", "", started), Value::Null, 0)),
        not_ready,
        no_device,
        on("sandbox", "Pending", status(creating.clone(), Value::Null, 0)),
        pod("topology", true, json!({"nvidia.com/gpu": "4"}), topology),
        on("cdi", "Pending", status(cdi, Value::Null, 0)),
        on("claim", "Pending", status(creating, Value::Null, 0)),
        uncreatable,
        pod("books", true, gpu(), refused_device(BOOKS)),
        pod("plugin-late", true, gpu(), refused_device(UNHEALTHY)),
    ];
    let mut cordoned = node("gpu-2", "l40s-4-idle");
    cordoned.unschedulable = true;
    let node = node("gpu-1", "healthy-h100-8");
    let pods = workloads_of(&node).into_iter().chain(pods).chain(waiting()).collect();
    Fixture { pods, events: events(), ..Fixture::of([node, cordoned]) }
}

/// Returns the events of the kubelet and of controllers about the pods.
fn events() -> Vec<Event> {
    let sandbox = "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox runtime: no runtime \
        for \"nvidia\" is configured";
    vec![
        event(
            "liveness",
            0,
            "Unhealthy",
            "Liveness probe failed: Get \"http://10.0.0.7/\": context deadline exceeded",
            3,
        ),
        event("liveness", 1, "Killing", "Container main failed liveness probe, will be restarted", 1),
        event("not-ready", 0, "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503", 12),
        event("sandbox", 0, "FailedCreatePodSandBox", sandbox, 40),
        event("claim", 0, "FailedPrepareDynamicResources", CLAIM, 12),
        event("uncreatable", 0, "Failed", &format!("Error: {CDI}"), 3),
        quota(),
    ]
}

/// Returns pods that have no node yet.
fn waiting() -> Vec<Pod> {
    let gpu = || json!({"nvidia.com/gpu": "1"});
    let waits = |name: &str, resources: Value, message: &str| pod(name, false, resources, unschedulable(message));
    let mut gate = waits("gate", gpu(), "Scheduling is blocked due to non-empty scheduling gates");
    gate.spec.as_mut().unwrap().scheduling_gates =
        serde_json::from_value(json!([{"name": "kueue.x-k8s.io/admission"}])).unwrap();
    vec![
        gate,
        waits("memory", json!({"memory": "4Ti"}), "0/1 nodes are available: 1 Insufficient memory."),
        waits("no-claim", gpu(), "0/1 nodes are available: persistentvolumeclaim \"models\" not found."),
        waits("other-vendor", json!({"amd.com/gpu": "1"}), "0/1 nodes are available: 1 Insufficient amd.com/gpu."),
        waits(
            "too-many",
            json!({"nvidia.com/gpu": "4"}),
            "0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) were unschedulable. no new claims to \
             deallocate, preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is \
             not helpful for scheduling.",
        ),
    ]
}
