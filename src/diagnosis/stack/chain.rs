//! The links from a GPU on the PCI bus to the scheduler.
//!
//! ```text
//!   PCI ─▶ driver ─▶ runtime ─▶ plugin ─▶ registration ─▶ capacity ─▶ allocatable
//! ```
//!
//! The state of a link is only what was read. A link that fails because of an earlier link is `blocked`, not `broken`.

use super::super::draft::Draft;
use super::super::node::Node;
use super::super::stack_link::{Link, LinkState, StackLink};
use super::super::{Component, NvidiaPod, Severity, quote};
use super::broken::Broken;
use super::offer::{is_offered, is_passed_through, may_be_offered_by_dra, plugin_service};
use super::pods;
use super::rules::{DRIVER_RULES, is_runtime_rule};
use crate::report::Extent;

/// Returns all links of the node, with the first broken one. Empty for a node without GPUs.
pub(super) fn links(node: &Node<'_>, drafts: &[Draft], broken: Option<&Broken<'_>>) -> Vec<StackLink> {
    // Inside a container, the devices and the capacity of the node cannot be compared.
    let limited = node.report.scope.as_ref().is_some_and(|scope| scope.gpus != Extent::Node);
    let nothing = node.host().is_some_and(|host| host.pci_gpus.is_empty()) && node.listed().next().is_none();
    if nothing || limited {
        return Vec::new();
    }
    let mut links = vec![pci(node)];
    if is_passed_through(node) {
        let words = "the GPUs are bound to vfio-pci, for virtual machines";
        links.extend(AFTER_PCI.map(|link| StackLink {
            link,
            state: LinkState::NotApplicable,
            evidence: words.to_owned(),
        }));
        links.iter_mut().skip(2).for_each(|link| link.evidence.clear());
        return links;
    }
    links.extend([
        driver(node, drafts),
        runtime(node, drafts),
        plugin(node),
        registration(node),
        capacity(node),
        allocatable(node),
    ]);
    if let Some(broken) = broken {
        mark(&mut links, broken);
    }
    block_later(&mut links);
    links
}

const AFTER_PCI: [Link; 6] =
    [Link::Driver, Link::Runtime, Link::Plugin, Link::Registration, Link::Capacity, Link::Allocatable];

fn link(link: Link, state: LinkState, evidence: impl Into<String>) -> StackLink {
    StackLink { link, state, evidence: evidence.into() }
}

/// Sets links to broken according to the findings.
fn mark(links: &mut [StackLink], broken: &Broken<'_>) {
    let Some(link) = links.iter_mut().find(|link| link.link == broken.link) else { return };
    link.state = LinkState::Broken;
    if !broken.words.is_empty() {
        link.evidence.clone_from(&broken.words);
    }
}

/// Only the first broken link is a fault.
fn block_later(links: &mut [StackLink]) {
    let broken = links.iter().position(|link| link.state == LinkState::Broken);
    let later = broken.map_or(&mut [][..], |at| links.get_mut(at + 1..).unwrap_or_default());
    for link in later.iter_mut().filter(|link| link.state == LinkState::Broken) {
        link.state = LinkState::Blocked;
    }
}

fn pci(node: &Node<'_>) -> StackLink {
    match (node.host().map(|host| host.pci_gpus.len()), node.answering().count()) {
        (Some(0), _) => link(Link::Pci, LinkState::Broken, "no NVIDIA GPU on the PCI bus"),
        (Some(count), _) => link(Link::Pci, LinkState::Ok, quote::count(count, "GPU")),
        (None, 0) => link(Link::Pci, LinkState::Unknown, ""),
        (None, count) => link(Link::Pci, LinkState::Ok, format!("NVML lists {}", quote::count(count, "GPU"))),
    }
}

fn driver(node: &Node<'_>, drafts: &[Draft]) -> StackLink {
    let found = drafts.iter().find(|draft| is_driver_fault(draft));
    if node.answering().next().is_some() {
        let version = node.inventory().and_then(|inventory| inventory.driver_version.as_deref());
        return link(Link::Driver, LinkState::Ok, version.map(quote::data).unwrap_or_default());
    }
    match found {
        Some(draft) => link(Link::Driver, LinkState::Broken, draft.rule.id),
        None if node.inventory().is_none() => link(Link::Driver, LinkState::Unknown, ""),
        None => link(Link::Driver, LinkState::Broken, "NVML lists no GPU"),
    }
}

fn is_driver_fault(draft: &Draft) -> bool {
    draft.severity >= Severity::Critical && DRIVER_RULES.contains(&draft.rule.id)
}

fn runtime(node: &Node<'_>, drafts: &[Draft]) -> StackLink {
    let fault = |draft: &&Draft| draft.severity >= Severity::Warning && is_runtime_rule(draft.rule.id);
    if let Some(draft) = drafts.iter().find(fault) {
        return link(Link::Runtime, LinkState::Broken, draft.rule.id);
    }
    if let Some(pod) = pods::of(node, Component::ContainerToolkit).find(|pod| pod.ready) {
        return link(Link::Runtime, LinkState::Ok, ready(pod));
    }
    let host = node.host();
    let handler = host
        .and_then(|host| host.container_runtime.as_ref())
        .and_then(|runtime| runtime.handlers.iter().find(|handler| handler.is_nvidia()));
    let cdi = host.and_then(|host| host.cdi.as_ref());
    // A file is no specification because of its name: what was read counts, where the probe reads specifications.
    let spec = match cdi {
        Some(cdi) => cdi.specs.first().map(|spec| spec.path.as_str()),
        None => host.and_then(|host| host.cdi_spec.as_deref()),
    };
    let words = handler
        .map(|handler| format!("handler {}", quote::data(&handler.name)))
        .or_else(|| spec.map(quote::data))
        .or_else(|| host?.container_toolkit.as_deref().map(quote::data));
    let unread = cdi.and_then(|cdi| cdi.unread.first());
    match (words, unread) {
        (Some(words), _) => link(Link::Runtime, LinkState::Ok, words),
        (None, Some(file)) => link(Link::Runtime, LinkState::Unknown, format!("could not read {}", quote::data(file))),
        (None, None) => link(Link::Runtime, LinkState::Unknown, ""),
    }
}

fn plugin(node: &Node<'_>) -> StackLink {
    let components = [Component::DevicePlugin, Component::DraDriver];
    let all: Vec<_> = components.into_iter().flat_map(|component| pods::of(node, component)).collect();
    if let Some(pod) = all.iter().find(|pod| pod.ready) {
        return link(Link::Plugin, LinkState::Ok, ready(pod));
    }
    let service = plugin_service(node).map(|name| format!("process {name} of the node"));
    match (all.first(), service) {
        (_, Some(words)) => link(Link::Plugin, LinkState::Ok, words),
        (Some(pod), None) => link(Link::Plugin, LinkState::Broken, format!("pod {} is not ready", pods::name(pod))),
        // It may be a service of the node; then the later links show that it works.
        (None, None) if is_offered(node) => link(Link::Plugin, LinkState::Ok, "the node advertises its devices"),
        (None, None) if node.cluster.nvidia_pods.is_some() => {
            link(Link::Plugin, LinkState::Broken, "no pod of a device plugin or DRA driver on the node")
        }
        (None, None) => link(Link::Plugin, LinkState::Unknown, ""),
    }
}

fn ready(pod: &NvidiaPod) -> String {
    format!("pod {} is ready", pods::name(pod))
}

fn registration(node: &Node<'_>) -> StackLink {
    if node.cluster.gpu_dra == Some(true) {
        return link(Link::Registration, LinkState::Ok, "a ResourceSlice has the GPUs");
    }
    let registered = registered_devices(node);
    if is_offered(node) {
        let words = registered.filter(|count| *count > 0).map(|count| quote::count(count, "device"));
        return link(Link::Registration, LinkState::Ok, words.unwrap_or_default());
    }
    if may_be_offered_by_dra(node) {
        return link(Link::Registration, LinkState::Unknown, "");
    }
    let sockets = node.host().and_then(|host| host.node_stack.as_ref()).and_then(|stack| stack.plugin_sockets.as_ref());
    let socket = sockets.map(|all| all.iter().any(|socket| socket.name.contains("nvidia")));
    match (socket, registered) {
        (Some(false), _) => {
            link(Link::Registration, LinkState::Broken, "no socket of NVIDIA's plugin in the kubelet's folder")
        }
        (_, Some(0)) => link(Link::Registration, LinkState::Broken, "the kubelet has no device of nvidia.com"),
        // The checkpoint still contains the devices of a plugin that no longer runs.
        _ => link(Link::Registration, LinkState::Unknown, ""),
    }
}

/// Devices of NVIDIA in the kubelet's checkpoint, if it was read. The state of claims alone does not list them.
fn registered_devices(node: &Node<'_>) -> Option<usize> {
    let kubelet = node.kubelet().filter(|kubelet| kubelet.source == "checkpoint")?;
    let of_nvidia = kubelet.registered.iter().filter(|registered| registered.resource.starts_with("nvidia.com/"));
    Some(of_nvidia.map(|registered| registered.devices.len()).sum())
}

fn capacity(node: &Node<'_>) -> StackLink {
    let cluster = node.cluster;
    match (cluster.node.as_ref(), cluster.gpu_capacity) {
        (None, _) => link(Link::Capacity, LinkState::Unknown, ""),
        (_, Some(count)) if count > 0 => link(Link::Capacity, LinkState::Ok, count.to_string()),
        _ if is_offered(node) => link(Link::Capacity, LinkState::Ok, offered_otherwise(node)),
        _ if may_be_offered_by_dra(node) => link(Link::Capacity, LinkState::Unknown, ""),
        (_, Some(_)) => link(Link::Capacity, LinkState::Broken, "0"),
        (_, None) => link(Link::Capacity, LinkState::Broken, "no such resource"),
    }
}

fn offered_otherwise(node: &Node<'_>) -> &'static str {
    match node.cluster.gpu_dra {
        Some(true) => "by dynamic resource allocation",
        _ => "under other resource names",
    }
}

fn allocatable(node: &Node<'_>) -> StackLink {
    let cluster = node.cluster;
    match (cluster.gpu_capacity.filter(|count| *count > 0), cluster.gpu_allocatable) {
        (Some(capacity), Some(count)) if count < capacity => {
            link(Link::Allocatable, LinkState::Broken, format!("{count} of {capacity}"))
        }
        (Some(_), Some(count)) => link(Link::Allocatable, LinkState::Ok, count.to_string()),
        (None, _) if cluster.node.is_none() => link(Link::Allocatable, LinkState::Unknown, ""),
        (None, _) if is_offered(node) => link(Link::Allocatable, LinkState::Ok, ""),
        (None, _) if may_be_offered_by_dra(node) => link(Link::Allocatable, LinkState::Unknown, ""),
        (None, _) => link(Link::Allocatable, LinkState::Broken, "0"),
        (Some(_), None) => link(Link::Allocatable, LinkState::Unknown, ""),
    }
}
