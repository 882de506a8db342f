//! Cases of public reports about GPUs that are not advertised because a part of NVIDIA's stack failed.
//!
//! The numbers of the reports are those of `docs/reports.md`.

use demo_cluster::{Fixture, NodeFacts, NodeFixture};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use syringe_core::facts::container_runtime::ContainerRuntime;
use syringe_core::facts::nvidia_stack::{Inotify, NvidiaStack};
use syringe_core::facts::processes::GpuUse;
use syringe_core::facts::stack_log::StackLog;
use syringe_core::report::Report;

use crate::case::Case;
use crate::cluster::{at, cluster, facts, from_json, node, scenario, section};

/// Namespace of the operator's pods.
const OPERATOR: &str = "gpu-operator";
/// Name of the operator's device plugin.
const PLUGIN: &str = "nvidia-device-plugin-daemonset";

pub(crate) fn cases() -> Vec<Case> {
    vec![
        waiting_plugin(3, "No devices found. Waiting indefinitely."),
        plugin_without_libraries(),
        built_in_plugin_lost_the_race(),
        two_plugins(),
        inotify(),
        not_labelled(),
        driver_packages(),
        driver_image(),
        upgrade(),
        runtime_restarts(),
        validator(),
        driver_turned_off(),
        mig(),
    ]
}

/// Returns the node `gpu-1` without GPUs in its capacity, with changed facts.
fn unoffered(change: impl FnOnce(&mut Report)) -> NodeFixture {
    let mut read = facts("healthy-h100-8");
    if let Some(kubelet) = read.sections.kubelet.as_mut().and_then(|section| section.data.as_mut()) {
        kubelet.registered.clear();
    }
    change(&mut read);
    let mut node = node(read);
    node.resources.clear();
    node
}

/// Returns the node `gpu-1` without GPUs in its capacity, with the log of a container of this component.
fn with_log(component: &str, container: &str, lines: &[&str]) -> NodeFixture {
    unoffered(|report| section(&mut report.sections.host).stack_log = Some(log(component, container, lines)))
}

fn log(component: &str, container: &str, lines: &[&str]) -> StackLog {
    StackLog {
        pod_uid: uid(component),
        container: container.to_owned(),
        lines: lines.iter().map(|line| (*line).to_owned()).collect(),
        ..StackLog::default()
    }
}

/// Returns a hexadecimal UID as in the API, because node-probe does not accept other UIDs.
fn uid(component: &str) -> String {
    let sum = component.bytes().fold(7_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    format!("{sum:08x}-0000-4000-8000-000000000001")
}

/// Returns a pod of the operator's DaemonSet with this name. The containers are `(name, init, status)`.
fn pod(component: &str, containers: &[(&str, bool, Value)]) -> Pod {
    let named = |init: bool| -> Vec<Value> {
        let of = containers.iter().filter(|(_, is_init, _)| *is_init == init);
        of.map(|(name, ..)| json!({"name": name, "image": format!("nvcr.io/nvidia/{name}:v1")})).collect()
    };
    let statuses = |init: bool| -> Vec<Value> {
        let of = containers.iter().filter(|(_, is_init, _)| *is_init == init);
        of.map(|(name, _, status)| {
            let mut status = status.clone();
            status["name"] = json!(name);
            status["image"] = json!("");
            status["imageID"] = json!("");
            status
        })
        .collect()
    };
    let ready = containers.iter().filter(|(_, init, _)| !init).all(|(_, _, status)| status["ready"] == true);
    let word = if ready { "True" } else { "False" };
    from_json(json!({
        "metadata": {"name": format!("{component}-x7k2p"), "namespace": OPERATOR, "uid": uid(component),
            "creationTimestamp": at("00:10:00"), "labels": {"app": component},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": component, "uid": "d", "controller": true}]},
        "spec": {"nodeName": "gpu-1", "containers": named(false), "initContainers": named(true)},
        "status": {"phase": if ready { "Running" } else { "Pending" }, "conditions": [{"type": "Ready", "status": word}],
            "containerStatuses": statuses(false), "initContainerStatuses": statuses(true)},
    }))
}

fn running() -> Value {
    json!({"ready": true, "restartCount": 0, "state": {"running": {"startedAt": at("00:11:00")}}})
}

fn not_ready() -> Value {
    json!({"ready": false, "restartCount": 0, "state": {"waiting": {"reason": "PodInitializing"}}})
}

/// Returns the state of an init container that runs and does not exit.
fn looping() -> Value {
    json!({"ready": false, "restartCount": 0, "state": {"running": {"startedAt": at("00:11:00")}}})
}

fn waiting(reason: &str, restarts: u32) -> Value {
    json!({"ready": false, "restartCount": restarts, "state": {"waiting": {"reason": reason, "message": "back-off"}},
        "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": at("02:30:00")}}})
}

fn with_pods(node: NodeFixture, pods: Vec<Pod>) -> Fixture {
    let mut fixture = cluster(node);
    fixture.pods.extend(pods);
    fixture
}

/// Returns a cluster with a working node, toolkit and plugin.
fn healthy() -> Fixture {
    let ready = |component| pod(component, &[(component, false, running())]);
    let mut fixture = scenario("healthy-h100-8");
    fixture.pods.extend([ready("nvidia-container-toolkit-daemonset"), ready(PLUGIN)]);
    fixture
}

fn plugin(status: Value) -> Pod {
    pod(PLUGIN, &[("nvidia-device-plugin", false, status)])
}

/// Report 3: the plugin is running, has found no GPU, and waits.
fn waiting_plugin(row: u32, line: &str) -> Case {
    let node = with_log(PLUGIN, "nvidia-device-plugin", &[line]);
    Case::of_node(row, with_pods(node, vec![plugin(running())]))
        .finding("stack-broken-at-plugin", &["found no GPU", "kubectl -n gpu-operator"])
        .shows(&["Waiting indefinitely"])
        .twin(healthy())
}

/// Report 9: the container of the plugin has no driver libraries.
fn plugin_without_libraries() -> Case {
    let lines =
        ["factory.go:112] Incompatible strategy detected auto", "main.go:381] No devices found. Waiting indefinitely."];
    let node = with_log(PLUGIN, "nvidia-device-plugin", &lines);
    Case::of_node(9, with_pods(node, vec![plugin(running())]))
        .finding(
            "stack-broken-at-plugin",
            &["Incompatible strategy", "not started with NVIDIA's runtime", "runtimeClassName"],
        )
        .twin(healthy())
}

/// Report 16: Bottlerocket's own plugin is a service of the node; the resource stays in the capacity with the amount 0.
fn built_in_plugin_lost_the_race() -> Case {
    let on_bottlerocket = |node: NodeFixture| NodeFixture {
        os_image: Some("Bottlerocket OS 1.20.3 (aws-k8s-1.30-nvidia)".to_owned()),
        ..node
    };
    let mut node = unoffered(|_| ());
    node.resources = [("nvidia.com/gpu".to_owned(), (0, 0))].into();
    let healthy = cluster(on_bottlerocket(self::node(facts("healthy-h100-8"))));
    Case::of_node(16, cluster(on_bottlerocket(node)))
        .finding("gpus-not-advertised", &["built in", "nvidia-k8s-device-plugin"])
        .twin(healthy)
}

/// Report 17: a DaemonSet runs in addition to the built-in plugin.
fn two_plugins() -> Case {
    let node = NodeFixture {
        os_image: Some("Bottlerocket OS 1.20.3 (aws-k8s-1.30-nvidia)".to_owned()),
        ..node(facts("healthy-h100-8"))
    };
    let both = with_pods(node, vec![plugin(running())]);
    Case::of_node(17, both).finding("two-device-plugins", &["built in", PLUGIN]).twin(healthy())
}

/// Report 22: the limit of inotify instances is reached.
fn inotify() -> Case {
    let line = "failed to create FS watcher for /var/lib/kubelet/device-plugins/: too many open files";
    let full = |used| {
        let inotify = Inotify { max_user_instances: Some(128), max_user_watches: None, instances_of_root: Some(used) };
        NvidiaStack { inotify: Some(inotify), ..NvidiaStack::default() }
    };
    let mut node = with_log(PLUGIN, "nvidia-device-plugin", &[line]);
    let mut report = Report::clone(&node.facts.report());
    section(&mut report.sections.host).nvidia_stack = Some(full(128));
    node.facts = NodeFacts::Known(report.into());
    let mut quiet = facts("healthy-h100-8");
    section(&mut quiet.sections.host).nvidia_stack = Some(full(100));
    Case::of_node(22, with_pods(node, vec![plugin(waiting("CrashLoopBackOff", 14))]))
        .finding("inotify-limit-reached", &["128", "max_user_instances"])
        .finding("stack-broken-at-plugin", &["too many open files", "max_user_instances"])
        .twin(with_pods(self::node(quiet), vec![plugin(running())]))
}

/// Report 24: this node has no label of node feature discovery, but another node has one.
fn not_labelled() -> Case {
    let mut bare = unoffered(|_| ());
    bare.labels.clear();
    let mut other = node(facts("healthy-h100-8"));
    other.name = "gpu-2".to_owned();
    other.labels.insert("feature.node.kubernetes.io/pci-10de.present".to_owned(), "true".to_owned());
    let mut labelled = unoffered(|_| ());
    labelled.labels = other.labels.clone();
    let of = |node: NodeFixture| Fixture { nodes: vec![node, other.clone()], ..cluster(unoffered(|_| ())) };
    Case::of_node(24, of(bare))
        .finding("stack-not-deployed", &["pci-10de.present", "feature discovery"])
        .twin(of(labelled))
}

/// Reports 30 and 32: the driver is not loaded, and the log of the driver pod contains the reason.
fn without_driver(lines: &[&str]) -> NodeFixture {
    let mut report = facts("no-driver");
    if !lines.is_empty() {
        section(&mut report.sections.host).stack_log = Some(log("nvidia-driver-daemonset", "nvidia-driver-ctr", lines));
    }
    let mut node = node(report);
    node.resources.clear();
    node
}

fn driver(status: Value) -> Pod {
    pod("nvidia-driver-daemonset", &[("nvidia-driver-ctr", false, status)])
}

fn driver_packages() -> Case {
    let node = without_driver(&["Resolving Linux kernel version...", "Could not resolve Linux kernel version"]);
    Case::of_node(30, with_pods(node, vec![driver(waiting("CrashLoopBackOff", 30))]))
        .finding("driver-not-loaded", &["Could not resolve Linux kernel version", "no headers for the running kernel"])
        .twin(healthy())
}

fn driver_image() -> Case {
    let status = json!({"ready": false, "restartCount": 0, "state": {"waiting": {"reason": "ImagePullBackOff",
        "message": "Back-off pulling image: nvcr.io/nvidia/driver:570.124.06-ubuntu26.04: not found"}}});
    Case::of_node(32, with_pods(without_driver(&[]), vec![driver(status)]))
        .finding("driver-not-loaded", &["ImagePullBackOff", "ubuntu26.04: not found"])
        .twin(healthy())
}

/// Returns a node whose label was written at this time.
fn labelled(mut node: NodeFixture, label: &str, value: &str, since: &str) -> NodeFixture {
    node.labels.insert(label.to_owned(), value.to_owned());
    node.label_times.insert(label.to_owned(), at(since).parse().expect("a time"));
    node
}

/// Report 33: the driver upgrade cannot unload the driver.
fn upgrade() -> Case {
    let mut report = facts("healthy-h100-8");
    section(&mut report.sections.host).stack_log = Some(log(
        "nvidia-driver-daemonset",
        "k8s-driver-manager",
        &[
            "Unloading NVIDIA driver kernel modules...",
            "Could not unload NVIDIA driver kernel modules, driver is in use",
        ],
    ));
    let use_of_gpu = GpuUse { gpu: 0, kind: "compute".to_owned(), ..GpuUse::default() };
    for process in &mut section(&mut report.sections.processes).processes {
        process.uses = vec![use_of_gpu.clone()];
    }
    let state = "nvidia.com/gpu-driver-upgrade-state";
    let node = labelled(node(report), state, "upgrade-required", "00:30:00");
    let init =
        [("k8s-driver-manager", true, waiting("CrashLoopBackOff", 9)), ("nvidia-driver-ctr", false, not_ready())];
    let fresh = labelled(self::node(facts("healthy-h100-8")), state, "pod-restart-required", "02:30:00");
    Case::of_node(33, with_pods(node, vec![pod("nvidia-driver-daemonset", &init)]))
        .finding("driver-upgrade-stuck", &["driver is in use", "upgrade-required"])
        .twin(cluster(fresh))
}

/// Report 34: the toolkit DaemonSet restarts the container runtime repeatedly.
fn runtime_restarts() -> Case {
    let started = |time: &str| {
        let mut report = facts("healthy-h100-8");
        let runtime = ContainerRuntime {
            name: "containerd".to_owned(),
            started_at: at(time).parse().ok(),
            ..ContainerRuntime::default()
        };
        section(&mut report.sections.host).container_runtime = Some(runtime);
        node(report)
    };
    let toolkit = |restarts: u32| {
        let status =
            json!({"ready": true, "restartCount": restarts, "state": {"running": {"startedAt": at("02:20:00")}}});
        pod("nvidia-container-toolkit-daemonset", &[("nvidia-container-toolkit-ctr", false, status)])
    };
    Case::of_node(34, with_pods(started("02:20:20"), vec![toolkit(23)]))
        .finding("runtime-restarted", &["23 times", "nvidia-container-toolkit-daemonset"])
        .twin(with_pods(started("02:20:20"), vec![toolkit(1)]))
}

/// Report 35: the driver works, but the validator does not find the driver.
fn validator() -> Case {
    let component = "nvidia-container-toolkit-daemonset";
    let line = "level=warning msg=\"failed to validate the driver, retrying after 5 seconds\"";
    let node = with_log(component, "driver-validation", &[line]);
    let toolkit = [("driver-validation", true, looping()), ("nvidia-container-toolkit-ctr", false, not_ready())];
    let waits = [("toolkit-validation", true, looping()), ("nvidia-device-plugin", false, not_ready())];
    Case::of_node(35, with_pods(node, vec![pod(component, &toolkit), pod(PLUGIN, &waits)]))
        .finding("stack-broken-at-validator", &["driver-validation", "does not find the driver", "driverInstallDir"])
        .twin(healthy())
}

/// Report 36: the installation of the driver is disabled by a label of GKE.
fn driver_turned_off() -> Case {
    let mut node = without_driver(&[]);
    node.labels.insert("cloud.google.com/gke-gpu-driver-version".to_owned(), "disabled".to_owned());
    Case::of_node(36, cluster(node)).finding("driver-not-loaded", &["gke-gpu-driver-version=disabled"]).twin(healthy())
}

/// Report 38: a change of the MIG configuration does not finish.
fn mig() -> Case {
    let state = "nvidia.com/mig.config.state";
    let paused = |time: &str, value: &str| {
        let mut node = unoffered(|_| ());
        if value == "success" {
            node = self::node(facts("healthy-h100-8"));
        } else {
            node.labels.insert("nvidia.com/gpu.deploy.device-plugin".to_owned(), "paused-for-mig-change".to_owned());
        }
        node.labels.insert("nvidia.com/mig.config".to_owned(), "all-1g.10gb".to_owned());
        cluster(labelled(node, state, value, time))
    };
    Case::of_node(38, paused("01:00:00", "pending"))
        .finding("mig-manager-stuck", &["pending", "paused-for-mig-change", "all-1g.10gb"])
        .twin(paused("01:00:00", "success"))
}
