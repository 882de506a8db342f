//! Tests of explanations from processes in state D, zombies, exit codes, memory and the GPU access of containers, and
//! of the timeline. `running`: a running pod, for other tests.

use crate::explanation::tests::*;
use jiff::SignedDuration;
use syringe_core::facts::kubernetes::node::KubernetesInput;
use syringe_core::facts::kubernetes::pod::ContainerSpec;
use syringe_core::facts::processes::GpuUse;

#[test]
fn the_gpu_is_ruled_out_only_if_it_was_read() {
    let said = |pod: &PodFacts, report: &Report| cause_of(pod, report).ruled_out.first().cloned();
    let unknown = |pod: &PodFacts, report: &Report| cause_of(pod, report).unknown.first().map(|one| one.why.clone());
    let mut forgotten = node(Vec::new());
    forgotten.sections.kubelet = None;
    // If no GPU of the node has a fault, it does not matter which GPU the pod had.
    let all = said(&failed(1, "Error"), &forgotten);
    assert!(all.is_some_and(|line| line.starts_with("GPU: none of the 2 GPUs")));
    let mut faulty = node(vec![xid(95, "02:10:00", OTHER_GPU, None)]);
    faulty.sections.kubelet = None;
    assert_eq!(said(&failed(1, "Error"), &faulty), None);
    assert!(unknown(&failed(1, "Error"), &faulty).is_some_and(|why| why.contains("Xid 95")));
    let without = PodFacts { wants_gpus: false, ..failed(1, "Error") };
    assert_eq!(said(&without, &forgotten).as_deref(), Some("GPU: this pod requests no GPU"));
    forgotten.sections.inventory = Some(Section::read(Inventory::default(), Vec::new()));
    let none = "GPU fault not ruled out: the node lists no GPU";
    assert_eq!(unknown(&failed(1, "Error"), &forgotten).as_deref(), Some(none));
    assert_eq!(said(&failed(1, "Error"), &forgotten), None);
}

#[test]
fn a_container_that_cannot_open_its_gpus_is_the_explanation_whether_the_pod_runs_or_failed() {
    let lost = |pod_uid: &str| {
        let device = ContainerDevice { name: "nvidiactl".into(), access: Access::Denied, ..ContainerDevice::default() };
        let container = ContainerAccess {
            container_id: "0123456789abcdef".into(),
            pod_uid: Some(pod_uid.into()),
            devices: vec![device],
            ..ContainerAccess::default()
        };
        let mut report = node(Vec::new());
        let host = Host { container: Some(container), ..Host::default() };
        report.sections.host = Some(Section::read(host, Vec::new()));
        report
    };
    let runs = PodFacts { phase: "Running".into(), ..failed(1, "Error") };
    for pod in [failed(1, "Error"), runs] {
        let explained = cause_of(&pod, &lost(POD));
        assert_eq!((explained.cause, explained.certainty), (Cause::Node, Certainty::Certain), "{explained:?}");
        assert!(explained.summary.contains("lost access to its GPUs"), "{}", explained.summary);
        assert!(explained.evidence.iter().any(|line| line.contains("/dev/nvidiactl")), "{explained:?}");
        assert_eq!(explained.action.code, ActionCode::RestartPod);
    }
    let mut gone = node(Vec::new());
    let kubelet = gone.sections.kubelet.as_mut().and_then(|section| section.data.as_mut()).expect("a checkpoint");
    kubelet.allocations[0].devices = vec!["GPU-00000000-0000-0000-0000-000000000000".into()];
    let explained = cause_of(&failed(1, "Error"), &gone);
    assert_eq!((explained.cause, explained.certainty), (Cause::Gpu, Certainty::Certain), "{explained:?}");
    assert!(explained.summary.contains("is allocated a GPU that is missing"), "{}", explained.summary);
    let other = cause_of(&failed(1, "Error"), &lost("22222222-2222-3333-4444-555555555555"));
    assert_eq!(other.cause, Cause::Application, "{other:?}");
}

#[test]
fn events_of_our_own_probe_are_not_in_the_timeline() {
    let started = |field: &str| PodEvent {
        time: Some(time("02:10:00")),
        reason: "Started".into(),
        message: format!("Started container: {field}"),
        count: 1,
        field: field.into(),
        warning: false,
    };
    let fields = ["spec.containers{other}", "spec.ephemeralContainers{gpu-syringe-abcdefghij}", ""];
    let pod = PodFacts { events: fields.map(started).to_vec(), ..failed(1, "Error") };
    let told = cause_of(&pod, &node(Vec::new())).timeline;
    let started = told.iter().filter(|moment| moment.what.starts_with("Started:")).count();
    assert_eq!(started, 2, "{told:?}");
    assert!(!told.iter().any(|moment| moment.what.contains("gpu-syringe-")));
}

#[test]
fn an_event_that_repeats_the_status_is_not_in_the_timeline() {
    let event = |reason: &str, message: &str, at: &str, field: &str| PodEvent {
        time: Some(time(at)),
        reason: reason.into(),
        message: message.into(),
        count: 1,
        field: field.into(),
        warning: false,
    };
    let main = "spec.containers{main}";
    let events = [
        event("Scheduled", "Successfully assigned research/train-0 to gpu-2", "02:00:00", ""),
        event("Pulling", "Pulling image \"train\"", "02:00:01", main),
        event("Pulled", "Successfully pulled image \"train\" in 2.9s", "02:00:04", main),
        event("Pulled", "Container image \"train\" already present on machine", "02:00:04", main),
        event("Created", "Created container: main", "02:00:05", main),
        event("Started", "Started container main", "02:00:05", main),
        event("Started", "Started container main", "02:31:00", main),
        event("Killing", "Stopping container main", "02:29:00", main),
    ];
    let shown = |pod: PodFacts| -> Vec<String> {
        let told = cause_of(&pod, &node(Vec::new())).timeline;
        told.into_iter().filter_map(|entry| Some(entry.what.split_once(": ")?.0.to_owned())).collect()
    };
    let pod = PodFacts { events: events.to_vec(), ..failed(1, "Error") };
    assert_eq!(shown(pod.clone()), ["Pulled", "Killing", "container main ended", "Started"]);
    // Without a status, only the events are known.
    let mut waits = PodFacts { scheduled: None, ..pod };
    waits.containers[0].state = ContainerState::Waiting { reason: "ContainerCreating".into(), message: String::new() };
    assert_eq!(shown(waits).len(), events.len());
}

#[test]
fn exit_codes_are_read_as_signals() {
    let (program, nobody) = ((Cause::Application, Certainty::Likely), (Cause::Unknown, Certainty::Possible));
    for (code, word, whose) in [
        (134, "SIGABRT", program),
        (139, "SIGSEGV", program),
        (3, "exit code 3", program),
        // A program does not send these two signals to itself.
        (137, "SIGKILL", nobody),
        (143, "SIGTERM", nobody),
    ] {
        let explained = cause_of(&failed(code, "Error"), &node(Vec::new()));
        assert_eq!((explained.cause, explained.certainty), whose, "{code}");
        assert!(explained.summary.contains(word), "{}", explained.summary);
    }
}

#[test]
fn without_the_node_the_gpu_is_not_cleared() {
    let explained = explain(&failed(1, "Error"), None, Some("pods is forbidden"));
    assert_eq!((explained.cause, explained.certainty), (Cause::Application, Certainty::Possible));
    assert!(explained.ruled_out.is_empty() && explained.unknown[0].why.contains("forbidden"), "{explained:?}");
    // It is also not known whether a running pod has a problem.
    let (pod, _) = running("S", Vec::new());
    let explained = explain(&pod, None, Some("pods is forbidden"));
    assert_eq!((explained.cause, explained.certainty), (Cause::Unknown, Certainty::Possible), "{}", explained.summary);
}

/// Creates a running pod and its node. One process of the pod is in this state.
pub(crate) fn running(state: &str, events: Vec<KernelEvent>) -> (PodFacts, Report) {
    let mut report = node(events);
    let process = GpuProcess { pid: 7, state: Some(state.into()), pod_uid: Some(POD.into()), ..GpuProcess::default() };
    let processes = Processes { host_pid_namespace: true, processes: vec![process], ..Processes::default() };
    report.sections.processes = Some(Section::read(processes, Vec::new()));
    let container = ContainerFacts {
        name: "main".into(),
        state: ContainerState::Running { since: Some(time("02:00:05")) },
        ..ContainerFacts::default()
    };
    let ready = Some(true);
    (PodFacts { phase: "Running".into(), ready, containers: vec![container], ..failed(1, "Error") }, report)
}

#[test]
fn a_rank_that_crashed_is_named_while_the_others_wait_for_it() {
    let mut crash = xid(0, "02:20:00", OWN_GPU, Some(8));
    (crash.kind, crash.code, crash.name, crash.pci_address) = (KernelEventKind::Segfault, None, None, None);
    crash.process = Some("python3".into());
    crash.details.insert("library".into(), "libnccl.so.2".into());
    for (uses, of_name, is_named) in [(1, "python3", true), (0, "python3", false), (1, "sh", false)] {
        let (pod, mut report) = running("S", vec![crash.clone()]);
        let kubelet = report.sections.kubelet.as_mut().and_then(|section| section.data.as_mut()).expect("a kubelet");
        kubelet.allocations[0].devices.truncate(1);
        let other = kubelet.allocations[0].clone();
        kubelet.allocations.push(Allocation { devices: vec!["GPU-other".into()], ..other });
        let processes =
            report.sections.processes.as_mut().and_then(|section| section.data.as_mut()).expect("processes");
        processes.processes[0].name = Some(of_name.into());
        let gpus = (0..=1).filter(|gpu| uses == 0 || *gpu == 1);
        processes.processes[0].uses = gpus.map(|gpu| GpuUse { gpu, ..GpuUse::default() }).collect();
        let explained = cause_of(&pod, &report);
        assert_eq!(explained.summary.contains("libnccl.so.2"), is_named, "{uses} {of_name}: {}", explained.summary);
    }
}

#[test]
fn a_process_in_state_d_is_stuck_when_the_kernel_says_so() {
    let hung = |pid| KernelEvent {
        kind: KernelEventKind::HungTask,
        code: None,
        pci_address: None,
        ..xid(0, "02:20:00", OWN_GPU, Some(pid))
    };
    for events in [vec![hung(7)], vec![xid(119, "02:20:00", OWN_GPU, Some(7))]] {
        let (pod, report) = running("D", events);
        let explained = cause_of(&pod, &report);
        assert_eq!((explained.cause, explained.pids.as_slice()), (Cause::Node, &[7][..]), "{}", explained.summary);
        assert!(explained.certainty != Certainty::Possible, "{}", explained.summary);
    }
}

#[test]
fn one_look_at_state_d_drains_no_node() {
    let (pod, report) = running("D", Vec::new());
    let explained = cause_of(&pod, &report);
    assert_eq!((explained.cause, explained.certainty), (Cause::Node, Certainty::Possible), "{}", explained.summary);
    assert_eq!(explained.action.code, ActionCode::Watch);
    let (pod, report) = running("S", Vec::new());
    assert_eq!(cause_of(&pod, &report).cause, Cause::None);
}

#[test]
fn a_zombie_is_explained() {
    let (pod, report) = running("Z", Vec::new());
    let explained = cause_of(&pod, &report);
    assert_eq!((explained.cause, explained.action.code), (Cause::Application, ActionCode::RestartPod));
    let (pod, report) = running("X", Vec::new());
    assert_eq!(cause_of(&pod, &report).cause, Cause::None);
}

#[test]
fn kubernetes_own_reasons_come_first() {
    let waiting = PodFacts {
        phase: "Pending".into(),
        node: None,
        message: Some("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.".into()),
        containers: Vec::new(),
        ..failed(1, "Error")
    };
    assert_eq!(explain(&waiting, None, None).cause, Cause::Cluster);
    let message = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 52Mi. ";
    let evicted = PodFacts { reason: Some("Evicted".into()), message: Some(message.into()), ..failed(137, "Error") };
    assert_eq!(cause_of(&evicted, &node(Vec::new())).cause, Cause::Node);
    let event = PodEvent {
        time: Some(time("02:29:59")),
        reason: "Preempted".into(),
        message: "by pod research/urgent".into(),
        count: 1,
        ..PodEvent::default()
    };
    let preempted = PodFacts { events: vec![event], ..failed(143, "Error") };
    let explained = cause_of(&preempted, &node(Vec::new()));
    assert_eq!(explained.cause, Cause::Cluster);
    assert!(explained.summary.contains("preempted by pod research/urgent"), "{}", explained.summary);
    let away = |code| PodFacts { node_ready: Some(false), ..failed(code, "Error") };
    let of = |code| {
        let explained = explain(&away(code), None, Some("node is not Ready"));
        (explained.cause, explained.certainty)
    };
    assert_eq!(of(143), (Cause::Node, Certainty::Likely));
    // The kubelet reported the end of the container, so the node was working at that time.
    assert_eq!(of(1), (Cause::Application, Certainty::Possible));
}

#[test]
fn a_pod_that_completed_has_no_problem_unless_its_gpu_had_an_error() {
    let well = cause_of(&failed(0, "Completed"), &node(Vec::new()));
    assert_eq!(well.cause, Cause::None, "{}", well.summary);
    for code in [79, 95] {
        let explained = cause_of(&failed(0, "Completed"), &node(vec![xid(code, "02:10:00", OWN_GPU, None)]));
        assert_eq!((explained.cause, explained.certainty), (Cause::Gpu, Certainty::Possible), "{}", explained.summary);
        assert!(explained.summary.contains("its results may be wrong"), "{}", explained.summary);
        assert!(explained.ruled_out.is_empty(), "{:?}", explained.ruled_out);
    }
}

#[test]
fn the_timeline_is_in_the_order_of_time() {
    let explained = cause_of(&failed(134, "Error"), &node(vec![xid(79, "02:29:58", OWN_GPU, None)]));
    let times: Vec<_> = explained.timeline.iter().map(|moment| moment.time).collect();
    assert!(times.is_sorted());
    let sources: Vec<_> = explained.timeline.iter().map(|moment| moment.source.as_str()).collect();
    assert_eq!(sources, ["kubernetes", "kubernetes", "kubernetes", "kernel", "kubernetes"]);
}

#[test]
fn without_the_pods_of_the_node_no_problem_is_only_possible() {
    let (pod, report) = running("S", Vec::new());
    let whole = cause_of(&pod, &report);
    assert_eq!((whole.cause, whole.certainty), (Cause::None, Certainty::Likely), "{}", whole.summary);
    for input in KubernetesInput::ALL {
        let mut facts = super::cluster_of(&report);
        facts.forget(input, "HTTP 503".to_owned());
        let part = explain(&pod, Some((&report, &diagnose(&report, &facts))), None);
        assert_eq!((part.cause, part.certainty), (Cause::None, Certainty::Possible), "{input:?}: {}", part.summary);
    }
}

#[test]
fn a_pod_that_its_controller_complains_about_or_that_sees_other_devices_has_no_all_clear() {
    let runs = || PodFacts {
        phase: "Running".into(),
        ready: Some(true),
        containers: vec![ContainerFacts {
            name: "main".into(),
            state: ContainerState::Running { since: Some(time("02:00:00")) },
            ..ContainerFacts::default()
        }],
        ..failed(0, "Completed")
    };
    let report = node(Vec::new());
    assert_eq!(cause_of(&runs(), &report).cause, Cause::None);
    let complaint = |at: &str| {
        vec![PodEvent {
            time: Some(time(at)),
            reason: "SyncFailed".into(),
            message: "Machine a: the frobnicator is sad".into(),
            ..PodEvent::default()
        }]
    };
    let explained = cause_of(&PodFacts { related_warnings: complaint("02:20:00"), ..runs() }, &report);
    assert_eq!(explained.cause, Cause::Unknown, "{explained:?}");
    assert!(explained.summary.contains("frobnicator"), "{}", explained.summary);
    let before = PodFacts { related_warnings: complaint("01:20:00"), ..runs() };
    assert_eq!(cause_of(&before, &report).cause, Cause::None, "the warning is about an earlier container");
    let mounts = PodFacts { host_devices: vec!["/dev/infiniband".into()], ..runs() };
    assert_eq!(cause_of(&mounts, &report).cause, Cause::None, "without devices of another plugin");
    let both = PodFacts { other_resources: vec!["vpc.amazonaws.com/efa".into()], ..mounts };
    assert_eq!(cause_of(&both, &report).cause, Cause::Application);
}

#[test]
fn an_event_about_the_memory_of_the_node_outweighs_the_limit_of_the_container() {
    let spec = ContainerSpec { name: "main".into(), memory_limit: Some("400Gi".into()), ..ContainerSpec::default() };
    let pod = PodFacts { specs: vec![spec], ..failed(137, "OOMKilled") };
    let finished = pod.end().and_then(|end| end.finished);
    let event =
        |time| PodEvent { time, reason: "SystemOOM".into(), message: "Node a: x".into(), ..PodEvent::default() };
    let with = |time| PodFacts { related_warnings: vec![event(time)], ..pod.clone() };
    let explained = cause_of(&with(finished), &node(Vec::new()));
    assert_eq!((explained.cause, explained.certainty), (Cause::Node, Certainty::Likely), "{}", explained.summary);
    let other = finished.map(|at| at - SignedDuration::from_hours(1));
    assert!(cause_of(&with(other), &node(Vec::new())).summary.contains("limit of 400Gi"));
}

#[test]
fn a_report_of_open_mpi_between_lines_of_dashes_is_about_another_process() {
    let rule = "-".repeat(40);
    let log =
        ["ORTE has lost communication with a remote daemon.", "the daemon itself. We cannot recover, and", "will end."];
    let log_lines = std::iter::once(rule.clone()).chain(log.map(str::to_owned)).chain([rule]).collect();
    let explained = cause_of(&PodFacts { log_lines, ..failed(1, "Error") }, &node(Vec::new()));
    assert!(explained.summary.contains("another process, rank, node or service"), "{}", explained.summary);
}

#[test]
fn an_end_before_a_long_run_of_a_ready_pod_is_told_as_past() {
    let mut pod = failed(1, "Error");
    let ended = pod.containers[0].state.clone();
    let now = node(Vec::new()).taken_at.expect("a time");
    (pod.phase, pod.ready) = ("Running".into(), Some(true));
    (pod.containers[0].last, pod.containers[0].restarts) = (Some(ended), 5);
    let mut told = |minutes: i64| {
        pod.containers[0].state = ContainerState::Running { since: Some(now - SignedDuration::from_mins(minutes)) };
        let ContainerState::Terminated { started, finished, .. } = pod.containers[0].last.as_mut().expect("an end")
        else {
            panic!("it ended");
        };
        *finished = Some(now - SignedDuration::from_mins(minutes + 1));
        *started = Some(now - SignedDuration::from_mins(minutes + 3));
        cause_of(&pod, &node(Vec::new()))
    };
    let explained = told(360);
    assert!(explained.summary.contains("it has run and been Ready since"), "{}", explained.summary);
    assert!(explained.action.text.starts_with("No action is needed now."), "{}", explained.action.text);
    assert!(!told(5).summary.contains("it has run and been Ready since"), "it may end again");
}

#[test]
fn an_error_of_the_host_memory_is_the_cause_of_the_end_that_it_explains() {
    let event = |kind, sub_code: &str, pid: Option<u32>, at: &str| KernelEvent {
        kind,
        sub_code: Some(sub_code.into()),
        pid,
        code: None,
        name: None,
        pci_address: None,
        ..xid(0, at, OWN_GPU, pid)
    };
    let host = KernelEventKind::Host;
    for (event, exit_code, expected) in [
        (event(host, "memory_process_killed", Some(81_000), "02:29:59"), 135, Cause::Node),
        (event(host, "memory_process_killed", Some(81_000), "02:29:59"), 1, Cause::Node),
        (event(host, "memory_uncorrected", None, "02:29:59"), 135, Cause::Node),
        (event(KernelEventKind::Mce, "memory_uncorrected", None, "02:29:59"), 135, Cause::Node),
        (event(KernelEventKind::Mce, "exception", None, "02:29:59"), 135, Cause::Node),
        // These cases have another time, another process, another end, or a corrected error.
        (event(host, "memory_process_killed", Some(81_000), "02:10:00"), 135, Cause::Application),
        (event(host, "memory_process_killed", Some(OTHER_PID), "02:29:59"), 1, Cause::Application),
        (event(host, "memory_uncorrected", None, "02:29:59"), 1, Cause::Application),
        (event(KernelEventKind::Mce, "memory_corrected", None, "02:29:59"), 135, Cause::Application),
    ] {
        let mut report = node(vec![event.clone()]);
        let process = GpuProcess { pid: OTHER_PID, pod_uid: Some("another".into()), ..GpuProcess::default() };
        let processes = Processes { processes: vec![process], ..Processes::default() };
        report.sections.processes = Some(Section::read(processes, Vec::new()));
        let explained = cause_of(&failed(exit_code, "Error"), &report);
        assert_eq!(explained.cause, expected, "{event:?}: {explained:?}");
        if expected == Cause::Node {
            assert!(explained.summary.contains("memory of its node"), "{}", explained.summary);
        }
    }
}

/// The pid of a process of another pod.
const OTHER_PID: u32 = 4711;
