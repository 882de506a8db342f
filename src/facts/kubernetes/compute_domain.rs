//! `ComputeDomain`: a group of nodes that share GPU memory over NVLink (DRA driver of NVIDIA).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The ComputeDomain to which the label `resource.nvidia.com/computeDomain` assigns a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ComputeDomain {
    pub namespace: String,
    pub name: String,
    /// Status of the whole domain: `Ready` or `NotReady`.
    pub status: Option<String>,
    /// Number of nodes that the domain should have (`spec.numNodes`); 0 if the number is not set.
    pub expected_nodes: u32,
    pub created: Option<Timestamp>,
    /// The nodes that have joined, each with its IMEX daemon.
    pub nodes: Vec<DomainNode>,
}

/// A node of a ComputeDomain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DomainNode {
    pub name: String,
    /// Whether the IMEX daemon of the node is ready. `None` if the version of the DRA driver does not report it.
    pub ready: Option<bool>,
    /// NVLink clique. Empty if the GPUs of the node are not in an NVLink fabric of several nodes. Such a node runs no
    /// IMEX daemon.
    pub clique: String,
}
