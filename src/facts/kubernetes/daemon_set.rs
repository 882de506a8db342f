//! `DaemonSetFacts`: a DaemonSet of the cluster, whether it should run on the node, and its pod on the node.
//! `DaemonSetRole`: its purpose for the GPUs of a node.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::facts::kubernetes::node::NvidiaPod;

/// The purpose of a DaemonSet, as far as it matters for the GPUs of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DaemonSetRole {
    /// Offers GPUs to pods: a device plugin or a driver for dynamic resource allocation.
    GpuPlugin,
    /// Installs or loads the GPU driver.
    GpuDriver,
    /// Other software of the GPU stack.
    GpuStack,
    /// A program that requests GPUs.
    UsesGpus,
    /// Anything else: network, storage, monitoring.
    #[default]
    Other,
}

impl DaemonSetRole {
    /// Returns whether the DaemonSet belongs to the software that makes GPUs usable.
    pub fn is_of_stack(self) -> bool {
        matches!(self, Self::GpuPlugin | Self::GpuDriver | Self::GpuStack)
    }
}

/// A DaemonSet in relation to one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DaemonSetFacts {
    pub namespace: String,
    pub name: String,
    pub role: DaemonSetRole,
    /// The first requirement of the DaemonSet that the node does not meet: name, selector, affinity or taint. `None` if
    /// the DaemonSet should have a pod on the node.
    pub mismatch: Option<String>,
    /// Time at which the DaemonSet was created.
    pub created: Option<Timestamp>,
    /// Whether the controller is replacing the pods of the DaemonSet, or has not processed the newest version of the
    /// DaemonSet yet.
    pub rolling_out: bool,
    /// The pod on the node. If there are several, a ready pod is preferred. For a pod that was not scheduled, only
    /// `refusal` is set.
    pub pod: Option<NvidiaPod>,
    /// The message of the controller that could not create a pod, or of the scheduler that could not schedule the pod.
    /// Read only for some of the DaemonSets without a pod.
    pub refusal: Option<String>,
}
