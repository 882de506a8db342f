//! Tests that `explain_gpu_pod` reads the objects of the queue for which a pod or job waits.

use demo_cluster::{Fixture, NodeFixture};
use serde_json::{Value, json};
use syringe_core::scenarios;

use crate::tools::Bench;

const REASON: &str = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor h100, 8 more needed";

fn workload(owner: Value) -> Value {
    let metadata = json!({"name": "job-train-1a2b3", "namespace": "ml", "ownerReferences": [owner]});
    let waits = json!({"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": REASON,
        "lastTransitionTime": "2026-11-21T01:00:00Z"});
    json!({"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "Workload", "metadata": metadata,
        "spec": {"queueName": "team-a"}, "status": {"conditions": [waits]}})
}

fn queue(kind: &str, namespace: &str, name: &str, rest: Value) -> Value {
    let mut object =
        json!({"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": kind, "metadata": {"name": name}, "spec": rest});
    if !namespace.is_empty() {
        object["metadata"]["namespace"] = namespace.into();
    }
    object
}

fn waiting_pod() -> Value {
    json!({
        "metadata": {"name": "train-0", "namespace": "ml", "uid": "pod-uid", "labels": {"kueue.x-k8s.io/queue-name": "team-a"},
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "train", "uid": "job-uid", "controller": true}]},
        "spec": {"schedulingGates": [{"name": "kueue.x-k8s.io/admission"}],
            "containers": [{"name": "main", "image": "x", "resources": {"limits": {"nvidia.com/gpu": "8"}}}]},
        "status": {"phase": "Pending"},
    })
}

async fn explained(pods: Vec<Value>, objects: Vec<Value>, pod: &str) -> Value {
    let node = NodeFixture::from_facts("gpu-1", scenarios::named("healthy-h100-8").unwrap().report());
    let pods = pods.into_iter().map(|pod| serde_json::from_value(pod).unwrap()).collect();
    let bench = Bench::of(Fixture { pods, objects, ..Fixture::of([node]) }).await;
    bench.ask("explain_gpu_pod", json!({"pod": pod, "namespace": "ml"})).await
}

#[tokio::test]
async fn the_reason_of_a_queue_is_read_from_its_objects() {
    let owner = json!({"kind": "Job", "name": "train", "uid": "job-uid"});
    let queues = || {
        let local = queue("LocalQueue", "ml", "team-a", json!({"clusterQueue": "gpus"}));
        vec![local, queue("ClusterQueue", "", "gpus", json!({}))]
    };
    let with_workload = || queues().into_iter().chain([workload(owner.clone())]).collect();
    let answer = explained(vec![waiting_pod()], with_workload(), "train-0").await;
    let summary = answer["summary"].as_str().unwrap();
    assert!(summary.contains(REASON) && answer["cause"] == "cluster", "{answer:#}");

    // Kueue creates no pods for a job that it has not admitted.
    let answer = explained(Vec::new(), with_workload(), "job/train").await;
    assert!(answer["summary"].as_str().unwrap().contains(REASON), "{answer:#}");

    // The Workload of another job is no reason.
    let other = workload(json!({"kind": "Job", "name": "other", "uid": "other-uid"}));
    let answer = explained(vec![waiting_pod()], queues().into_iter().chain([other]).collect(), "train-0").await;
    assert!(!answer.to_string().contains("8 more needed"), "{answer:#}");
    assert_eq!(answer["certainty"], "likely", "{answer:#}");

    // A queue that does not exist is a reason.
    let missing = vec![workload(json!({"kind": "Job", "name": "train", "uid": "job-uid"}))];
    let answer = explained(vec![waiting_pod()], missing, "train-0").await;
    assert!(answer["summary"].as_str().unwrap().contains("LocalQueue team-a: it does not exist"), "{answer:#}");
}
