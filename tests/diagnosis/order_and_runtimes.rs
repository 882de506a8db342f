//! Tests of findings that compare facts: container runtimes, the order of starts, MPS and DRA components, pods that stay
//! after their deletion, the inotify limit, MIG mode in a virtual machine, kernel lines with modules.
//!
//! For each fault, there is a similar healthy node.

use diagnosis::diagnose;
use diagnosis::finding::{Diagnosis, Finding};
use jiff::{SignedDuration, Timestamp};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::host::Host;
use syringe_core::facts::kubernetes::gpu_pod::{GpuContainer, GpuPod};
use syringe_core::facts::kubernetes::lifecycle::NodeConditionFact;
use syringe_core::facts::kubernetes::node::{
    Component, ContainerStateKind, KubernetesFacts, NvidiaContainer, NvidiaContainerState, NvidiaPod, RuntimeClassUse,
};
use syringe_core::facts::nvidia_stack::{Inotify, TimestampedFile};
use syringe_core::report::Report;

use super::{replayed, scenarios};

type Change = fn(&mut Report, &mut KubernetesFacts);

fn host(report: &mut Report) -> &mut Host {
    report.sections.host.as_mut().and_then(|section| section.data.as_mut()).expect("the section")
}

fn node(name: &str, change: Change) -> Diagnosis {
    let (mut report, mut expected) = scenarios().remove(name).expect("the scenario");
    change(&mut report, &mut expected.cluster);
    diagnose(&report, &expected.cluster)
}

fn of<'d>(diagnosis: &'d Diagnosis, id: &str) -> Option<&'d Finding> {
    diagnosis.findings.iter().find(|finding| finding.id == id)
}

/// Returns the finding of the node after a change.
fn found(id: &str, change: Change) -> Finding {
    let diagnosis = node("whole-h100-8", change);
    let ids: Vec<_> = diagnosis.findings.iter().map(|finding| finding.id.clone()).collect();
    of(&diagnosis, id).cloned().unwrap_or_else(|| panic!("{id}: {ids:?}"))
}

fn absent(id: &str, change: Change) {
    let diagnosis = node("whole-h100-8", change);
    assert_eq!(of(&diagnosis, id), None);
}

fn now(report: &Report) -> Timestamp {
    report.taken_at.expect("a time")
}

fn ago(report: &Report, minutes: i64) -> Option<Timestamp> {
    Some(now(report) - SignedDuration::from_mins(minutes))
}

/// Adds a ready pod of NVIDIA's stack with one running container.
fn add_pod(report: &Report, cluster: &mut KubernetesFacts, component: Component, container: &str, minutes: i64) {
    let state = NvidiaContainerState {
        kind: ContainerStateKind::Running,
        since: ago(report, minutes),
        ..NvidiaContainerState::default()
    };
    let container = NvidiaContainer { name: container.into(), ready: true, state, ..NvidiaContainer::default() };
    let pod = NvidiaPod {
        namespace: "gpu-operator".into(),
        name: format!("{container}-x7p2q", container = container.name),
        uid: format!("uid-{}", container.name),
        component,
        phase: "Running".into(),
        ready: true,
        created: ago(report, minutes),
        containers: vec![container],
        ..NvidiaPod::default()
    };
    cluster.nvidia_pods.get_or_insert_default().push(pod);
}

/// Removes NVIDIA's handler, which a pod uses, from the configuration of the runtime.
fn without_handler(report: &mut Report, cluster: &mut KubernetesFacts) {
    let runtime = host(report).container_runtime.as_mut().expect("a runtime");
    runtime.handlers.retain(|handler| !handler.is_nvidia());
    (runtime.default_handler, runtime.complete) = (Some("runc".into()), true);
    let class = RuntimeClassUse { name: "nvidia".into(), handler: Some("nvidia".into()), pods: vec!["a/b".into()] };
    cluster.runtime_classes = Some(vec![class]);
}

fn toolkit_for(report: &Report, cluster: &mut KubernetesFacts, setting: &str) {
    let is_toolkit = |pod: &NvidiaPod| pod.component == Component::ContainerToolkit;
    cluster.nvidia_pods.get_or_insert_default().retain(|pod| !is_toolkit(pod));
    add_pod(report, cluster, Component::ContainerToolkit, "nvidia-container-toolkit-ctr", 60);
    let container = &mut cluster.nvidia_pods.as_mut().expect("pods").last_mut().expect("a pod").containers[0];
    container.runtime_settings.insert("RUNTIME".into(), setting.into());
}

#[test]
fn a_toolkit_that_configures_another_runtime_is_the_reason_of_a_missing_handler() {
    let other: Change = |report, cluster| {
        without_handler(report, cluster);
        host(report).container_runtime.as_mut().expect("a runtime").name = "cri-o".into();
        cluster.runtime_version = Some("cri-o://1.31.4".into());
        toolkit_for(report, cluster, "containerd");
    };
    let finding = found("runtime-handler-missing", other);
    assert!(finding.action.text.contains("RUNTIME=crio"), "{}", finding.action.text);
    assert!(finding.evidence.iter().any(|line| line.contains("CRI-O") && line.contains("RUNTIME=containerd")));
    let same = found("runtime-handler-missing", |report, cluster| {
        without_handler(report, cluster);
        cluster.runtime_version = Some("containerd://2.1.4-k3s1".into());
        toolkit_for(report, cluster, "containerd");
    });
    assert!(!same.action.text.contains("RUNTIME="), "{}", same.action.text);
}

#[test]
fn the_configuration_of_a_runtime_that_the_kubelet_does_not_use_is_not_judged() {
    let other: Change = |report, cluster| {
        without_handler(report, cluster);
        cluster.runtime_version = Some("cri-o://1.31.4".into());
    };
    let finding = found("facts-disagree", other);
    assert_eq!(finding.severity, Severity::Info);
    assert!(finding.evidence[0].contains("cri-o://1.31.4"), "{:?}", finding.evidence);
    absent("runtime-handler-missing", other);
}

#[test]
fn a_configuration_that_was_written_after_the_toolkit_names_another_writer() {
    let written: Change = |report, cluster| {
        without_handler(report, cluster);
        toolkit_for(report, cluster, "containerd");
        let times = (ago(report, 20), ago(report, 20));
        let runtime = host(report).container_runtime.as_mut().expect("a runtime");
        (runtime.config_changed_at, runtime.started_at) = times;
    };
    let finding = found("runtime-handler-missing", written);
    assert!(finding.action.text.contains("Kubespray"), "{}", finding.action.text);
    let by_toolkit = found("runtime-handler-missing", |report, cluster| {
        without_handler(report, cluster);
        toolkit_for(report, cluster, "containerd");
        let times = (ago(report, 59), ago(report, 59));
        let runtime = host(report).container_runtime.as_mut().expect("a runtime");
        (runtime.config_changed_at, runtime.started_at) = times;
    });
    assert!(!by_toolkit.action.text.contains("Kubespray"), "{}", by_toolkit.action.text);
}

#[test]
fn a_type_that_containerd_2_no_longer_has_is_incomplete() {
    let old: Change = |report, cluster| {
        let runtime = host(report).container_runtime.as_mut().expect("a runtime");
        (runtime.name, runtime.complete) = ("containerd".into(), true);
        let handler = runtime.handlers.iter_mut().find(|handler| handler.is_nvidia()).expect("a handler");
        handler.runtime_type = Some("io.containerd.runtime.v1.linux".into());
        let name = handler.name.clone();
        let class = RuntimeClassUse { name: name.clone(), handler: Some(name), pods: vec!["a/b".into()] };
        cluster.runtime_classes = Some(vec![class]);
        cluster.runtime_version = Some("containerd://2.1.4".into());
    };
    assert_eq!(found("runtime-handler-incomplete", old).severity, Severity::Critical);
    let with_old = |report: &mut Report, cluster: &mut KubernetesFacts| {
        let runtime = host(report).container_runtime.as_mut().expect("a runtime");
        (runtime.name, runtime.complete) = ("containerd".into(), true);
        runtime.handlers.iter_mut().for_each(|one| one.runtime_type = Some("io.containerd.runc.v1".into()));
        cluster.runtime_version = Some("containerd://1.7.27".into());
    };
    absent("runtime-handler-incomplete", with_old);
}

#[test]
fn a_runtime_without_its_service_has_a_broken_configuration() {
    let not_ready = |message: &str| {
        let (mut report, expected) = scenarios().remove("whole-h100-8").expect("the scenario");
        report.sections = Default::default();
        let condition = NodeConditionFact {
            name: "Ready".into(),
            status: "False".into(),
            reason: "KubeletNotReady".into(),
            message: message.into(),
            ..NodeConditionFact::default()
        };
        let facts = KubernetesFacts { ready: Some(false), conditions: vec![condition], ..expected.cluster };
        let diagnosis = diagnose(&report, &facts);
        diagnosis.findings.first().map(|finding| finding.id.clone())
    };
    let unimplemented =
        "[container runtime is down, rpc error: code = Unimplemented desc = unknown service runtime.v1.RuntimeService]";
    assert_eq!(not_ready(unimplemented).as_deref(), Some("node-runtime-configuration-broken"));
    assert_eq!(not_ready("[container runtime is down]").as_deref(), Some("node-runtime-down"));
}

/// Adds a pod whose container with a GPU started some minutes ago.
fn gpu_pod(report: &Report, cluster: &mut KubernetesFacts, minutes: i64) -> usize {
    let container = GpuContainer {
        name: "main".into(),
        requests: [("nvidia.com/gpu".to_owned(), 1)].into(),
        running_since: ago(report, minutes),
    };
    let pod = GpuPod {
        namespace: "research".into(),
        name: "notebook-0".into(),
        uid: "uid-notebook".into(),
        phase: "Running".into(),
        created: ago(report, minutes),
        containers: vec![container],
        ..GpuPod::default()
    };
    let pods = cluster.gpu_pods.get_or_insert_default();
    pods.push(pod);
    pods.len() - 1
}

/// Returns the node with a driver that was loaded ten minutes ago, two hours after the boot.
fn reloaded(report: &mut Report) {
    let up = 7_200 + 600;
    host(report).uptime_seconds = Some(up);
    let line = "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build";
    report.kernel_log = vec![format!("4,900,{},-;{line}", 7_200 * 1_000_000_u64)];
    report.sections.xid = None;
    *report = replayed(report.clone());
}

#[test]
fn a_container_with_gpus_that_is_older_than_the_driver_is_named() {
    let finding = found("container-older-than-driver", |report, cluster| {
        reloaded(report);
        gpu_pod(report, cluster, 100);
    });
    assert_eq!((finding.severity, finding.action.code), (Severity::Warning, ActionCode::RestartPod));
    assert!(finding.evidence[0].contains("research/notebook-0"), "{:?}", finding.evidence);
    absent("container-older-than-driver", |report, cluster| {
        reloaded(report);
        gpu_pod(report, cluster, 5);
    });
}

#[test]
fn a_pod_that_stays_long_after_its_deletion_is_named() {
    let late: Change = |report, cluster| {
        cluster.read_at = report.taken_at;
        let due = ago(report, 45);
        let at = gpu_pod(report, cluster, 600);
        let pod = &mut cluster.gpu_pods.as_mut().expect("pods")[at];
        (pod.deleting, pod.deletion_due) = (true, due);
    };
    assert_eq!(found("pod-stays-terminating", late).severity, Severity::Warning);
    absent("pod-stays-terminating", |report, cluster| {
        cluster.read_at = report.taken_at;
        let due = ago(report, 5);
        let at = gpu_pod(report, cluster, 600);
        let pod = &mut cluster.gpu_pods.as_mut().expect("pods")[at];
        (pod.deleting, pod.deletion_due) = (true, due);
    });
}

#[test]
fn sharing_by_mps_needs_its_daemon() {
    let finding = found("mps-daemon-missing", |report, cluster| {
        host(report).daemons.mps = Some(false);
        cluster.labels.sharing_strategy = Some("mps".into());
    });
    assert_eq!(finding.severity, Severity::Warning);
    absent("mps-daemon-missing", |report, cluster| {
        host(report).daemons.mps = Some(true);
        cluster.labels.sharing_strategy = Some("mps".into());
    });
    absent("mps-daemon-missing", |report, cluster| {
        host(report).daemons.mps = Some(false);
        cluster.labels.sharing_strategy = Some("time-slicing".into());
    });
}

#[test]
fn a_dra_driver_without_its_socket_is_not_registered() {
    fn sockets(report: &mut Report, names: &[&str]) {
        let stack = host(report).nvidia_stack.get_or_insert_default();
        let socket = |name: &&str| TimestampedFile { name: (*name).to_owned(), at: None };
        stack.registry_sockets = Some(names.iter().map(socket).collect());
    }
    let missing: Change = |report, cluster| {
        sockets(report, &["gpu.nvidia.com-reg.sock"]);
        add_pod(report, cluster, Component::DraDriver, "compute-domains", 60);
    };
    let finding = found("dra-driver-not-registered", missing);
    assert!(finding.evidence[0].contains("compute-domain.nvidia.com"), "{:?}", finding.evidence);
    absent("dra-driver-not-registered", |report, cluster| {
        sockets(report, &["gpu.nvidia.com-reg.sock", "compute-domain.nvidia.com-1f2e-reg.sock"]);
        add_pod(report, cluster, Component::DraDriver, "compute-domains", 60);
    });
    absent("dra-driver-not-registered", |report, cluster| {
        sockets(report, &[]);
        add_pod(report, cluster, Component::DraDriver, "compute-domains", 60);
    });
}

#[test]
fn inotify_instances_near_their_limit_are_named() {
    let inotify = |used| Inotify {
        max_user_instances: Some(128),
        max_user_watches: Some(1 << 20),
        instances_of_root: Some(used),
    };
    for (used, is_near) in [(127, true), (100, false), (128, false)] {
        let (mut report, expected) = scenarios().remove("whole-h100-8").expect("the scenario");
        host(&mut report).nvidia_stack.get_or_insert_default().inotify = Some(inotify(used));
        let diagnosis = diagnose(&report, &expected.cluster);
        assert_eq!(of(&diagnosis, "host-limit-near").is_some(), is_near, "{used}");
    }
}

/// Returns the diagnosis of a node with these kernel lines, and a change.
fn with_lines(name: &str, lines: &[&str], change: Change) -> Diagnosis {
    let (mut report, mut expected) = scenarios().remove(name).expect("the scenario");
    let record = |(at, line): (usize, &&str)| format!("4,{},{},-;{line}", at + 1, (at + 1) * 1_000_000);
    report.kernel_log = lines.iter().enumerate().map(record).collect();
    report.sections.xid = None;
    change(&mut report, &mut expected.cluster);
    diagnose(&replayed(report), &expected.cluster)
}

#[test]
fn a_module_next_to_the_driver_that_does_not_fit_is_named_unless_it_is_loaded() {
    let without: Change = |report, _| host(report).modules.retain(|module| module != "gdrdrv");
    let line = "gdrdrv: Unknown symbol nvidia_p2p_get_pages (err -2)";
    let diagnosis = with_lines("whole-h100-8", &[line], without);
    let finding = of(&diagnosis, "driver-module-refused").expect("a finding");
    assert_eq!(finding.severity, Severity::Info, "{:?}", diagnosis.unknown);
    let loaded: Change = |report, _| host(report).modules.push("gdrdrv".into());
    assert_eq!(of(&with_lines("whole-h100-8", &[line], loaded), "driver-module-refused"), None);
    let line = "nvidia_uvm: disagrees about version of symbol module_layout";
    let unified: Change = |report, _| host(report).modules.retain(|module| module != "nvidia_uvm");
    let diagnosis = with_lines("whole-h100-8", &[line], unified);
    assert_eq!(of(&diagnosis, "driver-module-refused").map(|one| one.severity), Some(Severity::Warning));
}

#[test]
fn mig_mode_in_a_virtual_machine_needs_a_reboot_of_it() {
    let pending = |mode: &str| {
        let (mut report, expected) = scenarios().remove("whole-a100-mig-8").expect("the scenario");
        let inventory = report.sections.inventory.as_mut().and_then(|section| section.data.as_mut()).expect("it");
        inventory.gpus.iter_mut().for_each(|gpu| gpu.virtualization_mode = Some(mode.to_owned()));
        let mig = report.sections.mig.as_mut().and_then(|section| section.data.as_mut()).expect("it");
        mig.gpus[1].mode.as_mut().expect("a mode").pending = false;
        let diagnosis = diagnose(&report, &expected.cluster);
        of(&diagnosis, "mig-mode-pending").expect("a finding").action.code
    };
    assert_eq!(pending("none"), ActionCode::DrainAndReset);
    assert_eq!(pending("passthrough"), ActionCode::DrainAndReboot);
}

#[test]
fn the_hypervisor_is_named_where_a_gpu_is_not_initialized() {
    let silent: Change = |report, _| {
        report.sections.inventory = None;
        report.sections.telemetry = None;
    };
    let failed = "NVRM: RmInitAdapter failed! (0x26:0xffff:1096)";
    let diagnosis = with_lines("whole-t4-1", &["Hypervisor detected: KVM", failed], silent);
    let finding = of(&diagnosis, "gpu-init-failed").expect("a finding");
    assert!(finding.evidence.iter().any(|line| line.contains("Hypervisor detected: KVM")), "{finding:?}");
    assert!(finding.action.text.contains("virtual machine"), "{}", finding.action.text);
    let diagnosis = with_lines("whole-t4-1", &[failed], silent);
    let finding = of(&diagnosis, "gpu-init-failed").expect("a finding");
    assert!(!finding.action.text.contains("virtual machine"), "{}", finding.action.text);
}
