//! Tests that the explanation of a pod agrees with the diagnosis of its node: switches, processes on the GPU, driver
//! state.

use syringe_core::classification::Severity;
use syringe_core::facts::container_runtime::ContainerRuntime;
use syringe_core::facts::processes::GpuUse;

use crate::explanation::tests::*;
use crate::explanation::types::Explanation;

const SWITCH: &str = "0000:05:00.0";

/// Creates a pod whose container ended with exit code 1 and this termination message.
fn said(words: &str) -> PodFacts {
    let mut pod = failed(1, "Error");
    if let ContainerState::Terminated { message, .. } = &mut pod.containers[0].state {
        *message = words.into();
    }
    pod
}

/// Creates a pod whose container the runtime could not start.
fn refused(words: &str) -> PodFacts {
    let mut pod = failed(128, "StartError");
    if let ContainerState::Terminated { message, started, .. } = &mut pod.containers[0].state {
        *message = words.into();
        *started = None;
    }
    pod
}

fn fatal_sxid(at: &str) -> KernelEvent {
    let details = [("nv_severity".to_owned(), "Fatal".to_owned())].into();
    KernelEvent { kind: KernelEventKind::Sxid, code: Some(20034), details, ..xid(0, at, SWITCH, None) }
}

const NCCL: &str = "[Rank 3] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7)";

#[test]
fn a_fault_of_the_switch_while_the_pod_ran_is_named() {
    for words in ["", NCCL] {
        let explained = cause_of(&said(words), &node(vec![fatal_sxid("02:29:30")]));
        assert_eq!((explained.cause, explained.certainty), (Cause::Gpu, Certainty::Likely), "{}", explained.summary);
        assert!(explained.summary.contains("NVSwitch"), "{}", explained.summary);
        assert!(explained.evidence.iter().any(|line| line.contains("SXid 20034")), "{:?}", explained.evidence);
        assert_eq!(explained.action.code, ActionCode::DrainAndReset, "{}", explained.action.text);
    }
    let own = node(vec![fatal_sxid("02:29:30"), xid(74, "02:29:31", OWN_GPU, None)]);
    let explained = cause_of(&said(""), &own);
    assert_eq!(explained.action.code, ActionCode::DrainAndReset, "not another GPU of the same board: {explained:?}");
    let exception = cause_of(&said("KeyError: 'lr'"), &node(vec![fatal_sxid("02:02:00")]));
    assert_eq!(exception.cause, Cause::Application, "{}", exception.summary);
    assert!(exception.ruled_out.is_empty(), "{:?}", exception.ruled_out);
}

#[test]
fn a_lost_gpu_of_the_node_is_named_where_a_rank_waited_in_vain() {
    let explained = cause_of(&said(NCCL), &node(vec![xid(79, "02:10:00", OTHER_GPU, None)]));
    assert_eq!(explained.cause, Cause::Unknown, "{}", explained.summary);
    assert!(explained.summary.contains("another GPU or an NVSwitch of its node failed"), "{}", explained.summary);
    assert!(explained.evidence.iter().any(|line| line.contains("Xid 79")), "{:?}", explained.evidence);
    let text = &explained.action.text;
    assert_eq!(explained.action.code, ActionCode::DrainAndReboot, "the plan of the other GPU: {text}");
    assert!(text.contains(OTHER_GPU) && text.contains("the rank that failed first"), "{text}");
    for other in ["KeyError: 'lr'", ""] {
        let explained = cause_of(&said(other), &node(vec![xid(79, "02:10:00", OTHER_GPU, None)]));
        assert!(!explained.summary.contains("another GPU"), "{}", explained.summary);
    }
}

/// Creates a node with a process outside of all pods that uses this much memory of the first GPU.
fn with_foreign(bytes: u64, state: &str) -> Report {
    let mut report = node(Vec::new());
    let inventory = report.sections.inventory.as_mut().and_then(|section| section.data.as_mut()).expect("an inventory");
    inventory.gpus.iter_mut().for_each(|gpu| gpu.memory_total_bytes = Some(80 << 30));
    let process = GpuProcess {
        pid: 4242,
        name: Some("python3".into()),
        state: Some(state.into()),
        uses: vec![GpuUse { gpu: 0, kind: "compute".into(), memory_bytes: Some(bytes), ..GpuUse::default() }],
        ..GpuProcess::default()
    };
    let processes = Processes { host_pid_namespace: true, processes: vec![process], ..Processes::default() };
    report.sections.processes = Some(Section::read(processes, Vec::new()));
    report
}

#[test]
fn memory_that_a_foreign_process_holds_is_not_the_batch_size() {
    let pod = said("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB.");
    for state in ["S", "Z"] {
        let explained = cause_of(&pod, &with_foreign(70 << 30, state));
        assert_eq!((explained.cause, explained.certainty), (Cause::Node, Certainty::Likely), "{}", explained.summary);
        assert!(explained.evidence.iter().any(|line| line.contains("pid 4242")), "{:?}", explained.evidence);
        assert!(explained.evidence.iter().any(|line| line.contains("70.0 GiB")), "{:?}", explained.evidence);
        assert!(explained.ruled_out.is_empty(), "{:?}", explained.ruled_out);
    }
    let small = cause_of(&pod, &with_foreign(300 << 20, "S"));
    assert_eq!(small.cause, Cause::Application, "300 MiB of 80 GiB are no reason: {}", small.summary);
}

#[test]
fn a_message_about_the_driver_is_compared_with_its_present_state() {
    for reason in [
        "initialization error: driver/library version mismatch: unknown",
        "initialization error: driver not loaded: unknown",
    ] {
        let words = format!("nvidia-container-cli: {reason}");
        let explained = cause_of(&refused(&format!("nvml error: {words}")), &node(Vec::new()));
        assert_eq!(explained.action.code, ActionCode::RestartPod, "{reason}: {explained:?}");
        assert_ne!(explained.certainty, Certainty::Certain, "{reason}");
        assert!(explained.summary.contains("works now"), "{}", explained.summary);
    }
    let now = cause_of(&said("Failed to initialize NVML: Driver/library version mismatch"), &node(Vec::new()));
    assert_eq!(now.action.code, ActionCode::RestartPod, "{now:?}");
    let mut broken = node(Vec::new());
    let why = Problem { why: "NVML: no".into(), code: VERSION_MISMATCH.into(), ..Problem::default() };
    broken.sections.inventory = Some(Section::failed(why));
    let still = cause_of(&said("Failed to initialize NVML: Driver/library version mismatch"), &broken);
    assert_eq!(still.action.code, ActionCode::DrainAndReboot, "{still:?}");
}

#[test]
fn a_gpu_container_without_nvidia_smi_did_not_get_the_driver() {
    let words = "OCI runtime create failed: exec: \"nvidia-smi\": executable file not found in $PATH: unknown";
    let mut report = node(Vec::new());
    let runtime = ContainerRuntime { default_handler: Some("runc".into()), ..ContainerRuntime::default() };
    report.sections.host =
        Some(Section::read(Host { container_runtime: Some(runtime), ..Host::default() }, Vec::new()));
    let explained = cause_of(&refused(words), &report);
    assert_eq!((explained.cause, explained.certainty), (Cause::Node, Certainty::Likely), "{}", explained.summary);
    assert!(explained.evidence.iter().any(|line| line.contains("default handler of gpu-2 is runc")), "{explained:?}");
    let without = PodFacts { wants_gpus: false, gpu_containers: Vec::new(), ..refused(words) };
    report.sections.kubelet = None;
    let explained = cause_of(&without, &report);
    assert_eq!(explained.action.code, ActionCode::ChangeRequest, "{explained:?}");
}

#[test]
fn an_error_of_another_process_an_hour_before_is_not_the_cause_of_an_exception() {
    let hour_before = |code: u32| {
        let mut pod = said("KeyError: 'lr'");
        if let ContainerState::Terminated { started, .. } = &mut pod.containers[0].state {
            *started = Some(time("01:00:05"));
        }
        (pod.created, pod.scheduled) = (Some(time("00:59:50")), Some(time("01:00:00")));
        let event = KernelEvent { process: Some("nvidia-smi".into()), ..xid(code, "01:30:00", OWN_GPU, Some(9)) };
        cause_of(&pod, &node(vec![event]))
    };
    for code in [62, 79, 95, 109, 119] {
        let explained = hour_before(code);
        assert_eq!(explained.cause, Cause::Application, "Xid {code}: {}", explained.summary);
        let shown = explained.evidence.iter().any(|line| line.contains(&format!("Xid {code}")));
        assert!(shown && explained.ruled_out.is_empty(), "Xid {code}: {explained:?}");
    }
    let near = cause_of(&said("KeyError: 'lr'"), &node(vec![xid(119, "02:29:50", OWN_GPU, Some(7))]));
    assert_eq!(near.cause, Cause::Node, "{}", near.summary);
}

/// The action of the explanation is never stronger than the action of the diagnosis.
#[test]
fn an_error_from_which_the_gpu_recovered_asks_for_a_restart_of_the_pod() {
    let explained = |recovered: bool| -> Explanation {
        let report = node(vec![xid(119, "02:29:50", OWN_GPU, Some(7))]);
        let severity = if recovered { Severity::Info } else { Severity::Warning };
        let mut finding = diagnose(&report, &cluster_of(&report)).findings.remove(0);
        assert_eq!(finding.id, "gsp-failed");
        finding.severity = severity;
        let diagnosis = Diagnosis { findings: vec![finding], ..Diagnosis::default() };
        explain(&failed(1, "Error"), Some((&report, &diagnosis)), None)
    };
    assert_eq!(explained(true).action.code, ActionCode::RestartPod);
    assert_eq!(explained(false).action.code, ActionCode::DrainAndReset);
}

#[test]
fn a_pod_that_runs_on_a_gpu_that_works_again_has_outlived_the_error() {
    let (pod, report) = running("S", vec![xid(119, "02:10:00", OWN_GPU, Some(8))]);
    let mut finding = diagnose(&report, &cluster_of(&report)).findings.remove(0);
    assert_eq!(finding.id, "gsp-failed");
    finding.severity = Severity::Info;
    let diagnosis = Diagnosis { findings: vec![finding], ..Diagnosis::default() };
    let explained = explain(&pod, Some((&report, &diagnosis)), None);
    assert_eq!((explained.cause, explained.certainty), (Cause::Gpu, Certainty::Possible), "{}", explained.summary);
    assert!(explained.summary.contains("the error did not end the pod"), "{}", explained.summary);
}
