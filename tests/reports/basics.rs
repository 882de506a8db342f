//! Cases of public reports about device access of a container, CUDA libraries, driver versions and MIG.

use demo_cluster::Fixture;
use serde_json::json;

use crate::case::Case;
use crate::cluster::{at, changed, from_json, pod, scenario, section, status};

/// UID of the pod in scenarios of containers.
const UID: &str = "1f7462b4-1f58-4288-a027-2e3042b265b2";

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::of_pod(1, "research/train", with_its_container("container-denied"))
            .cause("node", &["/dev/nvidia1", "Unknown Error"])
            .twin(with_its_container("container-fine")),
        Case::of_pod(12, "research/train", restarted("container-old-libcuda"))
            .cause("application", &["/usr/local/cuda/compat/libcuda.so.535.54.03", "570.124.06", "803"])
            .twin(restarted("container-of-an-unusual-image")),
        // The container has ended, so only its message is known.
        Case::of_pod(12, "research/train", ended("the CUDA driver initialization failed")).beside(&["application"]),
        Case::of_pod(13, "research/train", restarted("container-empty-libraries"))
            .cause("node", &["/usr/lib64/libcuda.so.1", "0 bytes"])
            .twin(restarted("container-of-an-unusual-image")),
        Case::of_pod(13, "research/train", ended("libcuda.so.1: file too short")).beside(&["application"]),
        Case::of_pod(51, "research/train", restarted("container-at-its-limits"))
            .cause("application", &["/dev/shm", "62 MiB of 64 MiB"])
            .twin(restarted("container-of-an-unusual-image")),
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
    with_pod_of_container(scenario(name))
}

fn with_pod_of_container(mut fixture: Fixture) -> Fixture {
    let id = "c5e1".repeat(16);
    let mut train = pod("train", 1, status("Running", json!({"running": {"startedAt": at("01:00:05")}})));
    train.metadata.uid = Some(UID.to_owned());
    let statuses = train.status.as_mut().unwrap().container_statuses.as_mut().unwrap();
    statuses[0].container_id = Some(format!("containerd://{id}"));
    fixture.pods.retain(|pod| pod.metadata.uid != train.metadata.uid);
    fixture.pods.push(train);
    fixture
}

/// Returns the cluster after the container of the pod, which has one of the GPUs, ended without a message and was
/// started again.
fn restarted(name: &str) -> Fixture {
    let mut fixture = with_pod_of_container(changed(name, |report| {
        let held = &mut section(&mut report.sections.kubelet).allocations[0];
        (held.pod_uid, held.container) = (UID.to_owned(), "main".to_owned());
    }));
    let train = fixture.pods.last_mut().expect("the pod");
    let status = &mut train.status.as_mut().unwrap().container_statuses.as_mut().unwrap()[0];
    status.restart_count = 4;
    status.last_state =
        Some(from_json(json!({"terminated": {"exitCode": 1, "reason": "Error", "startedAt": at("00:50:00"),
        "finishedAt": at("01:00:00")}})));
    fixture
}

/// Returns a healthy node with a pod whose program exited with code 1.
fn ended(message: &str) -> Fixture {
    let ended = json!({"terminated": {"exitCode": 1, "reason": "Error", "message": message, "startedAt": at("02:00:05"),
        "finishedAt": at("02:00:19")}});
    scenario("healthy-h100-8").with_pod(pod("train", 1, status("Failed", ended)))
}
