//! Facts about the pods of a node for the rules about allocated and used GPUs. The launcher reads them from the API.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A pod of the node with allocated resources, or one that the kubelet refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuPod {
    pub namespace: String,
    pub name: String,
    /// UID that the kubelet and cgroups use.
    pub uid: String,
    /// `Pending`, `Running`, `Failed`.
    pub phase: String,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// When the kubelet first saw it (`status.startTime`). The kubelet refuses pods at that time.
    pub observed: Option<Timestamp>,
    /// Reason why the kubelet refused it, e.g. `UnexpectedAdmissionError`.
    pub reason: Option<String>,
    /// Message of the kubelet.
    pub message: Option<String>,
    /// Whether its deletion was requested.
    pub deleting: bool,
    /// Its containers that request GPUs and run as long as the pod.
    pub containers: Vec<GpuContainer>,
    /// Whether it has claims of dynamic resource allocation.
    pub has_claims: bool,
    /// Whether its annotations contain GPUs that another scheduler assigned.
    pub has_annotated_gpus: bool,
    /// Settings in its specification that make other GPUs visible: `container main is privileged`,
    /// `container main sets NVIDIA_VISIBLE_DEVICES=all`.
    pub extra_devices_reason: Vec<String>,
    /// Whether it belongs to NVIDIA's software on the node, or to another controller of the node's software.
    pub is_node_software: bool,
}

/// A container that requests GPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuContainer {
    pub name: String,
    /// GPU resource and number that it requests.
    pub requests: BTreeMap<String, u64>,
    /// When it started; `None` if it is not running.
    pub running_since: Option<Timestamp>,
}

impl GpuPod {
    /// `namespace/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Whether the kubelet refused it because too few devices were free.
    pub fn was_refused_devices(&self) -> bool {
        self.phase == "Failed"
            && self.message.as_ref().is_some_and(|message| message.contains("requested number of devices unavailable"))
    }
}
