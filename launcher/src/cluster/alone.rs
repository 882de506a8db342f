//! What the Kubernetes API alone knows of a node's GPUs: the answer where no probe may go.
//!
//! Whoever watches the cluster's hardware writes it there: GPU Feature Discovery in labels, NVSentinel and
//! node-problem-detector in conditions and events, device plugins in the health of what they gave out. None of it is the
//! hardware's own word.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use schemars::JsonSchema;
use serde::Serialize;
use syringe_core::text::clean;
use tokio::time::timeout;

use super::Connection;
use super::gpu_nodes::gpu_conditions;
use super::resources::gpu_resources;
use crate::error::kube_reason;

/// Time for one list: an answer without a probe should be a quick one.
const LIST_TIME: Duration = Duration::from_secs(5);
/// Events, labels and devices in one answer.
const MOST: usize = 20;
/// Objects of one list.
const MOST_LISTED: u32 = 500;
/// Longest text of a label or an event.
const LONGEST_TEXT: usize = 200;

/// What Kubernetes knows of a node's GPUs.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct KubernetesAlone {
    /// GPU resources that the node has.
    pub capacity: BTreeMap<String, u64>,
    /// Those of them that pods may use.
    pub allocatable: BTreeMap<String, u64>,
    /// Labels of GPU Feature Discovery (`nvidia.com/…`), as text.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Conditions that are not as they should be: of the kubelet, NVSentinel, node-problem-detector.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<String>,
    /// Devices in use that their device plugin calls unhealthy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unhealthy_devices: Vec<String>,
    /// Events of the node that speak of GPUs, newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<String>,
    /// What the API did not give, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_read: Vec<String>,
}

impl KubernetesAlone {
    /// Line by line, for a person.
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

/// Reads it. What cannot be read is said, and fails nothing.
pub async fn read(connection: &Connection, node: &Node) -> KubernetesAlone {
    let name = node.name_any();
    let status = node.status.as_ref();
    let amounts = |list: Option<&BTreeMap<_, _>>| list.map(gpu_resources).unwrap_or_default();
    let mut alone = KubernetesAlone {
        capacity: amounts(status.and_then(|status| status.capacity.as_ref())),
        allocatable: amounts(status.and_then(|status| status.allocatable.as_ref())),
        labels: labels(node),
        conditions: not_ready(node).into_iter().chain(gpu_conditions(node)).collect(),
        ..KubernetesAlone::default()
    };
    let (events, devices) = tokio::join!(events(connection, &name), unhealthy_devices(connection, &name));
    match events {
        Ok(events) => alone.events = events,
        Err(why) => alone.not_read.push(format!("events of the node: {why}")),
    }
    match devices {
        Ok(devices) => alone.unhealthy_devices = devices,
        Err(why) => alone.not_read.push(format!("health of allocated devices: {why}")),
    }
    alone
}

fn labels(node: &Node) -> BTreeMap<String, String> {
    let told = ["gpu.", "cuda.", "mig.", "vgpu."];
    let own = node.labels().iter().filter(|(key, _)| {
        key.strip_prefix("nvidia.com/").is_some_and(|rest| told.iter().any(|start| rest.starts_with(start)))
            // Which of the operator's parts run there says nothing of the hardware.
            && !key.contains(".deploy.")
    });
    own.take(MOST).map(|(key, value)| (key.clone(), clean(value, LONGEST_TEXT))).collect()
}

fn not_ready(node: &Node) -> Option<String> {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    let message = clean(ready.message.as_deref().unwrap_or_default(), LONGEST_TEXT);
    (ready.status != "True").then(|| format!("Ready is {}: {message}", ready.status))
}

async fn events(connection: &Connection, node: &str) -> Result<Vec<String>, String> {
    let about = format!("involvedObject.kind=Node,involvedObject.name={node}");
    let mut events: Vec<Event> = list(connection, &about).await?;
    let time = |event: &Event| event.last_timestamp.as_ref().map(|time| time.0);
    events.sort_by_key(|event| std::cmp::Reverse(time(event)));
    let speaks_of_gpus = |event: &&Event| {
        let text =
            format!("{} {}", event.reason.as_deref().unwrap_or_default(), event.message.as_deref().unwrap_or_default());
        let text = text.to_ascii_lowercase();
        ["xid", "nvrm", "gpu", "nvidia", "nvlink", "nvswitch", "dcgm"].iter().any(|word| text.contains(word))
    };
    let told = |event: &Event| {
        let at = time(event).map(|time| format!("{time} ")).unwrap_or_default();
        let message = clean(event.message.as_deref().unwrap_or_default(), LONGEST_TEXT);
        let times = event.count.filter(|count| *count > 1).map(|count| format!(" ({count} times)")).unwrap_or_default();
        format!("event {at}{}: {message}{times}", event.reason.as_deref().unwrap_or("-"))
    };
    Ok(events.iter().filter(speaks_of_gpus).take(MOST).map(told).collect())
}

/// `status.containerStatuses[].allocatedResourcesStatus` (KEP-4680) of the pods on the node.
async fn unhealthy_devices(connection: &Connection, node: &str) -> Result<Vec<String>, String> {
    let pods: Vec<Pod> = list(connection, &format!("spec.nodeName={node}")).await?;
    let mut told = Vec::new();
    for pod in &pods {
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
        for resource in statuses.iter().flat_map(|status| status.allocated_resources_status.iter().flatten()) {
            for device in resource.resources.iter().flatten() {
                let health = device.health.as_deref().unwrap_or("Unknown");
                if health == "Unhealthy" {
                    let id = clean(&device.resource_id, LONGEST_TEXT);
                    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
                    told.push(format!("{} {id} is {health}, held by pod {namespace}/{name}", resource.name));
                }
            }
        }
    }
    told.truncate(MOST);
    Ok(told)
}

async fn list<K>(connection: &Connection, fields: &str) -> Result<Vec<K>, String>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::all(connection.client.clone());
    let params = ListParams::default().fields(fields).limit(MOST_LISTED);
    match timeout(LIST_TIME, api.list(&params)).await {
        Ok(Ok(list)) => Ok(list.items),
        Ok(Err(error)) => Err(kube_reason(&error)),
        Err(_) => Err(format!("no answer within {LIST_TIME:?}")),
    }
}
