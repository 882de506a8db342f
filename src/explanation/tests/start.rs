//! Containers that never ran: the runtime's own words, with their end.

use super::{
    Cause, Certainty, ContainerFacts, ContainerState, PodEvent, PodFacts, cause_of, explain, failed, node, time,
};
use crate::diagnosis::ActionCode;

/// The frame in which containerd reports what a hook said, longer than the old cut of 240 characters.
fn framed(reason: &str) -> String {
    format!(
        "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: unable \
         to start container process: error during container init: error running prestart hook #0: exit status 1, stdout: , \
         stderr: Auto-detected mode as 'legacy' nvidia-container-cli: {reason}"
    )
}

/// A pod whose container the runtime could not start, as the API shows it: started in 1970.
fn never_ran(message: &str) -> PodFacts {
    let state = ContainerState::Terminated {
        exit_code: 128,
        reason: "StartError".into(),
        message: message.into(),
        started: Some("1970-01-01T00:00:00Z".parse().expect("a time")),
        finished: Some(time("02:00:09")),
    };
    let mut pod = failed(128, "StartError");
    pod.containers[0].state = state;
    pod
}

#[test]
fn a_start_error_is_not_the_applications_and_keeps_its_reason() {
    for (reason, what) in [
        (
            "requirement error: unsatisfied condition: cuda>=12.8, please update your driver to a newer version",
            "newer CUDA",
        ),
        ("ldcache error: process /sbin/ldconfig terminated with signal 9: unknown", "library cache"),
        ("initialization error: driver/library version mismatch: unknown", "differ"),
        ("initialization error: driver not loaded: unknown", "not loaded"),
        ("mount error: failed to add device rules: unable to find any existing device filters", "devices"),
        ("failed to inject CDI devices: unresolvable CDI devices nvidia.com/gpu=GPU-5f1c: unknown", "CDI device"),
        ("something that nobody has seen before", "could not start container main"),
    ] {
        let message = framed(reason);
        assert!(message.len() > 300, "as long as in life");
        let explained = cause_of(&never_ran(&message), &node(Vec::new()));
        assert_eq!((explained.cause, explained.certainty), (Cause::Node, Certainty::Certain), "{}", explained.summary);
        assert!(explained.summary.contains(what), "{reason}: {}", explained.summary);
        assert!(explained.evidence.iter().any(|line| line.ends_with(reason)), "{reason}: {:?}", explained.evidence);
        assert!(!explained.action.text.contains("kubectl logs"), "{}", explained.action.text);
        let first = explained.timeline.first().expect("moments").time;
        assert!(first >= time("01:00:00"), "nothing began in 1970: {:?}", explained.timeline);
    }
}

#[test]
fn a_command_that_is_not_in_the_image_is_the_pods_own() {
    let message = "failed to create containerd task: OCI runtime create failed: exec: \"trian\": executable file not found \
        in $PATH: unknown";
    let explained = cause_of(&never_ran(message), &node(Vec::new()));
    assert_eq!((explained.cause, explained.certainty), (Cause::Application, Certainty::Certain), "{explained:?}");
    let mut looping = never_ran(message);
    let state =
        ContainerState::Waiting { reason: "CrashLoopBackOff".into(), message: "back-off 10s restarting".into() };
    let main = ContainerFacts {
        last: Some(looping.containers[0].state.clone()),
        state,
        restarts: 3,
        ..looping.containers[0].clone()
    };
    (looping.phase, looping.containers) = ("Running".into(), vec![main]);
    let explained = cause_of(&looping, &node(Vec::new()));
    assert!(explained.summary.contains("its command is not in its image"), "{}", explained.summary);
}

#[test]
fn a_program_can_also_exit_with_128() {
    let explained = cause_of(&failed(128, "Error"), &node(Vec::new()));
    assert_eq!(explained.cause, Cause::Application, "it ran for half an hour: {}", explained.summary);
    assert!(explained.action.text.contains("kubectl logs -n research train-0 -c main"), "{}", explained.action.text);
}

#[test]
fn the_previous_log_is_advised_only_where_there_is_one() {
    let once = cause_of(&failed(1, "Error"), &node(Vec::new()));
    assert!(once.action.text.ends_with("kubectl logs -n research train-0 -c main"), "{}", once.action.text);
    let mut again = failed(1, "Error");
    let state = ContainerState::Waiting { reason: "CrashLoopBackOff".into(), message: String::new() };
    let main = ContainerFacts {
        last: Some(again.containers[0].state.clone()),
        state,
        restarts: 1,
        ..again.containers[0].clone()
    };
    (again.phase, again.containers) = ("Running".into(), vec![main]);
    let again = cause_of(&again, &node(Vec::new()));
    assert!(again.action.text.ends_with("--previous"), "{}", again.action.text);
}

/// A pod whose containers are being created, with an event that says why they are not.
fn creating(reason: &str, message: &str) -> PodFacts {
    let state = ContainerState::Waiting { reason: "ContainerCreating".into(), message: String::new() };
    let main = ContainerFacts { name: "main".into(), state, ..ContainerFacts::default() };
    let event = PodEvent {
        time: Some(time("02:10:00")),
        reason: reason.into(),
        message: message.into(),
        count: 40,
        ..PodEvent::default()
    };
    PodFacts { phase: "Pending".into(), containers: vec![main], events: vec![event], ..failed(1, "Error") }
}

#[test]
fn a_pod_that_stays_in_creation_is_explained_by_its_newest_event() {
    let sandbox = "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox runtime: no runtime \
        for \"nvidia\" is configured";
    let claims = "Failed to prepare dynamic resources: prepare dynamic resources: NodePrepareResources failed for ResourceClaim \
        gpu: DRA driver gpu.nvidia.com is not registered";
    let mount = "MountVolume.SetUp failed for volume \"models\": mount failed: exit status 32";
    for (reason, message, cause, what) in [
        ("FailedCreatePodSandBox", sandbox, Cause::Node, "no handler for the pod's RuntimeClass"),
        ("FailedPrepareDynamicResources", claims, Cause::Node, "is not registered on its node"),
        ("FailedMount", mount, Cause::Cluster, "a volume of it cannot be mounted"),
    ] {
        let explained = cause_of(&creating(reason, message), &node(Vec::new()));
        assert_eq!((explained.cause, explained.certainty), (cause, Certainty::Certain), "{}", explained.summary);
        assert!(explained.summary.contains(what), "{reason}: {}", explained.summary);
    }
    let mut quiet = creating("Pulled", "Container image already present");
    assert_eq!(cause_of(&quiet, &node(Vec::new())).cause, Cause::Unknown, "it is only young");
    // What runs since has got over it.
    quiet = creating("FailedCreatePodSandBox", sandbox);
    quiet.containers[0].state = ContainerState::Running { since: Some(time("02:20:00")) };
    (quiet.phase, quiet.ready) = ("Running".into(), Some(true));
    assert_eq!(cause_of(&quiet, &node(Vec::new())).cause, Cause::None);
}

#[test]
fn images_and_settings_are_the_pods_own() {
    for reason in ["ImagePullBackOff", "CreateContainerConfigError"] {
        let mut pod = creating("Failed", "Error: x");
        pod.containers[0].state = ContainerState::Waiting { reason: reason.into(), message: "Back-off pulling".into() };
        let explained = explain(&pod, None, None);
        assert_eq!((explained.cause, explained.action.code), (Cause::Application, ActionCode::None), "{explained:?}");
    }
}
