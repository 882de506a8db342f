//! Checks of the configuration of NVIDIA's stack: `not_deployed`, `driver_is_off`, `two_plugins`, `dra_unregistered`,
//! `no_mig_devices`, inotify limits, restarts. `unfit`, `why_no_plugin`, `refused`: find the reason why a DaemonSet has
//! no pod on the node, or add it to a finding.

use jiff::SignedDuration;

use crate::evidence;
use crate::input::decisions::UPGRADE_STATE;
use crate::input::node::{Gpu, Node};
use crate::input::platforms;
use crate::input::stack::{plugin_service, pods};
use crate::rule::Draft;
use crate::rules::kubernetes::daemon_sets::NOT_READY;
use crate::rules::kubernetes::nvidia_stack::rules::{
    DRA_UNREGISTERED, INOTIFY, NO_MIG_DEVICES, NOT_DEPLOYED, PLUGIN_UNFIT, RUNTIME_RESTARTED, TWO_PLUGINS,
};
use crate::rules::kubernetes::stack_log;
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::host::PciGpu;
use syringe_core::facts::kubernetes::daemon_set::{DaemonSetFacts, DaemonSetRole};
use syringe_core::facts::kubernetes::node::{Component, ContainerStateKind, NvidiaPod};
use syringe_core::text::clean;

/// Minimum number of restarts of the toolkit for a finding.
const RESTARTS: u32 = 3;
/// Maximum time between the starts of the toolkit and the runtime. The toolkit restarts the runtime within seconds.
const TOGETHER: SignedDuration = SignedDuration::from_mins(2);
/// If the runtime started within this time after the boot, the boot started it, not the toolkit.
const BOOT: SignedDuration = SignedDuration::from_mins(10);
/// Maximum length of the text about a requirement that a node does not meet.
const MISMATCH: usize = 300;

/// Finds a GPU node without the label of node feature discovery in a cluster whose other GPU nodes have this label. The
/// operator deploys nothing on such a node. `evidence`: why the GPUs are not usable.
pub(super) fn not_deployed(node: &Node<'_>, evidence: &[String]) -> Option<Draft> {
    let cluster = node.kubernetes;
    let on_pci = node.host().is_some_and(|host| !host.pci_gpus.is_empty());
    if is_turned_off(node) {
        return None;
    }
    let nothing_here = cluster
        .nvidia_pods
        .as_ref()
        .is_some_and(|pods| pods.iter().all(|pod| matches!(pod.component, Component::Other | Component::Monitoring)));
    // Node feature discovery may run in a cluster without GPU workloads.
    let is_deployed_elsewhere =
        cluster.gpu_plugin_in_cluster == Some(true) && cluster.pci_label_elsewhere == Some(true);
    let unlabelled = !cluster.labels.pci_present && is_deployed_elsewhere;
    // A plugin that the label would not bring to the node has another reason.
    let plugins = unfit(node, |set| set.role == DaemonSetRole::GpuPlugin);
    let is_of_labels = |line: &String| line.contains("nvidia.com/gpu") || line.contains("pci-10de");
    if !on_pci
        || !plugins.iter().all(is_of_labels)
        || !nothing_here
        || !unlabelled
        || node.stack.advertises_gpus
        || evidence.is_empty()
        || !node.stack.is_settled
    {
        return None;
    }
    let why = if cluster.labels.feature_discovery {
        "node feature discovery labelled the node, but not its NVIDIA PCI devices"
    } else {
        "the node has no label of node feature discovery"
    };
    let unfit = unfit(node, |set| LABELLERS.iter().any(|part| set.name.contains(part)));
    let draft = match unfit.is_empty() {
        true => Draft::on_node(NOT_DEPLOYED),
        false => Draft::on_node(NOT_DEPLOYED).with_action(ActionCode::UpdateSoftware, LABELLER_UNFIT),
    };
    Some(
        draft
            .with_severity(Severity::Critical)
            .with_evidence(
                "label feature.node.kubernetes.io/pci-10de.present is missing; other nodes of the cluster have it",
            )
            .with_evidence(why)
            .with_all_evidence(unfit)
            .with_evidence("no pod of NVIDIA's driver, toolkit or device plugin is on the node")
            .with_all_evidence(evidence.iter().cloned()),
    )
}

/// Parts of the names of the DaemonSets of node feature discovery that run on every node.
const LABELLERS: [&str; 2] = ["node-feature-discovery-worker", "nfd-worker"];

const LABELLER_UNFIT: &str = "Give the worker of node feature discovery what the evidence names (a toleration for the taint of {node}, or its label): without \
     the worker, {node} gets no label for its GPUs, and the GPU Operator deploys nothing there.";

/// Adds the label that disables the installation of the driver on this node, with its action, if there is one.
pub(super) fn driver_is_off(node: &Node<'_>, draft: &Draft) -> Option<Draft> {
    let labels = &node.kubernetes.labels;
    if labels.gke_driver_version.as_deref() == Some("disabled") {
        let line = "label cloud.google.com/gke-gpu-driver-version=disabled: GKE installs no driver on this node pool";
        return Some(draft.clone().with_evidence(line).with_action(ActionCode::UpdateSoftware, GKE_DRIVER));
    }
    let value = labels.deploy.get("driver").filter(|value| *value != "true")?;
    let line =
        format!("label nvidia.com/gpu.deploy.driver={}: the operator installs no driver here", evidence::data(value));
    Some(without_module(node, draft.clone().with_evidence(line)))
}

/// Action for a node pool of GKE without the automatic installation of the driver.
const GKE_DRIVER: &str = "Apply GKE's DaemonSet nvidia-driver-installer for the image of {node}, or create the node pool again with gpu-driver-version=default: \
     GKE installs no driver on {node}, as its label says.";

/// Replaces the action about a missing driver if no DaemonSet of the cluster installs drivers.
pub(super) fn without_installer(node: &Node<'_>, draft: Draft) -> Draft {
    let sets = node.kubernetes.daemon_sets.as_ref();
    let none_installs = sets.is_some_and(|sets| sets.iter().all(|set| set.role != DaemonSetRole::GpuDriver));
    if none_installs { without_module(node, draft) } else { draft }
}

/// Replaces the action about a driver that nobody installs on the node, if no module for the running kernel is there.
fn without_module(node: &Node<'_>, draft: Draft) -> Draft {
    let Some(host) = node.host().filter(|host| host.driver.module_on_disk.is_none()) else { return draft };
    let kernel = node.report.kernel.as_deref().map(|kernel| format!(" {}", evidence::data(kernel))).unwrap_or_default();
    let reason = match host.driver.library {
        None => {
            format!("neither a module for the running kernel{kernel} nor the libraries of the driver are on the node")
        }
        Some(_) => format!("no module for the running kernel{kernel} is on the node"),
    };
    let advice = format!(
        "Install the NVIDIA driver for the kernel{kernel} on {{node}} (after an update of the kernel: build its module again, or boot the earlier \
         kernel), or use a node image that contains the driver. No DaemonSet installs it on {{node}}."
    );
    Draft { reason: Some(reason), ..draft }.with_action(ActionCode::UpdateSoftware, advice)
}

/// Returns the finding about a missing driver if all GPUs are bound to vfio-pci, and a label gives them to containers.
pub(super) fn bound_to_vfio(node: &Node<'_>, draft: &Draft) -> Option<Draft> {
    let gpus = &node.host()?.pci_gpus;
    let is_bound = |gpu: &PciGpu| gpu.driver.as_deref() == Some("vfio-pci");
    let of_containers = node.kubernetes.labels.workload_config.as_deref() == Some("container");
    (of_containers && !gpus.is_empty() && gpus.iter().all(is_bound)).then(|| {
        let reason = "all GPUs are bound to vfio-pci, although the label nvidia.com/gpu.workload.config=container gives them to containers";
        Draft { reason: Some(reason.to_owned()), ..draft.clone() }.with_action(
            ActionCode::UpdateSoftware,
            "Remove the setting that binds the GPUs of {node} to vfio-pci (kernel command line vfio-pci.ids=, /etc/modprobe.d, a vfio manager), \
             then reboot {node}, so that the nvidia driver gets them. If the GPUs are meant for virtual machines, correct the label.",
        )
    })
}

/// Moves the finding about a failing worker of node feature discovery into the finding about a device plugin whose labels the
/// node does not have: without the worker, nobody sets these labels.
pub(super) fn join_labellers(drafts: &mut Vec<Draft>) {
    let needs_label = |draft: &Draft| {
        draft.rule.id == PLUGIN_UNFIT.id
            && draft
                .evidence
                .iter()
                .any(|line| line.contains("requires the label nvidia.com/") || line.contains("pci-10de"))
    };
    let is_of_worker = |draft: &Draft| {
        let words = draft.evidence.first().map(String::as_str).unwrap_or_default();
        draft.rule.id == NOT_READY.id && LABELLERS.iter().any(|name| words.contains(name))
    };
    let Some(worker) = drafts.iter().position(is_of_worker) else { return };
    let Some(plugin) = drafts.iter().position(needs_label) else { return };
    let (lines, repair) = (drafts[worker].evidence.clone(), drafts[worker].advice.clone());
    let draft = drafts[plugin].clone().with_all_evidence(lines);
    let reason =
        Some("its labels are missing, because the worker of node feature discovery on the node fails".to_owned());
    let advice =
        format!("Repair the worker of node feature discovery first, which sets the labels of {{node}}. {repair}");
    drafts[plugin] = Draft { reason, ..draft }.with_action(ActionCode::UpdateSoftware, advice);
    drafts.remove(worker);
}

/// Maximum number of DaemonSets in the evidence.
const UNFIT: usize = 4;

/// Returns why the DaemonSets that `is_of` selects do not match the node. Empty if one of them matches, or if there is
/// none.
pub(super) fn unfit(node: &Node<'_>, is_of: impl Fn(&DaemonSetFacts) -> bool) -> Vec<String> {
    let sets = || node.kubernetes.daemon_sets.iter().flatten().filter(|set| is_of(set));
    if sets().any(|set| set.mismatch.is_none() || set.pod.is_some()) {
        return Vec::new();
    }
    let line = |set: &DaemonSetFacts| {
        let name = evidence::object(&set.namespace, &set.name);
        format!(
            "DaemonSet {name} does not fit the node: {}",
            clean(set.mismatch.as_deref().unwrap_or_default(), MISMATCH)
        )
    };
    sets().take(UNFIT).map(line).collect()
}

/// Returns the finding with the reason why a DaemonSet has no pod on the node, and the action. `is_of`: selects the
/// DaemonSet. `None` if there is no such reason.
pub(super) fn refused(node: &Node<'_>, draft: &Draft, is_of: impl Fn(&DaemonSetFacts) -> bool) -> Option<Draft> {
    let sets = node.kubernetes.daemon_sets.iter().flatten();
    let (set, refusal) = sets.filter(|set| is_of(set)).find_map(|set| Some((set, set.refusal.as_deref()?)))?;
    let name = evidence::object(&set.namespace, &set.name);
    let draft =
        draft.clone().with_evidence(format!("DaemonSet {name} has no pod on the node: {}", clean(refusal, REFUSAL)));
    let reason = stack_log::of_scheduler(refusal).or_else(|| stack_log::of_controller(refusal, &name));
    Some(match reason.map(|reason| (reason.cause, reason.action)) {
        Some((cause, Some((code, advice)))) => Draft { reason: cause, ..draft.with_action(code, advice) },
        _ => draft.with_action(
            ActionCode::UpdateSoftware,
            "Correct the problem that the message in the evidence names: it prevents a pod of the GPU software on {node}.",
        ),
    })
}

/// Finds two device plugins for the same GPUs: two DaemonSets, or a DaemonSet in addition to the plugin of the OS
/// image.
pub(super) fn two_plugins(node: &Node<'_>) -> Option<Draft> {
    let running: Vec<_> = pods::of(node, Component::DevicePlugin)
        .filter(|pod| pod.ready && pod.containers.iter().all(|one| one.init || pods::is_older(node, one.state.since)))
        .collect();
    let first = running.first()?;
    let other = running.iter().find(|pod| pod.owner != first.owner || pod.namespace != first.namespace);
    let service = plugin_service(node);
    // The OS image is used only if the processes of the node were not read, because they include the built-in plugin.
    let unread = node.host().is_none_or(|host| host.nvidia_stack.is_none());
    let built_in = node
        .kubernetes
        .os_image
        .as_deref()
        .filter(|image| unread && platforms::has_device_plugin(image) && node.stack.advertises_gpus);
    let evidence = match (other, service, built_in) {
        (Some(other), ..) => format!("pods {} and {} are both running", pods::name(first), pods::name(other)),
        (None, Some(process), _) => {
            format!("pod {} is running in addition to process {process} of the node", pods::name(first))
        }
        (None, None, Some(image)) => {
            format!("pod {} runs on {}, which has a device plugin built in", pods::name(first), evidence::data(image))
        }
        _ => return None,
    };
    Some(Draft::on_node(TWO_PLUGINS).with_evidence(evidence))
}

/// The containers of NVIDIA's DRA driver, and the drivers that they register.
const DRA_DRIVERS: [(&str, &str); 2] = [("gpus", "gpu.nvidia.com"), ("compute-domains", "compute-domain.nvidia.com")];

/// Finds a DRA driver that has been running for minutes without a socket. If the folder contains no sockets at all, the
/// kubelet may use another folder.
pub(super) fn dra_unregistered(node: &Node<'_>) -> Option<Draft> {
    let sockets = node.host()?.nvidia_stack.as_ref()?.registry_sockets.as_ref()?;
    if sockets.is_empty() || !node.shows_files_of_node() || !node.stack.is_settled {
        return None;
    }
    let lines = pods::of(node, Component::DraDriver).filter(|pod| pod.ready).flat_map(|pod| {
        let runs = |name: &str| {
            let mut named = pod.containers.iter().filter(|container| container.name == name);
            named.any(|one| one.state.kind == ContainerStateKind::Running && pods::is_older(node, one.state.since))
        };
        let is_registered = |driver: &str| sockets.iter().any(|socket| socket.name.starts_with(driver));
        let missing =
            DRA_DRIVERS.into_iter().filter(move |(container, driver)| runs(container) && !is_registered(driver));
        missing.map(move |(container, driver)| {
            format!(
                "pod {}: container {container} is running, and no socket of {driver} is registered",
                pods::name(pod)
            )
        })
    });
    let lines: Vec<String> = lines.collect();
    (!lines.is_empty()).then(|| Draft::on_node(DRA_UNREGISTERED).with_all_evidence(lines))
}

/// Finds nodes on which root has no inotify instance left and no device plugin started.
pub(super) fn inotify(node: &Node<'_>, evidence: &[String]) -> Option<Draft> {
    let inotify = node.host()?.nvidia_stack.as_ref()?.inotify.as_ref()?;
    let (most, used) = inotify.max_user_instances.zip(inotify.instances_of_root)?;
    if used < most || node.stack.advertises_gpus || !node.stack.is_settled {
        return None;
    }
    let words = format!("root uses {used} inotify instances, and fs.inotify.max_user_instances is {most}");
    Some(Draft::on_node(INOTIFY).with_evidence(words).with_all_evidence(evidence.iter().cloned()))
}

/// Finds a toolkit that restarts repeatedly, and restarts the container runtime each time.
pub(super) fn runtime_restarted(node: &Node<'_>) -> Option<Draft> {
    let started = node.host()?.container_runtime.as_ref()?.started_at?;
    if started.duration_since(node.booted()?) < BOOT {
        return None;
    }
    let (pod, container) = pods::of(node, Component::ContainerToolkit)
        .flat_map(|pod| pod.containers.iter().map(move |container| (pod, container)))
        .find(|(_, container)| !container.init && container.restarts >= RESTARTS)?;
    let states = [Some(&container.state), container.last.as_ref()].into_iter().flatten();
    let together = |since: jiff::Timestamp| started.duration_since(since).abs() <= TOGETHER;
    let running = |kind| matches!(kind, ContainerStateKind::Running | ContainerStateKind::Terminated);
    let mut times = states.filter(|state| running(state.kind)).filter_map(|state| state.since);
    if !times.any(together) {
        return None;
    }
    Some(
        Draft::on_node(RUNTIME_RESTARTED)
            .with_evidence(format!("pod {} was restarted {} times", pods::name(pod), container.restarts))
            .with_evidence(format!(
                "the container runtime started at {}, together with the container toolkit",
                evidence::time(started)
            )),
    )
}

/// Label with which all components of the GPU Operator are turned off on a node.
const OPERANDS: &str = "operands";

const OPERANDS_OFF: &str = "Remove the label nvidia.com/gpu.deploy.operands from {node}, if its GPUs are meant for pods: with the value false, the GPU \
     Operator runs none of its components there, and removes their labels again.";

/// Returns whether a label turns the device plugin, or all components, off on this node.
pub(super) fn is_turned_off(node: &Node<'_>) -> bool {
    let labels = &node.kubernetes.labels.deploy;
    [OPERANDS, "device-plugin"].iter().any(|name| labels.get(*name).is_some_and(|value| value == "false"))
}

/// Start of the values with which the GPU Operator stops its components on a node while it changes the driver or the
/// MIG layout.
const PAUSED: &str = "paused-for-";

/// Action for a node whose components the GPU Operator starts again by itself.
const WAIT: &str = "Wait: the GPU Operator has stopped its components on {node} for an upgrade of the driver or a change of the MIG layout, and starts \
     them again afterwards. If the labels in the evidence do not change for an hour, read the log of the driver pod or of the MIG manager.";

/// Action for a node whose components are still stopped although no upgrade is under way.
const RESUME: &str = "Set the labels nvidia.com/gpu.deploy.* of {node} that are paused to true: no upgrade of the driver is under way, and the driver \
     has been loaded for more than an hour. The operator did not remove the pause.";

/// Returns whether the pause of an upgrade of the driver remained after the upgrade.
fn is_left_paused(node: &Node<'_>, value: &str) -> bool {
    let loaded_for = node.age(node.driver_loaded());
    value.ends_with("driver-upgrade") && loaded_for.is_some_and(|age| age > SignedDuration::from_hours(1))
}

/// Action for a node on which a label turns the device plugin off.
const DEPLOY: (ActionCode, &str) = (
    ActionCode::UpdateSoftware,
    "Set the label nvidia.com/gpu.deploy.device-plugin=true on {node}, or do nothing if no pod is meant to use its GPUs.",
);

/// Returns the label that assigns the GPUs to virtual machines, if the driver of the host uses them as for containers.
fn meant_for_machines<'a>(node: &Node<'a>) -> Option<&'a str> {
    let workload = node.kubernetes.labels.workload_config.as_deref().filter(|value| value.starts_with("vm-"))?;
    let mode = |gpu| node.inventory_of(gpu).and_then(|gpu| gpu.virtualization_mode.as_deref());
    let mut modes = node.answering().map(mode).peekable();
    (modes.peek().is_some() && modes.all(|mode| !mode.is_some_and(|mode| mode.starts_with("host_"))))
        .then_some(workload)
}

/// Action for a node whose label and driver do not fit together.
const FOR_CONTAINERS: &str = "If the GPUs of {node} are meant for containers, remove its label nvidia.com/gpu.workload.config: with this value, the GPU \
     Operator runs the components for virtual machines there, and no toolkit or device plugin for containers. If they are meant for virtual machines, \
     remove the driver that is installed on the host: the VFIO manager cannot take GPUs that it uses.";

/// Adds the known reasons to a finding about GPUs that are not advertised, if no pod fails.
pub(super) fn why_no_plugin(node: &Node<'_>, draft: Draft) -> Draft {
    let cluster = node.kubernetes;
    let unfit = unfit(node, |set| set.role == DaemonSetRole::GpuPlugin);
    if draft.severity == Severity::Info && unfit.is_empty() {
        return draft;
    }
    let state = cluster.labels.driver_upgrade_state.as_deref().filter(|state| !["", "upgrade-done"].contains(state));
    let upgrading = state.map(|state| format!("label {UPGRADE_STATE}={}", evidence::data(state)));
    if cluster.labels.deploy.get(OPERANDS).is_some_and(|value| value == "false") {
        return draft
            .with_evidence("label nvidia.com/gpu.deploy.operands=false")
            .with_action(ActionCode::UpdateSoftware, OPERANDS_OFF);
    }
    if let Some(value) = cluster.labels.deploy.get("device-plugin").filter(|value| *value != "true") {
        let (code, advice) = match value.starts_with(PAUSED) {
            true if upgrading.is_none() && is_left_paused(node, value) => (ActionCode::UpdateSoftware, RESUME),
            true => (ActionCode::Watch, WAIT),
            false => DEPLOY,
        };
        return draft
            .with_evidence(format!("label nvidia.com/gpu.deploy.device-plugin={}", evidence::data(value)))
            .with_all_evidence(upgrading)
            .with_action(code, advice);
    }
    if let Some(workload) = meant_for_machines(node) {
        // The label is the cause of failing pods, too.
        return Draft { rule: draft.rule.depth(0), ..draft }
            .with_evidence(format!("label nvidia.com/gpu.workload.config={}", evidence::data(workload)))
            .with_evidence("the driver of the host uses the GPUs, and none of them is a vGPU host")
            .with_action(ActionCode::UpdateSoftware, FOR_CONTAINERS);
    }
    if upgrading.is_some() {
        return draft.with_all_evidence(upgrading).with_action(ActionCode::Watch, WAIT);
    }
    let Some(cluster_pods) = &cluster.nvidia_pods else { return draft };
    let is_leaving = plugins_of(cluster_pods).all(|pod| pod.deleting);
    if let Some(pod) = plugins_of(cluster_pods).next().filter(|_| is_leaving) {
        let advice = format!(
            "Find out why pod {} stays in Terminating (the log of the kubelet of {{node}}, its finalizers): its DaemonSet creates \
             a new pod only when this pod is gone.",
            pods::name(pod)
        );
        let line =
            format!("pod {} is being deleted, and the node has no other pod of a device plugin", pods::name(pod));
        return draft.with_evidence(line).with_action(ActionCode::Watch, advice);
    }
    let plugin = plugins_of(cluster_pods).next().is_some();
    if plugin || plugin_service(node).is_some() {
        return draft;
    }
    if !unfit.is_empty() {
        let advice = PLUGIN_UNFIT.advice;
        let reason = unfit.first().and_then(|line| line.split_once(": ")).map(|(_, why)| why.to_owned());
        let draft = Draft { rule: PLUGIN_UNFIT, reason, ..draft }.with_severity(Severity::Warning);
        return draft.with_all_evidence(unfit).with_action(PLUGIN_UNFIT.action, advice);
    }
    if let Some(draft) = for_machines(node, &draft) {
        return draft;
    }
    if let Some(draft) = refused(node, &draft, |set| set.role == DaemonSetRole::GpuPlugin) {
        return draft;
    }
    let plugins = cluster.daemon_sets.iter().flatten().filter(|set| set.role == DaemonSetRole::GpuPlugin);
    let none = cluster.daemon_sets.is_some() && plugins.count() == 0;
    let draft = draft
        .with_all_evidence(none.then(|| "no DaemonSet of the cluster is a device plugin for NVIDIA GPUs".to_owned()));
    match cluster.os_image.as_deref().filter(|image| platforms::has_device_plugin(image)) {
        Some(image) => draft
            .with_evidence(format!("{} has a device plugin built in, and it is not running", evidence::data(image)))
            .with_action(
                ActionCode::UpdateSoftware,
                "Restart the built-in device plugin of {node} (apiclient exec admin: systemctl restart \
                 nvidia-k8s-device-plugin), or reboot the node. If it happens again, update Bottlerocket.",
            ),
        None => draft.with_evidence("no pod of a device plugin or DRA driver is on the node").with_action(
            ActionCode::UpdateSoftware,
            "Check why no device plugin is scheduled to {node}: whether its DaemonSet exists, and its nodeSelector, affinity \
             and tolerations against the node's labels and taints.",
        ),
    }
}

/// Returns the pods that advertise GPUs.
fn plugins_of(pods: &[NvidiaPod]) -> impl Iterator<Item = &NvidiaPod> {
    pods.iter().filter(|pod| matches!(pod.component, Component::DevicePlugin | Component::DraDriver))
}

/// Maximum length of a message of the scheduler or of a controller.
const REFUSAL: usize = 400;

/// Returns the finding for a node whose GPUs the GPU Operator provides to virtual machines. The components for
/// containers do not advertise these GPUs. The reason comes from the component whose log was read.
fn for_machines(node: &Node<'_>, draft: &Draft) -> Option<Draft> {
    let parts = [Component::VgpuManager, Component::SandboxDevicePlugin];
    let all = || node.kubernetes.nvidia_pods.iter().flatten();
    all().find(|pod| parts.contains(&pod.component))?;
    let waiting = all().filter(|pod| !pod.ready).map(|pod| format!("pod {} is not ready", pods::name(pod)));
    let told = all().find_map(|pod| Some((pod, stack_log::of_log(node, pod, &pods::name(pod))?)));
    let deploy = node.kubernetes.labels.deploy.iter().filter(|(_, value)| value.starts_with("paused"));
    let paused: Vec<String> = deploy
        .map(|(name, value)| format!("nvidia.com/gpu.deploy.{}={}", evidence::data(name), evidence::data(value)))
        .collect();
    let unpause = if paused.is_empty() {
        String::new()
    } else {
        format!(
            " Components with a label that is paused have no pod: if no change is going on, set these labels to true ({}).",
            paused.join(", ")
        )
    };
    let advice = "Find out why the components for virtual machines on {node} (vGPU Manager, vGPU Device Manager, \
        sandbox validator and device plugin) do not become ready: each component waits for the previous one.";
    let repair = told.as_ref().and_then(|(_, reason)| Some(reason.action.as_ref()?.1.as_str())).unwrap_or_default();
    let draft = draft.clone().with_evidence("the GPU Operator offers the GPUs of the node to virtual machines");
    let draft = draft
        .with_all_evidence(waiting.take(UNFIT))
        .with_all_evidence(paused.iter().map(|label| format!("label {label}")))
        .with_action(ActionCode::UpdateSoftware, format!("{repair} {advice}{unpause}").trim_start());
    Some(match told {
        Some((_, reason)) => Draft { reason: reason.cause, ..draft.with_all_evidence(reason.evidence) },
        None => draft,
    })
}

/// Finds a node whose GPUs are all in MIG mode but have no MIG device, so that the device plugin has nothing to
/// advertise.
pub(super) fn no_mig_devices(node: &Node<'_>) -> Option<Draft> {
    let is_empty = |gpu: &Gpu| {
        let mig = node.mig_of(gpu);
        mig.is_some_and(|mig| {
            mig.mode.is_some_and(|mode| mode.current) && mig.max_devices.is_some() && mig.devices.is_empty()
        })
    };
    let failed = node.report.sections.mig.as_ref().is_none_or(|section| !section.problems.is_empty());
    let all = node.answering().next().is_some() && node.answering().all(is_empty);
    (all && !failed && node.advertises_no_gpus()).then(|| {
        let labels = &node.kubernetes.labels;
        let named =
            labels.mig_config.as_deref().map(|name| format!("label nvidia.com/mig.config={}", evidence::data(name)));
        Draft::on_node(NO_MIG_DEVICES)
            .with_evidence("every GPU is in MIG mode, and has no MIG device")
            .with_all_evidence(named)
    })
}
