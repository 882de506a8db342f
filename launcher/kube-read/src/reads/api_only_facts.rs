//! `read`: reads facts about a node and its GPUs from the Kubernetes API only (`ApiOnlyFacts`, in `Unprobed`), if no
//! probe can run. `needs_optional_permission`: whether data is missing because of a permission that most users lack.
//!
//! Sources: the Node object with its conditions and labels, its Lease, its events, the pods on it, the health of their
//! devices from device plugins, and the object that provides its machine. gpu-syringe reads none of this from the
//! hardware.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use schemars::JsonSchema;
use serde::Serialize;
use syringe_core::facts::kubernetes::node::StartingPod;
use syringe_core::text::clean;
use syringe_macros::omit;
use tokio::time::timeout;

use crate::Failure;
use crate::client::api_error::silent;
use crate::client::connection::Connection;
use crate::client::lists::Freshness;
use crate::objects::gpu_pod::{Pod, PodMetadata};
use crate::objects::gpu_resource_names::gpu_resources;
use crate::objects::node_conditions::{gpu_conditions, unhealthy_conditions, why_not_ready};
use crate::objects::node_facts;
use crate::objects::node_labels::gpu_labels;
use crate::reads::events::NodeEvent;
use crate::reads::existing_pods::ExistingPods;
use crate::reads::node_lifecycle::{self, Lifecycle};
use crate::reads::pods;

/// Time limit for one list, because an answer without a probe should be fast.
const LIST_TIME: Duration = Duration::from_secs(5);
/// Maximum number of events, and of devices, in one answer.
const MAX_ENTRIES: usize = 20;
/// Maximum length of the text of a condition, and of a device name.
const MAX_TEXT: usize = 200;

/// Facts about a node's GPUs from the Kubernetes API.
#[omit(Vec, Option, labels)]
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct ApiOnlyFacts {
    /// GPU resources that the node has.
    pub capacity: BTreeMap<String, u64>,
    /// Allocatable GPU resources.
    pub allocatable: BTreeMap<String, u64>,
    /// Labels of GPU Feature Discovery, under their full names.
    pub labels: BTreeMap<String, String>,
    /// Conditions that are not in their healthy state, from the kubelet, NVSentinel or node-problem-detector.
    pub conditions: Vec<String>,
    /// Taints, `key=value:effect`.
    pub taints: Vec<String>,
    /// Time at which the kubelet last renewed the Lease of the node. A running kubelet renews it every 10 seconds.
    pub lease_renewed: Option<Timestamp>,
    /// The NodeClaims (Karpenter) and Machines (Cluster API, OpenShift) of the node, with conditions that are not `True`.
    pub machines: Vec<String>,
    /// Pods of the node that do not start, with the messages of the kubelet.
    pub pods_not_starting: Vec<String>,
    /// Allocated devices that their device plugin reports as unhealthy.
    pub unhealthy_devices: Vec<String>,
    /// Warnings about the node, its machine and the autoscaler, and events about GPUs, newest first.
    pub events: Vec<String>,
    /// Facts that could not be read, with the reason.
    pub not_read: Vec<String>,
}

impl ApiOnlyFacts {
    /// Returns the facts as lines of text.
    pub fn lines(&self) -> Vec<String> {
        let Self { capacity, allocatable, labels, conditions, taints, unhealthy_devices, events, not_read, .. } = self;
        let Self { machines, pods_not_starting, lease_renewed, .. } = self;
        let mut lines = Vec::new();
        for (name, count) in capacity {
            lines.push(format!("{name}: {count}, allocatable {}", allocatable.get(name).copied().unwrap_or(0)));
        }
        let product = labels.get("nvidia.com/gpu.product").zip(labels.get("nvidia.com/gpu.memory"));
        lines.extend(product.map(|(product, memory)| format!("{product}, {memory} MiB each (labels)")));
        lines.extend(conditions.iter().cloned());
        lines.extend((!taints.is_empty()).then(|| format!("taints {}", taints.join(", "))));
        lines.extend(lease_renewed.map(|time| format!("the kubelet last renewed its Lease at {time}")));
        for list in [machines, pods_not_starting, unhealthy_devices, events] {
            lines.extend(list.iter().cloned());
        }
        let not_read = not_read.iter().filter(|what| !needs_optional_permission(what));
        lines.extend(not_read.map(|what| format!("not read: {what}")));
        lines
    }
}

/// Returns whether data was not read because the user has no permission for `nodes/proxy`. Most users lack it, and
/// gpu-syringe never requests it, so this is not shown to people.
pub fn needs_optional_permission(why: &str) -> bool {
    why.contains("\"nodes/proxy\"")
}

/// The facts of a node without a probe, for the answer and for the rules.
pub struct Unprobed {
    pub facts: ApiOnlyFacts,
    pub lifecycle: Lifecycle,
    /// The pods on the node, or the failure to list them.
    pub existing_pods: Result<ExistingPods, Failure>,
}

/// Reads the facts within `time`. Facts that cannot be read are listed in `not_read`. This function does not fail.
pub async fn read(connection: &Connection, node: &Node, time: Duration) -> Unprobed {
    let name = node.name_any();
    let status = node.status.as_ref();
    let amounts = |list: Option<&BTreeMap<_, _>>| list.map(gpu_resources).unwrap_or_default();
    let others = unhealthy_conditions(node).into_iter().filter(|condition| condition.name != "Ready");
    let others = others.map(|condition| node_lifecycle::condition_line(&condition));
    let time = time.min(LIST_TIME);
    let (lifecycle, pods) = tokio::join!(
        node_lifecycle::read(connection, &name, Some(node), time),
        within(connection, &name, time, pods::on_node(connection, &name, Freshness::Cached))
    );
    let mut facts = ApiOnlyFacts {
        capacity: amounts(status.and_then(|status| status.capacity.as_ref())),
        allocatable: amounts(status.and_then(|status| status.allocatable.as_ref())),
        labels: gpu_labels(node),
        conditions: why_not_ready(node).into_iter().chain(others).chain(gpu_conditions(node)).collect(),
        taints: node_facts::taints(node),
        ..ApiOnlyFacts::of(&lifecycle)
    };
    match &pods {
        Ok(pods) => facts.unhealthy_devices = unhealthy_devices(pods),
        Err(failure) => facts.not_read.push(format!("health of allocated devices: {}", failure.why)),
    }
    Unprobed { facts, lifecycle, existing_pods: pods.map(|pods| ExistingPods::from_pods(&pods)) }
}

impl ApiOnlyFacts {
    /// Returns the facts of a node if only its machine and its events are known.
    pub fn of(lifecycle: &Lifecycle) -> Self {
        let is_told = |event: &&NodeEvent| event.severity == "Warning" || is_about_gpus(event);
        Self {
            lease_renewed: lifecycle.lease_renewed,
            machines: lifecycle.machines.iter().map(node_lifecycle::machine_line).collect(),
            events: lifecycle.events.iter().filter(is_told).take(MAX_ENTRIES).map(event_line).collect(),
            not_read: lifecycle.not_read.clone(),
            ..Self::default()
        }
    }

    /// Adds the pods that do not start, with the newest event of each.
    pub fn add_pods_not_starting(&mut self, pods: &[StartingPod]) {
        self.pods_not_starting = pods.iter().map(starting_line).collect();
    }
}

fn starting_line(pod: &StartingPod) -> String {
    let StartingPod { namespace, name, uid: _, since, reason, message, warning } = pod;
    let since = since.map(|time| format!(" since {time}")).unwrap_or_default();
    let state = reason.iter().chain(message).cloned().collect::<Vec<_>>().join(": ");
    let warning =
        warning.as_ref().map(|event| format!("; event {}: {}", event.reason, event.message)).unwrap_or_default();
    format!("pod {namespace}/{name} does not start{since} ({state}{warning})")
}

async fn within<T>(
    connection: &Connection,
    node: &str,
    time: Duration,
    list: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let what = || format!("Listing the pods on node {node}");
    timeout(time, list).await.unwrap_or_else(|_| Err(silent(connection, what(), time)))
}

fn is_about_gpus(event: &NodeEvent) -> bool {
    let text = format!("{} {}", event.reason, event.message).to_ascii_lowercase();
    ["xid", "nvrm", "gpu", "nvidia", "nvlink", "nvswitch", "dcgm"].iter().any(|word| text.contains(word))
}

fn event_line(event: &NodeEvent) -> String {
    let NodeEvent { reason, message, count, last, .. } = event;
    let at = last.map(|time| format!("{time} ")).unwrap_or_default();
    let times = if *count > 1 { format!(" ({count} times)") } else { String::new() };
    format!("event {at}{reason}: {message}{times}")
}

/// Returns the unhealthy devices in `status.containerStatuses[].allocatedResourcesStatus` (KEP-4680) of the pods on the
/// node.
fn unhealthy_devices(pods: &[Pod]) -> Vec<String> {
    let mut event_line = Vec::new();
    for pod in pods {
        let PodMetadata { namespace, name, .. } = &pod.metadata;
        let resources = pod.status.container_statuses.iter().flat_map(|status| &status.allocated_resources_status);
        for resource in resources {
            for device in resource.resources.iter().filter(|device| device.health == "Unhealthy") {
                let (resource, id) = (&resource.name, clean(&device.resource_id, MAX_TEXT));
                event_line.push(format!("{resource} {id} is Unhealthy, allocated to pod {namespace}/{name}"));
            }
        }
    }
    event_line.truncate(MAX_ENTRIES);
    event_line
}
