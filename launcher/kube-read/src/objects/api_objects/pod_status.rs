//! `PodStatus` and its parts (`PodCondition`, `ContainerStatus`, `ClaimStatus`): the status of a pod in the list of
//! pods on one node.

use prost::Message;
use serde::Deserialize;

use crate::objects::api_objects::meta::Time;

/// Status of a pod.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded` or `Failed`.
    #[prost(string, tag = "1")]
    pub phase: String,
    #[prost(message, repeated, tag = "2")]
    pub conditions: Vec<PodCondition>,
    /// Reason for the phase, as text.
    #[prost(string, tag = "3")]
    pub message: String,
    /// Reason for the phase, in one word.
    #[prost(string, tag = "4")]
    pub reason: String,
    /// Address of the pod.
    #[prost(string, tag = "6")]
    #[serde(rename = "podIP")]
    pub pod_ip: String,
    /// Time at which the kubelet first saw the pod.
    #[prost(message, optional, tag = "7")]
    pub start_time: Option<Time>,
    /// States of the containers.
    #[prost(message, repeated, tag = "8")]
    pub container_statuses: Vec<ContainerStatus>,
    /// States of the init containers.
    #[prost(message, repeated, tag = "10")]
    pub init_container_statuses: Vec<ContainerStatus>,
    /// ResourceClaims that were created for the pod.
    #[prost(message, repeated, tag = "15")]
    pub resource_claim_statuses: Vec<ClaimStatus>,
}

/// A condition of a pod.
#[derive(Clone, PartialEq, Eq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodCondition {
    /// Type of the condition: `Ready`, ….
    #[prost(string, tag = "1")]
    #[serde(rename = "type")]
    pub name: String,
    /// `True`, `False` or `Unknown`.
    #[prost(string, tag = "2")]
    pub status: String,
    /// Time of the last change of the status.
    #[prost(message, optional, tag = "4")]
    pub last_transition_time: Option<Time>,
    /// Reason for the status, as text.
    #[prost(string, tag = "6")]
    pub message: String,
}

/// The ResourceClaim that was created for a claim of the pod.
#[derive(Clone, PartialEq, Eq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimStatus {
    /// Name of the claim inside the pod.
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
    /// Whether the container is ready.
    #[prost(bool, tag = "4")]
    pub ready: bool,
    /// Number of restarts.
    #[prost(int32, tag = "5")]
    pub restart_count: i32,
    /// Container ID: `containerd://…`.
    #[prost(string, tag = "8")]
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// Devices that the kubelet allocated to the container, with their health.
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

/// State of a container that is waiting.
#[derive(Clone, PartialEq, Eq, Message, Deserialize)]
#[serde(default)]
pub struct Waiting {
    /// Reason in one word.
    #[prost(string, tag = "1")]
    pub reason: String,
    #[prost(string, tag = "2")]
    pub message: String,
}

/// State of a container that is running.
#[derive(Clone, Copy, PartialEq, Eq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Running {
    /// Start time.
    #[prost(message, optional, tag = "1")]
    pub started_at: Option<Time>,
}

/// State of a container that has terminated.
#[derive(Clone, PartialEq, Eq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Terminated {
    #[prost(int32, tag = "1")]
    pub exit_code: i32,
    /// Reason in one word.
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
    /// The device plugin's name for the device, which is a UUID.
    #[prost(string, tag = "1")]
    #[serde(rename = "resourceID")]
    pub resource_id: String,
    /// `Healthy`, `Unhealthy` or `Unknown`.
    #[prost(string, tag = "2")]
    pub health: String,
}
