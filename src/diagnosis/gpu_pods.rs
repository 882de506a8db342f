//! The pods of a node as the rules over given and used GPUs need them. The launcher reads them from the API.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A pod of the node: one that holds what it asked for, or one that the kubelet refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuPod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID by which kubelet and cgroups know it.
    pub uid: String,
    /// `Pending`, `Running`, `Failed`.
    pub phase: String,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// When the kubelet saw it first. The kubelet refuses a pod at that moment.
    pub seen: Option<Timestamp>,
    /// Why the kubelet refused it, e.g. `UnexpectedAdmissionError`.
    pub reason: Option<String>,
    /// The same in the kubelet's words.
    pub message: Option<String>,
    /// Whether its deletion was asked for.
    pub deleting: bool,
    /// Its containers that ask for GPUs and run as long as the pod.
    pub containers: Vec<GpuContainer>,
    /// Whether it has claims of dynamic resource allocation.
    pub has_claims: bool,
    /// Whether another scheduler wrote into its annotations which GPUs it has.
    pub has_annotated_gpus: bool,
    /// What in its specification shows it GPUs that it did not ask for: `container main is privileged`,
    /// `container main sets NVIDIA_VISIBLE_DEVICES=all`.
    pub sees_more: Vec<String>,
    /// Whether it belongs to NVIDIA's software on the node, or to another controller of the node's own software.
    pub is_node_software: bool,
}

/// A container that asks for GPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuContainer {
    /// Name.
    pub name: String,
    /// How many of which GPU resource it asks for.
    pub requests: BTreeMap<String, u64>,
    /// Since when it runs; `None` where it does not.
    pub running_since: Option<Timestamp>,
}

impl GpuPod {
    /// `namespace/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Whether the kubelet refused it because it counted too few devices as free.
    pub fn was_refused_devices(&self) -> bool {
        self.phase == "Failed"
            && self.message.as_ref().is_some_and(|message| message.contains("requested number of devices unavailable"))
    }
}
