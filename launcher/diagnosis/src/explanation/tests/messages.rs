//! Tests of explanations from known and unknown messages of programs and the kubelet: which part has the cause, which
//! finding gives the reason, and what is not ruled out.

use proptest::prelude::*;
use syringe_core::classification::{ActionCode, Class, Severity};
use syringe_core::facts::inventory::GpuInventory;
use syringe_core::facts::topology::{GpuTopology, NearGpu, NicPort, Topology};
use syringe_core::report::{Problem, Section};
use syringe_core::text::clean;

use crate::explanation::explain;
use crate::explanation::tests::{
    Cause, Certainty, ContainerFacts, ContainerState, Diagnosis, KernelEvent, OWN_GPU, PodEvent, PodFacts, Report,
    address, cause_of, failed, node, time, xid,
};
use crate::explanation::types::Explanation;
use crate::finding::{Action, Finding, Scope};
use crate::messages::elsewhere;
use crate::messages::phrases::{Part, known};
use crate::messages::shapes::read;
use crate::messages::waiting;

/// Creates a pod whose container ended with this exit code and termination message.
fn ended_with(code: i32, words: &str) -> PodFacts {
    let mut pod = failed(code, "Error");
    if let ContainerState::Terminated { message, .. } = &mut pod.containers[0].state {
        *message = words.into();
    }
    pod
}

/// The message of PyTorch 2.6 for a GPU without free memory.
const OUT_OF_MEMORY: &str = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity \
    of 79.10 GiB of which 11.47 GiB is free. Process 41210 has 67.62 GiB memory in use. Of the allocated memory 66.10 GiB is \
    allocated by PyTorch, and 1.02 GiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is large try \
    setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  See documentation for Memory Management \
    (https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)";

#[test]
fn a_program_that_something_else_ended_is_not_to_be_corrected() {
    for words in [
        "slurmstepd: error: *** STEP 991.0 ON gpu-7 CANCELLED AT 2026-11-21T02:15:10 DUE TO NODE gpu-9 FAILURE ***",
        "slurmstepd: error: *** JOB 17 ON gpu-2 CANCELLED AT 2026-11-21T02:15:10 DUE TO PREEMPTION ***",
        "srun: error: Node failure on gpu-9",
        "MPI_ABORT was invoked on rank 12 in communicator MPI_COMM_WORLD with errorcode 1.",
        "torch.distributed.elastic.multiprocessing.api.SignalException: Process 7 got signal: 15",
        "torch.distributed.elastic.rendezvous.api.RendezvousClosedError: rendezvous closed",
    ] {
        let explained = cause_of(&ended_with(1, words), &node(Vec::new()));
        assert_eq!((explained.cause, explained.action.code), (Cause::Unknown, ActionCode::Watch), "{explained:?}");
        assert!(explained.summary.contains("another process, rank, node or service"), "{}", explained.summary);
        let meets = explained.action.text.contains("MASTER_ADDR");
        assert_eq!(meets, words.contains("rendezvous"), "{}", explained.action.text);
    }
}

#[test]
fn words_of_gpu_software_decide_which_part_has_the_cause() {
    for (code, words, cause, what) in [
        (1, "Unexpected error from cudaGetDeviceCount(): Error 802: system not yet initialized", Cause::Node, "fabric"),
        (1, "RuntimeError: CUDA error: no CUDA-capable device is detected", Cause::Node, "finds no GPU"),
        (1, "Failed to initialize NVML: Unknown Error", Cause::Node, "lost access"),
        (
            134,
            "[Rank 3] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7)",
            Cause::Unknown,
            "another rank",
        ),
        (
            1,
            "torch.distributed.DistStoreError: Timed out after 601 seconds waiting for clients. 7/8 clients joined.",
            Cause::Unknown,
            "joined in time: 7/8 clients joined",
        ),
        (
            1,
            "RuntimeError: [gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.7]:29500",
            Cause::Unknown,
            "another rank",
        ),
        (
            1,
            "torch.distributed.DistNetworkError: The client socket has timed out after 600s while trying to connect to (a, 1)",
            Cause::Unknown,
            "another rank",
        ),
        (1, "ImportError: libcuda.so.1: cannot open shared object file: No such file", Cause::Node, "driver library"),
        (9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", Cause::Node, "driver"),
        (127, "sh: 1: nvidia-smi: not found", Cause::Node, "no nvidia-smi"),
        (1, "CUDA driver version is insufficient for CUDA runtime version", Cause::Node, "too old"),
        (1, OUT_OF_MEMORY, Cause::Application, "memory of the GPU was not enough"),
        (135, "This might be caused by insufficient shared memory (shm).", Cause::Application, "/dev/shm"),
        (1, "KeyError: 'lr'", Cause::Application, "exception of its own code"),
    ] {
        let explained = cause_of(&ended_with(code, words), &node(Vec::new()));
        assert_eq!((explained.cause, explained.certainty), (cause, Certainty::Likely), "{}", explained.summary);
        assert!(explained.summary.contains(what), "{}", explained.summary);
        let whole = clean(words, usize::MAX);
        assert!(explained.evidence.iter().any(|line| line.contains(&whole)), "{words}: {:?}", explained.evidence);
        assert_ne!(explained.action.code, ActionCode::None);
    }
    // If the node was read and has no GPU fault, a message about a GPU fault does not lead to a recommendation to
    // repair the GPU.
    for words in [
        "RuntimeError: CUDA error: uncorrectable ECC error encountered",
        "Unable to determine the device handle: GPU is lost",
    ] {
        let explained = cause_of(&ended_with(1, words), &node(Vec::new()));
        assert_eq!(
            (explained.cause, explained.certainty),
            (Cause::Unknown, Certainty::Possible),
            "{}",
            explained.summary
        );
        assert_eq!(explained.action.code, ActionCode::Watch, "{}", explained.summary);
        assert!(explained.evidence.iter().any(|line| line.contains(words)), "{words}: {:?}", explained.evidence);
    }
    // The same message in the log is weaker evidence. A program that is asked to stop logs errors that its shutdown
    // causes.
    let log = |code| PodFacts { log_lines: vec!["x".into(), OUT_OF_MEMORY.into()], ..failed(code, "Error") };
    let explained = cause_of(&log(1), &node(Vec::new()));
    assert_eq!((explained.cause, explained.certainty), (Cause::Application, Certainty::Possible), "{explained:?}");
    assert!(
        explained.evidence.iter().any(|line| line.starts_with("log of container main: torch.Out")),
        "{explained:?}"
    );
    assert_eq!(cause_of(&log(143), &node(Vec::new())).cause, Cause::Unknown);
}

#[test]
fn a_program_that_looks_for_a_gpu_that_its_pod_does_not_request_is_its_own_fault() {
    let mut report = node(Vec::new());
    report.sections.kubelet = None;
    let pod = PodFacts {
        wants_gpus: false,
        gpu_containers: Vec::new(),
        ..ended_with(1, "no CUDA-capable device is detected")
    };
    let explained = cause_of(&pod, &report);
    assert_eq!(
        (explained.cause, explained.action.code),
        (Cause::Application, ActionCode::ChangeRequest),
        "{explained:?}"
    );
}

fn finding(id: &str, class: Class, addresses: &[&str]) -> Finding {
    Finding {
        id: id.into(),
        severity: Severity::Critical,
        class,
        title: format!("title of {id}"),
        scope: Scope { gpu: (!addresses.is_empty()).then_some(0), ..Scope::default() },
        addresses: addresses.iter().map(|text| address(text)).collect(),
        action: Action { code: ActionCode::DrainAndReset, text: format!("mend {id}") },
        ..Finding::default()
    }
}

fn with(pod: &PodFacts, events: Vec<KernelEvent>, finding: Finding) -> Explanation {
    let diagnosis = Diagnosis { findings: vec![finding], ..Diagnosis::default() };
    explain(pod, Some((&node(events), &diagnosis)), None)
}

#[test]
fn a_finding_gives_the_reason_for_a_known_message_and_ends_no_program_without_a_mechanism() {
    let fabric = finding("fabric-not-registered", Class::Fabric, &[OWN_GPU]);
    let explained = with(&ended_with(1, "system not yet initialized"), Vec::new(), fabric);
    assert_eq!((explained.cause, explained.action.text.as_str()), (Cause::Gpu, "mend fabric-not-registered"));
    let others = finding("process-outside-kubernetes", Class::Application, &[OWN_GPU]);
    let explained = with(&ended_with(1, OUT_OF_MEMORY), Vec::new(), others);
    assert_eq!(explained.cause, Cause::Node, "{}", explained.summary);
    for (id, class) in [
        ("pcie-width-degraded", Class::Fabric),
        ("thermal-slowdown-hardware", Class::Thermal),
        ("power-brake", Class::Power),
        ("inforom-corrupted", Class::Hardware),
        ("row-remap-pending", Class::Hardware),
    ] {
        for words in ["", "KeyError: 'lr'", "the process ended"] {
            let explained = with(&ended_with(1, words), Vec::new(), finding(id, class, &[OWN_GPU]));
            assert_eq!(explained.cause, Cause::Application, "{id}: {}", explained.summary);
            assert!(explained.ruled_out.is_empty(), "{id}: {:?}", explained.ruled_out);
            assert!(explained.unknown[0].why.contains(id), "{id}: {:?}", explained.unknown);
        }
    }
    // A lost GPU can end a program. In these cases, the message is about something else, or the program ended long
    // before the report.
    let lost = || finding("gpu-lost", Class::Hardware, &[OWN_GPU]);
    let certainty = |pod: &PodFacts| with(pod, Vec::new(), lost()).certainty;
    assert_eq!(certainty(&ended_with(1, "")), Certainty::Likely);
    assert_eq!(certainty(&ended_with(1, "the process ended")), Certainty::Possible);
    let mut long_ago = ended_with(1, "");
    if let ContainerState::Terminated { finished, .. } = &mut long_ago.containers[0].state {
        *finished = Some(time("02:10:00"));
    }
    assert_eq!(certainty(&long_ago), Certainty::Possible);
}

#[test]
fn nothing_is_ruled_out_beside_an_xid_or_a_finding_on_the_gpu() {
    let pod = failed(1, "Error");
    for (code, at) in [(63, "02:10:00"), (92, "02:10:00"), (48, "01:00:00"), (79, "02:35:00")] {
        let explained = cause_of(&pod, &node(vec![xid(code, at, OWN_GPU, None)]));
        assert!(explained.ruled_out.is_empty(), "Xid {code}: {:?}", explained.ruled_out);
        let named = explained.unknown.iter().any(|one| one.why.contains(&format!("Xid {code}")));
        assert!(named || explained.cause == Cause::Gpu, "Xid {code}: {explained:?}");
    }
    let explained = cause_of(&pod, &node(vec![xid(32, "02:29:59", OWN_GPU, Some(7))]));
    assert_eq!((explained.cause, explained.certainty), (Cause::Gpu, Certainty::Possible), "{}", explained.summary);
    let warning =
        Finding { severity: Severity::Warning, ..finding("thermal-slowdown-software", Class::Thermal, &[OWN_GPU]) };
    let state = ContainerState::Running { since: Some(time("02:00:05")) };
    let main = ContainerFacts { name: "main".into(), state, ..ContainerFacts::default() };
    let runs = PodFacts { phase: "Running".into(), ready: Some(true), containers: vec![main], ..failed(0, "") };
    let explained = with(&runs, Vec::new(), warning);
    assert_eq!((explained.cause, explained.certainty), (Cause::Gpu, Certainty::Possible), "{}", explained.summary);
    assert!(!explained.summary.contains("no problem"), "{}", explained.summary);
}

#[test]
fn what_was_read_in_part_rules_nothing_out() {
    let mut report = node(Vec::new());
    let why = Problem { why: "NVML: Timeout".into(), ..Problem::default() };
    report.sections.ecc = Some(Section::failed(why));
    let explained = cause_of(&failed(1, "Error"), &report);
    assert_eq!(explained.certainty, Certainty::Possible, "{}", explained.summary);
    assert!(explained.ruled_out.is_empty(), "{:?}", explained.ruled_out);
    assert!(explained.unknown[0].why.contains("not everything about the GPUs was read: ecc"), "{explained:?}");
    let mut short = node(Vec::new());
    short.sections.xid.as_mut().and_then(|section| section.data.as_mut()).expect("a log").coverage.clear();
    let explained = cause_of(&failed(1, "Error"), &short);
    assert!(explained.ruled_out.iter().all(|line| !line.contains("Xid")), "{:?}", explained.ruled_out);
}

#[test]
fn a_node_that_is_not_ready_and_was_not_read_is_explained_with_its_condition() {
    let why = "Ready is Unknown since 2026-11-21T02:31:00Z (NodeStatusUnknown: Kubelet stopped posting node status.)";
    let pod = PodFacts { node_ready: Some(false), node_not_ready: Some(why.into()), ..waits("ContainerCreating", "") };
    let explained = explain(&pod, None, Some("node is not Ready"));
    assert_eq!((explained.cause, explained.certainty), (Cause::Node, Certainty::Certain), "{}", explained.summary);
    assert!(explained.evidence.iter().any(|line| line.contains(why)), "{:?}", explained.evidence);
    assert!(explained.evidence.iter().any(|line| line.contains("no probe read the node")), "{:?}", explained.evidence);
}

fn evicted(message: &str) -> Explanation {
    let pressure = vec![("DiskPressure".to_owned(), "False".to_owned())];
    let pod = PodFacts {
        reason: Some("Evicted".into()),
        message: Some(message.into()),
        node_pressure: pressure,
        ..failed(137, "Error")
    };
    cause_of(&pod, &node(Vec::new()))
}

#[test]
fn an_eviction_is_by_the_pods_own_limit_or_by_pressure_on_the_node() {
    let own = (Cause::Application, Certainty::Certain);
    for (message, expected, what) in [
        ("Pod ephemeral local storage usage exceeds the total limit of containers 50Gi. ", own, "allow: 50Gi"),
        ("Usage of EmptyDir volume \"scratch\" exceeds the limit \"10Gi\". ", own, "volume scratch"),
        ("Container main exceeded its local ephemeral storage limit \"5Gi\". ", own, "container main"),
        (
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 52Mi. ",
            (Cause::Node, Certainty::Certain),
            "ran low on memory",
        ),
        ("The node had condition: [DiskPressure]. ", (Cause::Node, Certainty::Certain), "condition DiskPressure"),
        (
            "The node was low on resource: ephemeral-storage. Threshold quantity: 10Gi, available: 8Gi. Container main was \
             using 57Gi, request is 0, has larger consumption of ephemeral-storage. ",
            (Cause::Application, Certainty::Likely),
            "container main used 57Gi of this resource with a request of 0",
        ),
        (
            "The node was low on resource: ephemeral-storage. Container main was using 57Gi, which exceeds its request of 0. ",
            (Cause::Application, Certainty::Likely),
            "container main used 57Gi",
        ),
    ] {
        let explained = evicted(message);
        assert_eq!((explained.cause, explained.certainty), expected, "{}", explained.summary);
        assert!(explained.summary.contains(what), "{}", explained.summary);
        assert!(explained.evidence.iter().any(|line| line.contains(message.trim())), "{:?}", explained.evidence);
        assert!(
            explained.evidence.iter().any(|line| line.contains("DiskPressure is False")),
            "{:?}",
            explained.evidence
        );
        assert_ne!(explained.action.code, ActionCode::RestartPod, "{message}");
    }
}

#[test]
fn a_program_that_ends_well_again_and_again_has_a_problem() {
    let mut pod = failed(0, "Completed");
    let state = ContainerState::Waiting { reason: "CrashLoopBackOff".into(), message: "back-off 5m0s".into() };
    let main = &mut pod.containers[0];
    main.last = Some(std::mem::replace(&mut main.state, state));
    main.restarts = 20;
    pod.phase = "Running".into();
    let explained = cause_of(&pod, &node(Vec::new()));
    assert_eq!(
        (explained.cause, explained.certainty),
        (Cause::Application, Certainty::Certain),
        "{}",
        explained.summary
    );
    assert!(explained.summary.contains("exit code 0") && explained.summary.contains("20 restarts"), "{explained:?}");
    assert_eq!(explained.action.code, ActionCode::FixApplication);
}

/// Creates a pod that waits with this reason and message.
fn waits(reason: &str, message: &str) -> PodFacts {
    let state = ContainerState::Waiting { reason: reason.into(), message: message.into() };
    let main = ContainerFacts { name: "main".into(), state, ..ContainerFacts::default() };
    PodFacts { phase: "Pending".into(), containers: vec![main], ..failed(1, "Error") }
}

/// Creates a pod that is being created, with an event that has this reason.
fn creating(reason: &str, message: &str) -> PodFacts {
    let event = PodEvent {
        time: Some(time("02:10:00")),
        reason: reason.into(),
        message: message.into(),
        count: 4,
        ..PodEvent::default()
    };
    PodFacts { events: vec![event], ..waits("ContainerCreating", "") }
}

fn never_ran(message: &str) -> PodFacts {
    let mut pod = ended_with(128, message);
    if let ContainerState::Terminated { reason, started, .. } = &mut pod.containers[0].state {
        (*reason, *started) = ("StartError".into(), None);
    }
    pod
}

/// Returns the parts that a message can be about, each with a pod that has the message and the words of the summary
/// that name the part.
fn parts(message: &str) -> Vec<(Part, PodFacts, &'static str)> {
    let pod = |pod: PodFacts| pod;
    let status = |reason: &str| {
        let containers = Vec::new();
        PodFacts { reason: Some(reason.into()), message: Some(message.into()), containers, ..failed(137, "Error") }
    };
    let mut unscheduled =
        PodFacts { node: None, phase: "Pending".into(), containers: Vec::new(), ..failed(1, "Error") };
    unscheduled.message = Some(format!("0/4 nodes are available: 4 {message}."));
    let mut not_created = creating("FailedCreate", message);
    not_created.not_created_by = Some("Job train".into());
    vec![
        (Part::Image, waits("ImagePullBackOff", message), "the image of container main cannot be pulled"),
        (Part::Config, waits("CreateContainerConfigError", message), "container main cannot be configured"),
        (Part::Start, waits("CreateContainerError", message), "container main could not be started"),
        (Part::Start, waits("RunContainerError", message), "container main could not be started"),
        (Part::Start, never_ran(message), "container main could not be started"),
        (Part::Start, creating("FailedCreatePodSandBox", message), "could not create its sandbox"),
        (Part::Start, creating("FailedPrepareDynamicResources", message), "ResourceClaims"),
        (Part::Volume, creating("FailedMount", message), "one of its volumes cannot be mounted"),
        (Part::Eviction, status("Evicted"), "the pod was evicted"),
        (Part::Scheduler, unscheduled, "the scheduler finds no node"),
        (Part::Controller, not_created, "Job train could not create it"),
        (Part::Program, pod(ended_with(1, message)), "container main exited with exit code 1"),
    ]
}

/// Generates phrases of the table in any order, with other words between them.
fn wording() -> impl Strategy<Value = String> {
    let of_table = include_str!("../../data/phrases.tsv").lines().filter(|row| !row.starts_with('#'));
    let of_table = of_table.flat_map(|row| row.split('\t').nth(1).unwrap_or_default().split([' ', '|', '+', '!']));
    let words: Vec<&str> =
        of_table.filter(|word| word.len() > 3 && word.chars().all(|c| c.is_ascii_alphabetic())).collect();
    let word = prop_oneof![1 => prop::sample::select(words).prop_map(str::to_owned), 2 => "[a-z]{3,9}"];
    prop::collection::vec(word, 2..14).prop_map(|words| words.join(" "))
}

fn judge(message: &str, report: &Report) {
    for (part, pod, names_part) in parts(message) {
        // A message that matches only a general shape of error texts also has a meaning.
        let of_others = part == Part::Program && elsewhere::read(message).is_some();
        // The kubelet writes its own words in front of the message.
        let is_read = read(message).is_some() || read(&format!("x: {message}")).is_some();
        let of_stage = part == Part::Scheduler && waiting::known(waiting::Kind::Stage, message).is_some();
        if known(part, message).is_some() || is_read || of_others || of_stage {
            continue;
        }
        let explained = cause_of(&pod, report);
        let of_program = part == Part::Program && explained.cause == Cause::Application;
        assert!(explained.cause == Cause::Unknown || of_program, "{part:?}: {message}: {}", explained.summary);
        assert!(explained.certainty != Certainty::Certain, "{part:?}: {message}: {}", explained.summary);
        assert!(explained.summary.contains("cause not identified"), "{part:?}: {message}: {}", explained.summary);
        assert!(explained.summary.contains(names_part), "{part:?}: {message}: {}", explained.summary);
        let cleaned = clean(message, usize::MAX);
        assert!(explained.evidence.iter().any(|line| line.contains(&cleaned)), "{part:?}: {message}: {explained:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_message_that_the_table_does_not_know_has_no_known_cause(message in wording()) {
        judge(&message, &node(Vec::new()));
    }
}

#[test]
fn an_unknown_message_stays_unknown_beside_findings_about_the_node() {
    let message = "a thing that nobody has seen before";
    for id in ["gpus-not-advertised", "stack-broken-at-plugin", "driver-not-loaded", "runtime-handler-missing"] {
        for stack in [false, true] {
            let pod = PodFacts { is_gpu_stack: stack, is_device_plugin: stack, ..never_ran(message) };
            let explained = with(&pod, Vec::new(), finding(id, Class::Driver, &[]));
            assert_eq!((explained.cause, explained.certainty), (Cause::Unknown, Certainty::Possible), "{explained:?}");
            assert!(explained.evidence.iter().any(|line| line.contains(message)), "{id}: {:?}", explained.evidence);
            assert!(explained.evidence.iter().any(|line| line.contains(id)), "{id}: {:?}", explained.evidence);
        }
    }
}

/// A network port is a part of the node. An inactive port is the reason why the collective operation waits.
#[test]
fn a_network_port_next_to_its_gpu_explains_a_collective_operation_that_timed_out() {
    let mut report = node(Vec::new());
    let gpus = report.sections.inventory.as_ref().and_then(|one| one.data.as_ref()).expect("GPUs").gpus.clone();
    let near = gpus.iter().map(|gpu| NearGpu { gpu: gpu.index, via: "PIX".into() }).collect();
    let link_layer = Some("InfiniBand".into());
    let port = NicPort { device: "mlx5_3".into(), port: 1, link_layer, near, ..NicPort::default() };
    let topology = |state: &str| {
        let nics = vec![NicPort { state: Some(state.into()), ..port.clone() }];
        let of = |gpu: &GpuInventory| GpuTopology {
            index: gpu.index,
            uuid: gpu.uuid.clone(),
            pci_address: gpu.pci_address.clone(),
            ..GpuTopology::default()
        };
        Topology { gpus: gpus.iter().map(of).collect(), nics, ..Topology::default() }
    };
    for (state, cause) in [("INIT", Cause::Node), ("ACTIVE", Cause::Unknown)] {
        report.sections.topology = Some(Section::read(topology(state), Vec::new()));
        let pod = ended_with(134, "[Rank 3] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7)");
        let explained = cause_of(&pod, &report);
        assert_eq!(explained.cause, cause, "{}", explained.summary);
        let named = explained.evidence.iter().any(|line| line.contains("mlx5_3 port 1 (InfiniBand): state INIT"));
        assert_eq!(named, cause == Cause::Node, "{:?}", explained.evidence);
    }
}

#[test]
fn a_refused_pull_and_a_failed_mount_name_what_to_repair() {
    let refused = cause_of(&waits("ErrImagePull", "failed to authorize: 401 Unauthorized"), &node(Vec::new()));
    assert!(refused.action.text.contains("imagePullSecrets"), "{refused:#?}");
    let message = "MountVolume.SetUp failed for volume \"data\" : mount failed: exit status 32";
    let mounted = cause_of(&creating("FailedMount", message), &node(Vec::new()));
    assert!(mounted.summary.contains("its volume data cannot be mounted"), "{}", mounted.summary);
    assert!(!mounted.summary.contains("not identified"), "{}", mounted.summary);
}

#[test]
fn the_reason_of_a_volume_comes_before_the_timeout_of_its_mount() {
    let timeouts = [
        "Unable to attach or mount volumes: unmounted volumes=[data], unattached volumes=[data]: timed out waiting for the condition",
        "Unable to attach or mount volumes for pod \"a\"/\"b-0\". list of unmounted volumes=[data]: timed out waiting for the condition",
        "Unable to attach or mount volumes for pod \"research\"/\"train-0\": timeout expired waiting for volumes to attach or mount for pod \
         \"research\"/\"train-0\". list of unmounted volumes=[data]",
    ];
    let reasons = [
        (
            "FailedAttachVolume",
            "Multi-Attach error for volume \"pvc-1\" Volume is already exclusively attached to one node",
        ),
        ("FailedMount", "MountVolume.SetUp failed for volume \"pvc-1\" : mount.nfs: Connection timed out"),
        ("FailedMapVolume", "MapVolume.NodeAffinity check failed for volume \"pvc-1\" : no matching NodeSelectorTerms"),
    ];
    for timeout in timeouts {
        let alone = cause_of(&creating("FailedMount", timeout), &node(Vec::new()));
        assert!(
            !alone.summary.contains("\". did not") && !alone.summary.contains("\"/\"b-0\". did"),
            "{}",
            alone.summary
        );
        for (reason, message) in reasons {
            let specific = creating(reason, message);
            let direct = cause_of(&specific, &node(Vec::new()));
            let mut both = creating("FailedMount", timeout);
            both.events[0].time = Some(time("02:20:00"));
            both.events.splice(0..0, specific.events);
            let explained = cause_of(&both, &node(Vec::new()));
            assert_eq!(explained.summary, direct.summary, "{timeout}");
            // If the volume was attached later, the event is not the reason.
            if reason == "FailedAttachVolume" {
                let attached = creating("SuccessfulAttachVolume", "attached");
                both.events.insert(1, PodEvent { time: Some(time("02:15:00")), ..attached.events[0].clone() });
                let explained = cause_of(&both, &node(Vec::new()));
                assert!(!explained.summary.contains("attached to another node"), "{}", explained.summary);
            }
        }
    }
}

#[test]
fn a_program_that_reports_the_failure_of_another_one_is_not_the_cause() {
    let explained = |message: &str| {
        let mut pod = failed(1, "Error");
        if let ContainerState::Terminated { message: text, .. } = &mut pod.containers[0].state {
            *text = message.to_owned();
        }
        cause_of(&pod, &node(Vec::new()))
    };
    for message in [
        "ray.exceptions.RayActorError: The actor died because its node has died. Node Id: 9f3",
        "mpirun noticed that process rank 3 with PID 0 on node worker-3 exited on signal 9 (Killed).",
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError:\ntrain.py FAILED\nrank : 1",
        "psycopg2.OperationalError: server closed the connection unexpectedly",
    ] {
        let said = explained(message);
        assert_eq!((said.cause, said.action.code), (Cause::Unknown, ActionCode::Watch), "{message}: {said:?}");
        assert!(said.summary.contains("another process, rank, node or service"), "{}", said.summary);
        assert!(said.action.text.contains("that the message names"), "{}", said.action.text);
    }
    let own = explained("ray: the actor died because its node has died\nKeyError: 'x'");
    assert_eq!((own.cause, own.action.code), (Cause::Application, ActionCode::FixApplication), "{own:?}");
}

#[test]
fn words_about_a_gpu_repair_nothing_on_a_node_that_needs_no_repair() {
    let disk = KernelEvent {
        kind: syringe_core::facts::kernel_log::KernelEventKind::Host,
        sub_code: Some("fs_error sda".into()),
        code: None,
        name: None,
        pci_address: None,
        ..xid(0, "02:29:00", OWN_GPU, None)
    };
    for events in [Vec::new(), vec![disk]] {
        let report = node(events.clone());
        for message in [
            "RuntimeError: CUDA error: uncorrectable ECC error encountered",
            "RuntimeError: GPU has fallen off the bus",
            "torch.AcceleratorError: CUDA error: uncorrectable NVLink error detected during the execution",
        ] {
            let mut pod = failed(1, "Error");
            if let ContainerState::Terminated { message: text, .. } = &mut pod.containers[0].state {
                *text = message.to_owned();
            }
            let said = cause_of(&pod, &report);
            assert_eq!(said.action.code, ActionCode::Watch, "{message}: {said:?}");
            assert_ne!(said.certainty, Certainty::Certain, "{message}: {said:?}");
        }
        let mut pod = failed(1, "Error");
        if let ContainerState::Terminated { message: text, .. } = &mut pod.containers[0].state {
            *text = "RuntimeError: CUDA error: uncorrectable ECC error encountered".to_owned();
        }
        let faulty = node(events.into_iter().chain([xid(95, "02:29:59", OWN_GPU, None)]).collect());
        let said = cause_of(&pod, &faulty);
        assert_eq!(said.cause, Cause::Gpu, "{said:?}");
        assert!(said.action.code.includes(ActionCode::ResetGpu), "{said:?}");
    }
}
