//! `list`: the state of each stage between the PCI bus and the scheduler.
//! `doubts`: the stages that are not known to work.
//!
//! ```text
//!   PCI ─▶ driver ─▶ runtime ─▶ plugin ─▶ registration ─▶ capacity ─▶ allocatable
//! ```
//!
//! The state of a stage depends only on facts that were read. If a stage fails because of an earlier stage, it is
//! `blocked`, not `broken`.

use crate::evidence;
use crate::input::boards;
use crate::input::node::Node;
use crate::input::processes::is_service;
use crate::input::stack::{Broken, plugin_service, pods};
use crate::rule::{About, Draft};
use crate::stack_stage::{StackStage, Stage, StageState};
use syringe_core::classification::Severity;
use syringe_core::facts::kubernetes::node::{Component, NvidiaPod};
use syringe_core::section_name::SectionName;
use syringe_core::unknown::Unknown;

/// Returns all stages of the node. Empty for a node without GPUs.
pub(crate) fn list(node: &Node<'_>, drafts: &[Draft]) -> Vec<StackStage> {
    // In a container, the devices of the probe cannot be compared with the capacity of the node.
    let limited = !node.shows_gpus_of_node();
    let nothing = node.host().is_some_and(|host| host.pci_gpus.is_empty()) && node.listed().next().is_none();
    if nothing || limited || node.shows_no_gpu() {
        return Vec::new();
    }
    let mut stages = vec![pci(node)];
    if node.is_passed_through() {
        let words = "the GPUs are bound to vfio-pci, for virtual machines";
        stages.extend(AFTER_PCI.map(|stage| StackStage {
            stage,
            state: StageState::NotApplicable,
            evidence: words.to_owned(),
        }));
        stages.iter_mut().skip(2).for_each(|stage| stage.evidence.clear());
        return stages;
    }
    stages.extend([
        driver(node, drafts),
        runtime(node, drafts),
        plugin(node),
        registration(node),
        capacity(node),
        allocatable(node),
    ]);
    if let Some(broken) = node.stack.broken.as_ref().filter(|_| !node.stack.advertises_gpus) {
        mark(&mut stages, broken);
    }
    block_later(&mut stages);
    stages
}

/// Returns the stages that are not known to work, if the Kubernetes data about the node was read. A node with such a
/// stage is not healthy.
pub(crate) fn doubts(node: &Node<'_>, stages: &[StackStage]) -> Vec<Unknown> {
    let cluster = node.kubernetes;
    let unused = cluster.gpu_plugin_in_cluster == Some(false) && cluster.gpu_capacity.is_none();
    if cluster.node.is_none() || unused || !node.stack.is_settled {
        return Vec::new();
    }
    let doubt = |stage: &StackStage| {
        let state = match stage.state {
            StageState::Broken => "is broken",
            StageState::Unknown if !stage.evidence.is_empty() => "is not known to work",
            StageState::Unknown | StageState::Ok | StageState::Blocked | StageState::NotApplicable => return None,
        };
        let name = format!("{:?}", stage.stage).to_lowercase();
        let why = format!("the stage {name}, between the GPUs and the pods, {state}: {}", stage.evidence);
        Some(Unknown::new(SectionName::Host, why))
    };
    stages.iter().filter_map(doubt).collect()
}

const AFTER_PCI: [Stage; 6] =
    [Stage::Driver, Stage::Runtime, Stage::Plugin, Stage::Registration, Stage::Capacity, Stage::Allocatable];

fn stage(stage: Stage, state: StageState, evidence: impl Into<String>) -> StackStage {
    StackStage { stage, state, evidence: evidence.into() }
}

/// Sets the state of a stage to broken if its component does not work.
fn mark(stages: &mut [StackStage], broken: &Broken<'_>) {
    let Some(stage) = stages.iter_mut().find(|stage| stage.stage == broken.stage) else { return };
    stage.state = StageState::Broken;
    stage.evidence.clone_from(&broken.description);
}

/// Sets the stages after the first broken stage to blocked, because only the first broken stage is a fault.
fn block_later(stages: &mut [StackStage]) {
    let broken = stages.iter().position(|stage| stage.state == StageState::Broken);
    let later = broken.map_or(&mut [][..], |at| stages.get_mut(at + 1..).unwrap_or_default());
    for stage in later.iter_mut().filter(|stage| stage.state == StageState::Broken) {
        stage.state = StageState::Blocked;
    }
}

fn pci(node: &Node<'_>) -> StackStage {
    let listed = node.host().filter(|_| !node.is_pci_unread());
    match (listed.map(|host| host.pci_gpus.len()), node.answering().count()) {
        (Some(0), count) if boards::is_integrated(node) => {
            stage(Stage::Pci, StageState::Ok, format!("{}, integrated", evidence::count(count, "GPU")))
        }
        (Some(0), _) => stage(Stage::Pci, StageState::Broken, "no NVIDIA GPU on the PCI bus"),
        (Some(count), _) => stage(Stage::Pci, StageState::Ok, evidence::count(count, "GPU")),
        (None, 0) => stage(Stage::Pci, StageState::Unknown, ""),
        (None, count) => stage(Stage::Pci, StageState::Ok, format!("NVML lists {}", evidence::count(count, "GPU"))),
    }
}

fn driver(node: &Node<'_>, drafts: &[Draft]) -> StackStage {
    let found = drafts.iter().find(|draft| draft.severity >= Severity::Critical && draft.rule.about.is_driver());
    if node.answering().next().is_some() {
        let version = node.inventory().and_then(|inventory| inventory.driver_version.as_deref());
        return stage(Stage::Driver, StageState::Ok, version.map(evidence::data).unwrap_or_default());
    }
    match found {
        Some(draft) => stage(Stage::Driver, StageState::Broken, draft.rule.id),
        None if node.inventory().is_none() => stage(Stage::Driver, StageState::Unknown, ""),
        None => stage(Stage::Driver, StageState::Broken, "NVML lists no GPU"),
    }
}

fn runtime(node: &Node<'_>, drafts: &[Draft]) -> StackStage {
    let fault = |draft: &&Draft| draft.severity >= Severity::Warning && draft.rule.about == About::ContainerRuntime;
    if let Some(draft) = drafts.iter().find(fault) {
        return stage(Stage::Runtime, StageState::Broken, draft.rule.id);
    }
    if let Some(pod) = pods::of(node, Component::ContainerToolkit).find(|pod| pod.ready) {
        return stage(Stage::Runtime, StageState::Ok, ready(pod));
    }
    let host = node.host();
    let handler = host.and_then(|host| host.container_runtime.as_ref()).and_then(|runtime| {
        runtime.handlers.iter().find(|handler| handler.is_nvidia() && handler.binary_exists != Some(false))
    });
    let cdi = host.and_then(|host| host.cdi.as_ref());
    // A file name alone does not show that the file is a valid specification. If the probe reads specifications, only
    // the specifications that it read are used.
    let spec = match cdi {
        Some(cdi) => cdi.specs.first().map(|spec| spec.path.as_str()),
        None => host.and_then(|host| host.cdi_spec.as_deref()),
    };
    let words = handler
        .map(|handler| format!("handler {}", evidence::data(&handler.name)))
        .or_else(|| spec.map(evidence::data));
    if let Some(words) = words {
        return stage(Stage::Runtime, StageState::Ok, words);
    }
    if node.kubernetes.gpu_dra == Some(true) {
        let words = "the driver of dynamic resource allocation writes a CDI specification for each claim";
        return stage(Stage::Runtime, StageState::Ok, words);
    }
    if let Some(file) = cdi.and_then(|cdi| cdi.unread.first()) {
        return stage(Stage::Runtime, StageState::Unknown, format!("could not read {}", evidence::data(file)));
    }
    // A running container with a GPU shows that the runtime can start such containers, even without a known
    // configuration.
    let processes = node.processes().into_iter().flat_map(|section| &section.processes);
    let mut in_pods =
        processes.filter(|process| process.pod_uid.is_some() && !process.uses.is_empty() && !is_service(process));
    if let Some(process) = in_pods.next() {
        let words = format!("{} of a pod uses a GPU", evidence::process(process));
        return stage(Stage::Runtime, StageState::Ok, words);
    }
    // The installed program is not enough: the runtime also needs a handler that names the program, or a CDI
    // specification.
    let program = host.and_then(|host| host.container_toolkit.as_deref()).map(|program| {
        format!("{} is installed, but no handler and no CDI specification was found", evidence::data(program))
    });
    stage(Stage::Runtime, StageState::Unknown, program.unwrap_or_default())
}

fn plugin(node: &Node<'_>) -> StackStage {
    let components = [Component::DevicePlugin, Component::DraDriver];
    let all: Vec<_> = components.into_iter().flat_map(|component| pods::of(node, component)).collect();
    if let Some(pod) = all.iter().find(|pod| pod.ready) {
        return stage(Stage::Plugin, StageState::Ok, ready(pod));
    }
    let service = plugin_service(node).map(|name| format!("process {name} of the node"));
    match (all.first(), service) {
        (_, Some(words)) => stage(Stage::Plugin, StageState::Ok, words),
        (Some(pod), None) => stage(Stage::Plugin, StageState::Broken, format!("pod {} is not ready", pods::name(pod))),
        // The plugin may be a service of the node. The later stages then show that it works.
        (None, None) if node.stack.advertises_gpus => {
            stage(Stage::Plugin, StageState::Ok, "the node advertises its devices")
        }
        (None, None) if node.kubernetes.nvidia_pods.is_some() => {
            stage(Stage::Plugin, StageState::Broken, "no pod of a device plugin or DRA driver on the node")
        }
        (None, None) => stage(Stage::Plugin, StageState::Unknown, ""),
    }
}

fn ready(pod: &NvidiaPod) -> String {
    format!("pod {} is ready", pods::name(pod))
}

fn registration(node: &Node<'_>) -> StackStage {
    if node.kubernetes.gpu_dra == Some(true) {
        return stage(Stage::Registration, StageState::Ok, "a ResourceSlice lists the GPUs");
    }
    let registered = registered_devices(node);
    if node.stack.advertises_gpus {
        let words = registered.filter(|count| *count > 0).map(|count| evidence::count(count, "device"));
        return stage(Stage::Registration, StageState::Ok, words.unwrap_or_default());
    }
    if node.stack.may_advertise_by_dra {
        return stage(Stage::Registration, StageState::Unknown, "");
    }
    let sockets =
        node.host().and_then(|host| host.nvidia_stack.as_ref()).and_then(|stack| stack.plugin_sockets.as_ref());
    let socket = sockets.map(|all| all.iter().any(|socket| socket.name.contains("nvidia")));
    match (socket, registered) {
        (Some(false), _) => {
            stage(Stage::Registration, StageState::Broken, "no socket of NVIDIA's plugin in the kubelet's folder")
        }
        (_, Some(0)) => stage(Stage::Registration, StageState::Broken, "the kubelet has no device of nvidia.com"),
        // The checkpoint still contains the devices of a plugin that is no longer running.
        _ => stage(Stage::Registration, StageState::Unknown, ""),
    }
}

/// Returns the number of NVIDIA devices in the kubelet's checkpoint, if the checkpoint was read. The kubelet's file
/// about claims does not list registered devices.
fn registered_devices(node: &Node<'_>) -> Option<usize> {
    let kubelet = node.kubelet().filter(|kubelet| kubelet.source == "checkpoint")?;
    let of_nvidia = kubelet.registered.iter().filter(|registered| registered.resource.starts_with("nvidia.com/"));
    Some(of_nvidia.map(|registered| registered.devices.len()).sum())
}

fn capacity(node: &Node<'_>) -> StackStage {
    let cluster = node.kubernetes;
    match (cluster.node.as_ref(), cluster.gpu_capacity) {
        (None, _) => stage(Stage::Capacity, StageState::Unknown, ""),
        (_, Some(count)) if count > 0 => stage(Stage::Capacity, StageState::Ok, count.to_string()),
        _ if node.stack.advertises_gpus => stage(Stage::Capacity, StageState::Ok, advertised_otherwise(node)),
        _ if node.stack.may_advertise_by_dra => stage(Stage::Capacity, StageState::Unknown, ""),
        (_, Some(_)) => stage(Stage::Capacity, StageState::Broken, "0"),
        (_, None) => stage(Stage::Capacity, StageState::Broken, "no such resource"),
    }
}

fn advertised_otherwise(node: &Node<'_>) -> &'static str {
    match node.kubernetes.gpu_dra {
        Some(true) => "by dynamic resource allocation",
        _ => "under other resource names",
    }
}

fn allocatable(node: &Node<'_>) -> StackStage {
    let cluster = node.kubernetes;
    match (cluster.gpu_capacity.filter(|count| *count > 0), cluster.gpu_allocatable) {
        (Some(capacity), Some(count)) if count < capacity => {
            stage(Stage::Allocatable, StageState::Broken, format!("{count} of {capacity}"))
        }
        (Some(_), Some(count)) => stage(Stage::Allocatable, StageState::Ok, count.to_string()),
        (None, _) if cluster.node.is_none() => stage(Stage::Allocatable, StageState::Unknown, ""),
        (None, _) if node.stack.advertises_gpus => stage(Stage::Allocatable, StageState::Ok, ""),
        (None, _) if node.stack.may_advertise_by_dra => stage(Stage::Allocatable, StageState::Unknown, ""),
        (None, _) => stage(Stage::Allocatable, StageState::Broken, "0"),
        (Some(_), None) => stage(Stage::Allocatable, StageState::Unknown, ""),
    }
}
