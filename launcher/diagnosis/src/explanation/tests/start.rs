//! Tests of containers that could not be started: explanations from the messages of the container runtime and the
//! kubelet, from findings about the node, and from CUDA versions, hooks, claims and networks.

use crate::explanation::tests::{
    Cause, Certainty, ContainerFacts, ContainerState, PodEvent, PodFacts, cause_of, explain, failed, node, time,
};
use crate::finding::{Action, Diagnosis, Finding};
use syringe_core::classification::{ActionCode, Class, Severity};
use syringe_core::facts::cdi::{Cdi, CdiSpec};
use syringe_core::facts::host::Host;
use syringe_core::report::{Report, Section};

/// Returns the text in which containerd reports the message of a hook. It is longer than 240 characters.
fn framed(reason: &str) -> String {
    format!(
        "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: unable \
         to start container process: error during container init: error running prestart hook #0: exit status 1, stdout: , \
         stderr: Auto-detected mode as 'legacy' nvidia-container-cli: {reason}"
    )
}

/// Creates a pod whose container the runtime could not start. The API reports a start time in 1970 for such a
/// container.
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
            "needs CUDA 12.8, and the driver of gpu-2 supports only older versions",
        ),
        ("ldcache error: process /sbin/ldconfig terminated with signal 9: unknown", "library cache"),
        ("initialization error: driver/library version mismatch: unknown", "different versions"),
        ("initialization error: driver not loaded: unknown", "not loaded"),
        ("mount error: failed to add device rules: unable to find any existing device filters", "device rules"),
        ("failed to inject CDI devices: unresolvable CDI devices nvidia.com/gpu=GPU-5f1c: unknown", "CDI device"),
    ] {
        let message = framed(reason);
        assert!(message.len() > 300, "as long as a real message");
        // The current state of the node does not contradict the message.
        let mut report = node(Vec::new());
        report.sections.inventory = None;
        let explained = cause_of(&never_ran(&message), &report);
        assert_eq!((explained.cause, explained.certainty), (Cause::Node, Certainty::Certain), "{}", explained.summary);
        assert!(explained.summary.contains(what), "{reason}: {}", explained.summary);
        assert!(explained.evidence.iter().any(|line| line.ends_with(reason)), "{reason}: {:?}", explained.evidence);
        assert!(!explained.action.text.contains("kubectl logs"), "{}", explained.action.text);
        let first = explained.timeline.first().expect("entries").time;
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
    assert_eq!(explained.cause, Cause::Application, "the program ran for half an hour: {}", explained.summary);
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

/// Creates a pod whose containers cannot be created, with an event that contains the reason.
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
    for (reason, message, cause, what) in [
        ("FailedCreatePodSandBox", sandbox, Cause::Node, "has no handler nvidia"),
        ("FailedPrepareDynamicResources", claims, Cause::Node, "DRA driver gpu.nvidia.com has not registered"),
    ] {
        let explained = cause_of(&creating(reason, message), &node(Vec::new()));
        assert_eq!((explained.cause, explained.certainty), (cause, Certainty::Certain), "{}", explained.summary);
        assert!(explained.summary.contains(what), "{reason}: {}", explained.summary);
    }
    let mut quiet = creating("Pulled", "Container image already present");
    assert_eq!(cause_of(&quiet, &node(Vec::new())).cause, Cause::Unknown, "the pod is only new");
    // A container that started later is no longer affected.
    quiet = creating("FailedCreatePodSandBox", sandbox);
    quiet.containers[0].state = ContainerState::Running { since: Some(time("02:20:00")) };
    (quiet.phase, quiet.ready) = ("Running".into(), Some(true));
    assert_eq!(cause_of(&quiet, &node(Vec::new())).cause, Cause::None);
}

#[test]
fn images_and_settings_are_the_pods_own() {
    for (reason, message, what) in [
        ("ImagePullBackOff", "Back-off pulling image \"x:1\": ErrImagePull: x:1: not found", "has no such image"),
        ("ErrImageNeverPull", "Container image \"x:1\" is not present", "its pull policy is Never"),
        ("CreateContainerConfigError", "secret \"hf-token\" not found", "its Secret hf-token does not exist"),
        ("CreateContainerConfigError", "configmap \"train\" not found", "its ConfigMap train does not exist"),
        (
            "CreateContainerConfigError",
            "container has runAsNonRoot and image will run as root (pod: \"train-0\", container: main)",
            "runAsNonRoot does not allow",
        ),
    ] {
        let mut pod = creating("Failed", "Error: x");
        pod.containers[0].state = ContainerState::Waiting { reason: reason.into(), message: message.into() };
        let explained = explain(&pod, None, None);
        let code = explained.action.code;
        assert_eq!((explained.cause, code), (Cause::Application, ActionCode::FixApplication), "{explained:?}");
        assert!(explained.summary.contains(what), "{}", explained.summary);
    }
}

/// Creates a diagnosis with only these findings.
fn with_findings(ids: &[(&str, &str)]) -> Diagnosis {
    let finding = |(id, title): &(&str, &str)| Finding {
        id: (*id).into(),
        title: (*title).into(),
        severity: Severity::Critical,
        evidence: vec![format!("evidence of {id}")],
        action: Action { code: ActionCode::UpdateSoftware, text: format!("mend {id}") },
        ..Finding::default()
    };
    Diagnosis { findings: ids.iter().map(finding).collect(), ..Diagnosis::default() }
}

#[test]
fn the_nodes_finding_says_why_a_phrase_of_the_runtime_is_so() {
    let sandbox = "failed to get sandbox runtime: no runtime for \"nvidia\" is configured";
    let pod = PodFacts {
        runtime_class: Some("gpu".into()),
        runtime_handler: Some("nvidia".into()),
        ..creating("FailedCreatePodSandBox", sandbox)
    };
    let report = node(Vec::new());
    let diagnosis =
        with_findings(&[("cdi-stale", "CDI"), ("runtime-handler-missing", "containerd has no such handler")]);
    let joined = explain(&pod, Some((&report, &diagnosis)), None);
    assert!(joined.summary.contains("no handler nvidia (containerd has no such handler)"), "{}", joined.summary);
    assert_eq!(joined.action.text, "mend runtime-handler-missing");
    let lines =
        ["RuntimeClass gpu has the handler nvidia", "finding runtime-handler-missing", "evidence of runtime-handler"];
    for words in lines {
        assert!(joined.evidence.iter().any(|line| line.contains(words)), "{words}: {:?}", joined.evidence);
    }
    // A finding about another part of the node does not explain the pod.
    let other = explain(&pod, Some((&report, &with_findings(&[("cdi-stale", "CDI")]))), None);
    assert!(!other.summary.contains("CDI") && other.action.text.contains("nvidia-ctk"), "{}", other.summary);
}

/// Creates a node whose driver supports this CUDA version.
fn with_cuda(driver: &str, cuda: &str) -> Report {
    let mut report = node(Vec::new());
    let inventory = report.sections.inventory.as_mut().and_then(|section| section.data.as_mut()).expect("an inventory");
    (inventory.driver_version, inventory.cuda_version) = (Some(driver.into()), Some(cuda.into()));
    report
}

#[test]
fn the_cuda_version_that_an_image_needs_is_compared_with_the_drivers() {
    let needs = |version: &str| {
        never_ran(&framed(&format!(
            "requirement error: unsatisfied condition: cuda>={version}, please update your driver"
        )))
    };
    let old = cause_of(&needs("12.8"), &with_cuda("550.54.15", "12.4"));
    let what = "needs CUDA 12.8, and driver 550.54.15 of gpu-2 supports CUDA 12.4 at most";
    assert!(old.summary.contains(what), "{}", old.summary);
    let action = "Use an image for CUDA 12.4 or older, or update the driver of gpu-2 to 570.26 or newer.";
    assert_eq!((old.action.code, old.action.text.as_str()), (ActionCode::UpdateSoftware, action));
    // The driver was updated since the last attempt.
    let updated = cause_of(&needs("12.8"), &with_cuda("580.65.06", "13.0"));
    assert!(updated.summary.contains("did not support at the time of the start"), "{}", updated.summary);
    assert_eq!(updated.action.code, ActionCode::RestartPod);
    // If a version is not in the table, no driver is named.
    let unknown = cause_of(&needs("99.1"), &with_cuda("580.65.06", "13.0"));
    assert!(unknown.action.text.contains("a version that supports CUDA 99.1"), "{}", unknown.action.text);
}

#[test]
fn of_an_end_and_an_event_the_newer_counts() {
    let mismatch = "nvidia-container-cli: initialization error: driver/library version mismatch: unknown";
    let sandbox = "failed to get sandbox runtime: no runtime for \"nvidia\" is configured";
    let of = |event_at: &str| {
        let mut pod = never_ran(mismatch);
        pod.events = creating("FailedCreatePodSandBox", sandbox).events;
        pod.events[0].time = Some(time(event_at));
        cause_of(&pod, &node(Vec::new())).summary
    };
    assert!(of("02:10:00").contains("no handler nvidia"), "{}", of("02:10:00"));
    assert!(of("02:00:00").contains("differ"), "{}", of("02:00:00"));
}

/// Creates a pod whose container ran until 02:30 and waits in a crash loop, with an event about the container at this
/// time.
fn looping(event_at: &str, container: &str) -> PodFacts {
    let mut pod = failed(1, "Error");
    let state = ContainerState::Waiting { reason: "CrashLoopBackOff".into(), message: "back-off 10s".into() };
    let main = &mut pod.containers[0];
    main.last = Some(std::mem::replace(&mut main.state, state));
    main.restarts = 1;
    let message = "Error: failed to create containerd container: CDI device injection failed: unresolvable CDI devices \
        nvidia.com/gpu=GPU-5f1c";
    pod.events = creating("Failed", message).events;
    pod.events[0].time = Some(time(event_at));
    pod.events[0].field = format!("spec.containers{{{container}}}");
    pod.phase = "Running".into();
    pod
}

#[test]
fn a_container_that_cannot_be_created_again_is_not_its_programs_last_end() {
    let now = cause_of(&looping("02:31:00", "main"), &node(Vec::new()));
    assert!(now.summary.contains("nvidia.com/gpu=GPU-5f1c"), "{}", now.summary);
    // The container has run since the event, or the event is about another container.
    for pod in [looping("02:00:01", "main"), looping("02:31:00", "proxy")] {
        let explained = cause_of(&pod, &node(Vec::new()));
        assert!(explained.summary.contains("exit code 1"), "{}", explained.summary);
    }
}

#[test]
fn an_init_container_that_got_over_its_start_is_judged_by_its_end() {
    let mut pod = looping("02:00:01", "main");
    let main = ContainerState::Waiting { reason: "PodInitializing".into(), message: String::new() };
    pod.containers.push(ContainerFacts { name: "train".into(), state: main, ..ContainerFacts::default() });
    let explained = cause_of(&pod, &node(Vec::new()));
    assert!(explained.summary.contains("exit code 1"), "{}", explained.summary);
}

#[test]
fn a_program_that_ends_with_128_at_once_cannot_speak_for_the_runtime() {
    let mut pod = failed(128, "Error");
    if let ContainerState::Terminated { message, started, finished, .. } = &mut pod.containers[0].state {
        *message = "unsatisfied condition: cuda>=99".into();
        *started = *finished;
    }
    let explained = cause_of(&pod, &node(Vec::new()));
    // The message is about CUDA but is not in the table, so the explanation blames neither the runtime nor the program.
    assert_eq!(explained.cause, Cause::Unknown, "{}", explained.summary);
    assert!(!explained.summary.contains("CUDA"), "{}", explained.summary);
}

#[test]
fn a_claim_whose_specification_a_boot_removed_is_explained_with_the_boot() {
    let message = "failed to create containerd container: CDI device injection failed: unresolvable CDI devices \
        k8s.gpu.nvidia.com/claim=0b7a-gpu-0";
    let mut pod = creating("Failed", &format!("Error: {message}"));
    pod.containers[0].state =
        ContainerState::Waiting { reason: "CreateContainerError".into(), message: message.into() };
    let of = |uptime: u64| {
        let mut report = node(Vec::new());
        let host = Host { uptime_seconds: Some(uptime), ..Host::default() };
        report.sections.host = Some(Section::read(host, Vec::new()));
        cause_of(&pod, &report)
    };
    // The report is from 02:40. The pod was scheduled at 02:00.
    let (rebooted, not) = (of(600), of(86_400));
    assert!(rebooted.evidence.iter().any(|line| line.contains("booted at 2026-11-21T02:30:00Z")), "{rebooted:?}");
    assert!(!not.evidence.iter().any(|line| line.contains("booted")), "{not:?}");
    for explained in [rebooted, not] {
        assert_eq!((explained.cause, explained.action.code), (Cause::Node, ActionCode::RestartPod), "{explained:?}");
    }
}

#[test]
fn a_missing_specification_is_written_by_the_component_that_owns_its_kind() {
    let cdi = |kind: &str| CdiSpec { path: "/var/run/cdi/nvidia.yaml".into(), kind: kind.into(), ..CdiSpec::default() };
    let cases = [
        ("k8s.device-plugin.nvidia.com/gpu=GPU-own", "Restart the pod of the device plugin"),
        ("k8s.gpu.nvidia.com/claim=0b7a-gpu-0", "the DRA driver writes"),
        ("management.nvidia.com/gpu=all", "nvidia-ctk cdi generate"),
    ];
    for (device, expected) in cases {
        let message = format!("CDI device injection failed: unresolvable CDI devices {device}");
        let mut pod = creating("Failed", &format!("Error: {message}"));
        pod.containers[0].state = ContainerState::Waiting { reason: "CreateContainerError".into(), message };
        let mut report = node(Vec::new());
        let specs = Cdi { specs: vec![cdi("nvidia.com/gpu")], folders: vec!["/var/run/cdi".into()], ..Cdi::default() };
        let host = Host { cdi: Some(specs), ..Host::default() };
        report.sections.host = Some(Section::read(host, Vec::new()));
        let action = cause_of(&pod, &report).action.text;
        assert!(action.contains(expected), "{device}: {action}");
        assert!(device.starts_with("management") || !action.contains("nvidia-ctk"), "{device}: {action}");
    }
}

#[test]
fn a_driver_pod_without_an_image_for_its_node_gets_the_right_action() {
    let message = "Back-off pulling image \"nvcr.io/nvidia/driver:570-rocky8.10\": ErrImagePull: \
        nvcr.io/nvidia/driver:570-rocky8.10: not found";
    let mut pod = creating("Failed", "Error: ErrImagePull");
    pod.containers[0].state = ContainerState::Waiting { reason: "ImagePullBackOff".into(), message: message.into() };
    let own = explain(&pod, None, None);
    assert!(own.summary.contains("the registry has no such image"), "{}", own.summary);
    assert!(own.action.text.contains("name or tag"), "{}", own.action.text);
    let driver = explain(&PodFacts { is_gpu_stack: true, ..pod }, None, None);
    assert!(driver.action.text.contains("operating system and kernel of gpu-2"), "{}", driver.action.text);
}

#[test]
fn a_hook_that_fails_over_a_lost_gpu_is_the_gpu() {
    let pod = never_ran(&framed("detection error: nvml error: unknown error"));
    let report = node(Vec::new());
    let alone = cause_of(&pod, &report);
    assert_eq!(alone.cause, Cause::Node, "{}", alone.summary);
    let mut lost = with_findings(&[("gpu-lost", "NVML reports the GPU as lost")]);
    lost.findings[0].class = Class::Hardware;
    let lost = explain(&pod, Some((&report, &lost)), None);
    assert_eq!((lost.cause, lost.action.text.as_str()), (Cause::Gpu, "mend gpu-lost"), "{}", lost.summary);
    // A finding about the use of GPUs by pods is not the reason.
    let other = explain(&pod, Some((&report, &with_findings(&[("gpu-used-without-allocation", "x")]))), None);
    assert_eq!(other.cause, Cause::Node, "{}", other.summary);
    assert!(!other.summary.contains("(x)"), "{}", other.summary);
}

#[test]
fn a_pod_with_a_gpu_that_its_node_had_before_is_to_be_recreated() {
    let pod = PodFacts {
        containers: vec![ContainerFacts {
            name: "main".into(),
            state: ContainerState::Terminated {
                exit_code: 128,
                reason: "StartError".into(),
                message: "nvidia-container-cli: device error: GPU-93955ff7-1bbe-3f6d-8d58-a2104edb62dc: unknown device: unknown".into(),
                started: None,
                finished: Some(time("02:30:00")),
            },
            ..ContainerFacts::default()
        }],
        ..failed(128, "StartError")
    };
    for (offered, is_before) in [
        (vec!["GPU-own", "GPU-other"], true),
        (vec!["GPU-own", "GPU-93955ff7-1bbe-3f6d-8d58-a2104edb62dc"], false),
        (vec![], false),
    ] {
        let mut report = node(Vec::new());
        let kubelet = report.sections.kubelet.as_mut().and_then(|section| section.data.as_mut()).expect("a kubelet");
        kubelet.registered = vec![syringe_core::facts::kubelet::RegisteredDevices {
            resource: "nvidia.com/gpu".into(),
            devices: offered.iter().map(|name| (*name).to_owned()).collect(),
        }];
        let explained = cause_of(&pod, &report);
        assert_eq!(explained.action.code == ActionCode::RestartPod, is_before, "{offered:?}: {explained:?}");
        assert_eq!(explained.cause, Cause::Node, "{explained:?}");
    }
}

#[test]
fn an_additional_network_lacks_access_or_a_device_of_the_pod() {
    let sandbox = "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox \"6c7d\": \
        plugin type=\"multus-cni\" name=\"multus-cni-network\" failed (add): ";
    for (message, cause, what) in [
        (
            "Multus: [default/t-0/7b1c]: error waiting for pod: Unauthorized",
            Cause::Node,
            "no valid access to the API server",
        ),
        (
            "[default/t-0/7b1c:hostdev-net]: error adding container to network \"hostdev-net\": specify either \"device\", \
             \"hwaddr\", \"kernelpath\" or \"pciBusID\"",
            Cause::Application,
            "the pod requests no device of a plugin",
        ),
    ] {
        let explained =
            cause_of(&creating("FailedCreatePodSandBox", &format!("{sandbox}{message}")), &node(Vec::new()));
        assert_eq!(explained.cause, cause, "{}", explained.summary);
        assert!(explained.summary.contains(what), "{}", explained.summary);
        assert!(!explained.action.text.contains("cordon"), "{}", explained.action.text);
    }
}

#[test]
fn a_deadline_only_ends_the_wait_of_a_pod_that_never_started() {
    let over = |pod: PodFacts| PodFacts {
        phase: "Failed".into(),
        reason: Some("DeadlineExceeded".into()),
        message: Some("Pod was active on the node longer than the specified deadline".into()),
        ..pod
    };
    let explained = |reason: &str, message: &str| cause_of(&over(creating(reason, message)), &node(Vec::new()));
    let pulls = explained("Pulling", "Pulling image \"registry.example/big:1\"");
    assert!(pulls.summary.contains("the pull of its image had not ended"), "{}", pulls.summary);
    let mount = explained("FailedMount", "MountVolume.SetUp failed for volume \"data\" : configmap \"data\" not found");
    assert!(mount.summary.contains("volume data cannot be mounted"), "{}", mount.summary);
    assert!(mount.summary.contains("ended before a container had started"), "{}", mount.summary);
    let ran = cause_of(&over(failed(137, "Error")), &node(Vec::new()));
    assert!(ran.summary.contains("ran longer than its activeDeadlineSeconds"), "{}", ran.summary);
}
