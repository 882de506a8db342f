//! `NodeConditionFact`: a node condition. `Decision`: maintenance or repair. `MachineFacts`: a NodeClaim or Machine.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A condition of a node, a NodeClaim or a Machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeConditionFact {
    /// Type: `Ready`, `DiskPressure`, `KernelDeadlock`, `Registered`.
    pub name: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Reason as one word, e.g. `KubeletNotReady`.
    pub reason: String,
    pub message: String,
    /// Time of the last change of the status.
    pub since: Option<Timestamp>,
}

/// What a platform or a repair system has decided about the node, according to one of its labels, taints, conditions or
/// annotations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Decision {
    pub kind: DecisionKind,
    /// The platform or system: `EKS`, `NVSentinel`.
    pub owner: String,
    /// The signal: `label dgxc.nvidia.com/nvsentinel-state=draining`.
    pub signal: String,
    /// The next action of the owner, in words.
    pub next: String,
    /// The time that the signal contains.
    pub at: Option<Timestamp>,
}

/// Kind of a decision about a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecisionKind {
    /// Maintenance or a repair will follow or may follow.
    #[default]
    Announced,
    /// Maintenance is in progress, or the pods of the node are being removed for it.
    Maintenance,
    /// The owner repairs the node.
    Repair,
    /// The owner took the node out of service and takes no further action.
    OutOfService,
}

/// An object that creates the machine of a node: a NodeClaim of Karpenter, or a Machine of Cluster API or OpenShift.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MachineFacts {
    /// `NodeClaim` or `Machine`.
    pub kind: String,
    /// Namespace of the object. Absent for kinds without a namespace.
    pub namespace: Option<String>,
    pub name: String,
    /// Name of the node, once the machine has joined the cluster.
    pub node: Option<String>,
    pub phase: Option<String>,
    /// Reason and message of a failure, as the object reports them.
    pub failure: Option<String>,
    pub created: Option<Timestamp>,
    pub deleting: bool,
    /// The conditions whose status is not `True`.
    pub conditions: Vec<NodeConditionFact>,
}
