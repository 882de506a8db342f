//! Rules about the container runtime: missing handlers or programs, configuration that is not loaded, restarts, handler
//! of the plugin. `of_node`: the container runtime that the kubelet uses. `uses_nvidia`: whether a handler in use
//! belongs to NVIDIA.
//!
//! The rules check only handlers that are used: the default handler, and the handlers of the RuntimeClasses of pods on
//! the node. If the list of handlers is incomplete, the rules report nothing.

use crate::evidence;
use crate::input::node::Node;
use crate::input::order;
use crate::input::runtimes;
use crate::input::stack::pods;
use crate::rule::{Draft, Unread, rules};
use jiff::SignedDuration;
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::container_runtime::{ContainerRuntime, RuntimeHandler};
use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::facts::kubernetes::node::{Component, ContainerStateKind, NvidiaPod, PodWarning, RuntimeClassUse};
use syringe_core::section_name::SectionName;
use syringe_core::unknown::Unknown;

/// NVIDIA's documentation of the configuration of container runtimes.
const RUNTIME_DOC: Option<&str> =
    Some("https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html");

rules! {
    about ContainerRuntime;
    HANDLER_MISSING: "runtime-handler-missing" Critical Driver RUNTIME_DOC,
        "The container runtime has no handler for a RuntimeClass that pods use",
        UpdateSoftware "Configure NVIDIA's runtime on {node} in the file that the container runtime reads \
            (`nvidia-ctk runtime configure`, or restart the container-toolkit pod of the GPU Operator). Then restart \
            the container runtime.",
        means "The handler of a RuntimeClass that a pod uses, or the default handler, is not in the configuration of \
            the container runtime: pods with this handler do not start.",
        reads "host.container_runtime, kubernetes.runtime_classes";
    BINARY_MISSING: "runtime-binary-missing" Critical Driver RUNTIME_DOC,
        "The program of a container runtime handler is not on the node",
        UpdateSoftware "Install the NVIDIA container toolkit on {node} (GPU Operator: restart its container-toolkit \
            pod), or correct the path in the runtime's configuration and restart the runtime.",
        means "A handler of the container runtime refers to a program that does not exist on the node. Pods with this handler do not start.",
        reads "host.container_runtime, kubernetes.runtime_classes";
    HANDLER_INCOMPLETE: "runtime-handler-incomplete" Critical Driver RUNTIME_DOC,
        "A container runtime handler has no valid runtime_type",
        UpdateSoftware "Set runtime_type = \"io.containerd.runc.v2\" for the handler on {node}, in the file that \
            defines the handler, and restart containerd. Until then, no pod with this handler can start. Also update \
            the NVIDIA container toolkit, which wrote the file.",
        means "A container runtime handler that pods use has no runtime_type in containerd's configuration, or a \
            runtime_type that containerd 2 no longer has. Pods with this handler do not start.",
        reads "host.container_runtime, kubernetes.runtime_classes, kubernetes.runtime_version";
    NOT_LOADED: "runtime-config-not-loaded" Warning Driver RUNTIME_DOC,
        "The configuration file of the container runtime changed after the runtime started",
        UpdateSoftware "Restart the container runtime on {node}: the runtime reads its configuration only when it starts.",
        means "The container runtime's configuration was written after the runtime started. The runtime reads it only \
            at its start, so handlers of the file may not be loaded.",
        reads "host.container_runtime, kubernetes.gpu_capacity, kubernetes.nvidia_pods";
    RESTARTED: "node-service-restarted" Info Driver None, "The kubelet or the container runtime was restarted minutes ago",
        Watch "If pods of {node} failed or were rejected at that time, the restart is the cause. If the restart was \
            not planned, find out why the service was restarted (`journalctl -u kubelet`, `-u containerd`).",
        means "The kubelet or the container runtime started minutes ago, long after the node booted.",
        reads "host.nvidia_stack.kubelet_started_at, host.container_runtime.started_at, host.uptime_seconds";
    PLUGIN_RUNTIME: "runtime-class-missing-on-plugin" Critical Driver RUNTIME_DOC,
        "The device plugin is running without NVIDIA's runtime, so it finds no GPU",
        UpdateSoftware "Set runtimeClassName: nvidia for the device plugin (Helm: --set runtimeClassName=nvidia), or \
            make NVIDIA's runtime the default runtime on {node} (`nvidia-ctk runtime configure --set-as-default`) and \
            restart the runtime.",
        means "The device plugin's container runs with a handler that does not add the libraries and devices of the \
            driver. The plugin finds no GPU, and the node advertises no GPU.",
        reads "host.container_runtime, kubelet.registered, kubernetes.nvidia_pods, kubernetes.gpu_capacity";
}

/// A configuration file younger than this may not be loaded yet.
const SETTLING: SignedDuration = SignedDuration::from_mins(5);

/// Returns a finding for each handler that cannot work. If there is none, returns findings about the configuration as a
/// whole.
pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let Some(runtime) =
        of_node(node).filter(|_| node.listed().next().is_some() && !node.is_booting() && !node.is_passed_through())
    else {
        return Vec::new();
    };
    let mut drafts: Vec<Draft> =
        used(node.kubernetes, runtime).iter().filter_map(|used| handler(node, runtime, used)).collect();
    drafts.extend(unused_handler(node, runtime));
    if drafts.is_empty() {
        drafts.extend(toolkit_without_handler(node, runtime));
        drafts.extend(not_loaded(node, runtime));
        drafts.extend(plugin_runtime(node, runtime));
    }
    drafts.extend(restarted(node, runtime));
    drafts
}

/// Returns the pod of the container toolkit, if it has been ready for some time: it has written its handler.
fn working_toolkit<'n>(node: &'n Node<'_>) -> Option<&'n NvidiaPod> {
    let settled = |pod: &&NvidiaPod| node.age(pod.created).is_some_and(|age| age > SETTLING);
    pods::of(node, Component::ContainerToolkit).find(|pod| pod.ready && settled(pod))
}

/// Finds a node with a pod of the container toolkit whose containerd has no handler of NVIDIA and resolves no CDI devices:
/// something replaced the configuration after the toolkit had written it.
fn toolkit_without_handler(node: &Node<'_>, runtime: &ContainerRuntime) -> Option<Draft> {
    let has_handler = runtime.handlers.iter().any(RuntimeHandler::is_nvidia);
    if runtime.name != "containerd" || !runtime.complete || has_handler || runtime.cdi_enabled != Some(false) {
        return None;
    }
    let pod = working_toolkit(node)?;
    let draft = Draft::on_node(HANDLER_MISSING)
        .with_severity(Severity::Warning)
        .with_evidence(format!("{}: no handler of NVIDIA, and CDI is off", configuration(runtime)))
        .with_evidence(format!("pod {} of the container toolkit is ready", pods::name(pod)));
    let draft = draft.with_all_evidence(order::written_after_toolkit(node));
    Some(draft.with_action(ActionCode::UpdateSoftware, WRITTEN_AGAIN))
}

/// Finds a handler of NVIDIA that no pod uses now and whose program does not exist. If the node has
/// another way to give GPUs to containers, only a pod that asks for this handler fails.
fn unused_handler(node: &Node<'_>, runtime: &ContainerRuntime) -> Option<Draft> {
    let works = |handler: &RuntimeHandler| handler.is_nvidia() && handler.binary_exists == Some(true);
    // A handler can be left from an earlier installation if no toolkit writes it any more and the runtime uses CDI.
    let has_toolkit = pods::of(node, Component::ContainerToolkit).next().is_some();
    let by_host = node.host()?.container_toolkit.is_some() || runtimes::resolves_cdi(node.host()?);
    let is_left = by_host && !has_toolkit;
    let other_way = runtime.handlers.iter().any(works) || is_left;
    let used: Vec<String> = used(node.kubernetes, runtime).into_iter().map(|used| used.handler).collect();
    let is_broken = |handler: &&RuntimeHandler| {
        handler.is_nvidia() && handler.binary_exists == Some(false) && !used.contains(&handler.name)
    };
    let handler = runtime.handlers.iter().find(is_broken)?;
    let binary = evidence::data(handler.binary.as_deref().unwrap_or_default());
    let name = evidence::data(&handler.name);
    Some(
        Draft::on_node(BINARY_MISSING)
            .with_severity(if other_way { Severity::Info } else { Severity::Warning })
            .with_evidence(format!("{}: handler {name} runs {binary}, which does not exist", configuration(runtime)))
            .with_evidence("no pod of the node uses the handler now"),
    )
}

/// If a service restarted more recently than this, current errors of pods may be caused by the restart.
const RECENT: SignedDuration = SignedDuration::from_mins(15);

/// Finds a kubelet or runtime that was restarted minutes ago, unless the node booted recently.
fn restarted(node: &Node<'_>, runtime: &ContainerRuntime) -> Option<Draft> {
    let kubelet = node.host()?.nvidia_stack.as_ref().and_then(|stack| stack.kubelet_started_at);
    let booted = node.booted()?;
    let services = [("kubelet", kubelet), (runtime.name.as_str(), runtime.started_at)];
    let lines = services.into_iter().filter_map(|(name, started)| {
        let age = node.age(started).filter(|age| !age.is_negative() && *age < RECENT)?;
        let after_boot = started?.duration_since(booted);
        (after_boot > SignedDuration::from_hours(1)).then(|| {
            let (age, up) = (evidence::span(age), evidence::span(after_boot));
            format!("{} started {age} ago, {up} after the boot of the node", evidence::data(name))
        })
    });
    let lines: Vec<String> = lines.collect();
    (!lines.is_empty()).then(|| Draft::on_node(RESTARTED).with_all_evidence(lines))
}

/// Returns the container runtime of the node, if the probe read the files and GPUs of the node, not of a container.
/// `None` if the kubelet uses another runtime, because this configuration does not affect pods.
pub(super) fn of_node<'a>(node: &Node<'a>) -> Option<&'a ContainerRuntime> {
    let read = runtimes::of_configuration(node);
    if runtimes::of_kubelet(node).zip(read).is_some_and(|(used, read)| used.runtime != read.runtime) {
        return None;
    }
    node.host().filter(|_| node.shows_whole_node())?.container_runtime.as_ref()
}

/// A handler that is used on the node.
struct Used {
    handler: String,
    /// False if the RuntimeClass could not be read. The name of its handler may then differ from the name of the
    /// RuntimeClass.
    certain: bool,
    /// Evidence that the handler is used.
    by: String,
}

/// Returns the default handler, and NVIDIA's handlers of the RuntimeClasses of pods on the node.
fn used(cluster: &KubernetesFacts, runtime: &ContainerRuntime) -> Vec<Used> {
    let default = runtime.default_handler.as_deref().map(|name| Used {
        handler: name.to_owned(),
        certain: true,
        by: format!("{} is the default handler", evidence::data(name)),
    });
    let of_class = |class: &RuntimeClassUse| {
        let handler = class.handler.as_deref().unwrap_or(&class.name);
        let pods: Vec<String> = class.pods.iter().take(2).map(|pod| evidence::data(pod)).collect();
        (handler.contains("nvidia") && !pods.is_empty()).then(|| Used {
            handler: handler.to_owned(),
            certain: class.handler.is_some(),
            by: format!("RuntimeClass {} is set by {}", evidence::data(&class.name), pods.join(", ")),
        })
    };
    let mut used: Vec<Used> = cluster.runtime_classes.iter().flatten().filter_map(of_class).collect();
    used.extend(
        default.filter(|default| {
            default.handler.contains("nvidia") && !used.iter().any(|of| of.handler == default.handler)
        }),
    );
    used
}

/// Returns a handler that a pod of the node uses, and that may be defined in a file that could not be read.
pub(super) fn unread_handler(node: &Node<'_>) -> Vec<Unread> {
    let Some(runtime) = of_node(node).filter(|runtime| !runtime.complete) else { return Vec::new() };
    let is_listed = |used: &Used| runtime.handlers.iter().any(|handler| handler.name == used.handler);
    let used = used(node.kubernetes, runtime).into_iter().find(|used| !is_listed(used));
    let why = used.map(|used| {
        format!(
            "not all of the configuration of {} could be read: handler {} may be in the rest ({})",
            evidence::data(&runtime.name),
            evidence::data(&used.handler),
            used.by
        )
    });
    why.into_iter().map(|why| Unread { fact: Unknown::new(SectionName::Host, why), decides: true }).collect()
}

/// Returns whether the default handler, or a handler that a pod of the node uses, belongs to NVIDIA.
pub(super) fn uses_nvidia(node: &Node<'_>, runtime: &ContainerRuntime) -> bool {
    !used(node.kubernetes, runtime).is_empty() || default_of(runtime).is_some_and(RuntimeHandler::is_nvidia)
}

fn default_of(runtime: &ContainerRuntime) -> Option<&RuntimeHandler> {
    runtime.handlers.iter().find(|handler| Some(&handler.name) == runtime.default_handler.as_ref())
}

/// Types of handlers that containerd 2 no longer supports
/// (https://github.com/containerd/containerd/blob/main/RELEASES.md).
const BEFORE_2: [&str; 2] = ["io.containerd.runtime.v1.linux", "io.containerd.runc.v1"];

fn handler(node: &Node<'_>, runtime: &ContainerRuntime, used: &Used) -> Option<Draft> {
    let name = evidence::data(&used.handler);
    let Some(found) = runtime.handlers.iter().find(|handler| handler.name == used.handler) else {
        // True if the RuntimeClass was not read and the runtime has a handler of NVIDIA. The RuntimeClass may refer to
        // this handler by another name.
        let other = !used.certain && runtime.handlers.iter().any(RuntimeHandler::is_nvidia);
        return (runtime.complete && !other).then(|| {
            let others: Vec<String> =
                runtime.handlers.iter().take(6).map(|handler| evidence::data(&handler.name)).collect();
            let draft = Draft::on_node(HANDLER_MISSING).with_evidence(used.by.clone()).with_evidence(format!(
                "{} has no handler {name}; it has {}",
                configuration(runtime),
                others.join(", ")
            ));
            // The running process started before the file was written, and may still have the handler.
            if is_newer_than_process(runtime) {
                let older = "the file was written after the runtime started: the runtime may still have the handler until it restarts";
                return draft.with_severity(Severity::Warning).with_evidence(older);
            }
            match (runtimes::mismatch(node), order::written_after_toolkit(node)) {
                (Some(other), _) => draft.with_evidence(other.line).with_action(ActionCode::UpdateSoftware, other.advice),
                (None, Some(line)) => draft.with_evidence(line).with_action(ActionCode::UpdateSoftware, WRITTEN_AGAIN),
                (None, None) => match working_toolkit(node) {
                    Some(pod) => draft
                        .with_evidence(format!("pod {} of the container toolkit is ready: it wrote another file", pods::name(pod)))
                        .with_action(ActionCode::UpdateSoftware, OTHER_FILE),
                    None => draft,
                },
            }
        });
    };
    if found.binary_exists == Some(false) {
        let binary = evidence::data(found.binary.as_deref().unwrap_or_default());
        let missing = format!("{}: handler {name} runs {binary}, which does not exist", configuration(runtime));
        let draft = Draft::on_node(BINARY_MISSING).with_evidence(missing).with_evidence(used.by.clone());
        if !runtime.complete {
            let unread = "not all of the configuration was read: another file may name another program";
            return Some(draft.with_severity(Severity::Warning).with_evidence(unread));
        }
        return Some(draft);
    }
    let known = Some(found).filter(|_| runtime.name == "containerd" && runtime.complete)?;
    let version = node.kubernetes.runtime_version.as_deref();
    let lacks = match (known.runtime_type.as_deref(), version.filter(|version| version.starts_with("containerd://2.")))
    {
        (None, _) => "has no runtime_type".to_owned(),
        (Some(kind), Some(version)) if BEFORE_2.contains(&kind) => {
            let version = evidence::data(version);
            format!("has the runtime_type {}, which {version} no longer has", evidence::data(kind))
        }
        _ => return None,
    };
    let line = format!("{}: handler {name} {lacks}", configuration(runtime));
    Some(Draft::on_node(HANDLER_INCOMPLETE).with_evidence(line).with_evidence(used.by.clone()))
}

/// Action for a toolkit that writes its handler into a file that the container runtime does not read.
const OTHER_FILE: &str = "Let the container toolkit write into the configuration that the container runtime of {node} reads: set its environment \
     (toolkit.env of the GPU Operator: CONTAINERD_CONFIG, CONTAINERD_SOCKET, or the variables of CRI-O) to the file in the evidence and to the \
     socket of this runtime. A restart of the toolkit alone writes the other file again.";

const WRITTEN_AGAIN: &str = "Find the program that wrote the configuration of the container runtime of {node} again \
     after the container toolkit (Kubespray, Ansible, an image or package update). Let this program keep NVIDIA's \
     handler or a drop-in file. Until then, restart the pod of the container toolkit, which writes the handler again. \
     This lasts until the next run of the program.";

/// Formats the files: `/etc/containerd/config.toml (version 3) and /etc/containerd/conf.d/99-nvidia.toml`.
fn configuration(runtime: &ContainerRuntime) -> String {
    let main = runtime
        .config_path
        .as_deref()
        .map_or_else(|| format!("the configuration of {}", evidence::data(&runtime.name)), evidence::path);
    let version = runtime.config_version.map(|version| format!(" (version {version})")).unwrap_or_default();
    let drop_ins: Vec<String> = runtime.drop_ins.iter().take(3).map(|file| evidence::path(file)).collect();
    let with = if drop_ins.is_empty() { String::new() } else { format!(" with {}", drop_ins.join(", ")) };
    format!("{main}{version}{with}")
}

/// Returns whether the file was written after the process had read it. CRI-O reloads its handlers on a signal.
fn is_newer_than_process(runtime: &ContainerRuntime) -> bool {
    let times = runtime.config_changed_at.zip(runtime.started_at);
    let newer = times.is_some_and(|(changed, started)| changed.duration_since(started) > SignedDuration::from_secs(2));
    newer && runtime.name == "containerd"
}

/// The runtime's error about a missing handler.
const NO_RUNTIME: &str = "no runtime for";

/// Finds a configuration file that is newer than the runtime's process. This is a fault only if the node advertises no
/// GPU, or if a pod of NVIDIA's stack failed because the runtime lacks a handler from the file.
fn not_loaded(node: &Node<'_>, runtime: &ContainerRuntime) -> Option<Draft> {
    let (changed, started) = (runtime.config_changed_at?, runtime.started_at?);
    let settled = node.age(Some(changed)).is_some_and(|age| age > SETTLING);
    if !is_newer_than_process(runtime) || !settled || !uses_nvidia(node, runtime) {
        return None;
    }
    let file = runtime.config_changed_path.as_deref().map_or_else(|| configuration(runtime), evidence::path);
    let draft = Draft::on_node(NOT_LOADED).with_evidence(format!(
        "{file} was written {}, but {} has been running since {}",
        evidence::time(changed),
        evidence::data(&runtime.name),
        evidence::time(started)
    ));
    let refused = |name: String, warning: &Option<PodWarning>| {
        let warning = warning.as_ref().filter(|warning| warning.message.contains(NO_RUNTIME))?;
        Some(format!("pod {name}: {}", evidence::reason(&warning.message)))
    };
    let mut of_nvidia = node.kubernetes.nvidia_pods.iter().flatten();
    let mut others = node.kubernetes.starting_pods.iter().flatten();
    let refused = of_nvidia.find_map(|pod| refused(pods::name(pod), &pod.warning)).or_else(|| {
        others.find_map(|pod| refused(evidence::name(&format!("{}/{}", pod.namespace, pod.name)), &pod.warning))
    });
    if refused.is_some() || node.advertises_no_gpus() {
        return Some(draft.with_all_evidence(refused));
    }
    let watch = "No action while pods with NVIDIA's handler start. If a pod fails with \"no runtime for\", restart \
                 the container runtime of {node}: the runtime reads its configuration only when it starts.";
    Some(draft.with_severity(Severity::Info).with_action(ActionCode::None, watch))
}

/// Returns whether all GPUs are in MIG mode and have no MIG devices: the plugin has nothing to register.
fn has_only_empty_mig(node: &Node<'_>) -> bool {
    let gpus = node.mig().map(|mig| mig.gpus.as_slice()).unwrap_or_default();
    !gpus.is_empty() && gpus.iter().all(|gpu| gpu.mode.is_some_and(|mode| mode.current) && gpu.devices.is_empty())
}

/// Returns a finding if a device plugin uses a default handler that is not NVIDIA's, and so gets neither the driver
/// libraries nor the devices. A plugin that gets them in another way (for example from a volume of the driver root, as
/// on GKE) registers with the kubelet and is excluded.
fn plugin_runtime(node: &Node<'_>, runtime: &ContainerRuntime) -> Option<Draft> {
    let default = default_of(runtime).filter(|default| runtime.complete && !default.is_nvidia())?;
    let registered = node.kubelet()?.registered.iter().any(|of| of.resource.starts_with("nvidia.com/"));
    // If NVIDIA's runtime is not installed, the plugin gets the driver in another way, or the cause is different.
    let installed = runtime.handlers.iter().any(RuntimeHandler::is_nvidia);
    if !node.advertises_no_gpus() || registered || !installed || has_only_empty_mig(node) {
        return None;
    }
    let now = node.kubernetes.read_at.or(node.now);
    let settled = |created: Option<jiff::Timestamp>| {
        now.zip(created).is_some_and(|(now, created)| now.duration_since(created) > SETTLING)
    };
    let plugin = node.kubernetes.nvidia_pods.iter().flatten().find(|pod| {
        // If the container repeatedly ends, its log contains the reason.
        let crashes =
            pod.containers.iter().any(|one| one.state.kind == ContainerStateKind::Waiting && one.restarts > 0);
        let runs = pod.phase == "Running" && pod.runtime_class.is_none() && !pod.deleting && !crashes;
        pod.component == Component::DevicePlugin && runs && settled(pod.created)
    })?;
    // A plugin that started before the kubelet registered with the earlier process of the kubelet.
    let kubelet = node.host()?.nvidia_stack.as_ref().and_then(|stack| stack.kubelet_started_at);
    let has_run = |since: Option<jiff::Timestamp>| since.zip(kubelet).is_some_and(|(since, kubelet)| since < kubelet);
    if plugin.containers.iter().any(|container| has_run(container.state.since)) {
        return None;
    }
    let draft = Draft::on_node(PLUGIN_RUNTIME).with_severity(Severity::Critical);
    let draft = draft.with_evidence(format!(
        "pod {} sets no RuntimeClass; the default handler is {}",
        pods::name(plugin),
        evidence::data(&default.name)
    ));
    let draft = draft
        .with_evidence(format!("{}; no resource nvidia.com/… is registered with the kubelet", configuration(runtime)));
    Some(draft.with_action(ActionCode::UpdateSoftware, PLUGIN_RUNTIME.advice))
}
