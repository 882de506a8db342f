//! Rules that compare Kubernetes data about a node with its report: GPU counts, labels, allocations, missing
//! components, restarts, device plugin.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::evidence;
use crate::input::layers::{Layer, things};
use crate::input::node::Node;
use crate::input::stack::pods;
use crate::rule::{Draft, OPERATOR_DOC, PLUGIN_DOC, Unread, rules};
use syringe_core::facts::kubelet::RegisteredDevices;
use syringe_core::facts::kubernetes::node::{Component, NvidiaContainer, NvidiaPod};
use syringe_core::gpu_names::count_without_shares;
use syringe_core::section_name::SectionName;
use syringe_core::unknown::Unknown;

rules! {
    about Unavailable;
    COUNTS_DIFFER: "gpu-counts-differ" Warning Driver PLUGIN_DOC, "Numbers of GPUs in the kubelet and in the API differ",
        UpdateSoftware "Restart the NVIDIA device plugin on {node}, and the kubelet if the numbers still differ.",
        means "The number of devices that device plugins registered with the kubelet differs from capacity or allocatable of the \
            node.",
        reads "kubelet.registered, kubernetes.gpu_capacity, kubernetes.gpu_allocatable", depth 3;
    LABEL_DIFFERS: "gpu-label-differs" Info Driver OPERATOR_DOC, "The label with the number of GPUs is wrong or missing",
        Watch "Read the log of GPU feature discovery on {node}. GPU feature discovery writes the labels every minute.",
        means "The label nvidia.com/gpu.count differs from the number of GPUs in NVML, or feature discovery is running but did not write this label.",
        reads "kubernetes.gpu_label_count, kubernetes.nvidia_pods, inventory.gpus";
    COMPONENT_MISSING: "stack-component-missing" Info Driver OPERATOR_DOC, "A component that the labels request has no pod on the node",
        Watch "No action if the component is disabled in the GPU Operator. Otherwise check why its DaemonSet has no pod on {node}: \
            taints, node selector, quota, a paused upgrade (`kubectl get daemonsets --all-namespaces`).",
        means "The GPU Operator labelled the node for a component, but no pod of this component is on the node.",
        reads "kubernetes.labels, kubernetes.nvidia_pods";
    REQUEST_DIFFERS: "pod-devices-differ-from-request" Warning Driver PLUGIN_DOC,
        "A container has a different number of devices than it requests",
        Watch "Compare `kubectl get pod -o yaml` with the allocations of the kubelet on {node}: one of the two is out of date.",
        means "The number of devices that the kubelet allocated to a container differs from the number that the \
            container requests.",
        reads "kubelet.allocations, kubernetes.gpu_pods";
    RESOURCE_UNKNOWN: "allocated-resource-not-registered" Warning Driver PLUGIN_DOC,
        "A container has devices of a resource that no plugin registers",
        Watch "Check whether the configuration of the device plugin on {node} was changed (MIG strategy, renamed resources) while \
            pods used the old resource.",
        means "The kubelet allocated devices of a resource to a container, but no device plugin registers this resource.",
        reads "kubelet.allocations, kubelet.registered";
    TWICE: "gpus-offered-twice" Warning Driver PLUGIN_DOC, "A device plugin and a DRA driver both advertise the GPUs",
        UpdateSoftware "Disable either the device plugin or the DRA driver on {node}. They do not know the \
            allocations of each other, so both can allocate the same GPU.",
        means "GPUs are in the capacity of the node and in ResourceSlices, so that two pods can get the same GPU.",
        reads "kubernetes.gpu_dra, kubernetes.dra_devices, kubernetes.gpu_capacity, kubelet.registered";
    RESTARTS: "stack-component-restarts" Info Driver PLUGIN_DOC, "A container of NVIDIA's software restarts repeatedly",
        Watch "Read the log of the container before its last restart (`kubectl logs --previous`) on {node}.",
        means "A container of NVIDIA's software is ready now, and was restarted many times, the last time less than a day ago.",
        reads "kubernetes.nvidia_pods";
    PLUGIN_GONE: "device-plugin-gone" Warning Driver PLUGIN_DOC, "Devices are registered, but no device plugin is connected",
        UpdateSoftware "Restart the NVIDIA device plugin on {node}: the kubelet has no socket of the plugin any more.",
        means "The kubelet lists registered devices, and its folder of device plugins has no socket of a plugin.",
        reads "kubelet.registered, host.nvidia_stack";
}

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    if node.answering().next().is_none() || node.driver.is_broken() {
        return drafts;
    }
    let of = |rule, lines: Vec<String>| (!lines.is_empty()).then(|| Draft::on_node(rule).with_all_evidence(lines));
    drafts.extend(of(COUNTS_DIFFER, counts(node)));
    drafts.extend(of(LABEL_DIFFERS, label(node)));
    drafts.extend(of(COMPONENT_MISSING, components(node)));
    drafts.extend(of(REQUEST_DIFFERS, requests(node)));
    drafts.extend(of(RESOURCE_UNKNOWN, resources(node)));
    drafts.extend(of(PLUGIN_GONE, plugin(node)));
    drafts.extend(of(TWICE, offered_twice(node)));
    drafts.extend(of(RESTARTS, restarts(node)));
    drafts
}

/// Resource of whole GPUs.
const GPU: &str = "nvidia.com/gpu";

/// Maximum number of replicas of a GPU. No device plugin is configured with more replicas.
const REPLICAS: u32 = 1024;

/// Compares the registered devices with capacity and allocatable, if whole GPUs are the only resource.
fn counts(node: &Node<'_>) -> Vec<String> {
    let cluster = node.kubernetes;
    let Some(registered) =
        things(node, Layer::Registered).and_then(|_| node.kubelet()).map(|kubelet| &kubelet.registered)
    else {
        return Vec::new();
    };
    let Some(whole) = registered.iter().find(|registered| registered.resource == GPU) else { return Vec::new() };
    if node.offers_other_resources() || !pods::is_settled(node) {
        return Vec::new();
    }
    // GKE's device plugin registers each share as a device. The capacity that was read is without shares.
    let count = count_without_shares(&whole.devices);
    // If the capacity is a multiple of the devices, each GPU is advertised several times, as replicas.
    let is_multiple = |number: Option<u32>| {
        number.is_some_and(|number| number > count && count > 0 && number % count == 0 && number / count <= REPLICAS)
    };
    if is_multiple(cluster.gpu_allocatable) || is_multiple(cluster.gpu_capacity) {
        return Vec::new();
    }
    let mut lines = Vec::new();
    // The capacity includes the devices that a plugin marks as unhealthy, but the checkpoint does not list these
    // devices.
    if let Some(capacity) = cluster.gpu_capacity.filter(|capacity| *capacity < count) {
        lines.push(format!("{count} devices are registered, but the capacity is {capacity}"));
    }
    if let Some(allocatable) = cluster.gpu_allocatable.filter(|allocatable| *allocatable != count) {
        lines.push(format!("{count} devices are registered, but {allocatable} are allocatable"));
    }
    if let Some((allocatable, capacity)) =
        cluster.gpu_allocatable.zip(cluster.gpu_capacity).filter(|(less, more)| less > more)
    {
        lines.push(format!("{allocatable} devices are allocatable, but the capacity is {capacity}"));
    }
    lines
}

/// Returns an entry if the capacity of the node includes GPUs, but no plugin has registered GPUs.
pub(super) fn unread(node: &Node<'_>) -> Vec<Unread> {
    let cluster = node.kubernetes;
    // A DRA driver registers no devices.
    let capacity = cluster.gpu_capacity.filter(|capacity| *capacity > 0 && cluster.gpu_dra != Some(true));
    let none = things(node, Layer::Registered).is_some()
        && node.kubelet().is_some_and(|kubelet| !kubelet.registered.iter().any(RegisteredDevices::are_whole_gpus));
    let shares = node.offers_other_resources() || !pods::is_settled(node);
    let why = capacity.filter(|_| none && !shares).map(|capacity| {
        format!("the capacity of {GPU} is {capacity}, but the kubelet's checkpoint lists no such device")
    });
    why.into_iter().map(|why| Unread { fact: Unknown::new(SectionName::Kubelet, why), decides: false }).collect()
}

/// Compares the label of feature discovery with the GPUs in NVML.
fn label(node: &Node<'_>) -> Vec<String> {
    let Some(gpus) = things(node, Layer::Nvml).map(|gpus| u32::try_from(gpus.len()).unwrap_or(u32::MAX)) else {
        return Vec::new();
    };
    let discovery =
        pods::of(node, Component::FeatureDiscovery).any(|pod| pod.ready && pods::is_older(node, pod.created));
    // Feature discovery counts the GPUs of one model.
    let names: std::collections::BTreeSet<_> = node.answering().map(|gpu| &gpu.name).collect();
    if names.len() > 1 || node.offers_other_resources() {
        return Vec::new();
    }
    match node.kubernetes.gpu_label_count {
        Some(count) if count < gpus => vec![format!("label nvidia.com/gpu.count is {count}, but NVML lists {gpus}")],
        None if discovery && node.kubernetes.labels.feature_discovery => {
            vec!["feature discovery is running, but the node has no label nvidia.com/gpu.count".to_owned()]
        }
        _ => Vec::new(),
    }
}

/// Labels of the GPU Operator, and the component that each label requests.
const DEPLOYED: &[(&str, Component)] = &[
    ("driver", Component::Driver),
    ("container-toolkit", Component::ContainerToolkit),
    ("device-plugin", Component::DevicePlugin),
    ("gpu-feature-discovery", Component::FeatureDiscovery),
    ("operator-validator", Component::Validator),
    ("dcgm-exporter", Component::Monitoring),
    ("mig-manager", Component::MigManager),
];

fn components(node: &Node<'_>) -> Vec<String> {
    let (cluster, now) = (node.kubernetes, pods::is_settled(node));
    // The DaemonSets themselves show which components should be on the node.
    if cluster.nvidia_pods.is_none() || cluster.daemon_sets.is_some() || !now {
        return Vec::new();
    }
    // A component that the cluster does not use has no pod on any node. Therefore the check requires two other
    // components on this node.
    let has = |component| pods::of(node, component).next().is_some();
    let others = DEPLOYED.iter().filter(|(_, component)| has(*component)).count();
    let missing = DEPLOYED.iter().filter(|(label, component)| {
        let asked = cluster.labels.deploy.get(*label).is_some_and(|value| value == "true");
        asked && !has(*component)
    });
    // The GPU Operator does not deploy a driver or toolkit that the host already has, although the label is set.
    let of_host =
        |component| matches!(component, Component::Driver | Component::ContainerToolkit | Component::MigManager);
    let missing: Vec<&str> = missing.filter(|(_, component)| !of_host(*component)).map(|(label, _)| *label).collect();
    if others < 2 {
        return Vec::new();
    }
    missing
        .into_iter()
        .map(|label| format!("label nvidia.com/gpu.deploy.{label}=true, but the node has no pod of this component"))
        .collect()
}

/// Compares the requests of the containers with the devices that the kubelet allocated to them.
fn requests(node: &Node<'_>) -> Vec<String> {
    let (Some(kubelet), Some(pods)) = (node.kubelet(), &node.kubernetes.gpu_pods) else { return Vec::new() };
    if things(node, Layer::Allocated).is_none() {
        return Vec::new();
    }
    let mut lines = Vec::new();
    for pod in pods.iter().filter(|pod| pod.phase == "Running" && !pod.deleting && !pod.has_annotated_gpus) {
        for container in &pod.containers {
            let own = kubelet.allocations.iter().filter(|allocation| {
                allocation.claim.is_none()
                    && allocation.container == container.name
                    && allocation.is_of(&pod.uid, &pod.namespace, &pod.name)
            });
            let mut allocated: BTreeMap<&str, u64> = BTreeMap::new();
            for allocation in own {
                let count = allocation.replicas.map_or(allocation.devices.len() as u64, u64::from);
                *allocated.entry(allocation.resource.as_str()).or_default() += count;
            }
            // The rule `pod-gpu-not-allocated` is about a container without any device.
            // Other resources, such as network cards, are not in the facts of the pod.
            allocated.retain(|resource, _| *resource == GPU || resource.starts_with("nvidia.com/mig-"));
            for (resource, count) in allocated {
                let requested = container.requests.get(resource).copied().unwrap_or(0);
                if requested != count {
                    let name = evidence::data(&pod.full_name());
                    lines.push(format!(
                        "pod {name}, container {}: {requested} {} requested, {count} allocated",
                        evidence::data(&container.name),
                        evidence::data(resource)
                    ));
                }
            }
        }
    }
    lines.truncate(4);
    lines
}

/// Compares the resources of the allocations with the registered resources.
fn resources(node: &Node<'_>) -> Vec<String> {
    let (Some(kubelet), Some(_)) = (node.kubelet(), things(node, Layer::Allocated)) else { return Vec::new() };
    if kubelet.registered.is_empty() {
        return Vec::new();
    }
    let is_registered = |resource: &str| kubelet.registered.iter().any(|registered| registered.resource == resource);
    let of_gpus = |resource: &str| resource == GPU || resource.starts_with("nvidia.com/mig-");
    let unknown = kubelet
        .allocations
        .iter()
        .filter(|one| one.claim.is_none() && of_gpus(&one.resource) && !is_registered(&one.resource));
    let mut lines: Vec<String> = unknown
        .map(|one| format!("{}, allocated to pod {}", evidence::data(&one.resource), evidence::data(&one.holder())))
        .collect();
    lines.truncate(4);
    lines
}

/// Finds GPUs that both the device plugin and a DRA driver advertise.
fn offered_twice(node: &Node<'_>) -> Vec<String> {
    let registered = node.kubelet().into_iter().flat_map(|kubelet| &kubelet.registered);
    let devices = registered.filter(|of| of.resource == GPU).map(|of| of.devices.len()).sum::<usize>();
    let capacity = node.kubernetes.gpu_capacity.filter(|capacity| *capacity > 0 && devices > 0);
    let (Some(true), Some(capacity)) = (node.kubernetes.gpu_dra, capacity) else { return Vec::new() };
    // The two can divide the GPUs of the node between them.
    let names = |layer| -> Option<Vec<String>> {
        Some(things(node, layer)?.into_iter().flat_map(|thing| thing.names).collect())
    };
    let shared = names(Layer::Registered).zip(names(Layer::Published)).filter(|(_, published)| !published.is_empty());
    let shared =
        shared.map(|(registered, published)| registered.iter().filter(|name| published.contains(name)).count());
    match shared {
        Some(0) => Vec::new(),
        Some(count) => {
            vec![format!(
                "capacity {capacity} of {GPU}, and the ResourceSlices of a DRA driver have {count} of the same devices"
            )]
        }
        None => vec![format!("capacity {capacity} of {GPU}, and ResourceSlices of a DRA driver have GPUs of the node")],
    }
}

/// Minimum number of restarts for a finding. Reboots and updates alone do not cause this many restarts.
const MANY_RESTARTS: u32 = 10;

/// Finds containers that were restarted many times, and recently.
fn restarts(node: &Node<'_>) -> Vec<String> {
    let age = |since: Option<Timestamp>| pods::now(node).zip(since).map(|(now, since)| now.duration_since(since));
    let recent = |since| age(since).is_some_and(|age| !age.is_negative() && age < SignedDuration::from_hours(24));
    let pods = node.kubernetes.nvidia_pods.iter().flatten().filter(|pod| pod.ready && !pod.deleting);
    let lines = pods.flat_map(|pod| {
        let many = |container: &&NvidiaContainer| {
            container.restarts >= MANY_RESTARTS && container.last.as_ref().is_some_and(|last| recent(last.since))
        };
        pod.containers.iter().filter(many).map(|container| {
            format!(
                "pod {}, container {}: {} restarts{}",
                pods::name(pod),
                evidence::data(&container.name),
                container.restarts,
                pods::last_end(container)
            )
        })
    });
    lines.take(4).collect()
}

/// Returns whether a device plugin has been ready for long, and all devices are allocatable. The kubelet withdraws the
/// devices of a plugin that is gone, so it uses another folder than the one that was read.
fn all_are_offered(node: &Node<'_>) -> bool {
    let cluster = node.kubernetes;
    let is_old = |pod: &NvidiaPod| {
        pod.ready
            && !pod.containers.is_empty()
            && pod.containers.iter().all(|one| is_settled_since(node, one.state.since))
    };
    cluster.gpu_capacity.is_some_and(|count| count > 0)
        && cluster.gpu_capacity == cluster.gpu_allocatable
        && pods::of(node, Component::DevicePlugin).any(is_old)
}

/// Time after which the kubelet has withdrawn the devices of a plugin that is gone.
const WITHDRAWN_AFTER: SignedDuration = SignedDuration::from_mins(10);

fn is_settled_since(node: &Node<'_>, since: Option<Timestamp>) -> bool {
    pods::now(node).zip(since).is_some_and(|(now, since)| now.duration_since(since) > WITHDRAWN_AFTER)
}

/// Finds registered devices without a socket of a plugin.
fn plugin(node: &Node<'_>) -> Vec<String> {
    let sockets = node.host().and_then(|host| host.nvidia_stack.as_ref()?.plugin_sockets.as_ref());
    let registered = things(node, Layer::Registered).map_or(0, |devices| devices.len());
    // If the cluster has no device plugin, the kubelet lists the devices of an earlier plugin.
    if registered == 0
        || !node.stack.advertises_gpus
        || sockets.is_none_or(|sockets| !sockets.is_empty())
        || all_are_offered(node)
        || !pods::is_settled(node)
    {
        return Vec::new();
    }
    vec![format!("the kubelet lists {registered} devices, and its folder of device plugins has no socket")]
}
