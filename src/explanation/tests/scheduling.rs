//! Pods that wait for a node: what the scheduler says is what is told.

use super::{Cause, Certainty, ContainerFacts, PodFacts, explain, failed};

fn waiting(message: Option<&str>) -> PodFacts {
    PodFacts {
        phase: "Pending".into(),
        node: None,
        node_ready: None,
        scheduled: None,
        message: message.map(str::to_owned),
        containers: Vec::<ContainerFacts>::new(),
        ..failed(1, "Error")
    }
}

#[test]
fn each_reason_of_the_scheduler_is_quoted() {
    for (message, cause, what, action) in [
        (
            "0/4 nodes are available: 4 Insufficient nvidia.com/gpu. preemption: 0/4 nodes are available: 4 No preemption \
          victims found for incoming pod.",
            Cause::Cluster,
            "too few GPUs",
            "Free GPUs",
        ),
        ("0/4 nodes are available: 4 Insufficient memory.", Cause::Cluster, "too little memory", "less memory"),
        (
            "0/4 nodes are available: 4 Insufficient amd.com/gpu.",
            Cause::Cluster,
            "4 Insufficient amd.com/gpu",
            "offer that resource",
        ),
        (
            "0/4 nodes are available: persistentvolumeclaim \"models\" not found. preemption: 0/4 nodes are available: 4 \
          Preemption is not helpful for scheduling.",
            Cause::Application,
            "PersistentVolumeClaim models, which does not exist",
            "Create the claim",
        ),
        (
            "0/4 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
            Cause::Cluster,
            "is not bound",
            "describe pvc",
        ),
        (
            "0/4 nodes are available: 1 node(s) were unschedulable, 3 node(s) had untolerated taint {team: vision}.",
            Cause::Cluster,
            "does not tolerate",
            "toleration",
        ),
        (
            "0/4 nodes are available: 4 node(s) didn't match Pod's node affinity/selector.",
            Cause::Cluster,
            "labels that it selects",
            "nodeSelector",
        ),
    ] {
        let explained = explain(&waiting(Some(message)), None, None);
        assert_eq!((explained.cause, explained.certainty), (cause, Certainty::Certain), "{}", explained.summary);
        assert!(explained.summary.contains(what), "{message}: {}", explained.summary);
        assert!(explained.action.text.contains(action), "{message}: {}", explained.action.text);
        let gpus = message.contains("nvidia.com/gpu");
        assert_eq!(explained.action.text.contains("Free GPUs"), gpus, "{message}: {}", explained.action.text);
    }
}

#[test]
fn a_scheduling_gate_and_a_silent_scheduler_are_explained() {
    let gated = PodFacts { scheduling_gates: vec!["kueue.x-k8s.io/admission".into()], ..waiting(None) };
    let explained = explain(&gated, None, None);
    assert_eq!((explained.cause, explained.certainty), (Cause::Cluster, Certainty::Certain));
    assert!(explained.summary.contains("kueue.x-k8s.io/admission"), "{}", explained.summary);
    let silent = explain(&waiting(None), None, None);
    assert_eq!((silent.cause, silent.certainty), (Cause::Cluster, Certainty::Possible), "{}", silent.summary);
}
