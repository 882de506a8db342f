//! The status of a pod in the list of one node.

use prost::Message;
use serde::Deserialize;

use crate::objects::api_objects::meta::Time;

/// Status of a pod.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed`.
    #[prost(string, tag = "1")]
    pub phase: String,
    #[prost(message, repeated, tag = "2")]
    pub conditions: Vec<PodCondition>,
    /// Why it is in its phase, as text.
    #[prost(string, tag = "3")]
    pub message: String,
    /// The reason for its phase, in one word.
    #[prost(string, tag = "4")]
    pub reason: String,
    /// When the kubelet saw it first.
    #[prost(message, optional, tag = "7")]
    pub start_time: Option<Time>,
    /// State of its containers.
    #[prost(message, repeated, tag = "8")]
    pub container_statuses: Vec<ContainerStatus>,
    /// State of its init containers.
    #[prost(message, repeated, tag = "10")]
    pub init_container_statuses: Vec<ContainerStatus>,
    /// ResourceClaims that were made for it.
    #[prost(message, repeated, tag = "15")]
    pub resource_claim_statuses: Vec<ClaimStatus>,
}

/// A condition of a pod.
#[derive(Clone, PartialEq, Eq, Message, Deserialize)]
#[serde(default)]
pub struct PodCondition {
    /// `Ready`, …
    #[prost(string, tag = "1")]
    #[serde(rename = "type")]
    pub name: String,
    /// `True`, `False`, `Unknown`.
    #[prost(string, tag = "2")]
    pub status: String,
}

/// The ResourceClaim that was made for a claim of the pod.
#[derive(Clone, PartialEq, Eq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimStatus {
    /// Name inside the pod.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Name of the ResourceClaim.
    #[prost(string, tag = "2")]
    pub resource_claim_name: String,
}

/// State of a container.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerStatus {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, required, tag = "2")]
    pub state: ContainerState,
    /// State before the last restart.
    #[prost(message, required, tag = "3")]
    pub last_state: ContainerState,
    /// Whether it is ready.
    #[prost(bool, tag = "4")]
    pub ready: bool,
    /// How often it was started again.
    #[prost(int32, tag = "5")]
    pub restart_count: i32,
    /// `containerd://…`.
    #[prost(string, tag = "8")]
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// Devices that the kubelet gave it, with their health.
    #[prost(message, repeated, tag = "14")]
    pub allocated_resources_status: Vec<ResourceStatus>,
}

/// State of a container.
#[derive(Clone, PartialEq, Eq, Message, Deserialize)]
#[serde(default)]
pub struct ContainerState {
    #[prost(message, optional, tag = "1")]
    pub waiting: Option<Waiting>,
    #[prost(message, optional, tag = "2")]
    pub running: Option<Running>,
    #[prost(message, optional, tag = "3")]
    pub terminated: Option<Terminated>,
}

/// A container that waits.
#[derive(Clone, PartialEq, Eq, Message, Deserialize)]
#[serde(default)]
pub struct Waiting {
    /// Why, in one word.
    #[prost(string, tag = "1")]
    pub reason: String,
    #[prost(string, tag = "2")]
    pub message: String,
}

/// A container that runs.
#[derive(Clone, Copy, PartialEq, Eq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Running {
    /// Since when.
    #[prost(message, optional, tag = "1")]
    pub started_at: Option<Time>,
}

/// A container that has ended.
#[derive(Clone, PartialEq, Eq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Terminated {
    #[prost(int32, tag = "1")]
    pub exit_code: i32,
    /// Why, in one word.
    #[prost(string, tag = "3")]
    pub reason: String,
    #[prost(string, tag = "4")]
    pub message: String,
    #[prost(message, optional, tag = "5")]
    pub started_at: Option<Time>,
    #[prost(message, optional, tag = "6")]
    pub finished_at: Option<Time>,
}

/// Devices of one resource.
#[derive(Clone, PartialEq, Eq, Message, Deserialize)]
#[serde(default)]
pub struct ResourceStatus {
    /// Resource name, or `claim:NAME/REQUEST`.
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<ResourceHealth>,
}

/// Health of one device.
#[derive(Clone, PartialEq, Eq, Message, Deserialize)]
#[serde(default)]
pub struct ResourceHealth {
    /// The device plugin's name of the device: a UUID.
    #[prost(string, tag = "1")]
    #[serde(rename = "resourceID")]
    pub resource_id: String,
    /// `Healthy`, `Unhealthy`, `Unknown`.
    #[prost(string, tag = "2")]
    pub health: String,
}
