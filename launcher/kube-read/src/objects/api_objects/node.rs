//! `Node` and its parts (`NodeSpec`, `NodeStatus`, `Taint`, `NodeCondition`): a node as the API server sends it,
//! without images, addresses and managed fields.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use prost::Message;
use serde::Deserialize;

use crate::objects::api_objects::meta::{Quantities, Time, given, quantities, time};

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct Node {
    #[prost(message, required, tag = "1")]
    pub metadata: NodeMetadata,
    #[prost(message, required, tag = "2")]
    pub spec: NodeSpec,
    #[prost(message, required, tag = "3")]
    pub status: NodeStatus,
}

/// Name, age and labels of a node.
#[derive(Clone, PartialEq, Eq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeMetadata {
    #[prost(string, tag = "1")]
    pub name: String,
    /// Time of creation.
    #[prost(message, optional, tag = "8")]
    pub creation_timestamp: Option<Time>,
    /// Time of deletion. Set while the node is being deleted.
    #[prost(message, optional, tag = "9")]
    pub deletion_timestamp: Option<Time>,
    /// All labels, because --allow-nodes can select by any label.
    #[prost(btree_map = "string, string", tag = "11")]
    pub labels: BTreeMap<String, String>,
    /// Only annotations in which GPU sharing software lists UUIDs of GPUs are kept.
    #[prost(btree_map = "string, string", tag = "12")]
    pub annotations: BTreeMap<String, String>,
}

/// Returns the annotations with UUIDs of GPUs.
fn with_uuids(annotations: BTreeMap<String, String>) -> BTreeMap<String, String> {
    annotations.into_iter().filter(|(_, value)| value.contains("GPU-") || value.contains("MIG-")).collect()
}

/// Settings of a node for scheduling: cordon and taints.
#[derive(Clone, PartialEq, Eq, Message, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    /// Whether the node is cordoned.
    #[prost(bool, tag = "4")]
    pub unschedulable: bool,
    #[prost(message, repeated, tag = "5")]
    pub taints: Vec<Taint>,
}

#[derive(Clone, PartialEq, Eq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Taint {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
    #[prost(string, tag = "3")]
    pub effect: String,
    /// Time at which the taint was added.
    #[prost(message, optional, tag = "4")]
    pub time_added: Option<Time>,
}

/// Resources and conditions of a node.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    #[prost(btree_map = "string, message", tag = "1")]
    pub capacity: Quantities,
    /// The part of the capacity that pods may use.
    #[prost(btree_map = "string, message", tag = "2")]
    pub allocatable: Quantities,
    #[prost(message, repeated, tag = "4")]
    pub conditions: Vec<NodeCondition>,
}

/// A condition of a node.
#[derive(Clone, PartialEq, Eq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeCondition {
    /// Type: `Ready`, `DiskPressure`, ….
    #[prost(string, tag = "1")]
    #[serde(rename = "type")]
    pub name: String,
    /// `True`, `False` or `Unknown`.
    #[prost(string, tag = "2")]
    pub status: String,
    /// Time of the last report.
    #[prost(message, optional, tag = "3")]
    pub last_heartbeat_time: Option<Time>,
    /// Time of the last change.
    #[prost(message, optional, tag = "4")]
    pub last_transition_time: Option<Time>,
    /// Reason in one word.
    #[prost(string, tag = "5")]
    pub reason: String,
    /// Reason as text.
    #[prost(string, tag = "6")]
    pub message: String,
}

impl From<Node> for api::Node {
    fn from(Node { metadata, spec, status }: Node) -> Self {
        let some = |labels: BTreeMap<_, _>| Some(labels).filter(|labels| !labels.is_empty());
        let taints: Vec<_> = spec.taints.into_iter().map(api::Taint::from).collect();
        let conditions: Vec<_> = status.conditions.into_iter().map(api::NodeCondition::from).collect();
        Self {
            metadata: ObjectMeta {
                name: Some(metadata.name),
                creation_timestamp: time(metadata.creation_timestamp),
                deletion_timestamp: time(metadata.deletion_timestamp),
                labels: some(metadata.labels),
                annotations: some(with_uuids(metadata.annotations)),
                ..ObjectMeta::default()
            },
            spec: Some(api::NodeSpec {
                taints: Some(taints).filter(|taints| !taints.is_empty()),
                unschedulable: spec.unschedulable.then_some(true),
                ..api::NodeSpec::default()
            }),
            status: Some(api::NodeStatus {
                capacity: quantities(status.capacity),
                allocatable: quantities(status.allocatable),
                conditions: Some(conditions).filter(|conditions| !conditions.is_empty()),
                ..api::NodeStatus::default()
            }),
        }
    }
}

impl From<Taint> for api::Taint {
    fn from(Taint { key, value, effect, time_added }: Taint) -> Self {
        Self { key, value: given(value), effect, time_added: time(time_added) }
    }
}

impl From<NodeCondition> for api::NodeCondition {
    fn from(condition: NodeCondition) -> Self {
        let NodeCondition { name, status, last_heartbeat_time, last_transition_time, reason, message } = condition;
        Self {
            type_: name,
            status,
            last_heartbeat_time: time(last_heartbeat_time),
            last_transition_time: time(last_transition_time),
            reason: given(reason),
            message: given(message),
        }
    }
}
