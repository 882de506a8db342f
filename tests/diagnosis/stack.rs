//! Tests of the diagnosis of NVIDIA's stack on a node: which stage is reported as broken, and when no stage is reported.

use diagnosis::finding::{Diagnosis, Verdict};
use diagnosis::stack_stage::{Stage, StageState};
use diagnosis::{diagnose, first_failing_pod};
use serde_json::{Value, json};
use syringe_core::classification::Severity;
use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::report::{Report, Section};

use super::replayed;

fn scenario(name: &str) -> Report {
    replayed(::scenarios::named(name).expect(name).report())
}

/// Returns the time this many minutes before the report.
fn ago(report: &Report, minutes: i64) -> String {
    let now = report.taken_at.expect("a time");
    (now - jiff::SignedDuration::from_mins(minutes)).to_string()
}

/// Returns a pod of the operator that is two hours old, with a container or init container in this state.
fn pod(report: &Report, component: &str, container: &str, state: Value) -> Value {
    let mut one = json!({"name": container, "image": "nvcr.io/nvidia/x:1", "init": container.ends_with("-validation")});
    for (key, value) in state.as_object().expect("an object") {
        one[key] = value.clone();
    }
    json!({"namespace": "gpu-operator", "name": format!("{component}-a1"), "uid": format!("uid-{component}"), "component": component,
        "owner": component, "phase": "Running", "created": ago(report, 120), "ready": one["ready"] == true, "containers": [one]})
}

fn ready(report: &Report, component: &str) -> Value {
    pod(report, component, "main", json!({"ready": true, "state": {"kind": "running", "since": ago(report, 119)}}))
}

fn crashing(report: &Report, component: &str) -> Value {
    let state = json!({"kind": "waiting", "reason": "CrashLoopBackOff"});
    pod(
        report,
        component,
        "main",
        json!({"restarts": 12, "state": state, "last": {"kind": "terminated", "exit_code": 1}}),
    )
}

/// Returns data from Kubernetes about a node with or without GPU capacity.
fn cluster(report: &Report, gpus: Option<u32>, pods: Vec<Value>) -> KubernetesFacts {
    let mut facts: KubernetesFacts = serde_json::from_value(json!({"node": "gpu-1", "gpu_capacity": gpus, "gpu_allocatable": gpus,
        "gpu_dra": false, "gpu_plugin_in_cluster": true, "ready": true, "ready_since": ago(report, 125), "nvidia_pods": pods}))
    .expect("facts of the cluster");
    facts.read_at = report.taken_at;
    facts
}

fn ids(diagnosis: &Diagnosis) -> Vec<(&str, Severity)> {
    let grave = diagnosis.findings.iter().filter(|finding| finding.severity > Severity::Info);
    grave.map(|finding| (finding.id.as_str(), finding.severity)).collect()
}

fn states(diagnosis: &Diagnosis) -> Vec<(Stage, StageState)> {
    diagnosis.stack.iter().map(|stage| (stage.stage, stage.state)).collect()
}

/// Returns the report of the scenario, without devices in the kubelet's checkpoint.
fn unregistered() -> Report {
    let mut report = scenario("healthy-h100-8");
    if let Some(kubelet) = report.sections.kubelet.as_mut().and_then(|section| section.data.as_mut()) {
        kubelet.registered.clear();
        kubelet.allocations.clear();
    }
    report
}

#[test]
fn the_first_broken_link_is_told_and_no_later_one() {
    let report = unregistered();
    let (crash, fine) = (|component| crashing(&report, component), |component| ready(&report, component));
    let waits = |component, container| {
        pod(&report, component, container, json!({"state": {"kind": "running", "since": ago(&report, 60)}}))
    };
    for (pods, id, stage) in [
        (
            vec![
                crash("driver"),
                waits("container_toolkit", "driver-validation"),
                waits("device_plugin", "toolkit-validation"),
            ],
            "stack-broken-at-driver",
            Stage::Driver,
        ),
        (
            vec![fine("driver"), crash("container_toolkit"), waits("device_plugin", "toolkit-validation")],
            "stack-broken-at-toolkit",
            Stage::Runtime,
        ),
        (
            vec![waits("container_toolkit", "driver-validation"), waits("device_plugin", "toolkit-validation")],
            "stack-broken-at-validator",
            Stage::Driver,
        ),
        (
            vec![
                fine("container_toolkit"),
                waits("validator", "toolkit-validation"),
                waits("device_plugin", "toolkit-validation"),
            ],
            "stack-broken-at-validator",
            Stage::Runtime,
        ),
        (
            vec![fine("container_toolkit"), crash("device_plugin"), crash("validator")],
            "stack-broken-at-plugin",
            Stage::Plugin,
        ),
        (vec![crash("dra_driver")], "stack-broken-at-plugin", Stage::Plugin),
        (vec![fine("container_toolkit"), fine("device_plugin")], "stack-broken-at-plugin", Stage::Plugin),
    ] {
        let diagnosis = diagnose(&report, &cluster(&report, None, pods.clone()));
        assert_eq!(ids(&diagnosis), [(id, Severity::Critical)], "{pods:#?}");
        let broken: Vec<_> = states(&diagnosis).into_iter().filter(|(_, state)| *state == StageState::Broken).collect();
        assert_eq!(broken, [(stage, StageState::Broken)], "{id}");
        let told = diagnosis.findings.iter().find(|finding| finding.id == id).expect(id);
        assert!(told.evidence.iter().any(|line| line.contains("Kubernetes capacity")), "{:?}", told.evidence);
    }
}

#[test]
fn a_node_that_offers_its_gpus_has_a_warning_at_most() {
    let report = scenario("healthy-h100-8");
    let pods =
        vec![ready(&report, "container_toolkit"), ready(&report, "device_plugin"), crashing(&report, "validator")];
    let diagnosis = diagnose(&report, &cluster(&report, Some(8), pods));
    assert_eq!(ids(&diagnosis), [("stack-broken-at-validator", Severity::Warning)]);
    assert!(diagnosis.stack.iter().all(|stage| stage.state == StageState::Ok), "{:?}", diagnosis.stack);
}

#[test]
fn what_may_still_be_starting_is_no_fault() {
    let report = unregistered();
    let young = |component, minutes: i64| {
        let mut pod = crashing(&report, component);
        pod["created"] = json!(ago(&report, minutes));
        pod
    };
    let of = |facts: &KubernetesFacts| !ids(&diagnose(&report, facts)).is_empty();
    assert!(!of(&cluster(&report, None, vec![young("device_plugin", 2)])), "the pod is two minutes old");
    assert!(of(&cluster(&report, None, vec![young("device_plugin", 20)])));
    let compiling = json!({"state": {"kind": "running", "since": ago(&report, 12)}});
    let driver = pod(&report, "driver", "nvidia-driver-ctr", compiling);
    assert!(!of(&cluster(&report, None, vec![driver])), "a driver pod needs time to compile");
    // A node that has been running for days has its pods, even if it was not Ready for a moment.
    let mut joined = report.clone();
    joined.sections.host.as_mut().and_then(|section| section.data.as_mut()).expect("host").uptime_seconds = Some(1_800);
    let of = |facts: &KubernetesFacts| !ids(&diagnose(&joined, facts)).is_empty();
    let mut facts = cluster(&report, None, vec![crashing(&report, "device_plugin")]);
    facts.ready_since = ago(&report, 4).parse().ok();
    assert!(!of(&facts), "the node has just become Ready");
    facts.ready_since = ago(&report, 6).parse().ok();
    assert!(of(&facts), "many restarts are no part of a start");
    facts.nvidia_pods.as_mut().expect("pods")[0].containers[0].restarts = 2;
    assert!(!of(&facts), "a few restarts are a part of a start");
    let mut booted = report.clone();
    booted.sections.host.as_mut().and_then(|section| section.data.as_mut()).expect("host").uptime_seconds = Some(240);
    let facts = cluster(&report, None, vec![crashing(&report, "device_plugin")]);
    assert_eq!(ids(&diagnose(&booted, &facts)), [], "the node has just booted");
}

/// A driver that is still being installed is not a fault, but a failing driver pod is a fault.
#[test]
fn a_driver_that_is_being_installed_is_no_fault() {
    let report = scenario("no-driver");
    let compiling = json!({"state": {"kind": "running", "since": ago(&report, 12)}});
    let installing = cluster(&report, None, vec![pod(&report, "driver", "nvidia-driver-ctr", compiling)]);
    let diagnosis = diagnose(&report, &installing);
    assert_eq!(ids(&diagnosis), []);
    assert_ne!(diagnosis.verdict, Verdict::Healthy, "no data about the GPUs was read");
    let failing = cluster(&report, None, vec![crashing(&report, "driver")]);
    assert_eq!(ids(&diagnose(&report, &failing)), [("driver-not-loaded", Severity::Fatal)]);
}

/// The kubelet's checkpoint keeps the devices of a removed plugin. These devices are not necessarily registered now.
#[test]
fn devices_of_an_earlier_registration_are_no_registration() {
    let report = scenario("healthy-h100-8");
    let facts = cluster(&report, None, vec![crashing(&report, "device_plugin")]);
    let of = |report: &Report| {
        let diagnosis = diagnose(report, &facts);
        diagnosis.stack.iter().find(|stage| stage.stage == Stage::Registration).map(|stage| stage.state)
    };
    assert_eq!(of(&report), Some(StageState::Unknown));
    let mut looked = report.clone();
    let host = looked.sections.host.as_mut().and_then(|section| section.data.as_mut()).expect("host");
    host.nvidia_stack = serde_json::from_value(json!({"plugin_sockets": []})).expect("a stack");
    assert_eq!(of(&looked), Some(StageState::Blocked), "the plugin is the first broken stage");
}

#[test]
fn pods_that_are_replaced_say_nothing() {
    let report = scenario("healthy-h100-8");
    let mut leaving = crashing(&report, "device_plugin");
    leaving["deleting"] = json!(true);
    let mut evicted = crashing(&report, "container_toolkit");
    evicted["phase"] = json!("Failed");
    let pods = vec![leaving, ready(&report, "device_plugin"), evicted, ready(&report, "container_toolkit")];
    assert_eq!(ids(&diagnose(&report, &cluster(&report, Some(8), pods))), []);
}

#[test]
fn a_worker_of_feature_discovery_that_the_taint_keeps_away_is_named() {
    let report = unregistered();
    let mut facts = cluster(&report, None, Vec::new());
    facts.pci_label_elsewhere = Some(true);
    let worker = |mismatch: Option<&str>| {
        json!([{"namespace": "gpu-operator", "name": "gpu-operator-node-feature-discovery-worker",
        "created": ago(&report, 9_000), "mismatch": mismatch}])
    };
    let of = |facts: &KubernetesFacts| {
        let found = diagnose(&report, facts).findings.into_iter().find(|finding| finding.id == "stack-not-deployed");
        found.expect("the finding")
    };
    facts.daemon_sets =
        serde_json::from_value(worker(Some("no toleration for the taint dedicated=ml:NoSchedule"))).ok();
    let found = of(&facts);
    assert!(found.evidence.iter().any(|line| line.contains("dedicated=ml")), "{:?}", found.evidence);
    assert!(found.action.text.contains("toleration"), "{}", found.action.text);
    facts.daemon_sets = serde_json::from_value(worker(None)).ok();
    assert!(!of(&facts).action.text.contains("toleration"));
}

/// If the pods of the node were not read, the finding has no reason.
#[test]
fn nothing_is_said_of_pods_that_were_not_read() {
    let report = unregistered();
    let facts = KubernetesFacts { nvidia_pods: None, ..cluster(&report, None, Vec::new()) };
    let diagnosis = diagnose(&report, &facts);
    assert_eq!(ids(&diagnosis), [("gpus-not-advertised", Severity::Critical)]);
    let plugin = diagnosis.stack.iter().find(|stage| stage.stage == Stage::Plugin).map(|stage| stage.state);
    assert_eq!(plugin, Some(StageState::Unknown));
}

#[test]
fn a_finding_of_runtime_or_driver_is_the_reason_of_what_follows() {
    let report = scenario("no-driver");
    let driver = crashing(&report, "driver");
    let facts = cluster(
        &report,
        None,
        vec![driver, crashing(&report, "container_toolkit"), crashing(&report, "device_plugin")],
    );
    let diagnosis = diagnose(&report, &facts);
    let grave = ids(&diagnosis);
    assert!(!grave.iter().any(|(id, _)| id.starts_with("stack-")), "{grave:?}");
    let told = &diagnosis.findings[0];
    assert!(told.evidence.iter().any(|line| line.contains("driver-a1")), "{:?}", told.evidence);
    assert_eq!(states(&diagnosis)[1], (Stage::Driver, StageState::Broken));
}

#[test]
fn a_cdi_file_that_was_not_understood_is_no_working_runtime() {
    let runtime = |specs: Value, unread: Value| {
        let mut report = scenario("healthy-h100-8");
        let host = report.sections.host.as_mut().and_then(|section| section.data.as_mut()).expect("the host");
        host.cdi_spec = Some("/etc/cdi/nvidia.yaml".into());
        (host.container_runtime, host.container_toolkit) = (None, None);
        let cdi = json!({"folders": ["/etc/cdi"], "specs": specs, "unread": unread});
        host.cdi = Some(serde_json::from_value(cdi).expect("specifications"));
        let facts = cluster(&report, Some(8), vec![ready(&report, "device_plugin")]);
        let stage =
            diagnose(&report, &facts).stack.into_iter().find(|stage| stage.stage == Stage::Runtime).expect("a stage");
        (stage.state, stage.evidence)
    };
    let spec = json!([{"path": "/etc/cdi/nvidia.yaml", "kind": "nvidia.com/gpu",
        "devices": ["0", "1", "2", "3", "4", "5", "6", "7"]}]);
    assert_eq!(runtime(spec, json!([])), (StageState::Ok, "/etc/cdi/nvidia.yaml".to_owned()));
    let (state, evidence) = runtime(json!([]), json!(["/etc/cdi/nvidia.yaml"]));
    assert_eq!((state, evidence.as_str()), (StageState::Unknown, "could not read /etc/cdi/nvidia.yaml"));
}

/// The node has the program of NVIDIA's runtime. This does not prove that a pod with a GPU can start.
#[test]
fn the_program_of_the_runtime_alone_is_no_working_runtime() {
    let verdict = |change: fn(&mut Report)| {
        let mut report = scenario("healthy-h100-8");
        let host = report.sections.host.as_mut().and_then(|section| section.data.as_mut()).expect("the host");
        (host.cdi_spec, host.container_toolkit) = (None, Some("/usr/bin/nvidia-container-runtime".into()));
        change(&mut report);
        let facts = cluster(&report, Some(8), vec![ready(&report, "device_plugin")]);
        let diagnosis = diagnose(&report, &facts);
        let stage = diagnosis.stack.iter().find(|one| one.stage == Stage::Runtime).expect("a stage").state;
        (diagnosis.verdict, stage)
    };
    let without_jobs = |report: &mut Report| {
        let processes =
            report.sections.processes.as_mut().and_then(|section| section.data.as_mut()).expect("processes");
        processes.processes.retain(|process| process.uses.is_empty());
    };
    assert_eq!(verdict(|_| ()), (Verdict::Healthy, StageState::Ok), "a pod uses a GPU");
    assert_eq!(verdict(without_jobs), (Verdict::Unknown, StageState::Unknown));
}

#[test]
fn a_pod_that_the_node_cannot_start_is_a_fault_of_the_node() {
    let verdict = |minutes: i64, reason: &str, message: &str| {
        let report = scenario("healthy-h100-8");
        let mut facts = cluster(&report, Some(8), vec![ready(&report, "device_plugin")]);
        let pod = json!([{"namespace": "research", "name": "fresh-start", "since": ago(&report, minutes),
            "warning": {"reason": reason, "message": message, "count": 3}}]);
        facts.starting_pods = Some(serde_json::from_value(pod).expect("a pod"));
        let diagnosis = diagnose(&report, &facts);
        let stage = diagnosis.stack.iter().find(|one| one.stage == Stage::Runtime).expect("a stage").state;
        let named = diagnosis.findings.iter().flat_map(|one| &one.evidence).any(|line| line.contains(message));
        (diagnosis.verdict, stage, named)
    };
    let message = "failed to get sandbox runtime: no runtime for \"nvidia\" is configured";
    assert_eq!(verdict(10, "FailedCreatePodSandBox", message), (Verdict::Warning, StageState::Broken, true));
    assert_eq!(verdict(1, "FailedCreatePodSandBox", message).0, Verdict::Healthy, "the container may still start");
    assert_eq!(verdict(10, "Failed", "image not found").0, Verdict::Healthy, "the pod is the cause");
    assert_eq!(verdict(10, "Failed", "unresolvable CDI devices nvidia.com/gpu=0").0, Verdict::Warning);
}

#[test]
fn two_plugins_are_two_owners_not_two_programs_of_one() {
    let report = scenario("healthy-h100-8");
    let plugin = |owner: &str, name: &str| {
        let mut pod = ready(&report, "device_plugin");
        (pod["owner"], pod["name"], pod["uid"]) = (json!(owner), json!(name), json!(name));
        pod
    };
    let both = vec![plugin("nvidia-device-plugin-daemonset", "a"), plugin("nvidia-device-plugin", "b")];
    assert_eq!(ids(&diagnose(&report, &cluster(&report, Some(8), both))), [("two-device-plugins", Severity::Warning)]);
    // During a rollout, the old and the new pod of a DaemonSet exist for a moment.
    let rollout = vec![plugin("nvidia-device-plugin", "a"), plugin("nvidia-device-plugin", "b")];
    assert_eq!(ids(&diagnose(&report, &cluster(&report, Some(8), rollout))), []);
    let mps =
        vec![plugin("nvidia-device-plugin", "a"), ready(&report, "other"), ready(&report, "sandbox_device_plugin")];
    assert_eq!(ids(&diagnose(&report, &cluster(&report, Some(8), mps))), []);
}

#[test]
fn work_of_the_operator_that_goes_on_is_no_fault() {
    let report = scenario("healthy-h100-8");
    let with = |label: &str, value: &str, minutes: i64, gpus: Option<u32>| {
        let mut facts = cluster(&report, gpus, vec![ready(&report, "device_plugin")]);
        match label {
            "nvidia.com/mig.config.state" => facts.labels.mig_config_state = Some(value.to_owned()),
            _ => facts.labels.driver_upgrade_state = Some(value.to_owned()),
        }
        facts.labels.unchanged_since.insert(label.to_owned(), ago(&report, minutes).parse().expect("a time"));
        let found = diagnose(&report, &facts);
        let waits = found.findings.iter().any(|one| one.id == "driver-upgrade-waits" && one.severity == Severity::Info);
        assert_eq!(waits, value == "wait-for-jobs-required", "{found:#?}");
        ids(&found).iter().map(|(id, _)| (*id).to_owned()).collect::<Vec<_>>()
    };
    let (mig, upgrade) = ("nvidia.com/mig.config.state", "nvidia.com/gpu-driver-upgrade-state");
    for (label, value, minutes, expected) in [
        (mig, "success", 9000, None),
        (mig, "pending", 6, None),
        (mig, "pending", 40, Some("mig-manager-stuck")),
        (mig, "failed", 40, Some("mig-manager-stuck")),
        (upgrade, "upgrade-done", 9000, None),
        (upgrade, "drain-required", 20, None),
        (upgrade, "drain-required", 90, Some("driver-upgrade-stuck")),
        (upgrade, "wait-for-jobs-required", 4500, None),
        (upgrade, "pod-deletion-required", 90, Some("driver-upgrade-stuck")),
        (upgrade, "upgrade-required", 90, None),
        (upgrade, "upgrade-required", 3000, Some("driver-upgrade-stuck")),
        (upgrade, "upgrade-failed", 5, Some("driver-upgrade-stuck")),
    ] {
        assert_eq!(with(label, value, minutes, Some(8)), expected.into_iter().collect::<Vec<_>>(), "{label}={value}");
    }
}

/// Tests the selection of the container whose log the probe reads.
#[test]
fn the_log_that_is_read_is_that_of_the_first_broken_pod() {
    let report = unregistered();
    let facts =
        cluster(&report, None, vec![crashing(&report, "device_plugin"), crashing(&report, "container_toolkit")]);
    let named = |facts: &KubernetesFacts| {
        first_failing_pod(facts).map(|(pod, container)| (pod.uid.clone(), container.to_owned()))
    };
    assert_eq!(named(&facts), Some(("uid-container_toolkit".to_owned(), "main".to_owned())));
    let idle = cluster(&report, None, vec![ready(&report, "device_plugin")]);
    assert_eq!(
        named(&idle),
        Some(("uid-device_plugin".to_owned(), "main".to_owned())),
        "the plugin is running, but advertises nothing"
    );
    assert_eq!(named(&cluster(&report, Some(8), vec![ready(&report, "device_plugin")])), None);
}

/// These nodes lack a component that other nodes have, but they do not need it.
#[test]
fn healthy_clusters_of_every_kind_stay_silent() {
    let report = scenario("healthy-h100-8");
    let fine = |component| ready(&report, component);
    let operator = || ["driver", "container_toolkit", "validator", "device_plugin", "mig_manager"].map(fine).to_vec();
    let on = |os: &str, runtime: &str, pods: Vec<Value>| {
        let mut facts = cluster(&report, Some(8), pods);
        (facts.os_image, facts.runtime_version) = (Some(os.to_owned()), Some(runtime.to_owned()));
        facts
    };
    let mut dra = cluster(&report, None, vec![fine("dra_driver")]);
    dra.gpu_dra = Some(true);
    let mut other = cluster(&report, None, operator());
    other.other_gpu_resources = true;
    let mut operator_labels = on("Ubuntu 24.04.3 LTS", "containerd://2.1.4", operator());
    operator_labels.labels = serde_json::from_value(json!({"deploy": {"driver": "true", "device-plugin": "true",
        "sandbox-device-plugin": "false"}, "mig_config": "all-disabled", "mig_config_state": "success",
        "driver_upgrade_state": "upgrade-done", "pci_present": true, "feature_discovery": true}))
    .expect("labels");
    let clusters = [
        ("k3s", on("Ubuntu 24.04.3 LTS", "containerd://2.1.4-k3s1", vec![fine("device_plugin")])),
        ("RKE2", on("SLES 15 SP6", "containerd://2.1.4-k3s2", operator())),
        ("Talos", on("Talos (v1.11.2)", "containerd://2.1.4", vec![fine("device_plugin")])),
        ("GKE", on("Container-Optimized OS from Google", "containerd://2.0.6", vec![fine("device_plugin")])),
        ("EKS AL2023", on("Amazon Linux 2023.8", "containerd://1.7.27", vec![fine("device_plugin")])),
        ("EKS Bottlerocket", on("Bottlerocket OS 1.44.0 (aws-k8s-1.33-nvidia)", "containerd://2.1.4", Vec::new())),
        ("AKS", on("Ubuntu 22.04.5 LTS", "containerd://1.7.28", vec![fine("device_plugin")])),
        ("OpenShift", on("Red Hat Enterprise Linux CoreOS 9.6", "cri-o://1.33.4", operator())),
        ("operator with labels", operator_labels),
        ("DRA only", dra),
        ("MIG with other resource names", other),
    ];
    for (name, facts) in clusters {
        let diagnosis = diagnose(&report, &facts);
        assert_eq!(ids(&diagnosis), [], "{name}");
        let bad = diagnosis.stack.iter().find(|stage| !matches!(stage.state, StageState::Ok | StageState::Unknown));
        assert_eq!(bad, None, "{name}");
    }
}

#[test]
fn a_gpu_that_vfio_did_not_take_needs_no_nvidia_driver() {
    let mut report = scenario("healthy-h100-8");
    let host = report.sections.host.as_mut().and_then(|section| section.data.as_mut()).expect("host");
    host.pci_gpus.iter_mut().for_each(|gpu| gpu.driver = Some("vfio-pci".to_owned()));
    (host.pci_gpus[3].driver, host.driver.loaded) = (None, None);
    report.sections.inventory = Some(Section::read(syringe_core::facts::inventory::Inventory::default(), Vec::new()));
    // Without the NVIDIA driver, NVML lists no GPU in the other sections either.
    let sections = &mut report.sections;
    (sections.telemetry, sections.topology, sections.ecc, sections.mig) = (None, None, None, None);
    let diagnosis = diagnose(&report, &cluster(&report, None, Vec::new()));
    assert_eq!(ids(&diagnosis), [("gpu-not-bound", Severity::Warning)]);
    assert!(diagnosis.findings[0].action.text.contains("vfio-pci"), "{:?}", diagnosis.findings[0]);
}

/// A restart of the plugin would offer a GPU with a fault again.
#[test]
fn a_gpu_that_is_withheld_for_a_fault_is_a_part_of_the_fault() {
    let mut report = scenario("xid79-off-bus");
    let kubelet = report.sections.kubelet.as_mut().and_then(|section| section.data.as_mut()).expect("kubelet");
    kubelet.registered.iter_mut().for_each(|one| one.devices.truncate(7));
    let mut facts = cluster(&report, Some(8), vec![ready(&report, "device_plugin")]);
    facts.gpu_allocatable = Some(7);
    let diagnosis = diagnose(&report, &facts);
    let found = ids(&diagnosis);
    assert!(!found.iter().any(|(id, _)| ["gpus-not-allocatable", "gpu-counts-differ"].contains(id)), "{found:?}");
}

#[test]
fn gpus_of_virtual_machines_need_no_stack() {
    let mut report = scenario("healthy-h100-8");
    let host = report.sections.host.as_mut().and_then(|section| section.data.as_mut()).expect("host");
    host.pci_gpus.iter_mut().for_each(|gpu| gpu.driver = Some("vfio-pci".to_owned()));
    report.sections.inventory = Some(Section::read(syringe_core::facts::inventory::Inventory::default(), Vec::new()));
    let facts = cluster(&report, None, vec![crashing(&report, "driver"), crashing(&report, "device_plugin")]);
    let diagnosis = diagnose(&report, &facts);
    assert!(!diagnosis.findings.iter().any(|finding| finding.id.starts_with("stack-")), "{:?}", ids(&diagnosis));
    let states = states(&diagnosis);
    assert_eq!(states[0], (Stage::Pci, StageState::Ok));
    assert!(states[1..].iter().all(|(_, state)| *state == StageState::NotApplicable), "{states:?}");
}

/// The reason why a device plugin does not run is in the message of the scheduler or at the end of the log of its
/// container.
#[test]
fn why_the_plugin_does_not_run_is_named() {
    let report = scenario("whole-l40s-4");
    let told = |cluster: &KubernetesFacts, words: &str| {
        let diagnosis = diagnose(&report, cluster);
        let named = diagnosis.findings.iter().any(|finding| {
            let text = format!("{} {} {}", finding.headline(), finding.evidence.join(" "), finding.action.text);
            finding.severity >= Severity::Warning && text.contains(words) && !text.contains("Read the log")
        });
        assert!(named, "{words}: {:#?}", diagnosis.findings);
    };
    let message = "0/12 nodes are available: 1 Insufficient memory.";
    let mut unplaced = pod(&report, "device_plugin", "main", json!({"state": {"kind": "waiting"}}));
    (unplaced["phase"], unplaced["message"]) = ("Pending".into(), message.into());
    told(&cluster(&report, None, vec![unplaced]), "Insufficient memory");
    let mut refused = cluster(&report, None, Vec::new());
    let set = json!({"namespace": "gpu-operator", "name": "device-plugin", "role": "gpu_plugin", "refusal": message});
    refused.daemon_sets = Some(vec![serde_json::from_value(set).expect("a DaemonSet")]);
    told(&refused, "Insufficient memory");
    let mut crashes = crashing(&report, "device_plugin");
    crashes["containers"][0]["last"]["message"] = "Error: invalid --mig-strategy option \"foo\"".into();
    told(&cluster(&report, None, vec![crashes]), "invalid --mig-strategy");
}
