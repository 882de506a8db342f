//! Cases of public reports about device access of a container, CUDA libraries, driver versions and MIG.

use demo_cluster::Fixture;
use serde_json::json;

use crate::case::Case;
use crate::cluster::{at, pod, scenario, status};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::of_pod(1, "research/train", with_its_container("container-denied"))
            .cause("node", &["/dev/nvidia1", "Unknown Error"])
            .twin(with_its_container("container-fine")),
        // The probe does not read the libraries inside a container.
        Case::of_pod(12, "research/train", ended("the CUDA driver initialization failed")).beside(&["application"]),
        Case::of_pod(13, "research/train", ended("libcuda.so.1: file too short")).beside(&["application"]),
        Case::of_node(25, scenario("driver-mismatch"))
            .finding("driver-version-mismatch", &["570.124.06", "570.133.20"])
            .twin(scenario("driver-update-pending")),
        Case::of_node(26, scenario("no-driver")).finding("driver-not-loaded", &[]).twin(scenario("no-gpu")),
        Case::of_node(39, scenario("mig-unfinished"))
            .finding("mig-mode-pending", &[])
            .beside(&["mig-without-instances"])
            .twin(scenario("a100-mig-8")),
    ]
}

/// Returns a cluster with the pod of the container that the facts describe.
fn with_its_container(name: &str) -> Fixture {
    let mut fixture = scenario(name);
    let id = "c5e1".repeat(16);
    let mut train = pod("train", 1, status("Running", json!({"running": {"startedAt": at("01:00:05")}})));
    train.metadata.uid = Some("1f7462b4-1f58-4288-a027-2e3042b265b2".to_owned());
    let statuses = train.status.as_mut().unwrap().container_statuses.as_mut().unwrap();
    statuses[0].container_id = Some(format!("containerd://{id}"));
    fixture.pods.retain(|pod| pod.metadata.uid != train.metadata.uid);
    fixture.pods.push(train);
    fixture
}

/// Returns a healthy node with a pod whose program exited with code 1.
fn ended(message: &str) -> Fixture {
    let ended = json!({"terminated": {"exitCode": 1, "reason": "Error", "message": message, "startedAt": at("02:00:05"),
        "finishedAt": at("02:00:19")}});
    scenario("healthy-h100-8").with_pod(pod("train", 1, status("Failed", ended)))
}
