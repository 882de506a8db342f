//! Tests of explanations that use the state of other pods: of the same job, or named in a message.

use crate::explanation::tests::*;
use syringe_core::facts::kubernetes::linked_pod::LinkedPod;
use syringe_core::facts::kubernetes::node::{
    ContainerStateKind, NvidiaContainer, NvidiaContainerState, NvidiaPod, PodWarning,
};

/// Creates another pod with one container in this state.
fn other(role: &str, phase: &str, state: NvidiaContainerState) -> LinkedPod {
    let container = NvidiaContainer { name: "main".into(), state, ..NvidiaContainer::default() };
    let pod = NvidiaPod {
        namespace: "ml".into(),
        name: "worker-1".into(),
        uid: "other".into(),
        phase: phase.into(),
        containers: vec![container],
        ..NvidiaPod::default()
    };
    LinkedPod { role: role.into(), pod, node: Some("gpu-9".into()), log: Some(Vec::new()), ..LinkedPod::default() }
}

fn ended(exit_code: i32, reason: &str) -> NvidiaContainerState {
    NvidiaContainerState {
        kind: ContainerStateKind::Terminated,
        exit_code: Some(exit_code),
        reason: Some(reason.into()),
        ..NvidiaContainerState::default()
    }
}

/// Creates a pod whose program reports that another rank failed.
fn waited(linked: LinkedPod) -> PodFacts {
    let mut pod = failed(134, "Error");
    pod.log_lines = vec!["[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=812)".into()];
    pod.linked_pods = vec![linked];
    pod
}

fn explained(pod: &PodFacts) -> crate::explanation::Explanation {
    cause_of(pod, &node(Vec::new()))
}

#[test]
fn the_rank_that_failed_is_not_to_be_looked_for_once_it_is_found() {
    let mut evicted = other(LinkedPod::BESIDE, "Failed", ended(137, "Error"));
    evicted.pod.reason = Some("Evicted".into());
    evicted.pod.message = Some("The node was low on resource: ephemeral-storage.".into());
    let found = explained(&waited(evicted));
    assert!(found.summary.contains("worker-1 is Failed (Evicted): The node was low"), "{}", found.summary);
    assert!(!found.action.text.contains("Look for the rank"), "{}", found.action.text);
    assert_eq!(found.cause, Cause::Cluster);
    let mut alone = waited(LinkedPod::default());
    alone.linked_pods.clear();
    assert!(explained(&alone).action.text.contains("Look for the rank"));
}

#[test]
fn a_rank_that_waited_too_is_not_the_cause() {
    let mut waits = other(LinkedPod::BESIDE, "Failed", ended(134, "Error"));
    waits.container = "main".into();
    waits.log = Some(vec!["[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=812)".into()]);
    let both = explained(&waited(waits));
    assert_eq!(both.cause, Cause::Unknown, "{}", both.summary);
    assert!(both.action.text.contains("Look for the rank"), "{}", both.action.text);
}

#[test]
fn a_pod_that_explains_its_own_end_needs_no_other_pod_of_its_job() {
    let mut pod = failed(1, "Error");
    pod.log_lines = vec!["ValueError: batch must be divisible by 8".into()];
    pod.linked_pods = vec![other(LinkedPod::BESIDE, "Running", ended(1, "Error"))];
    let own = explained(&pod);
    assert!(own.cause == Cause::Application && !own.summary.contains("worker-1"), "{}", own.summary);
    // A pod that a message names is always named.
    pod.linked_pods[0].role = "a message of the pod names it".into();
    assert!(explained(&pod).summary.contains("worker-1"));
}

#[test]
fn a_pod_that_waits_is_described_by_its_newest_warning() {
    let waits = NvidiaContainerState { reason: Some("ContainerCreating".into()), ..NvidiaContainerState::default() };
    let mut starting = other(LinkedPod::OF_SAME_JOB, "Pending", waits);
    let message = "MountVolume.SetUp failed for volume \"models\": exotic failure".to_owned();
    starting.pod.warning = Some(PodWarning { reason: "FailedMount".into(), message, ..PodWarning::default() });
    let found = explained(&waited(starting));
    assert!(format!("{} {:?}", found.summary, found.evidence).contains("exotic failure"), "{found:?}");
}

#[test]
fn a_node_that_is_not_ready_is_the_reason_of_its_pod() {
    let runs = NvidiaContainerState { kind: ContainerStateKind::Running, ..NvidiaContainerState::default() };
    let role = format!("its address is in the messages of the pod{}", LinkedPod::NODE_NOT_READY);
    let found = explained(&waited(other(&role, "Running", runs)));
    assert!(found.summary.contains("node gpu-9 is not Ready"), "{}", found.summary);
    assert!(found.action.text.contains("Find out why gpu-9 is not Ready"), "{}", found.action.text);
}

#[test]
fn a_pod_of_the_same_job_without_a_node_is_named_beside_a_running_pod() {
    let mut pod = failed(0, "Completed");
    (pod.phase, pod.ready) = ("Running".into(), Some(true));
    pod.containers[0].state = ContainerState::Running { since: Some(time("00:00:05")) };
    pod.siblings_not_running = vec!["worker-1 (Pending)".into()];
    let mut pending = other(LinkedPod::BESIDE, "Pending", NvidiaContainerState::default());
    pending.pod.message = Some("0/1 nodes are available: 1 Insufficient nvidia.com/gpu.".into());
    pod.linked_pods = vec![pending];
    let found = explained(&pod);
    assert_eq!(found.cause, Cause::None);
    assert!(found.summary.contains("too few GPUs are free"), "{}", found.summary);
    assert!(found.action.text.contains("first find out why pod ml/worker-1 does not run"), "{}", found.action.text);
}
