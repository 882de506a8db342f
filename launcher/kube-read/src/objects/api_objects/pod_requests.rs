//! `PodRequests`: a pod in a list of all pods of the cluster, with its identity, owners, phase, node and the
//! resources of its containers.

use prost::Message;
use serde::Deserialize;

use crate::objects::api_objects::meta::{Owner, Quantities, Time};

/// The requests of a pod.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct PodRequests {
    #[prost(message, required, tag = "1")]
    pub metadata: Identity,
    #[prost(message, required, tag = "2")]
    pub spec: Spec,
    #[prost(message, required, tag = "3")]
    pub status: Status,
}

#[derive(Clone, PartialEq, Eq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Identity {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub namespace: String,
    #[prost(message, optional, tag = "8")]
    pub creation_timestamp: Option<Time>,
    /// End of the grace period. Set while the pod is being deleted.
    #[prost(message, optional, tag = "9")]
    pub deletion_timestamp: Option<Time>,
    #[prost(message, repeated, tag = "13")]
    pub owner_references: Vec<Owner>,
    #[prost(string, repeated, tag = "14")]
    pub finalizers: Vec<String>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    #[prost(message, repeated, tag = "2")]
    pub containers: Vec<Container>,
    /// Node of the pod. Empty until the pod is scheduled.
    #[prost(string, tag = "10")]
    pub node_name: String,
    /// Init containers and sidecars.
    #[prost(message, repeated, tag = "20")]
    pub init_containers: Vec<Container>,
    /// Overhead of the pod's RuntimeClass.
    #[prost(btree_map = "string, message", tag = "32")]
    pub overhead: Quantities,
}

/// The resources of a container.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Container {
    #[prost(message, required, tag = "8")]
    pub resources: Resources,
    /// `Always` on an init container makes it a sidecar.
    #[prost(string, tag = "24")]
    pub restart_policy: String,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct Resources {
    #[prost(btree_map = "string, message", tag = "1")]
    pub limits: Quantities,
    #[prost(btree_map = "string, message", tag = "2")]
    pub requests: Quantities,
}

#[derive(Clone, PartialEq, Eq, Message, Deserialize)]
#[serde(default)]
pub struct Status {
    /// `Pending`, `Running`, `Succeeded` or `Failed`.
    #[prost(string, tag = "1")]
    pub phase: String,
}
