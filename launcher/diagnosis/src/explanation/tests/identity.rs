//! Tests of explanations that compare two facts about the same thing: a message with a request, an annotation with a
//! node, a crash with a library, a container with the driver, pods that hold GPUs with a pod that waits.

use crate::explanation::tests::*;
use syringe_core::facts::host::Host;
use syringe_core::facts::kubelet::RegisteredDevices;
use syringe_core::facts::kubernetes::pod::{BoundDevice, ContainerLog, ContainerSpec, GpuHolder, HolderRelation};

const FULL: &str =
    "0/3 nodes are available: 1 Insufficient nvidia.com/gpu, 2 node(s) didn't match Pod's node affinity/selector.";

fn waiting(message: &str) -> PodFacts {
    let pod = failed(1, "Error");
    PodFacts { phase: "Pending".into(), node: None, message: Some(message.into()), containers: Vec::new(), ..pod }
}

fn ended(exit_code: i32, words: &str) -> PodFacts {
    let mut pod = failed(exit_code, "Error");
    if let ContainerState::Terminated { message, .. } = &mut pod.containers[0].state {
        *message = words.into();
    }
    pod
}

/// Creates a pod with two containers. The first runs as an init container, and the pod is Pending.
fn initializing() -> PodFacts {
    let runs = ContainerState::Running { since: Some(time("02:00:05")) };
    let waits = ContainerState::Waiting { reason: "PodInitializing".into(), message: String::new() };
    let container = |name: &str, state| ContainerFacts { name: name.into(), state, ..ContainerFacts::default() };
    let containers = vec![container("wait-for-zq", runs), container("main", waits)];
    PodFacts { phase: "Pending".into(), containers, ready: Some(false), ..failed(1, "Error") }
}

#[test]
fn the_pods_that_hold_the_gpus_are_named_with_the_reason() {
    let holder = |relation, deleted: Option<&str>, finalizers: &[&str]| GpuHolder {
        name: "ml/old-5d9-k2x7q".into(),
        node: "gpu-1".into(),
        amount: "1 nvidia.com/gpu".into(),
        relation,
        deleted: deleted.map(time),
        is_overdue: deleted.is_some(),
        finalizers: finalizers.iter().map(|one| (*one).to_owned()).collect(),
    };
    let rollout = holder(Some(HolderRelation::EarlierOfRollout("old".into())), None, &[]);
    let same = holder(Some(HolderRelation::SameController("Job train".into())), None, &[]);
    for (holder, what, advice) in [
        (rollout, "earlier ReplicaSet of the same rollout", "maxSurge 0"),
        (same, "other pods of the same Job train", "reduce the request or permit more nodes"),
        (holder(None, Some("01:05:00"), &["x.example/kept"]), "stuck in Terminating", "finalizer x.example/kept"),
        (holder(None, Some("01:05:00"), &[]), "stuck in Terminating", "explain_gpu_pod"),
    ] {
        let pod = PodFacts { gpu_holders: vec![holder.clone()], ..waiting(FULL) };
        let explained = explain(&pod, None, None);
        assert!(
            explained.summary.contains(what) && explained.summary.contains("ml/old-5d9-k2x7q"),
            "{}",
            explained.summary
        );
        assert!(explained.action.text.contains(advice), "{}", explained.action.text);
        // A pod that waits for something else does not wait for the users of the GPUs.
        let other = PodFacts {
            wants_gpus: false,
            gpu_holders: vec![holder],
            ..waiting("0/1 nodes are available: 1 Insufficient memory.")
        };
        let explained = explain(&other, None, None);
        assert!(!explained.summary.contains("ml/old-5d9-k2x7q"), "{}", explained.summary);
    }
}

#[test]
fn a_device_of_an_annotation_is_held_against_its_node() {
    let message = "0/2 nodes are available: 1 node unregistered, 1 card uuid mismatch. no available node, all node scores do not meet";
    let device = |reasons: &[&str]| BoundDevice {
        annotation: "nvidia.com/use-gpuuuid".into(),
        uuid: "GPU-01cb95d8-2cc5-461d-abb2-3779f63b04a1".into(),
        node: "gpu-1".into(),
        reasons_against: reasons.iter().map(|one| (*one).to_owned()).collect(),
    };
    let explained =
        |reasons: &[&str]| explain(&PodFacts { bound_devices: vec![device(reasons)], ..waiting(message) }, None, None);
    let off = explained(&["not Ready"]);
    assert!(
        off.summary.contains("binds it to GPU-01cb95d8")
            && off.summary.contains("gpu-1 cannot take the pod: not Ready"),
        "{}",
        off.summary
    );
    assert!(off.cause == Cause::Cluster && off.action.text.contains("Repair gpu-1"), "{off:?}");
    assert!(!explained(&[]).summary.contains("cannot take the pod"));
}

#[test]
fn half_of_a_request_is_named_in_the_message_of_the_plugin() {
    let message = "Pod Allocate failed due to rpc error: code = Unknown desc = candidate pod not found for request \
        &AllocateRequest{ContainerRequests:[&ContainerAllocateRequest{DevicesIDs:[tencent.com/vcuda-core-67],}],}, allocation failed, \
        which is unexpected";
    let half = vec![("tencent.com/vcuda-core".to_owned(), "tencent.com/vcuda-memory".to_owned())];
    let pod = PodFacts {
        reason: Some("UnexpectedAdmissionError".into()),
        message: Some(message.into()),
        containers: Vec::new(),
        half_requests: half,
        ..failed(1, "Error")
    };
    let explained = cause_of(&pod, &node(Vec::new()));
    assert!(explained.summary.contains("without tencent.com/vcuda-memory"), "{}", explained.summary);
    assert_eq!(explained.cause, Cause::Application);
    assert!(explained.action.text.contains("Request tencent.com/vcuda-memory"), "{}", explained.action.text);
    assert!(!explained.action.text.contains("Create what is missing"), "{}", explained.action.text);
}

#[test]
fn each_reason_of_the_scheduler_has_its_own_remedy() {
    let message = "0/2 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity, 1 node(s) had untolerated taint \
        {nvidia.com/gpu: present}. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.";
    let pod = PodFacts { wants_gpus: false, gpu_containers: Vec::new(), ..waiting(message) };
    let explained = explain(&pod, None, None);
    let text = &explained.action.text;
    assert!(text.contains("WaitForFirstConsumer") && text.contains("request it (nvidia.com/gpu: 1)"), "{text}");
    assert!(!text.contains("add a toleration"), "{text}");
    let with_gpus = explain(&waiting(message), None, None);
    assert!(with_gpus.action.text.contains("add a toleration for this taint"), "{}", with_gpus.action.text);
}

#[test]
fn an_init_container_that_waits_is_explained_by_its_log() {
    let with_log = |lines: &[&str]| {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        let log = ContainerLog { container: "wait-for-zq".into(), previous: false, lines };
        cause_of(&PodFacts { other_logs: vec![log], ..initializing() }, &node(Vec::new()))
    };
    let command = "kubectl logs -n research train-0 -c wait-for-zq";
    let unread = cause_of(&initializing(), &node(Vec::new()));
    assert!(unread.action.text.contains(command), "{}", unread.action.text);
    for (lines, told) in [
        (vec!["starting", "secrets \"hub-token\" not found, retrying"], "Secret hub-token does not exist"),
        (vec!["starting", "dial tcp 10.1.2.3:5432: connect: connection refused"], "10.1.2.3:5432"),
        (vec!["starting", "the frobnicator is sad"], "the frobnicator is sad"),
    ] {
        let explained = with_log(&lines);
        assert!(explained.summary.contains(told), "{told}: {}", explained.summary);
        assert!(explained.evidence.iter().any(|line| line.contains(lines[1])), "{:?}", explained.evidence);
        // The command is given only together with the statement that the log was read.
        let tells = explained.action.text.contains(command);
        assert!(
            !tells || explained.action.text.contains("its last lines are in this answer"),
            "{}",
            explained.action.text
        );
    }
    assert!(with_log(&[]).action.text.contains("its log is empty"));
}

#[test]
fn a_missing_gpu_in_any_words_is_that_of_the_container_that_requests_it() {
    for message in [
        "torch.cuda.is_available() is False: no NVIDIA GPU",
        "Attempting to deserialize object on a CUDA device but torch.cuda.is_available() is False",
        "Could not find cuda drivers on your machine, GPU will not be used.",
        "zq: no GPU found, giving up",
        "RuntimeError: No CUDA GPUs are available",
    ] {
        let spec =
            |name: &str, requests_gpus| ContainerSpec { name: name.into(), requests_gpus, ..ContainerSpec::default() };
        let specs = |own| vec![spec("main", own), spec("proxy", !own)];
        let explained = |own| cause_of(&PodFacts { specs: specs(own), ..ended(1, message) }, &node(Vec::new()));
        let other = explained(false);
        assert_eq!(
            (other.cause, other.action.code),
            (Cause::Application, ActionCode::ChangeRequest),
            "{message}: {other:?}"
        );
        assert!(other.summary.contains("container proxy of the pod requests the GPU"), "{}", other.summary);
        assert_ne!(explained(true).action.code, ActionCode::ChangeRequest, "{message}");
    }
}

#[test]
fn a_cuda_error_with_a_fault_of_its_own_code_is_the_application() {
    for message in
        ["RuntimeError: CUDA error: an illegal instruction was encountered", "CUDA error: unspecified launch failure"]
    {
        let own = cause_of(&ended(1, message), &node(vec![xid(13, "02:29:59", OWN_GPU, None)]));
        assert_eq!(own.cause, Cause::Application, "{message}: {own:?}");
        for event in [
            xid(13, "02:29:59", OTHER_GPU, None),
            xid(13, "02:10:00", OWN_GPU, None),
            xid(48, "02:29:59", OWN_GPU, None),
        ] {
            let other = cause_of(&ended(1, message), &node(vec![event.clone()]));
            assert!(!other.summary.contains("which the program itself causes"), "{event:?}: {}", other.summary);
        }
    }
}

#[test]
fn a_crash_is_joined_with_the_library_of_the_kernels_line() {
    let crash = |at: &str, library: &str| {
        let mut event = xid(0, at, OWN_GPU, Some(81_000));
        (event.kind, event.code, event.name, event.pci_address) = (KernelEventKind::Segfault, None, None, None);
        event.raw = format!("python3[81000]: segfault at 7f3c ip 00 sp 00 error 4 in {library}[7f3c+9000]");
        event.details.insert("library".into(), library.into());
        event
    };
    let library = "libnccl-net-ofi.so.0";
    let joined = cause_of(&ended(139, ""), &node(vec![crash("02:29:58", library)]));
    assert!(joined.summary.contains(library) && joined.action.text.contains(library), "{joined:?}");
    for events in
        [vec![crash("02:10:00", library)], vec![crash("02:29:58", library), crash("02:29:57", "libcublas.so.12")]]
    {
        let other = cause_of(&ended(139, ""), &node(events));
        assert!(!other.summary.contains(library), "{}", other.summary);
    }
}

#[test]
fn a_pod_that_just_started_is_starting() {
    let running = |since: &str, restarts| {
        let state = ContainerState::Running { since: Some(time(since)) };
        let containers = vec![ContainerFacts { name: "main".into(), state, restarts, ..ContainerFacts::default() }];
        cause_of(
            &PodFacts { phase: "Running".into(), ready: Some(false), containers, ..failed(1, "Error") },
            &node(Vec::new()),
        )
    };
    let starting = running("02:39:45", 0);
    assert_eq!((starting.cause, starting.action.code), (Cause::None, ActionCode::None), "{starting:?}");
    assert!(starting.summary.contains("is starting"), "{}", starting.summary);
    for (since, restarts) in [("02:30:00", 0), ("02:39:45", 3)] {
        assert_ne!(running(since, restarts).cause, Cause::None, "{since}");
    }
}

#[test]
fn a_container_that_is_older_than_the_driver_is_to_be_made_again() {
    let report = |loaded: Option<&str>| {
        let events = loaded.into_iter().map(|at| {
            let mut event = xid(0, at, OWN_GPU, None);
            (event.kind, event.code, event.name, event.pci_address) = (KernelEventKind::DriverLoaded, None, None, None);
            event
        });
        let mut report = node(events.collect());
        report.sections.host =
            Some(Section::read(Host { uptime_seconds: Some(40 * 60), ..Host::default() }, Vec::new()));
        report
    };
    let pod = |restarts| {
        let state = ContainerState::Running { since: Some(time("02:01:25")) };
        let containers = vec![ContainerFacts { name: "main".into(), state, restarts, ..ContainerFacts::default() }];
        PodFacts { phase: "Running".into(), ready: Some(true), containers, ..failed(1, "Error") }
    };
    let late = cause_of(&pod(1), &report(Some("02:06:30")));
    assert_eq!((late.cause, late.action.code), (Cause::Node, ActionCode::RestartPod), "{late:?}");
    assert!(late.summary.contains("was rebooted") && late.summary.contains("loaded later"), "{}", late.summary);
    let early = cause_of(&pod(1), &report(Some("02:00:30")));
    assert_eq!(early.cause, Cause::None, "a restart by the boot of the node: {early:?}");
    assert_ne!(
        cause_of(&pod(7), &report(Some("02:00:30"))).cause,
        Cause::None,
        "more restarts than the one of the boot"
    );
}

#[test]
fn a_free_device_of_a_lost_gpu_is_not_free() {
    let message = "Allocate failed due to requested number of devices unavailable for nvidia.com/gpu. Requested: 1, Available: 0, which is \
        unexpected";
    let pod = PodFacts {
        reason: Some("UnexpectedAdmissionError".into()),
        message: Some(message.into()),
        containers: Vec::new(),
        ..failed(1, "Error")
    };
    let explained = |lost: bool| {
        let mut report = node(if lost { vec![xid(79, "01:00:00", OTHER_GPU, None)] } else { Vec::new() });
        let kubelet = report.sections.kubelet.as_mut().and_then(|section| section.data.as_mut()).expect("a kubelet");
        let devices = vec!["GPU-own".to_owned(), "GPU-other".to_owned()];
        kubelet.registered = vec![RegisteredDevices { resource: "nvidia.com/gpu".into(), devices }];
        if lost {
            let inventory =
                report.sections.inventory.as_mut().and_then(|section| section.data.as_mut()).expect("an inventory");
            inventory.gpus.retain(|gpu| gpu.uuid.as_deref() == Some("GPU-own"));
        }
        cause_of(&pod, &report)
    };
    let lost = explained(true);
    assert!(lost.summary.contains("GPU-other") && !lost.action.text.contains("restart the kubelet"), "{lost:?}");
    assert!(explained(false).action.text.contains("restart the kubelet"));
}
