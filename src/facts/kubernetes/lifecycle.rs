//! `NodeConditionFact`, `MachineFacts`: conditions of a node and of the object that provides its machine.

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
    /// Reason in one word.
    pub reason: String,
    pub message: String,
    /// Time of the last change of the status.
    pub since: Option<Timestamp>,
}

/// An object that provides the machine of a node: a NodeClaim of Karpenter, or a Machine of Cluster API or OpenShift.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MachineFacts {
    /// `NodeClaim` or `Machine`.
    pub kind: String,
    /// Namespace, if the kind has one.
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
