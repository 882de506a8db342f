//! `Pod` and its parts (`PodSpec`, `Container`, `SecurityContext`): a pod in the list of pods on one node, with its
//! metadata and its specification. `pod_status` has the type of the status.

use std::collections::BTreeMap;

use prost::Message;
use serde::Deserialize;

use crate::objects::api_objects::meta::{Owner, Quantities, Time};
use crate::objects::api_objects::pod_status::PodStatus;

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct Pod {
    #[prost(message, required, tag = "1")]
    pub metadata: PodMetadata,
    #[prost(message, required, tag = "2")]
    pub spec: PodSpec,
    #[prost(message, required, tag = "3")]
    pub status: PodStatus,
}

/// Identity of a pod.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodMetadata {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub namespace: String,
    #[prost(string, tag = "5")]
    pub uid: String,
    /// Time of creation.
    #[prost(message, optional, tag = "8")]
    pub creation_timestamp: Option<Time>,
    /// Time of deletion. Set while the pod is being deleted.
    #[prost(message, optional, tag = "9")]
    pub deletion_timestamp: Option<Time>,
    #[prost(btree_map = "string, string", tag = "11")]
    pub labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "12")]
    pub annotations: BTreeMap<String, String>,
    #[prost(message, repeated, tag = "13")]
    pub owner_references: Vec<Owner>,
}

/// Specification of a pod.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodSpec {
    #[prost(message, repeated, tag = "2")]
    pub containers: Vec<Container>,
    /// Node of the pod. Empty until the pod is scheduled.
    #[prost(string, tag = "10")]
    pub node_name: String,
    /// Init containers and sidecars.
    #[prost(message, repeated, tag = "20")]
    pub init_containers: Vec<Container>,
    #[prost(string, tag = "29")]
    pub runtime_class_name: String,
    /// Claims of dynamic resource allocation.
    #[prost(message, repeated, tag = "39")]
    pub resource_claims: Vec<PodClaim>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Container {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub image: String,
    #[prost(message, repeated, tag = "7")]
    pub env: Vec<Variable>,
    /// Requests, limits and claims.
    #[prost(message, required, tag = "8")]
    pub resources: Resources,
    /// The security context, with the field `privileged`.
    #[prost(message, required, tag = "15")]
    pub security_context: SecurityContext,
    /// `Always` on an init container makes it a sidecar.
    #[prost(string, tag = "24")]
    pub restart_policy: String,
}

#[derive(Clone, PartialEq, Eq, Message, Deserialize)]
#[serde(default)]
pub struct Variable {
    #[prost(string, tag = "1")]
    pub name: String,
    /// Value of the variable; empty if the value comes from another source. The value can be a secret.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// Requests, limits and claims of a container.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct Resources {
    #[prost(btree_map = "string, message", tag = "1")]
    pub limits: Quantities,
    #[prost(btree_map = "string, message", tag = "2")]
    pub requests: Quantities,
    /// Names of the pod's claims that the container uses.
    #[prost(message, repeated, tag = "3")]
    pub claims: Vec<Named>,
}

/// An object, with only its name.
#[derive(Clone, PartialEq, Eq, Message, Deserialize)]
#[serde(default)]
pub struct Named {
    #[prost(string, tag = "1")]
    pub name: String,
}

/// Privileges of a container.
#[derive(Clone, PartialEq, Eq, Message, Deserialize)]
#[serde(default)]
pub struct SecurityContext {
    /// Whether the container gets all privileges and devices of the host.
    #[prost(bool, tag = "2")]
    pub privileged: bool,
}

/// A claim in the specification of a pod.
#[derive(Clone, PartialEq, Eq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodClaim {
    /// Name of the claim inside the pod.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Name of the ResourceClaim.
    #[prost(string, tag = "3")]
    pub resource_claim_name: String,
}
