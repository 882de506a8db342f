//! Tests of pods that wait for a node: the explanation quotes the message of the scheduler, the autoscaler or a queue,
//! and names the required changes.

use crate::explanation::tests::{Cause, Certainty, ContainerFacts, PodEvent, PodFacts, explain, failed};
use syringe_core::classification::ActionCode;
use syringe_core::facts::kubernetes::pod::{CapacityShortage, Preemption};

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
            "free GPUs",
        ),
        ("0/4 nodes are available: 4 Insufficient memory.", Cause::Cluster, "too little memory", "less memory"),
        (
            "0/4 nodes are available: 4 Insufficient amd.com/gpu.",
            Cause::Cluster,
            "4 Insufficient amd.com/gpu",
            "have that resource",
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
            "0/12 nodes are available: 2 Insufficient nvidia.com/gpu, 4 node(s) had untolerated taint {dedicated: llm}.",
            Cause::Cluster,
            "too few GPUs",
            "the taint {dedicated: llm} are the nodes with the GPUs",
        ),
        (
            "0/4 nodes are available: 4 node(s) didn't match Pod's node affinity/selector.",
            Cause::Cluster,
            "nodeSelector or node affinity",
            "nodeSelector",
        ),
    ] {
        let explained = explain(&waiting(Some(message)), None, None);
        assert_eq!((explained.cause, explained.certainty), (cause, Certainty::Certain), "{}", explained.summary);
        assert!(explained.summary.contains(what), "{message}: {}", explained.summary);
        assert!(explained.action.text.contains(action), "{message}: {}", explained.action.text);
        let gpus = message.contains("nvidia.com/gpu");
        assert_eq!(explained.action.text.contains("free GPUs"), gpus, "{message}: {}", explained.action.text);
    }
}

#[test]
fn a_scheduling_gate_and_a_silent_scheduler_are_explained() {
    let gated = PodFacts { scheduling_gates: vec!["kueue.x-k8s.io/admission".into()], ..waiting(None) };
    let explained = explain(&gated, None, None);
    assert_eq!((explained.cause, explained.certainty), (Cause::Cluster, Certainty::Likely));
    assert!(explained.summary.contains("kueue.x-k8s.io/admission"), "{}", explained.summary);
    let silent = explain(&waiting(None), None, None);
    assert_eq!((silent.cause, silent.certainty), (Cause::Cluster, Certainty::Possible), "{}", silent.summary);
}

#[test]
fn required_changes_contain_numbers() {
    let message = "0/6 nodes are available: 2 node(s) were unschedulable, 4 Insufficient nvidia.com/gpu. preemption: 0/6 nodes \
        are available: 4 No preemption victims found for incoming pod.";
    let shortage = "requests 4 nvidia.com/gpu on one node; the most that any GPU node has free is 2, on gpu-7";
    let changes = vec!["free 2 nvidia.com/gpu on gpu-7".into(), "uncordon gpu-8, which has 8 free".into()];
    let pod = PodFacts {
        capacity_shortage: Some(CapacityShortage { shortage: shortage.into(), changes, ..CapacityShortage::default() }),
        preemption: Preemption { priority: Some(100), class: Some("batch".into()), ..Preemption::default() },
        ..waiting(Some(message))
    };
    let explained = explain(&pod, None, None);
    assert_eq!(explained.evidence[0], shortage);
    let action = "To start the pod, do one of these: free 2 nvidia.com/gpu on gpu-7; uncordon gpu-8, which has 8 free.";
    assert_eq!(explained.action.text, action);
    let priority = |line: &String| line.contains("lower priority") && line.contains("batch, 100");
    assert!(explained.evidence.iter().any(priority), "{:?}", explained.evidence);
    // The scheduler's message does not mention preemption victims, so the priority explains nothing.
    let said = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. preemption: 0/1 nodes are available: 1 Preemption is \
        not helpful for scheduling.";
    let explained = explain(&PodFacts { message: Some(said.into()), ..pod }, None, None);
    assert!(!explained.evidence.iter().any(|line| line.contains("priority")), "{:?}", explained.evidence);
}

#[test]
fn unhealthy_gpus_are_a_part_of_the_explanation() {
    let message = Some("0/1 nodes are available: 1 Insufficient nvidia.com/gpu.");
    let lost = "1 of 4 nvidia.com/gpu of gpu-1 not allocatable";
    for unhealthy in [None, Some(lost.to_owned())] {
        let is_lost = unhealthy.is_some();
        let room = CapacityShortage { shortage: "x".into(), unhealthy, ..CapacityShortage::default() };
        let explained = explain(&PodFacts { capacity_shortage: Some(room), ..waiting(message) }, None, None);
        assert_eq!(explained.summary.contains(lost), is_lost, "{}", explained.summary);
        assert_eq!(explained.action.text.contains("are not allocatable"), is_lost, "{}", explained.action.text);
    }
}

#[test]
fn changes_that_are_all_required_are_named_as_such() {
    let room = CapacityShortage {
        problem: Some("no GPU node advertises nvidia.com/gpu".into()),
        shortage: "requests 1 nvidia.com/gpu on one node".into(),
        changes: vec!["run diagnose_gpu_node for gpu-1".into(), "add a GPU node".into()],
        needs_all: true,
        ..CapacityShortage::default()
    };
    let message = Some("0/1 nodes are available: 1 Insufficient nvidia.com/gpu.");
    let explained = explain(&PodFacts { capacity_shortage: Some(room), ..waiting(message) }, None, None);
    assert!(
        explained.summary.contains("no GPU node advertises nvidia.com/gpu (1 Insufficient"),
        "{}",
        explained.summary
    );
    assert!(
        explained.action.text.starts_with("To start the pod, do all of these: run diagnose"),
        "{}",
        explained.action.text
    );
}

#[test]
fn a_request_that_never_fits_is_not_one_that_waits() {
    let room = |never_fits| CapacityShortage {
        shortage: "requests 16 nvidia.com/gpu on one node".into(),
        changes: vec!["request at most 8 nvidia.com/gpu in one pod: no GPU node has more".into()],
        needs_all: true,
        never_fits,
        fits_now: Some("fits now: at most 2 nvidia.com/gpu in one pod (2 on gpu-7)".into()),
        has_room: None,
        ..CapacityShortage::default()
    };
    let message = Some("0/1 nodes are available: 1 Insufficient nvidia.com/gpu.");
    let scaler = PodEvent {
        reason: "NotTriggerScaleUp".into(),
        message: "pod didn't trigger scale-up: 1 max node group size reached".into(),
        ..PodEvent::default()
    };
    for (never, words, code) in [
        (
            true,
            "the pod fits on no node, even if all other pods end: no node is large enough",
            ActionCode::ChangeRequest,
        ),
        (false, "the pod waits, because no node fits", ActionCode::Watch),
    ] {
        let events = vec![scaler.clone()];
        let pod = PodFacts { capacity_shortage: Some(room(never)), events, ..waiting(message) };
        let explained = explain(&pod, None, None);
        assert!(explained.summary.contains(words), "{}", explained.summary);
        assert_eq!(explained.action.code, code);
        for line in ["fits now: at most 2", "max node group size reached"] {
            assert!(explained.evidence.iter().any(|evidence| evidence.contains(line)), "{line}: {explained:?}");
        }
    }
}

#[test]
fn a_pod_whose_claims_do_not_exist_yet_is_told_which() {
    let pod = PodFacts { pending_resource_claims: vec!["claim shared".into()], ..waiting(None) };
    let explained = explain(&pod, None, None);
    assert_eq!((explained.cause, explained.certainty), (Cause::Cluster, Certainty::Possible));
    assert!(explained.summary.contains("claim shared"), "{}", explained.summary);
}

#[test]
fn a_pod_for_which_others_are_preempted_only_waits() {
    let preemption = Preemption { nominated_node: Some("gpu-3".into()), ..Preemption::default() };
    let pod = PodFacts { preemption, ..waiting(Some("0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")) };
    let explained = explain(&pod, None, None);
    assert!(explained.summary.contains("being preempted on gpu-3"), "{}", explained.summary);
}

/// Creates a pod that its controller could not create, with the message of the controller.
fn refused(name: &str, message: &str) -> PodFacts {
    let event = PodEvent { reason: "FailedCreate".into(), message: message.into(), count: 1, ..PodEvent::default() };
    PodFacts {
        namespace: "research".into(),
        name: name.into(),
        phase: "NotCreated".into(),
        not_created_by: Some("Job train".into()),
        events: vec![event],
        ..PodFacts::default()
    }
}

#[test]
fn a_pod_that_a_quota_kept_from_being_created_is_told_with_the_quotas_numbers() {
    let message = "Error creating: pods \"train-x7k2p\" is forbidden: exceeded quota: gpus, requested: \
        requests.nvidia.com/gpu=4, used: requests.nvidia.com/gpu=6, limited: requests.nvidia.com/gpu=8";
    for (name, certainty) in
        [("train-x7k2p", Certainty::Certain), ("train", Certainty::Certain), ("train-aaaaa", Certainty::Likely)]
    {
        let explained = explain(&refused(name, message), None, None);
        assert_eq!((explained.cause, explained.certainty), (Cause::Cluster, certainty), "{name}");
        let what = "Job train could not create it: ResourceQuota gpus is used up: the pod requests 4 requests.nvidia.com/gpu, and 6 of \
                    8 are in use";
        assert!(explained.summary.contains(what), "{}", explained.summary);
        assert!(explained.action.text.contains("raise the quota to 10"), "{}", explained.action.text);
    }
    let class = explain(
        &refused("train", "pods \"train-\" is forbidden: no PriorityClass with name high was found"),
        None,
        None,
    );
    assert!(class.summary.contains("its PriorityClass does not exist"), "{}", class.summary);
    let other = explain(&refused("train", "Internal error occurred: a webhook timed out"), None, None);
    assert!(other.summary.contains("the API server denied it"), "{}", other.summary);
}

fn event(reason: &str, message: &str) -> PodEvent {
    PodEvent { reason: reason.into(), message: message.into(), warning: true, ..PodEvent::default() }
}

/// Explains a pod whose selector matches no node, with these events of an autoscaler, oldest first.
fn without_group(events: &[(&str, &str)]) -> crate::explanation::Explanation {
    let message = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.";
    let events = events.iter().map(|(reason, message)| event(reason, message)).collect();
    explain(&PodFacts { events, ..waiting(Some(message)) }, None, None)
}

#[test]
fn the_most_specific_reason_of_the_autoscaler_is_used() {
    let explained = without_group(&[
        (
            "FailedScaleUp",
            "Node scale up in zones a associated with this pod failed: GCE quota exceeded. Pod is at risk.",
        ),
        (
            "NotTriggerScaleUp",
            "pod didn't trigger scale-up (it wouldn't fit if a new node is added): 1 node(s) didn't match Pod's node \
             affinity/selector, 1 in backoff after failed scale-up",
        ),
    ]);
    assert!(explained.summary.contains("a quota of the cloud account is used up"), "{}", explained.summary);
    assert!(!explained.action.text.contains("nodeSelector"), "{}", explained.action.text);
    assert_eq!(explained.action.code, ActionCode::Watch);
}

#[test]
fn the_node_pool_that_fits_best_is_used() {
    let pool = |end: &str| {
        format!(
            "Failed to schedule pod, incompatible with nodepool \"gpu\", daemonset overhead={{\"pods\":\"6\"}}, no instance type \
             satisfied resources {{\"nvidia.com/gpu\":\"2\"}} and requirements x In [y] ({end}); incompatible with nodepool \"cpu\", did \
             not tolerate taint team=a:NoSchedule"
        )
    };
    let offering =
        "no instance type which met the scheduling requirements and had enough resources, had a required offering";
    for (end, what) in [(offering, "is available now"), ("no instance type has enough resources", "large enough")] {
        let explained = without_group(&[("FailedScheduling", &pool(end))]);
        assert!(explained.summary.contains(what), "{}", explained.summary);
        assert!(explained.summary.contains(&format!("({end})\")")), "the quote: {}", explained.summary);
        assert!(!explained.summary.contains("not tolerate taint"), "{}", explained.summary);
        assert!(!explained.action.text.contains("nodeSelector"), "{}", explained.action.text);
    }
    let none = without_group(&[(
        "FailedScheduling",
        "incompatible with nodepool \"cpu\", did not tolerate taint a=b:NoSchedule",
    )]);
    assert!(none.action.text.starts_with("Correct its nodeSelector"), "{}", none.action.text);
}

#[test]
fn a_message_names_the_stage_of_the_scheduler_or_the_queue() {
    for (message, what) in [
        ("queue team-a is not open: Closed", "its queue takes no pods"),
        (
            "Request '8 nvidia.com/gpu' does not fit in queue root.ml (available map[nvidia.com/gpu:4])",
            "its queue or quota",
        ),
        ("0/1 nodes are available: 1 node unregistered.", "has not registered it"),
        (
            "0/1 nodes are available: 1 node(s) did not have enough capacity: nvidia.com/gpu in NUMA zone (x).",
            "no NUMA zone",
        ),
        ("rejected due to timeout after waiting 60s at plugin Coscheduling", "the other pods of its group"),
        (
            "running PreBind plugin \"VolumeBinding\": binding volumes: context deadline exceeded",
            "its volumes were not bound",
        ),
        (
            "binding rejected: running Bind plugin \"DefaultBinder\": pod t-0 is already assigned",
            "its binding to the node failed",
        ),
    ] {
        let event = PodEvent {
            reason: "FailedScheduling".into(),
            message: message.into(),
            warning: true,
            ..PodEvent::default()
        };
        let pod = PodFacts {
            phase: "Pending".into(),
            message: Some(message.into()),
            events: vec![event],
            wants_gpus: true,
            ..PodFacts::default()
        };
        let explained = explain(&pod, None, None);
        assert_eq!(explained.cause, Cause::Cluster, "{}", explained.summary);
        assert!(
            explained.summary.contains(what) && !explained.summary.contains("no node for the pod"),
            "{}",
            explained.summary
        );
    }
}
