//! Tests of causes that the kubelet reports: failed probes, readiness, rejected pods, missing allocations, unhealthy
//! devices, init containers, sandboxes.

use crate::explanation::tests::{
    Cause, Certainty, ContainerFacts, ContainerState, PodEvent, PodFacts, cause_of, failed, node, running, time,
};
use syringe_core::classification::ActionCode;
use syringe_core::facts::kubelet::Allocation;

fn event(reason: &str, message: &str, at: &str, count: u32) -> PodEvent {
    PodEvent {
        time: Some(time(at)),
        reason: reason.into(),
        message: message.into(),
        count,
        field: "spec.containers{main}".into(),
        warning: true,
    }
}

#[test]
fn a_liveness_kill_is_named_whatever_the_exit_code() {
    for (code, probe) in [(137, "liveness"), (143, "liveness"), (1, "startup")] {
        let kill = format!("Container main failed {probe} probe, will be restarted");
        let mut unhealthy = event("Unhealthy", "", "02:29:29", 3);
        let name = if probe == "liveness" { "Liveness" } else { "Startup" };
        unhealthy.message = format!("{name} probe failed: Get http://10.0.0.7:8000/health: context deadline exceeded");
        let pod = PodFacts { events: vec![unhealthy, event("Killing", &kill, "02:29:30", 1)], ..failed(code, "Error") };
        let explained = cause_of(&pod, &node(Vec::new()));
        assert_eq!((explained.cause, explained.certainty), (Cause::Application, Certainty::Certain), "{explained:?}");
        assert!(explained.summary.contains(&format!("{probe} probe failed")), "{}", explained.summary);
        assert!(explained.evidence.iter().any(|line| line.contains("deadline exceeded")), "{:?}", explained.evidence);
    }
}

#[test]
fn a_kill_of_another_container_or_another_time_explains_nothing() {
    let words = "Container main failed liveness probe, will be restarted";
    let long_ago = event("Killing", words, "01:00:00", 1);
    let mut other = event("Killing", "Container proxy failed liveness probe, will be restarted", "02:29:30", 1);
    other.field = "spec.containers{proxy}".into();
    let stopped = event("Killing", "Stopping container main", "02:29:30", 1);
    for event in [long_ago, other, stopped] {
        let pod = PodFacts { events: vec![event.clone()], ..failed(137, "Error") };
        let explained = cause_of(&pod, &node(Vec::new()));
        assert!(explained.summary.contains("was killed (SIGKILL)"), "{event:?}: {}", explained.summary);
    }
}

#[test]
fn a_pod_that_is_not_ready_is_not_well() {
    let (pod, report) = running("S", Vec::new());
    assert_eq!(cause_of(&pod, &report).cause, Cause::None);
    let fails = event("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503", "02:35:00", 12);
    let why = Some("ContainersNotReady: containers with unready status: [main]".to_owned());
    for (events, word, cause) in
        [(vec![fails], "(12 times)", Cause::Application), (Vec::new(), "the reason was not found", Cause::Unknown)]
    {
        let pod = PodFacts { ready: Some(false), not_ready: why.clone(), events, ..pod.clone() };
        let explained = cause_of(&pod, &report);
        assert_eq!(explained.cause, cause, "{}", explained.summary);
        assert!(explained.summary.contains("(Running, not Ready") && explained.summary.contains(word), "{explained:?}");
        assert!(explained.evidence[0].contains("unready status"), "{:?}", explained.evidence);
        assert_ne!(explained.action.code, ActionCode::None);
    }
}

#[test]
fn the_answer_to_a_failed_probe_says_what_to_correct() {
    let (pod, report) = running("S", Vec::new());
    for (answer, word) in [
        ("HTTP probe failed with statuscode: 404", "does not have the path"),
        ("HTTP probe failed with statuscode: 503", "is not ready (503)"),
        ("Get \"http://10.0.0.7:8000/health\": dial tcp 10.0.0.7:8000: connect: connection refused", "nothing listens"),
        ("Get \"http://10.0.0.7:8000/health\": context deadline exceeded", "does not respond within the timeout"),
    ] {
        let fails = event("Unhealthy", &format!("Readiness probe failed: {answer}"), "02:35:00", 12);
        let pod = PodFacts { ready: Some(false), events: vec![fails], ..pod.clone() };
        let explained = cause_of(&pod, &report);
        assert!(explained.summary.contains(word), "{}", explained.summary);
    }
}

#[test]
fn unknown_readiness_is_not_claimed() {
    let (pod, report) = running("S", Vec::new());
    let explained = cause_of(&PodFacts { ready: None, ..pod }, &report);
    assert_eq!((explained.cause, explained.certainty), (Cause::None, Certainty::Possible), "{}", explained.summary);
    assert!(!explained.summary.contains("running and Ready,"), "{}", explained.summary);
}

#[test]
fn a_running_pod_without_its_requested_gpu_is_explained() {
    let (pod, mut report) = running("S", Vec::new());
    report.sections.processes = None;
    let kubelet = report.sections.kubelet.as_mut().and_then(|section| section.data.as_mut()).expect("allocations");
    kubelet.allocations.clear();
    let explained = cause_of(&pod, &report);
    assert_eq!((explained.cause, explained.certainty), (Cause::Node, Certainty::Likely), "{}", explained.summary);
    assert!(explained.summary.contains("the kubelet has allocated no GPU"), "{}", explained.summary);
    // A container that has just started may be younger than the report.
    let young = ContainerState::Running { since: Some(time("02:39:30")) };
    let young = ContainerFacts { name: "main".into(), state: young, ..ContainerFacts::default() };
    let young = PodFacts { containers: vec![young], ..pod.clone() };
    assert_eq!(cause_of(&young, &report).cause, Cause::None);
    // The kubelet allocates no device to a pod that requests no GPU, or that requests a GPU through a claim.
    assert_eq!(cause_of(&PodFacts { gpu_containers: Vec::new(), ..pod.clone() }, &report).cause, Cause::None);
    // An allocation is not reported as missing if the allocations could not be read, or if they include the pod.
    report.sections.kubelet.as_mut().and_then(|section| section.data.as_mut()).expect("allocations").source =
        "claims".into();
    assert_eq!(cause_of(&pod, &report).cause, Cause::None);
    let kubelet = report.sections.kubelet.as_mut().and_then(|section| section.data.as_mut()).expect("allocations");
    kubelet.source = "pod_resources".into();
    kubelet.allocations =
        vec![Allocation { pod_uid: pod.uid.clone(), container: "main".into(), ..Allocation::default() }];
    assert_eq!(cause_of(&pod, &report).cause, Cause::None);
}

#[test]
fn refusals_of_the_kubelet_are_distinguished() {
    let unavailable = "Allocate failed due to requested number of devices unavailable for nvidia.com/gpu. Requested: 1, \
        Available: 0, which is unexpected";
    let healthy = "Allocate failed due to no healthy devices present; cannot allocate unhealthy devices nvidia.com/gpu, \
        which is unexpected";
    let numa = "Resources cannot be allocated with Topology locality";
    for (reason, message, what, action) in [
        ("UnexpectedAdmissionError", unavailable, "fewer free devices", "restart the kubelet"),
        ("UnexpectedAdmissionError", healthy, "no healthy device", "device plugin"),
        ("TopologyAffinityError", numa, "NUMA node", "topologyManagerPolicy"),
        ("OutOfnvidia.com/gpu", "", "too few resources", "scheduler"),
    ] {
        let pod = PodFacts {
            phase: "Failed".into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            containers: Vec::new(),
            ..failed(1, "Error")
        };
        let explained = cause_of(&pod, &node(Vec::new()));
        assert_eq!((explained.cause, explained.certainty), (Cause::Node, Certainty::Certain), "{}", explained.summary);
        assert!(explained.summary.contains(what), "{reason}: {}", explained.summary);
        assert!(explained.action.text.contains(action), "{reason}: {}", explained.action.text);
    }
}

#[test]
fn an_unhealthy_device_is_reported() {
    let (pod, report) = running("S", Vec::new());
    let pod = PodFacts { unhealthy_devices: vec!["GPU-own".into()], ..pod };
    let explained = cause_of(&pod, &report);
    assert_eq!((explained.cause, explained.certainty), (Cause::Gpu, Certainty::Possible), "{}", explained.summary);
    assert!(explained.summary.contains("GPU-own"), "{}", explained.summary);
}

#[test]
fn a_pod_that_waits_for_an_init_container_names_it() {
    let waiting = || ContainerState::Waiting { reason: "PodInitializing".into(), message: String::new() };
    let container = |name: &str, state| ContainerFacts { name: name.into(), state, ..ContainerFacts::default() };
    let done = ContainerState::Terminated {
        exit_code: 0,
        reason: "Completed".into(),
        message: String::new(),
        started: None,
        finished: None,
    };
    let running = ContainerState::Running { since: Some(time("02:00:00")) };
    let pod = PodFacts {
        phase: "Pending".into(),
        ready: Some(false),
        containers: vec![container("copy", done), container("wait-for-db", running), container("main", waiting())],
        ..failed(1, "Error")
    };
    let explanation = cause_of(&pod, &node(Vec::new()));
    assert!(
        explanation.summary.contains("its init container wait-for-db, which runs since 2026-11-"),
        "{explanation:?}"
    );
    assert!(explanation.action.text.ends_with("-c wait-for-db"), "{explanation:?}");
    assert_eq!(explanation.cause, Cause::Unknown);
}

#[test]
fn a_sandbox_that_changes_again_and_again_ends_the_container() {
    let changed = |count| PodEvent {
        warning: false,
        field: String::new(),
        ..event("SandboxChanged", "Pod sandbox changed.", "02:29:58", count)
    };
    for (code, count, is_named) in [(143, 31, true), (137, 2, true), (143, 1, false), (1, 31, false)] {
        let pod = PodFacts { events: vec![changed(count)], ..failed(code, "Error") };
        let explained = cause_of(&pod, &node(Vec::new()));
        assert_eq!(
            explained.summary.contains("the sandbox of the pod was gone or had changed"),
            is_named,
            "{code}: {}",
            explained.summary
        );
    }
}

#[test]
fn a_readiness_gate_is_the_reason_for_not_ready() {
    let gate = "target-health.example/lb";
    let pod = PodFacts {
        phase: "Running".into(),
        ready: Some(false),
        not_ready: Some(format!(
            "ReadinessGatesNotReady: corresponding condition of pod readiness gate \"{gate}\" does not exist or is not True."
        )),
        containers: vec![ContainerFacts {
            name: "main".into(),
            state: ContainerState::Running { since: Some(time("01:00:00")) },
            ..ContainerFacts::default()
        }],
        ..failed(0, "Completed")
    };
    let explained = cause_of(&pod, &node(Vec::new()));
    assert!(explained.summary.contains("has no condition"), "{}", explained.summary);
    let condition = format!("{gate} is False: Target.FailedHealthChecks: codes: [404]");
    let explained = cause_of(&PodFacts { other_conditions: vec![condition], ..pod }, &node(Vec::new()));
    assert!(explained.summary.contains("is not True: target-health.example/lb is False: Target.FailedHealthChecks"));
    assert_eq!(explained.certainty, Certainty::Certain);
}
