//! Cases of public reports about GPUs that pods request, that are allocated to them, and that they use.

use demo_cluster::Fixture;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::case::Case;
use crate::cluster::{at, changed, cluster, facts, from_json, node, pod, scenario, section, status};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::of_node(14, stranger(true))
            .finding("gpu-used-without-allocation", &["research/notebook", "GPU 3, allocated to", "is privileged"])
            .twin(stranger(false)),
        Case::of_node(15, started_early("02:00:05"))
            .finding("pod-gpu-not-allocated", &["research/train", "allocated no device"])
            .twin(started_early("02:44:50")),
        Case::of_node(19, refused(&["01:10:00", "02:20:00"]))
            .finding("kubelet-allocations-not-released", &["Requested: 1, Available: 0", "Restart the kubelet"])
            .never(&["look at the device plugin"])
            .twin(refused(&["02:20:00"])),
        Case::of_node(21, withheld(3, "plugin-withholds-a-working-gpu"))
            .finding("working-gpu-marked-unhealthy", &["Xid 109", "Restart the pod of the NVIDIA device plugin"])
            .beside(&["context-switch-timeout", "xid-history"])
            .twin(withheld(4, "healthy-h100-8")),
        Case::of_node(37, scenario("vgpu-unlicensed"))
            .finding("vgpu-unlicensed", &["not licensed", "nvidia-gridd"])
            .twin(scenario("vgpu-licensed")),
        Case::of_node(58, scenario("old-processes-of-one-pod"))
            .finding("shared-gpu-memory-full", &["has 5 processes on the GPU", "Stop processes that are not needed"])
            .twin(scenario("workers-of-one-server")),
        Case::of_node(59, scenario("time-sliced-gpu-is-full"))
            .finding("shared-gpu-memory-full", &["time-slicing", "does not divide the memory"])
            .twin(scenario("time-sliced-gpu-with-room")),
    ]
}

/// Returns a node whose privileged notebook uses a GPU of another pod. `is_stranger`: the notebook has no replica of
/// this GPU.
fn stranger(is_stranger: bool) -> Fixture {
    let scenario = if is_stranger { "stranger-on-a-gpu" } else { "neighbour-on-a-shared-gpu" };
    let mut fixture = self::scenario(scenario);
    let uid =
        facts("stranger-on-a-gpu").sections.processes.unwrap().data.unwrap().processes.last().unwrap().pod_uid.clone();
    let mut notebook = pod("notebook", 0, status("Running", json!({"running": {"startedAt": at("02:00:05")}})));
    notebook.metadata.uid = uid;
    notebook.spec.as_mut().unwrap().containers[0].security_context = from_json(json!({"privileged": true}));
    fixture.pods.retain(|pod| pod.metadata.uid != notebook.metadata.uid);
    fixture.pods.push(notebook);
    fixture
}

/// Returns a node on which the kubelet started a container at this time and allocated no device to the container.
fn started_early(time: &str) -> Fixture {
    let train = pod("train", 1, status("Running", json!({"running": {"startedAt": at(time)}})));
    scenario("running-pod-without-gpu").with_pod(train)
}

/// Returns a node with two GPUs that are allocated to deleted pods. The kubelet rejected a pod at each of these times.
fn refused(times: &[&str]) -> Fixture {
    let node = node(facts("kubelet-allocations-not-released"));
    let mut fixture = cluster(node);
    fixture.pods.truncate(2);
    let message = "Pod was rejected: Allocate failed due to requested number of devices unavailable for nvidia.com/gpu. \
        Requested: 1, Available: 0, which is unexpected";
    let pods = times.iter().enumerate().map(|(number, time)| -> Pod {
        let status =
            json!({"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": message, "startTime": at(time)});
        pod(&format!("retry-{number}"), 1, status)
    });
    fixture.pods.extend(pods);
    fixture
}

/// Returns a node with four GPUs, of which this number is allocatable.
fn withheld(allocatable: u64, scenario: &str) -> Fixture {
    let mut fixture = changed(scenario, |report| section(&mut report.sections.kubelet).allocations.clear());
    if scenario != "healthy-h100-8" {
        fixture.nodes[0].resources = [("nvidia.com/gpu".to_owned(), (4, allocatable))].into();
    }
    fixture
}
