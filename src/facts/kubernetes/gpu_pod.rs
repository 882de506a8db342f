//! `GpuPod`, `GpuContainer`: facts from the Kubernetes API about a pod with GPUs and its containers.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A pod on the node that has allocated resources or was rejected by the kubelet. The launcher reads it from the API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuPod {
    pub namespace: String,
    pub name: String,
    /// UID of the pod as the kubelet and cgroups use it.
    pub uid: String,
    /// Phase of the pod: `Pending`, `Running`, `Failed`.
    pub phase: String,
    /// Creation time of the pod.
    pub created: Option<Timestamp>,
    /// Time at which the kubelet first saw the pod (`status.startTime`). The kubelet rejects pods at that time.
    pub observed: Option<Timestamp>,
    /// The reason why the kubelet rejected the pod, e.g. `UnexpectedAdmissionError`.
    pub reason: Option<String>,
    /// Message of the kubelet about the rejection.
    pub message: Option<String>,
    /// Whether the deletion of the pod was requested.
    pub deleting: bool,
    /// End of the grace period, if the deletion of the pod was requested (`metadata.deletionTimestamp`).
    pub deletion_due: Option<Timestamp>,
    /// Containers that request GPUs, without init containers.
    pub containers: Vec<GpuContainer>,
    /// Whether the pod has resource claims (dynamic resource allocation).
    pub has_claims: bool,
    /// Whether the annotations of the pod contain GPUs that another scheduler assigned.
    pub has_annotated_gpus: bool,
    /// Settings in the pod specification that make other GPUs visible: `container main is privileged`,
    /// `container main sets NVIDIA_VISIBLE_DEVICES=all`.
    pub extra_devices_reason: Vec<String>,
    /// Whether the controller of the pod manages software of the node, e.g. a DaemonSet or a ClusterPolicy of the GPU
    /// Operator.
    pub is_node_software: bool,
}

/// A container that requests GPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuContainer {
    pub name: String,
    /// GPU resources that the container requests, with their quantities.
    pub requests: BTreeMap<String, u64>,
    /// Start time of the container; `None` if the container is not running.
    pub running_since: Option<Timestamp>,
}

impl GpuPod {
    /// Returns `namespace/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Returns whether the kubelet rejected the pod because too few devices were free.
    pub fn was_refused_devices(&self) -> bool {
        self.phase == "Failed"
            && self.message.as_ref().is_some_and(|message| message.contains("requested number of devices unavailable"))
    }
}
