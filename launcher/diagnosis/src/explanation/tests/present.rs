//! Tests of explanations of pods that wait, start, run or end: scheduling gates, scale-up, startup probes, stopped
//! processes, claims, deletion.

use crate::explanation::tests::process::running;
use crate::explanation::tests::{
    Cause, Certainty, ContainerFacts, ContainerState, PodEvent, PodFacts, explain, failed, node, time,
};
use syringe_core::facts::kubernetes::pod::ContainerSpec;

fn waiting() -> PodFacts {
    let pod = PodFacts { phase: "Pending".into(), node: None, node_ready: None, scheduled: None, ..failed(1, "Error") };
    PodFacts { containers: Vec::new(), ..pod }
}

fn event(reason: &str, message: &str, at: &str, warning: bool) -> PodEvent {
    PodEvent {
        time: Some(time(at)),
        reason: reason.into(),
        message: message.into(),
        count: 3,
        warning,
        ..PodEvent::default()
    }
}

#[test]
fn a_scheduler_whose_reasons_are_not_known_is_not_silent() {
    let words = "binding was lost in the frobnicator";
    let pod = PodFacts {
        scheduler: Some("acme".into()),
        events: vec![event("BindingLost", words, "02:00:00", true)],
        ..waiting()
    };
    let explained = explain(&pod, None, None);
    assert_eq!(explained.cause, Cause::Unknown, "{explained:?}");
    assert!(explained.summary.contains(words) && explained.summary.contains("cause not identified"), "{explained:?}");
    assert!(!explained.summary.contains("reported no reason"), "{explained:?}");
    let silent = explain(&PodFacts { events: Vec::new(), ..pod }, None, None);
    assert!(silent.summary.contains("has reported no reason"), "{silent:?}");
}

#[test]
fn a_gate_that_remains_after_the_admission_is_not_a_missing_quota() {
    let gated = |reason: &str, message: &str| PodFacts {
        scheduling_gates: vec!["kueue.x-k8s.io/admission".into()],
        events: vec![event(reason, message, "02:00:00", false)],
        ..waiting()
    };
    let admitted = explain(&gated("Admitted", "Admitted by ClusterQueue gpus"), None, None);
    assert!(
        admitted.summary.contains("the gate remains") && !admitted.summary.contains("not admitted"),
        "{admitted:?}"
    );
    let waits = explain(&gated("Pending", "insufficient quota in flavor x"), None, None);
    assert!(
        waits.summary.contains("insufficient quota in flavor x") && waits.certainty == Certainty::Certain,
        "{waits:?}"
    );
}

#[test]
fn a_new_node_that_is_under_way_comes_before_other_remedies() {
    let message = "0/4 nodes are available: 4 Insufficient nvidia.com/gpu.";
    let scaled = |at| PodFacts {
        message: Some(message.into()),
        events: vec![
            event("TriggeredScaleUp", "pod triggered scale-up: [{pool 1->2 (max: 8)}]", at, false),
            event("FailedScheduling", message, "02:00:00", true),
        ],
        ..waiting()
    };
    let explained = explain(&scaled("01:59:00"), None, None);
    assert!(explained.action.text.starts_with("Wait some minutes for the new node"), "{explained:?}");
    let long_ago = explain(&scaled("01:00:00"), None, None);
    assert!(!long_ago.action.text.starts_with("Wait"), "{long_ago:?}");
}

#[test]
fn a_field_of_the_pod_that_causes_the_error_is_named() {
    let pod = |read_only_root| {
        let mut pod = failed(1, "Error");
        let ContainerState::Terminated { message, .. } = &mut pod.containers[0].state else { unreachable!() };
        *message = "OSError: [Errno 30] Read-only file system: '/opt/cache'".into();
        pod.specs = vec![ContainerSpec { name: "main".into(), read_only_root, ..ContainerSpec::default() }];
        pod
    };
    let report = node(Vec::new());
    let of = |pod: &PodFacts| explain(pod, Some((&report, &crate::diagnose(&report, &Default::default()))), None);
    let explained = of(&pod(true));
    assert_eq!(explained.cause, Cause::Application);
    assert!(explained.summary.contains("readOnlyRootFilesystem: true"), "{explained:?}");
    assert!(!of(&pod(false)).summary.contains("readOnlyRootFilesystem"));
    let mut in_volume = pod(true);
    in_volume.specs[0].mounts = vec![("/opt/cache".into(), "ConfigMap cache".into())];
    assert!(!of(&in_volume).summary.contains("readOnlyRootFilesystem"), "the volume is read-only");
}

#[test]
fn a_pod_that_had_completed_needs_no_other_run() {
    let pod = |exit_code| {
        let mut pod = failed(exit_code, "Completed");
        pod.phase = "Failed".into();
        pod.reason = Some("UnexpectedAdmissionError".into());
        pod.message = Some(
            "Allocate failed due to no healthy devices present; cannot allocate unhealthy devices nvidia.com/gpu"
                .into(),
        );
        pod
    };
    let explained = explain(&pod(0), None, None);
    assert_eq!(explained.cause, Cause::None, "{explained:?}");
    assert_ne!(explain(&pod(1), None, None).cause, Cause::None);
}

#[test]
fn a_program_that_still_starts_has_no_problem() {
    let (pod, report) = running("S", Vec::new());
    let probe = "Startup probe failed: Get \"http://10.0.0.7:8000/health\": connection refused";
    let starting = |restarts| {
        let mut pod =
            PodFacts { ready: Some(false), events: vec![event("Unhealthy", probe, "02:39:00", true)], ..pod.clone() };
        pod.containers.iter_mut().for_each(|container: &mut ContainerFacts| {
            container.restarts = restarts;
            container.state = ContainerState::Running { since: Some(time("02:30:00")) };
        });
        explain(&pod, Some((&report, &crate::diagnose(&report, &Default::default()))), None)
    };
    assert_eq!(starting(0).cause, Cause::None, "{:?}", starting(0));
    assert_ne!(starting(3).cause, Cause::None, "{:?}", starting(3));
}

#[test]
fn a_known_error_in_the_output_of_a_probe_is_the_cause() {
    let (pod, report) = running("S", Vec::new());
    let told = "Readiness probe failed: Failed to initialize NVML: Unknown Error";
    let pod = PodFacts { ready: Some(false), events: vec![event("Unhealthy", told, "02:39:00", true)], ..pod };
    let explained = explain(&pod, Some((&report, &crate::diagnose(&report, &Default::default()))), None);
    assert!(explained.cause == Cause::Node && explained.summary.contains("lost access"), "{explained:?}");
}

#[test]
fn a_runtime_that_cannot_stop_the_containers_keeps_a_deleted_pod() {
    let (pod, report) = running("S", Vec::new());
    let told = "error killing pod: failed to stop container 4b0ef9: it is stuck";
    let deleted = |events| PodFacts { deleted: Some(time("02:20:00")), grace_seconds: Some(30), events, ..pod.clone() };
    let explain = |pod: PodFacts| explain(&pod, Some((&report, &crate::diagnose(&report, &Default::default()))), None);
    let explained = explain(deleted(vec![event("FailedKillPod", told, "02:39:00", true)]));
    assert!(
        explained.cause == Cause::Node && explained.summary.contains("cannot stop its containers"),
        "{explained:?}"
    );
    assert!(!explain(deleted(Vec::new())).summary.contains("cannot stop its containers"));
}

#[test]
fn a_stopped_process_is_a_problem() {
    let (pod, report) = running("T", Vec::new());
    let explained = explain(&pod, Some((&report, &crate::diagnose(&report, &Default::default()))), None);
    assert!(explained.cause == Cause::Application && explained.summary.contains("stopped (state T)"), "{explained:?}");
}

#[test]
fn claims_that_hold_devices_are_named_for_a_pod_whose_claims_cannot_be_allocated() {
    let holder = "claim ml/worker-0 (pod worker-0) holds channel-0 of compute-domain.nvidia.com (pool gb-1)";
    let pod =
        |message: &str| PodFacts { message: Some(message.into()), claim_holders: vec![holder.into()], ..waiting() };
    let explained = explain(&pod("0/1 nodes are available: 1 cannot allocate all claims."), None, None);
    assert!(explained.summary.contains(holder), "{explained:?}");
    let other = explain(&pod("0/1 nodes are available: 1 Insufficient memory."), None, None);
    assert!(!other.summary.contains(holder), "{other:?}");
}

#[test]
fn a_pod_within_its_grace_period_ends_by_itself() {
    let (pod, report) = running("S", Vec::new());
    let taken_at = report.taken_at.expect("a time");
    let of = |seconds| {
        let pod = PodFacts {
            deleted: Some(taken_at - jiff::SignedDuration::from_secs(seconds)),
            grace_seconds: Some(60),
            ..pod.clone()
        };
        explain(&pod, Some((&report, &crate::diagnose(&report, &Default::default()))), None)
    };
    assert!(of(40).cause == Cause::None && of(40).summary.contains("20 s of its grace period"), "{:?}", of(40));
    assert!(!of(7200).summary.contains("grace period are left"), "{:?}", of(7200));
}
