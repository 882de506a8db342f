//! Tests that a cause precedes its effect and is about the same process, container or device. Tests of the timeline, of
//! deletion and of eviction.

use crate::explanation::explain;
use crate::explanation::tests::{
    Cause, Certainty, ContainerFacts, ContainerState, OTHER_GPU, OWN_GPU, PodFacts, address, cause_of, failed, node,
    running, time, xid,
};
use crate::finding::{Action, Diagnosis, Finding, Scope};
use syringe_core::classification::{ActionCode, Class, Severity};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind};
use syringe_core::report::Report;

/// Creates a finding about the pod's GPU, as the rules create it.
fn finding(id: &str, severity: Severity, action: ActionCode) -> Finding {
    Finding {
        id: id.into(),
        severity,
        class: Class::Hardware,
        scope: Scope { gpu: Some(0), ..Scope::default() },
        addresses: vec![address(OWN_GPU)],
        title: format!("title of {id}"),
        action: Action { code: action, text: format!("plan of {id}") },
        ..Finding::default()
    }
}

fn with(pod: &PodFacts, report: &Report, findings: Vec<Finding>) -> crate::explanation::types::Explanation {
    explain(pod, Some((report, &Diagnosis { findings, ..Diagnosis::default() })), None)
}

#[test]
fn a_pod_that_started_after_the_error_is_not_its_victim() {
    // The error affected pid 52731. The replacement of its pod started 51 s later.
    let (mut pod, report) = running("S", vec![xid(94, "01:59:14", OWN_GPU, Some(52_731))]);
    (pod.created, pod.scheduled) = (Some(time("02:00:04")), Some(time("02:00:05")));
    let explained =
        with(&pod, &report, vec![finding("row-remap-pending", Severity::Critical, ActionCode::DrainAndReset)]);
    assert_eq!((explained.cause, explained.certainty), (Cause::Gpu, Certainty::Possible), "{}", explained.summary);
    assert!(explained.summary.contains("running and Ready; there is a finding about its GPU"), "{}", explained.summary);
    assert!(explained.summary.contains("row-remap-pending"), "the open finding is named: {}", explained.summary);
    assert_eq!(explained.action.text, "plan of row-remap-pending");
    let told = explained.timeline.iter().find(|moment| moment.source == "kernel").expect("a kernel entry");
    assert!(told.what.ends_with("(before this run)"), "{told:?}");
}

#[test]
fn how_certain_an_error_is_follows_from_whom_it_met() {
    let of = |event: KernelEvent| {
        let (pod, report) = running("S", vec![event]);
        let explained = with(&pod, &report, vec![finding("ecc-contained", Severity::Critical, ActionCode::RestartPod)]);
        (explained.cause, explained.certainty)
    };
    assert_eq!(of(xid(94, "02:10:00", OWN_GPU, Some(7))), (Cause::Gpu, Certainty::Certain), "a process of the pod");
    assert_eq!(
        of(xid(94, "02:10:00", OWN_GPU, Some(8))),
        (Cause::Gpu, Certainty::Likely),
        "a process that no longer exists"
    );
    assert_eq!(of(xid(95, "02:10:00", OWN_GPU, Some(8))), (Cause::Gpu, Certainty::Certain), "all processes on the GPU");
    assert_eq!(of(xid(95, "02:10:00", OTHER_GPU, Some(8))).0, Cause::Gpu, "the finding is about its GPU");
}

#[test]
fn events_after_the_end_are_not_the_cause() {
    let report = node(vec![xid(79, "02:35:00", OWN_GPU, None)]);
    let explained = cause_of(&failed(1, "Error"), &report);
    assert_eq!(explained.cause, Cause::Application, "{}", explained.summary);
    assert!(
        explained.timeline.iter().any(|moment| moment.what.ends_with("(after its end)")),
        "{:?}",
        explained.timeline
    );
    assert!(explained.ruled_out.is_empty(), "{:?}", explained.ruled_out);
    assert!(explained.unknown[0].why.contains("Xid 79"), "{:?}", explained.unknown);
}

#[test]
fn a_gpu_fault_does_not_explain_the_end_of_a_container_without_gpu() {
    let mut pod = failed(1, "Error");
    let sidecar = ContainerFacts { name: "proxy".into(), ..pod.containers[0].clone() };
    let main = ContainerFacts {
        state: ContainerState::Running { since: Some(time("02:00:05")) },
        ..pod.containers[0].clone()
    };
    (pod.phase, pod.containers) = ("Running".into(), vec![main, sidecar]);
    let explained = cause_of(&pod, &node(vec![xid(95, "02:29:58", OWN_GPU, None)]));
    assert_eq!((explained.cause, explained.certainty), (Cause::Gpu, Certainty::Possible), "{}", explained.summary);
    assert!(explained.evidence.iter().any(|line| line.contains("does not use the GPUs")), "{explained:?}");
}

#[test]
fn an_earlier_run_of_a_container_does_not_answer_for_a_later_end() {
    // The container ended on its own at 02:30. The error of the GPU occurred at 02:00:01, before that run began.
    let explained = with(&failed(1, "Error"), &node(vec![xid(94, "02:00:01", OWN_GPU, Some(8))]), Vec::new());
    assert_eq!(explained.cause, Cause::Application, "{}", explained.summary);
}

#[test]
fn phase_and_state_come_first() {
    let (pod, report) = running("D", vec![xid(79, "02:20:00", OWN_GPU, None)]);
    let explained = cause_of(&pod, &report);
    assert!(
        explained.summary.starts_with("research/train-0 (Running, pid 7 in state D): "),
        "the pod is still running: {}",
        explained.summary
    );
}

#[test]
fn a_hang_asks_for_what_the_gpus_plan_asks_for() {
    let hung = KernelEvent {
        kind: KernelEventKind::HungTask,
        code: None,
        pci_address: None,
        ..xid(0, "02:20:00", OWN_GPU, Some(7))
    };
    let (pod, report) = running("D", vec![hung]);
    let power_cycle =
        Finding { class: Class::Driver, ..finding("gsp-failed", Severity::Fatal, ActionCode::DrainAndReset) };
    let of_process = Finding {
        scope: Scope { pid: Some(7), ..Scope::default() },
        addresses: Vec::new(),
        ..finding("process-stuck", Severity::Critical, ActionCode::DrainAndReboot)
    };
    let both = with(&pod, &report, vec![power_cycle, of_process.clone()]);
    assert_eq!(both.action.text, "plan of gsp-failed", "{}", both.summary);
    assert_eq!(with(&pod, &report, vec![of_process]).action.text, "plan of process-stuck");
}

#[test]
fn a_fatal_error_of_the_port_above_is_in_the_timeline() {
    let aer = |at: &str, port: &str| KernelEvent {
        kind: KernelEventKind::Aer,
        code: None,
        name: None,
        sub_code: Some("uncorrected_fatal".into()),
        ..xid(0, at, port, None)
    };
    let port = "0000:5b:00.0";
    let events = vec![
        aer("01:00:00", port),
        aer("02:29:57", port),
        aer("02:29:57", OTHER_GPU),
        xid(79, "02:29:58", OWN_GPU, None),
    ];
    let mut report = node(events);
    let gpu = syringe_core::facts::topology::GpuTopology {
        index: 1,
        pci_address: Some(address(OTHER_GPU)),
        ..syringe_core::facts::topology::GpuTopology::default()
    };
    let topology = syringe_core::facts::topology::Topology { gpus: vec![gpu], ..Default::default() };
    report.sections.topology = Some(syringe_core::report::Section::read(topology, Vec::new()));
    let explained = cause_of(&failed(1, "Error"), &report);
    let told: Vec<_> = explained.timeline.iter().filter(|moment| moment.what.contains("AER")).collect();
    assert_eq!(told.len(), 1, "{:?}", explained.timeline);
    assert!(told[0].what.contains("uncorrected fatal") && told[0].what.contains(port), "{told:?}");
}

#[test]
fn a_program_fault_of_a_pid_that_the_pod_never_had_is_a_guess() {
    let (pod, report) = running("S", vec![xid(31, "02:10:00", OWN_GPU, Some(8))]);
    let explained = cause_of(&pod, &report);
    assert_eq!(
        (explained.cause, explained.certainty),
        (Cause::Application, Certainty::Possible),
        "{}",
        explained.summary
    );
}

#[test]
fn the_drivers_own_software_is_explained_by_the_drivers_trouble() {
    let mut report = node(Vec::new());
    let why = syringe_core::report::Problem {
        why: "NVML: no".into(),
        code: syringe_core::nvml_codes::VERSION_MISMATCH.into(),
        ..Default::default()
    };
    report.sections.inventory = Some(syringe_core::report::Section::failed(why));
    report.sections.kubelet = None;
    let plugin = PodFacts { wants_gpus: false, gpu_containers: Vec::new(), is_gpu_stack: true, ..failed(1, "Error") };
    let explained = cause_of(&plugin, &report);
    assert_eq!((explained.cause, explained.certainty), (Cause::Node, Certainty::Likely), "{}", explained.summary);
    let another = PodFacts { is_gpu_stack: false, ..plugin };
    assert_eq!(cause_of(&another, &report).cause, Cause::Application);
}

#[test]
fn an_init_container_that_did_its_work_changes_nothing() {
    let (mut pod, report) = running("S", vec![xid(79, "02:20:00", OWN_GPU, None)]);
    let state = ContainerState::Terminated {
        exit_code: 0,
        reason: "Completed".into(),
        message: String::new(),
        started: Some(time("02:00:02")),
        finished: Some(time("02:00:03")),
    };
    pod.containers.insert(0, ContainerFacts { name: "init".into(), state, ..ContainerFacts::default() });
    let explained = cause_of(&pod, &report);
    assert_eq!((explained.cause, explained.certainty), (Cause::Gpu, Certainty::Certain), "{}", explained.summary);
}

#[test]
fn a_deletion_explains_the_end_after_it_and_a_pod_that_stays() {
    let deleted = |exit_code, requested: &str, grace| PodFacts {
        deleted: Some(time(requested)),
        grace_seconds: grace,
        ..failed(exit_code, "Error")
    };
    let report = node(Vec::new());
    for (pod, expected) in [
        (deleted(137, "02:29:00", None), Cause::Cluster),
        (deleted(143, "02:29:59", None), Cause::Cluster),
        (deleted(137, "02:20:00", Some(600)), Cause::Cluster),
        (deleted(1, "02:29:59", None), Cause::Cluster),
        (deleted(137, "02:10:00", None), Cause::Unknown),
        // The container ended before its pod was deleted.
        (deleted(137, "02:38:00", None), Cause::Unknown),
        (deleted(1, "02:38:00", None), Cause::Application),
    ] {
        let explained = cause_of(&pod, &report);
        assert_eq!(explained.cause, expected, "{:?} {:?}: {explained:?}", pod.deleted, pod.grace_seconds);
    }
    let running = |requested: &str, grace| {
        let mut pod = PodFacts { phase: "Running".into(), ready: Some(true), ..deleted(0, requested, grace) };
        pod.containers[0].state = ContainerState::Running { since: Some(time("02:00:00")) };
        pod
    };
    let of = |pod: &PodFacts| cause_of(pod, &report);
    assert_eq!(of(&running("01:00:00", None)).cause, Cause::Node, "{:?}", of(&running("01:00:00", None)));
    assert_eq!(of(&running("02:39:30", None)).cause, Cause::None);
    assert_eq!(of(&running("01:00:00", Some(7200))).cause, Cause::None, "the grace period is two hours");
    let ended = PodFacts { phase: "Running".into(), ..deleted(137, "01:00:00", None) };
    assert_eq!(of(&ended).cause, Cause::Cluster);
    assert!(of(&ended).summary.contains("finalizer"), "{}", of(&ended).summary);
}

#[test]
fn the_condition_and_the_events_of_an_eviction_are_the_cause() {
    for (condition, words) in [
        ("PreemptionByScheduler: default-scheduler: preempting to accommodate a higher priority pod", "preempted"),
        ("DeletionByTaintManager: Taint manager: deleting due to NoExecute taint", "taint"),
        ("EvictionByEvictionAPI: Eviction API: evicting", "drain"),
    ] {
        let pod = PodFacts { disruption: Some(condition.into()), ..failed(143, "Error") };
        let explained = cause_of(&pod, &node(Vec::new()));
        assert_eq!((explained.cause, explained.certainty), (Cause::Cluster, Certainty::Certain), "{explained:?}");
        assert!(explained.summary.contains(words), "{}", explained.summary);
    }
    let event = syringe_core::facts::kubernetes::pod::PodEvent {
        time: Some(time("02:10:00")),
        reason: "Preempted".into(),
        message: "Preempted by pod 0a1b on node gpu-2".into(),
        count: 1,
        field: String::new(),
        warning: false,
    };
    let killing = syringe_core::facts::kubernetes::pod::PodEvent {
        time: Some(time("02:10:01")),
        reason: "Killing".into(),
        message: "Stopping container main".into(),
        ..event.clone()
    };
    let both =
        PodFacts { events: vec![event.clone(), killing], deleted: Some(time("02:10:00")), ..failed(143, "Error") };
    let explained = cause_of(&both, &node(Vec::new()));
    assert!(explained.summary.contains("preempted by pod 0a1b"), "{explained:?}");
    let pod = PodFacts { containers: Vec::new(), phase: "Pending".into(), events: vec![event], ..failed(0, "") };
    let explained = cause_of(&pod, &node(Vec::new()));
    assert_eq!((explained.cause, explained.certainty), (Cause::Cluster, Certainty::Certain), "{explained:?}");
    assert!(explained.action.text.contains("priority"), "{explained:?}");
}
