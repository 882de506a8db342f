//! Tests of explanations that combine a message with facts about the same process, port, node, path or version, or at
//! the same time (boot, end of the program, completion).

use crate::explanation::tests::*;
use crate::finding::{Action, Finding, Plan, Scope, Urgency};
use jiff::SignedDuration;
use syringe_core::classification::{Class, Severity};
use syringe_core::facts::kubernetes::pod::ContainerSpec;
use syringe_core::facts::processes::GpuUse;

/// Creates a pod whose container ended with this exit code, reason and termination message.
fn ended(exit_code: i32, reason: &str, words: &str) -> PodFacts {
    let mut pod = failed(exit_code, reason);
    if let ContainerState::Terminated { message, .. } = &mut pod.containers[0].state {
        *message = words.into();
    }
    pod
}

fn with_findings(pod: &PodFacts, report: &Report, diagnosis: &Diagnosis) -> crate::explanation::Explanation {
    explain(pod, Some((report, diagnosis)), None)
}

#[test]
fn an_error_that_the_program_handled_is_not_the_cause() {
    let causes = [
        "CUDA error: uncorrectable ECC error encountered",
        "NVMLError_GpuIsLost: GPU is lost",
        "Error 802: system not yet initialized",
    ];
    for words in causes {
        for before in [format!("[warn] {words} (retry 1/3)"), format!("# {words}"), format!("RuntimeError: {words}")] {
            let message = format!("{before}\nretry ok\nValueError: batch must be divisible by 8");
            let explained = cause_of(&ended(1, "Error", &message), &node(Vec::new()));
            assert_eq!(explained.cause, Cause::Application, "{message}: {}", explained.summary);
            let in_log = PodFacts {
                log_lines: vec![before.clone()],
                ..ended(1, "Error", "ValueError: batch must be divisible by 8")
            };
            assert_eq!(cause_of(&in_log, &node(Vec::new())).cause, Cause::Application, "{before}");
        }
        let explained = cause_of(&ended(1, "Error", &format!("RuntimeError: {words}")), &node(Vec::new()));
        assert_ne!(explained.cause, Cause::Application, "{}", explained.summary);
        // The summary distinguishes the message of the program from the state of the node.
        let contradicted = explained.summary.contains("; but the node has no fault of a GPU");
        assert_eq!(contradicted, explained.summary.contains("its message reports that"), "{}", explained.summary);
    }
}

#[test]
fn a_message_about_another_node_is_not_about_this_one() {
    for words in [
        "[rank21]: torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered (reported by node gpu-h100-7)",
        "CUDA error: uncorrectable ECC error encountered; peer rank 21 failed",
        "host gpu-9: NVMLError_GpuIsLost: GPU is lost",
    ] {
        let explained = cause_of(&ended(1, "Error", words), &node(Vec::new()));
        assert_eq!((explained.cause, explained.action.code), (Cause::Unknown, ActionCode::Watch), "{explained:?}");
        assert!(explained.summary.contains("not about its own node"), "{}", explained.summary);
    }
    let own = cause_of(&ended(1, "Error", "host gpu-2: NVMLError_GpuIsLost: GPU is lost"), &node(Vec::new()));
    assert!(!own.summary.contains("not about its own node"), "{}", own.summary);
}

/// Creates a node with a process of another pod on the GPU of the pod.
fn shared(memory_bytes: u64, pid: u32) -> Report {
    let mut report = node(Vec::new());
    let use_of_own = GpuUse { gpu: 0, kind: "compute".into(), memory_bytes: Some(memory_bytes), ..GpuUse::default() };
    let process = GpuProcess {
        pid,
        name: Some("python3".into()),
        pod_uid: Some("66666666-2222-3333-4444-555555555555".into()),
        uses: vec![use_of_own],
        ..GpuProcess::default()
    };
    let inventory = report.sections.inventory.as_mut().and_then(|section| section.data.as_mut()).expect("an inventory");
    inventory.gpus[0].memory_total_bytes = Some(48 << 30);
    let processes = report.sections.processes.as_mut().and_then(|section| section.data.as_mut()).expect("processes");
    processes.processes.push(process);
    report
}

#[test]
fn the_pod_that_holds_the_memory_of_the_gpu_is_named() {
    let names = [("66666666-2222-3333-4444-555555555555".to_owned(), "ml/nb-0".to_owned())];
    let diagnosis = Diagnosis { pod_names: names.into(), ..Diagnosis::default() };
    for words in [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 8.00 GiB. Process 9300 has 38.00 GiB memory in use.",
        "ResourceExhaustedError: OOM when allocating tensor with shape[8] on /job:x/device:GPU:0 by allocator GPU_0_bfc",
        "MemoryError: std::bad_alloc: out_of_memory: RMM failure at: pool_memory_resource.hpp:313: Maximum pool size exceeded",
    ] {
        let explained = with_findings(&ended(1, "Error", words), &shared(38 << 30, 9300), &diagnosis);
        assert_eq!(explained.cause, Cause::Application, "{}", explained.summary);
        let named = explained.summary.contains("process 9300 (python3) of pod ml/nb-0 uses 38");
        assert!(named && explained.summary.contains("GPU memory, not host memory"), "{}", explained.summary);
        let little = with_findings(&ended(1, "Error", words), &shared(1 << 30, 9300), &diagnosis);
        assert!(!little.summary.contains("9300 ("), "{}", little.summary);
    }
    let host = with_findings(&ended(1, "Error", "numpy: std::bad_alloc"), &shared(38 << 30, 9300), &diagnosis);
    assert!(host.summary.contains("host memory") && !host.summary.contains("9300"), "{}", host.summary);
}

#[test]
fn a_finding_about_the_port_that_a_message_names_is_the_cause() {
    let finding = Finding {
        id: "rdma-port-not-active".into(),
        severity: Severity::Warning,
        class: Class::Fabric,
        title: "A network port next to a GPU is not active".into(),
        scope: Scope { gpu: Some(1), ..Scope::default() },
        addresses: vec![address(OTHER_GPU)],
        evidence: vec!["mlx5_5 port 1 (InfiniBand): state DOWN; 7 of 8 ports next to GPUs are active".into()],
        action: Action { code: ActionCode::CheckCabling, text: "Check cable".into() },
        ..Finding::default()
    };
    let diagnosis = Diagnosis { findings: vec![finding], ..Diagnosis::default() };
    for words in [
        "NCCL WARN NET/IB: mlx5_5:1 Got async event: port error",
        "UCX ERROR mlx5_5:1/IB: it is sad",
        "NCCL WARN NET/IB : mlx5_5:1 Got completion from peer 10.0.0.9 with status=12",
    ] {
        let explained = with_findings(&ended(1, "Error", words), &node(Vec::new()), &diagnosis);
        assert_eq!(
            (explained.cause, explained.action.code),
            (Cause::Node, ActionCode::CheckCabling),
            "{words}: {explained:?}"
        );
        assert!(!explained.evidence.iter().any(|line| line.contains("nothing shows")), "{:?}", explained.evidence);
        let other = words.replace("mlx5_5", "mlx5_4");
        let explained = with_findings(&ended(1, "Error", &other), &node(Vec::new()), &diagnosis);
        assert!(!explained.summary.contains("names a part of the node"), "{}", explained.summary);
    }
}

/// Creates the report of a node that booted at this time. The node was read at 02:40.
fn booted(at: &str) -> Report {
    let mut report = node(Vec::new());
    let taken = time("02:40:00");
    let uptime = taken.duration_since(time(at)).as_secs().unsigned_abs();
    report.taken_at = Some(taken);
    report.sections.host = Some(Section::read(Host { uptime_seconds: Some(uptime), ..Host::default() }, Vec::new()));
    report
}

#[test]
fn a_container_that_was_lost_by_a_reboot_is_not_its_programs_fault() {
    let lost = |code, reason: &str| {
        ended(code, reason, if reason == "Error" { "" } else { "The container could not be located" })
    };
    for (pod, boot, is_reboot) in [
        (lost(255, "Unknown"), "02:35:00", true),
        (lost(137, "ContainerStatusUnknown"), "02:29:00", true),
        (lost(255, "Error"), "02:31:00", true),
        (lost(143, "Error"), "02:33:00", true),
        // The container started after the boot.
        (lost(255, "Unknown"), "01:30:00", false),
        (lost(1, "Error"), "02:31:00", false),
        (ended(255, "Error", "KeyError: 'x'"), "02:31:00", false),
    ] {
        let explained = cause_of(&pod, &booted(boot));
        assert_eq!(explained.summary.contains("was rebooted"), is_reboot, "{boot}: {}", explained.summary);
        if is_reboot {
            assert_eq!(
                (explained.cause, explained.action.code),
                (Cause::Node, ActionCode::RestartPod),
                "{explained:?}"
            );
        }
    }
}

#[test]
fn a_program_that_completed_and_a_container_that_keeps_its_pod_are_told_apart() {
    let mut pod = ended(0, "Completed", "");
    let state = ContainerState::Running { since: Some(time("02:00:04")) };
    pod.containers.push(ContainerFacts { name: "istio-proxy".into(), state, ..ContainerFacts::default() });
    pod.phase = "Running".into();
    pod.ready = Some(false);
    let explained = cause_of(&pod, &node(Vec::new()));
    assert_eq!((explained.cause, explained.certainty), (Cause::Application, Certainty::Certain), "{explained:?}");
    assert!(explained.summary.contains("istio-proxy still runs"), "{}", explained.summary);
    assert!(explained.action.text.contains("native sidecar"), "{}", explained.action.text);
    pod.gpu_containers = vec!["istio-proxy".into()];
    let explained = cause_of(&pod, &node(Vec::new()));
    assert!(!explained.summary.contains("keeps the pod"), "{}", explained.summary);
}

#[test]
fn a_pod_that_runs_on_a_node_which_must_be_drained_is_told_so() {
    let state = ContainerState::Running { since: Some(time("02:00:05")) };
    let main = ContainerFacts { name: "main".into(), state, ..ContainerFacts::default() };
    let pod = PodFacts { phase: "Running".into(), ready: Some(true), containers: vec![main], ..failed(0, "") };
    let lost = Finding {
        id: "gpu-off-bus".into(),
        severity: Severity::Fatal,
        class: Class::Hardware,
        title: "GPU fell off the PCIe bus".into(),
        addresses: vec![address(OTHER_GPU)],
        scope: Scope { pci: Some(address(OTHER_GPU)), ..Scope::default() },
        ..Finding::default()
    };
    for (action, urgency, drained) in [
        (ActionCode::DrainAndReboot, Urgency::Now, true),
        (ActionCode::DrainAndReset, Urgency::WhenJobsEnd, true),
        (ActionCode::DrainAndReboot, Urgency::NextMaintenance, false),
        (ActionCode::CheckCooling, Urgency::Now, false),
    ] {
        let plan = Plan { action, urgency, findings: vec![lost.id.clone()], ..Plan::default() };
        let diagnosis = Diagnosis { findings: vec![lost.clone()], plan: vec![plan], ..Diagnosis::default() };
        let explained = with_findings(&pod, &node(Vec::new()), &diagnosis);
        assert_eq!(explained.cause == Cause::Node, drained, "{action:?}: {}", explained.summary);
        assert_eq!(explained.action.text.contains("save its work"), drained, "{}", explained.action.text);
    }
}

#[test]
fn a_pull_is_a_reason_to_wait_until_it_takes_too_long() {
    let pulling = |ago: i64| {
        let event = PodEvent {
            time: time("02:40:00").checked_sub(SignedDuration::from_mins(ago)).ok(),
            reason: "Pulling".into(),
            message: "Pulling image \"train:1\"".into(),
            count: 1,
            field: "spec.containers{main}".into(),
            ..PodEvent::default()
        };
        let state = ContainerState::Waiting { reason: "ContainerCreating".into(), message: String::new() };
        let main = ContainerFacts { name: "main".into(), state, ..ContainerFacts::default() };
        PodFacts { phase: "Pending".into(), containers: vec![main], events: vec![event], ..failed(1, "Error") }
    };
    let report = booted("00:00:00");
    let explained = cause_of(&pulling(3), &report);
    assert_eq!(explained.cause, Cause::None, "{}", explained.summary);
    assert!(explained.summary.contains("train:1") && explained.action.text.starts_with("Wait"), "{explained:?}");
    assert_eq!(cause_of(&pulling(90), &report).cause, Cause::Unknown);
}

#[test]
fn a_disk_of_the_node_is_not_the_programs_matter() {
    let event = PodEvent {
        time: Some(time("02:10:00")),
        reason: "FailedMount".into(),
        message: "MountVolume.SetUp failed for volume \"kube-api-access\" : mkdir /var/lib/kubelet/pods/777/volumes: read-only file system".into(),
        count: 4,
        ..PodEvent::default()
    };
    let state = ContainerState::Waiting { reason: "ContainerCreating".into(), message: String::new() };
    let main = ContainerFacts { name: "main".into(), state, ..ContainerFacts::default() };
    let pod = PodFacts { phase: "Pending".into(), containers: vec![main], events: vec![event], ..failed(1, "Error") };
    let explained = cause_of(&pod, &node(Vec::new()));
    assert_eq!(explained.cause, Cause::Node, "{}", explained.summary);
    assert!(explained.summary.contains("is read-only, so the kubelet cannot write"), "{}", explained.summary);
    assert!(!explained.action.text.contains("program"), "{}", explained.action.text);
}

#[test]
fn a_socket_that_does_not_respond_is_joined_with_the_daemonset_of_its_server() {
    let message = "plugin type=\"multus-shim\" failed (add): dial unix /host/run/multus/socket/multus.sock: connect: connection refused";
    let event = PodEvent {
        time: Some(time("02:10:00")),
        reason: "FailedCreatePodSandBox".into(),
        message: message.into(),
        count: 4,
        warning: true,
        ..PodEvent::default()
    };
    let state = ContainerState::Waiting { reason: "ContainerCreating".into(), message: String::new() };
    let main = ContainerFacts { name: "main".into(), state, ..ContainerFacts::default() };
    let pod = PodFacts { phase: "Pending".into(), containers: vec![main], events: vec![event], ..failed(1, "Error") };
    for (name, joined) in [("kube-system/kube-multus-ds", true), ("kube-system/kube-proxy", false)] {
        let finding = Finding {
            id: "daemonset-pod-not-ready".into(),
            severity: Severity::Warning,
            title: "The pod of a DaemonSet is not ready on the node".into(),
            evidence: vec![format!("{name}: CrashLoopBackOff, OOMKilled")],
            action: Action { code: ActionCode::FixLimits, text: "raise its memory limit".into() },
            ..Finding::default()
        };
        let diagnosis = Diagnosis { findings: vec![finding], ..Diagnosis::default() };
        let explained = with_findings(&pod, &node(Vec::new()), &diagnosis);
        assert_eq!(
            explained.action.text.contains("raise its memory limit"),
            joined,
            "{name}: {}",
            explained.action.text
        );
        assert_eq!(explained.summary.contains("about the same subject"), joined, "{name}: {}", explained.summary);
    }
}

/// A launcher, a server or another rank reports last, and its message has no reason.
#[test]
fn a_message_about_a_consequence_hides_no_reason_before_it() {
    let reasons = [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 448.00 MiB.", "memory of the GPU"),
        (
            "ValueError: Free memory on device (3.1/44.4 GiB) on startup is less than desired GPU memory utilization",
            "less free memory",
        ),
        (
            "RuntimeError: CUDA error: no kernel image is available for execution on the device",
            "not built for this GPU",
        ),
        ("Loaded runtime CuDNN library: 9.1.0 but source was compiled with: 9.8.0", "cuDNN"),
    ];
    let consequences = [
        "RuntimeError: Engine core initialization failed. See root cause above.",
        "jaxlib.xla_extension.XlaRuntimeError: INTERNAL: cudnn_status_not_initialized",
        "[rank0]: torch.distributed.DistBackendError: NCCL error: remote process exited or there was a network error",
    ];
    for (reason, words) in reasons {
        for last in consequences {
            let in_log = PodFacts { log_lines: vec![reason.into(), last.into()], ..ended(1, "Error", "") };
            for pod in [in_log, ended(1, "Error", &format!("{reason}\n{last}"))] {
                let explained = cause_of(&pod, &node(Vec::new()));
                assert!(explained.summary.contains(words), "{reason}: {last}: {}", explained.summary);
            }
        }
    }
}

/// A framework ends its own processes with SIGKILL. Errors in the log of a pod that another component ended are consequences.
#[test]
fn a_killed_program_is_explained_by_its_log_if_nobody_else_killed_it() {
    let log = vec!["torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 448.00 MiB.".to_owned()];
    let pod = PodFacts { log_lines: log, ..ended(137, "Error", "") };
    assert!(cause_of(&pod, &node(Vec::new())).summary.contains("memory of the GPU"));
    // The program went on with its work after this error.
    let mut log = pod.log_lines.clone();
    log.extend(["[02:41:00] INFO served request 7".to_owned(), "[02:42:00] INFO served request 8".to_owned()]);
    let went_on = PodFacts { log_lines: log, ..pod.clone() };
    assert!(!cause_of(&went_on, &node(Vec::new())).summary.contains("memory of the GPU"));
    for reason in ["Killing", "Stopped"] {
        let event =
            PodEvent { reason: reason.into(), message: "Stopping container main".into(), ..PodEvent::default() };
        let stopped = PodFacts { events: vec![event], ..pod.clone() };
        let explained = cause_of(&stopped, &node(Vec::new()));
        assert!(!explained.summary.contains("memory of the GPU"), "{}", explained.summary);
    }
}

#[test]
fn a_message_about_versions_or_numbers_is_compared_with_the_node_and_the_pod() {
    let old = "RuntimeError: The NVIDIA driver on your system is too old (found version 12040).";
    let mut report = node(Vec::new());
    for (offered, is_newer) in [("13.0", true), ("12.4", false), ("12.2", false)] {
        if let Some(inventory) = report.sections.inventory.as_mut().and_then(|section| section.data.as_mut()) {
            inventory.cuda_version = Some(offered.into());
        }
        let explained = cause_of(&ended(1, "Error", old), &report);
        assert_eq!(explained.summary.contains("older than the driver of its node"), is_newer, "{}", explained.summary);
        assert_eq!(explained.action.text.contains("Update the driver"), !is_newer, "{}", explained.action.text);
    }
    let few = "ValueError: tensor parallel size (4) cannot be larger than the number of available GPUs (1).";
    for (value, is_named) in [("0", true), ("0,1,2,3", false)] {
        let spec = ContainerSpec {
            name: "main".into(),
            environment: vec![("CUDA_VISIBLE_DEVICES".into(), value.into())],
            ..ContainerSpec::default()
        };
        let pod = PodFacts { gpus_requested: 4, specs: vec![spec], ..ended(1, "Error", few) };
        let explained = cause_of(&pod, &report);
        assert_eq!(
            explained.action.text.contains("Remove CUDA_VISIBLE_DEVICES"),
            is_named,
            "{}",
            explained.action.text
        );
    }
}

#[test]
fn all_signals_of_the_kernel_have_a_meaning() {
    for (code, words) in [(132, "SIGILL"), (136, "SIGFPE"), (159, "SIGSYS")] {
        assert!(cause_of(&ended(code, "Error", ""), &node(Vec::new())).summary.contains(words));
    }
}
