//! Tests of messages of frameworks, launchers, logs and queues: CUDA and NCCL errors, signals of child processes, jobs
//! without pods, memory that ran out.

use super::process::running;
use super::{cause_of, failed, node};
use crate::explanation::explain;
use crate::explanation::types::{Cause, Certainty, Explanation};
use syringe_core::classification::ActionCode;
use syringe_core::facts::kubernetes::pod::{
    ContainerFacts, ContainerLog, ContainerSpec, ContainerState, PodEvent, PodFacts,
};

fn logged(lines: &[&str]) -> PodFacts {
    PodFacts { log_lines: lines.iter().map(|line| (*line).to_owned()).collect(), ..failed(1, "Error") }
}

fn of_log(lines: &[&str]) -> Explanation {
    cause_of(&logged(lines), &node(Vec::new()))
}

#[test]
fn an_error_of_cuda_wins_over_a_general_message_about_a_missing_gpu() {
    let warning = |error: &str| format!("UserWarning: CUDA initialization: {error} (Triggered internally at x.cpp:1)");
    let numbered = |error: &str| warning(&format!("Unexpected error from cudaGetDeviceCount(). Error {error}"));
    let general = [
        "RuntimeError: No CUDA GPUs are available",
        "RuntimeError: Failed to infer device type",
        "MisconfigurationException: No supported gpu backend found!",
        "AssertionError: CUDA is not available",
    ];
    for (error, what) in [
        (numbered("804: forward compatibility was attempted on non supported HW"), "cuda-compat"),
        (numbered("803: x"), "does not match the driver"),
        (numbered("802: x"), "fabric"),
        (numbered("46: x"), "no GPU accepted"),
        (numbered("999: x"), "unknown error"),
        (warning("The NVIDIA driver on your system is too old (found version 12020)."), "too old"),
    ] {
        for last in general {
            let explained = of_log(&[&error, "  return torch._C._cuda_getDeviceCount() > 0", last]);
            assert!(explained.summary.contains(what), "{error} / {last}: {}", explained.summary);
        }
    }
    for last in general {
        let explained = of_log(&[last]);
        assert!(explained.summary.contains("finds no GPU"), "{last}: {}", explained.summary);
    }
}

#[test]
fn the_words_after_the_last_error_of_nccl_are_the_error() {
    let nccl = |error: &str| {
        let head =
            "torch.distributed.DistBackendError: NCCL error in: x.cpp:2251, unhandled cuda error, NCCL version 2.21.5";
        of_log(&[head, "ncclUnhandledCudaError: Call to CUDA function failed.", "Last error:", error])
    };
    let memory = nccl("Cuda failure 2 'out of memory'");
    assert!(memory.summary.contains("memory of the GPU"), "{}", memory.summary);
    assert!(!memory.action.text.contains("MASTER_ADDR"), "{}", memory.action.text);
    let unknown = nccl("the frobnicator is sad");
    assert!(unknown.summary.contains("the frobnicator is sad"), "{}", unknown.summary);
    assert!(!unknown.action.text.contains("MASTER_ADDR"), "{}", unknown.action.text);
}

#[test]
fn a_child_that_the_kernel_ended_is_named_with_its_rank() {
    let child = |signal: &str, code: &str| {
        let traceback = format!("  traceback : Signal {code} ({signal}) received by PID 271");
        let exit = format!("  exitcode  : -{code} (pid: 271)");
        of_log(&[
            "ChildFailedError:",
            "Root Cause (first observed failure):",
            "  rank      : 3 (local_rank: 3)",
            &exit,
            &traceback,
        ])
    };
    for (signal, code, cause, action) in [
        // The kernel log covers this time and has no OOM kill.
        ("SIGKILL", "9", Cause::Unknown, ActionCode::Watch),
        ("SIGBUS", "7", Cause::Application, ActionCode::FixLimits),
        ("SIGSEGV", "11", Cause::Unknown, ActionCode::Watch),
    ] {
        let explained = child(signal, code);
        assert_eq!((explained.cause, explained.action.code), (cause, action), "{}", explained.summary);
        assert!(explained.summary.contains("rank 3") && explained.summary.contains(signal), "{}", explained.summary);
    }
    // The launcher ended this child after the failure of another child.
    assert!(!child("SIGTERM", "15").summary.contains("was ended by"));
}

#[test]
fn memory_ran_out_of_the_container_or_of_the_node() {
    let covered = node(Vec::new());
    for (limit, report, cause, certainty, what) in [
        (Some("64Gi"), None, Cause::Application, Certainty::Certain, "memory limit of 64Gi"),
        (Some("64Gi"), Some(&covered), Cause::Application, Certainty::Certain, "memory limit of 64Gi"),
        (None, None, Cause::Node, Certainty::Certain, "has no memory limit"),
        // The kernel log shows that the node did not run out of memory.
        (None, Some(&covered), Cause::Application, Certainty::Likely, "its specification has no limit"),
    ] {
        let spec =
            ContainerSpec { name: "main".into(), memory_limit: limit.map(str::to_owned), ..ContainerSpec::default() };
        let pod = PodFacts { specs: vec![spec], ..failed(137, "OOMKilled") };
        let explained = match report {
            Some(report) => cause_of(&pod, report),
            None => explain(&pod, None, Some("no probe")),
        };
        assert_eq!((explained.cause, explained.certainty), (cause, certainty), "{}", explained.summary);
        assert!(explained.summary.contains(what), "{}", explained.summary);
    }
}

#[test]
fn the_log_of_a_running_pod_is_quoted_whether_or_not_its_node_was_read() {
    let words =
        "[W1120 socket.cpp:752] [c10d] The client socket has failed to connect to [pt-master-0]:23456 (errno: 110)";
    let log = ContainerLog { container: "main".into(), lines: vec![words.into()], ..ContainerLog::default() };
    let (quiet, report) = running("S", Vec::new());
    let pod = PodFacts { other_logs: vec![log], ..quiet.clone() };
    for ready in [true, false] {
        let pod = PodFacts { ready: Some(ready), ..pod.clone() };
        for explained in [cause_of(&pod, &report), explain(&pod, None, Some("no probe"))] {
            assert!(explained.summary.contains("pt-master-0"), "{ready}: {}", explained.summary);
            assert_ne!(explained.cause, Cause::None, "{}", explained.summary);
        }
    }
    assert_eq!(cause_of(&quiet, &report).cause, Cause::None);
    let waits = PodFacts { siblings_not_running: vec!["pt-worker-3 (Pending)".into()], ..quiet };
    assert!(cause_of(&waits, &report).summary.contains("pt-worker-3 (Pending)"));
}

#[test]
fn a_gate_of_kueue_names_the_queue_and_the_command() {
    let gates = vec!["kueue.x-k8s.io/admission".to_owned()];
    let pod = PodFacts {
        namespace: "ml".into(),
        name: "train-0".into(),
        phase: "Pending".into(),
        scheduling_gates: gates,
        queue: Some("team-a".into()),
        ..PodFacts::default()
    };
    let explained = explain(&pod, None, None);
    assert_eq!(
        (explained.cause, explained.certainty),
        (Cause::Cluster, Certainty::Likely),
        "no message gives the reason"
    );
    assert!(explained.summary.contains("LocalQueue team-a"), "{}", explained.summary);
    assert!(explained.action.text.contains("kubectl get workloads,localqueues -n ml"), "{}", explained.action.text);
}

#[test]
fn a_job_without_pods_is_explained_by_its_last_event() {
    for (reason, cause, what) in [
        ("Suspended", Cause::Cluster, "is suspended"),
        ("PyTorchJobSuspended", Cause::Cluster, "is suspended"),
        ("SuspendedJobs", Cause::Cluster, "is suspended"),
        ("DeadlineExceeded", Cause::Application, "activeDeadlineSeconds"),
        ("BackoffLimitExceeded", Cause::Application, "backoffLimit"),
        ("Completed", Cause::None, "completed"),
    ] {
        let event = PodEvent { reason: reason.into(), message: "as it is".into(), ..PodEvent::default() };
        let pod = PodFacts {
            namespace: "ml".into(),
            name: "train".into(),
            phase: "NoPods".into(),
            events: vec![event],
            not_created_by: Some("Job train".into()),
            ..PodFacts::default()
        };
        let explained = explain(&pod, None, None);
        assert_eq!((explained.cause, explained.certainty), (cause, Certainty::Certain), "{}", explained.summary);
        assert!(
            explained.summary.contains(what) && !explained.summary.contains("could not create"),
            "{}",
            explained.summary
        );
    }
}

#[test]
fn the_kubelets_words_about_a_lost_container_are_not_those_of_the_program() {
    let words = "The container could not be located when the pod was terminated";
    let state = ContainerState::Terminated {
        exit_code: 137,
        reason: "ContainerStatusUnknown".into(),
        message: words.into(),
        started: None,
        finished: None,
    };
    let container = ContainerFacts { name: "main".into(), state, ..ContainerFacts::default() };
    let pod = PodFacts { containers: vec![container], reason: Some("Evicted".into()), ..failed(137, "Error") };
    assert!(!cause_of(&pod, &node(Vec::new())).summary.contains("last words"));
}
