//! `LinkedPod`: another pod that may explain the problem of a pod or node, with its state and the end of its log.
//! The constants are texts for its field `role`: why the pod was read.

use serde::{Deserialize, Serialize};

use crate::facts::kubernetes::node::NvidiaPod;

/// Another pod that may explain the problem of a pod or node: a message names it, or it provides a missing resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkedPod {
    /// Why the pod was read: `offers rdma/hca_shared_devices_a`.
    pub role: String,
    /// The pod; its component is `Other` unless it belongs to NVIDIA's software.
    pub pod: NvidiaPod,
    /// Node of the pod.
    pub node: Option<String>,
    /// The container whose log was read; empty if no container has started.
    pub container: String,
    /// The last lines of the log, oldest first. `None` if the log could not be read.
    pub log: Option<Vec<String>>,
    /// The pods that this pod needs and that became ready only after it had started.
    pub older_than: Vec<String>,
}

impl LinkedPod {
    /// The role of a pod for which a finding of the first diagnosis recommends `kubectl logs`.
    pub const NAMED_BY_FINDING: &'static str = "a finding refers to the log of this pod";
    /// The role of a pod of the same job, if a message of the explained pod is about another host.
    pub const OF_SAME_JOB: &'static str = "it is another pod of the same job";
    /// The role of a pod of the same job that failed first, if no message of the explained pod is about another host.
    pub const BESIDE: &'static str = "it belongs to the same job";
    /// The text that is appended to the role of a pod whose node is not Ready.
    pub const NODE_NOT_READY: &'static str = "; its node is not Ready";
}
