//! `read`: reads GPU capacity, labels, conditions, events and unhealthy devices of a node from the API, with no probe.
//!
//! Sources: labels of GPU Feature Discovery, conditions and events of NVSentinel and node-problem-detector, and the
//! health of allocated devices from device plugins. gpu-syringe reads none of this from the hardware.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use schemars::JsonSchema;
use serde::Serialize;
use syringe_core::text::clean;
use syringe_macros::omit;
use tokio::time::timeout;

use crate::Failure;
use crate::client::connection::Connection;
use crate::client::lists::Freshness;
use crate::objects::gpu_pod::{Pod, PodMetadata};
use crate::objects::gpu_resource_names::gpu_resources;
use crate::objects::node_conditions::{gpu_conditions, why_not_ready};
use crate::objects::node_labels::gpu_labels;
use crate::reads::events;
use crate::reads::events::NodeEvent;
use crate::reads::pods;

/// Time limit for one list, because an answer without a probe should be fast.
const LIST_TIME: Duration = Duration::from_secs(5);
/// Maximum number of events, and of devices, in one answer.
const MAX_ENTRIES: usize = 20;
/// Maximum length of the text of a condition, and of a device name.
const MAX_TEXT: usize = 200;

/// Facts about a node's GPUs from the Kubernetes API.
#[omit(Vec, labels)]
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
    /// Allocated devices that their device plugin reports as unhealthy.
    pub unhealthy_devices: Vec<String>,
    /// Events of the node about GPUs, newest first.
    pub events: Vec<String>,
    /// Facts that could not be read, with the reason.
    pub not_read: Vec<String>,
}

impl ApiOnlyFacts {
    /// Returns the facts as lines of text.
    pub fn lines(&self) -> Vec<String> {
        let Self { capacity, allocatable, labels, conditions, unhealthy_devices, events, not_read } = self;
        let mut lines = Vec::new();
        for (name, count) in capacity {
            lines.push(format!("{name}: {count}, allocatable {}", allocatable.get(name).copied().unwrap_or(0)));
        }
        let product = labels.get("nvidia.com/gpu.product").zip(labels.get("nvidia.com/gpu.memory"));
        lines.extend(product.map(|(product, memory)| format!("{product}, {memory} MiB each (labels)")));
        for list in [conditions, unhealthy_devices, events] {
            lines.extend(list.iter().cloned());
        }
        lines.extend(not_read.iter().map(|what| format!("not read: {what}")));
        lines
    }
}

/// Reads the facts within `time`. Facts that cannot be read are listed in `not_read`; this function does not fail.
pub async fn read(connection: &Connection, node: &Node, time: Duration) -> ApiOnlyFacts {
    let name = node.name_any();
    let status = node.status.as_ref();
    let amounts = |list: Option<&BTreeMap<_, _>>| list.map(gpu_resources).unwrap_or_default();
    let mut answer = ApiOnlyFacts {
        capacity: amounts(status.and_then(|status| status.capacity.as_ref())),
        allocatable: amounts(status.and_then(|status| status.allocatable.as_ref())),
        labels: gpu_labels(node),
        conditions: why_not_ready(node).into_iter().chain(gpu_conditions(node)).collect(),
        ..ApiOnlyFacts::default()
    };
    let time = time.min(LIST_TIME);
    let (events, pods) = tokio::join!(
        within(time, events::of_node(connection, &name)),
        within(time, pods::on_node(connection, &name, Freshness::Cached))
    );
    match events {
        Ok(events) => {
            answer.events =
                events.iter().filter(|event| is_about_gpus(event)).take(MAX_ENTRIES).map(event_line).collect()
        }
        Err(why) => answer.not_read.push(format!("events of the node: {why}")),
    }
    match pods {
        Ok(pods) => answer.unhealthy_devices = unhealthy_devices(&pods),
        Err(why) => answer.not_read.push(format!("health of allocated devices: {why}")),
    }
    answer
}

async fn within<T>(time: Duration, list: impl Future<Output = Result<T, Failure>>) -> Result<T, String> {
    match timeout(time, list).await {
        Ok(read) => read.map_err(|failure| failure.why),
        Err(_) => Err(format!("no answer within {time:?}")),
    }
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
