//! Tests that rows of the phrase table lead to no wrong action: for GPU stack components, pods that request no GPU,
//! variables that hide GPUs, logs of ready containers, scheduler reasons.

use crate::explanation::tests::{
    Cause, ContainerFacts, ContainerState, PodFacts, cause_of, explain, failed, node, running,
};
use crate::messages::phrases::{Part, rows_of};
use syringe_core::classification::ActionCode;
use syringe_core::facts::host::{DriverVersions, Host};
use syringe_core::facts::kubernetes::pod::{CapacityShortage, ContainerLog, ContainerSpec};
use syringe_core::report::Section;

/// Creates a pod whose container ended with a message, and which requests no GPU.
fn ended_with(message: &str) -> PodFacts {
    let mut pod = PodFacts { wants_gpus: false, gpu_containers: Vec::new(), ..failed(1, "Error") };
    pod.uid = "another".into();
    if let ContainerState::Terminated { message: said, .. } = &mut pod.containers[0].state {
        message.clone_into(said);
    }
    pod
}

/// Returns specifications of containers that get the driver without a GPU request.
fn specs() -> [ContainerSpec; 4] {
    let spec = || ContainerSpec { name: "main".into(), ..ContainerSpec::default() };
    let mounted = |path: &str, volume: &str| vec![(path.to_owned(), volume.to_owned())];
    [
        ContainerSpec { privileged: true, ..spec() },
        ContainerSpec { environment: vec![("NVIDIA_VISIBLE_DEVICES".into(), "all".into())], ..spec() },
        ContainerSpec { mounts: mounted("/run/nvidia/driver", "hostPath /run/nvidia/driver (volume root)"), ..spec() },
        ContainerSpec { mounts: mounted("/host", "hostPath / (volume host)"), ..spec() },
    ]
}

#[test]
fn no_component_of_the_stack_is_to_request_a_gpu() {
    let report = node(Vec::new());
    for phrase in rows_of(Part::Program) {
        for example in &phrase.examples {
            let component = PodFacts { is_gpu_stack: true, ..ended_with(example) };
            let with_specs = specs().map(|spec| PodFacts { specs: vec![spec], ..ended_with(example) });
            for pod in with_specs.into_iter().chain([component]) {
                let explained = cause_of(&pod, &report);
                assert_ne!(explained.action.code, ActionCode::ChangeRequest, "{example}: {}", explained.summary);
                assert!(!explained.summary.contains("requests no GPU"), "{example}: {}", explained.summary);
            }
        }
    }
}

#[test]
fn a_user_pod_without_a_request_is_to_request_a_gpu() {
    let explained = cause_of(&ended_with("CUDA error: no CUDA-capable device is detected"), &node(Vec::new()));
    assert_eq!(explained.action.code, ActionCode::ChangeRequest, "{}", explained.summary);
}

#[test]
fn an_allocation_of_the_kubelet_is_no_request() {
    let own = failed(1, "Error").uid;
    for message in ["RuntimeError: Found no NVIDIA driver on your system.", "RuntimeError: No CUDA GPUs are available"]
    {
        for (resource, requests_none) in [("nvidia.com/gpu", true), ("example.com/shared-gpu", false)] {
            let mut report = node(Vec::new());
            let kubelet = report.sections.kubelet.as_mut().and_then(|section| section.data.as_mut());
            kubelet.expect("a kubelet").allocations[0].resource = resource.into();
            let pod = PodFacts { uid: own.clone(), ..ended_with(message) };
            let explained = cause_of(&pod, &report);
            let told = explained.action.code == ActionCode::ChangeRequest;
            assert_eq!(told, requests_none, "{resource}: {}", explained.summary);
            assert!(!told || explained.cause == Cause::Application, "{resource}: {}", explained.summary);
        }
    }
}

#[test]
fn a_variable_of_the_specification_that_hides_the_gpu_is_the_application() {
    let no_gpu = "RuntimeError: No CUDA GPUs are available";
    let no_driver = "ImportError: libcuda.so.1: cannot open shared object file: No such file or directory";
    for (message, name, value, hides) in [
        (no_gpu, "NVIDIA_VISIBLE_DEVICES", "void", true),
        (no_gpu, "NVIDIA_VISIBLE_DEVICES", "none", true),
        (no_gpu, "NVIDIA_VISIBLE_DEVICES", "all", false),
        (no_gpu, "CUDA_VISIBLE_DEVICES", "-1", true),
        (no_gpu, "CUDA_VISIBLE_DEVICES", "", true),
        (no_gpu, "CUDA_VISIBLE_DEVICES", "NoDevFiles", true),
        (no_gpu, "CUDA_VISIBLE_DEVICES", "0,1", false),
        (no_gpu, "CUDA_VISIBLE_DEVICES", "GPU-own", false),
        (no_gpu, "CUDA_VISIBLE_DEVICES", "$(GPUS)", false),
        (no_driver, "NVIDIA_DRIVER_CAPABILITIES", "utility", true),
        (no_driver, "NVIDIA_DRIVER_CAPABILITIES", "compute,utility", false),
        (no_driver, "NVIDIA_DRIVER_CAPABILITIES", "all", false),
        ("CUDA out of memory. Tried to allocate", "CUDA_VISIBLE_DEVICES", "-1", false),
        (no_gpu, "TOKEN", "-1", false),
    ] {
        let environment = vec![(name.to_owned(), value.to_owned())];
        let spec = ContainerSpec { name: "main".into(), requests_gpus: true, environment, ..ContainerSpec::default() };
        let pod = PodFacts { wants_gpus: true, specs: vec![spec], ..ended_with(message) };
        let explained = cause_of(&pod, &node(Vec::new()));
        let setting = format!("{name}=\"{value}\"");
        assert_eq!(explained.summary.contains(&setting), hides, "{setting}: {}", explained.summary);
        assert_eq!(explained.action.text.contains(&setting), hides, "{setting}: {}", explained.action.text);
        assert!(!hides || explained.cause == Cause::Application, "{setting}: {}", explained.summary);
    }
}

#[test]
fn a_gpu_that_the_container_cannot_have_is_named_with_the_variable() {
    let no_gpu = "RuntimeError: No CUDA GPUs are available";
    let encoder = "[h264_nvenc @ 0x55] Cannot load libnvidia-encode.so.1";
    for (message, name, value, privileged, hides) in [
        (no_gpu, "CUDA_VISIBLE_DEVICES", "7", false, true),
        (no_gpu, "CUDA_VISIBLE_DEVICES", "2", false, true),
        (no_gpu, "CUDA_VISIBLE_DEVICES", "1", false, false),
        (no_gpu, "CUDA_VISIBLE_DEVICES", "7", true, false),
        (no_gpu, "CUDA_VISIBLE_DEVICES", "GPU-absent", false, true),
        (no_gpu, "CUDA_VISIBLE_DEVICES", "MIG-x", false, false),
        (encoder, "NVIDIA_DRIVER_CAPABILITIES", "compute,utility", false, true),
        (encoder, "NVIDIA_DRIVER_CAPABILITIES", "compute,video", false, false),
        (encoder, "NVIDIA_DRIVER_CAPABILITIES", "all", false, false),
        (encoder, "CUDA_VISIBLE_DEVICES", "7", false, false),
    ] {
        let environment = vec![(name.to_owned(), value.to_owned())];
        let spec = ContainerSpec {
            name: "main".into(),
            requests_gpus: true,
            privileged,
            environment,
            ..ContainerSpec::default()
        };
        let pod = PodFacts { wants_gpus: true, gpus_requested: 2, specs: vec![spec], ..ended_with(message) };
        let explained = cause_of(&pod, &node(Vec::new()));
        let setting = format!("{name}=\"{value}\"");
        assert_eq!(explained.summary.contains(&setting), hides, "{setting}: {}", explained.summary);
        assert!(!hides || explained.cause == Cause::Application, "{setting}: {}", explained.summary);
    }
}

#[test]
fn a_gpu_that_another_container_of_the_pod_requests_is_not_in_this_one() {
    let no_gpu = "RuntimeError: No CUDA GPUs are available";
    let memory = "RuntimeError: CUDA error: uncorrectable ECC error encountered";
    for (message, own, privileged, is_request) in [
        (no_gpu, false, false, true),
        (no_gpu, true, false, false),
        (no_gpu, false, true, false),
        (memory, false, false, false),
    ] {
        let spec = |name: &str, requests_gpus: bool| ContainerSpec {
            name: name.into(),
            requests_gpus,
            privileged: privileged && name == "main",
            ..ContainerSpec::default()
        };
        let specs = vec![spec("main", own), spec("metrics", true)];
        let pod = PodFacts { wants_gpus: true, gpus_requested: 1, specs, ..ended_with(message) };
        let explained = cause_of(&pod, &node(Vec::new()));
        let told =
            explained.action.code == ActionCode::ChangeRequest && explained.summary.contains("container metrics");
        assert_eq!(told, is_request, "{message}: {explained:#?}");
        assert!(!told || explained.cause == Cause::Application, "{}", explained.summary);
    }
}

#[test]
fn no_action_follows_from_the_log_of_a_container_that_is_ready() {
    let (runs, report) = running("R", Vec::new());
    let rows = [Part::Program, Part::Start].into_iter().flat_map(rows_of);
    for example in rows.flat_map(|phrase| &phrase.examples) {
        for is_gpu_stack in [false, true] {
            let log = ContainerLog {
                container: "main".into(),
                lines: vec![format!("level=error msg=\"{example}\"")],
                ..ContainerLog::default()
            };
            let pod = PodFacts { is_gpu_stack, other_logs: vec![log], ready: Some(true), ..runs.clone() };
            let explained = cause_of(&pod, &report);
            assert!(matches!(explained.cause, Cause::Unknown | Cause::None), "{example}: {}", explained.summary);
            assert!(matches!(explained.action.code, ActionCode::Watch | ActionCode::None), "{example}: {explained:?}");
        }
    }
}

#[test]
fn a_library_in_another_folder_is_not_one_that_the_runtime_did_not_add() {
    let mut report = node(Vec::new());
    let driver = DriverVersions {
        library_path: Some("/run/nvidia/driver/usr/lib64/libnvidia-ml.so.570.1".into()),
        ..DriverVersions::default()
    };
    report.sections.host = Some(Section::read(Host { driver, ..Host::default() }, Vec::new()));
    let with = |folder: &str| {
        let spec = ContainerSpec {
            name: "main".into(),
            environment: vec![("LD_LIBRARY_PATH".into(), format!("/run/nvidia/driver{folder}"))],
            mounts: vec![("/run/nvidia/driver".into(), "hostPath /run/nvidia/driver (volume root)".into())],
            ..ContainerSpec::default()
        };
        cause_of(
            &PodFacts { specs: vec![spec], ..ended_with("Failed to initialize NVML: ERROR_LIBRARY_NOT_FOUND") },
            &report,
        )
    };
    let told = "these libraries are in /run/nvidia/driver/usr/lib64";
    let elsewhere = with("/usr/lib/x86_64-linux-gnu");
    assert!(elsewhere.action.text.contains(told), "{}", elsewhere.action.text);
    let there = with("/usr/lib64");
    assert!(!there.action.text.contains(told), "{}", there.action.text);
}

#[test]
fn the_most_frequent_reason_does_not_explain_a_node_that_has_room() {
    let checked = ["nsufficient", "taint", "affinity/selector", "unschedulable"];
    let mut tried = 0;
    for phrase in rows_of(Part::Scheduler) {
        for example in phrase.examples.iter().filter(|text| text.starts_with(|first: char| first.is_ascii_digit())) {
            if checked.iter().any(|words| example.contains(words)) || example.contains("are available") {
                continue;
            }
            tried += 1;
            let message = format!("0/9 nodes are available: {example}, 8 Insufficient nvidia.com/gpu.");
            let room = CapacityShortage {
                shortage: "gpu-1 has enough free resources for the pod".into(),
                has_room: Some("gpu-1".into()),
                ..CapacityShortage::default()
            };
            let pod = PodFacts {
                phase: "Pending".into(),
                node: None,
                node_ready: None,
                scheduled: None,
                message: Some(message),
                containers: Vec::new(),
                capacity_shortage: Some(room),
                ..failed(1, "Error")
            };
            let explained = explain(&pod, None, None);
            assert!(explained.summary.contains(phrase.what), "{example}: {}", explained.summary);
            assert!(!explained.summary.contains("too few GPUs are free"), "{example}: {}", explained.summary);
        }
    }
    assert!(tried > 5, "{tried}");
}

#[test]
fn a_sidecar_that_the_kubelet_ended_is_no_failure_of_a_pod_that_succeeded() {
    let completed = failed(0, "Completed");
    let mut with_sidecar = failed(143, "Error");
    let sidecar = with_sidecar.containers.remove(0);
    with_sidecar.containers.extend(completed.containers.iter().cloned());
    with_sidecar.containers.push(ContainerFacts { name: "sidecar".into(), ..sidecar });
    // The phase decides: the same containers in a pod that failed are a problem.
    for (phase, expected) in [("Succeeded", Cause::None), ("Failed", Cause::Unknown)] {
        with_sidecar.phase = phase.into();
        let explanation = cause_of(&with_sidecar, &node(Vec::new()));
        assert_eq!(explanation.cause, expected, "{phase}: {explanation:?}");
    }
}
