//! `ProbeRequest`: the facts to read or the action of one probe. `Phase`: the progress of a call, reported to an
//! `OnPhase`.

use syringe_core::probe_command::ProbeCommand;

use std::sync::Arc;
use std::time::Duration;

use super::target_container::TargetContainer;

/// Progress of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Other probes of this launcher are in flight. The pod is created when a slot is free.
    Queue {
        /// Number of calls that are waiting before this call.
        before: u32,
        /// Maximum number of probes in flight.
        limit: u16,
    },
    /// The pod is being created.
    Create,
    /// The pod exists, and its container is starting.
    Start,
    /// The node is pulling the image of the container.
    Pull,
    /// The probe is running.
    Read,
    /// The pod is being deleted.
    Remove,
    /// Progress of a call that reads several nodes.
    Nodes {
        /// Nodes that were read or failed.
        done: u32,
        /// All nodes of the call.
        total: u32,
    },
}

impl Phase {
    /// Number of phases of a call about one node.
    const OF_ONE_NODE: u32 = 4;

    /// Returns the number of the phase (0 while the call is waiting) and the total number of phases.
    pub fn position(self) -> (u32, u32) {
        match self {
            Self::Queue { .. } => (0, Self::OF_ONE_NODE),
            Self::Create => (1, Self::OF_ONE_NODE),
            Self::Start | Self::Pull => (2, Self::OF_ONE_NODE),
            Self::Read => (3, Self::OF_ONE_NODE),
            Self::Remove => (4, Self::OF_ONE_NODE),
            Self::Nodes { done, total } => (done, total),
        }
    }

    /// Returns a text for the user.
    pub fn description(self) -> String {
        match self {
            Self::Queue { before, limit } => {
                format!(
                    "waiting: {limit} probes are in flight (--max-probes), and {before} calls are waiting before \
                    this one"
                )
            }
            Self::Create => "creating the probe pod".into(),
            Self::Start => "waiting for the probe container to start".into(),
            Self::Pull => "waiting for the node to pull the image".into(),
            Self::Read => "reading the node".into(),
            Self::Remove => "deleting the probe pod".into(),
            Self::Nodes { done, total } => format!("{done} of {total} nodes"),
        }
    }
}

/// Callback that is called for each phase. It must not block.
pub type OnPhase = Arc<dyn Fn(Phase) + Send + Sync>;

/// The facts that one probe reads, or the action that it does.
#[derive(Clone)]
pub struct ProbeRequest {
    /// Node to read.
    pub node: String,
    /// The command of `node-probe`.
    pub command: ProbeCommand,
    /// Name of the tool, for the labels of the pod.
    pub tool: &'static str,
    /// The container that the call is about.
    pub target: Option<TargetContainer>,
    /// Time limit for all steps except the deletion of the pod.
    pub deadline: Duration,
    /// Additional time if node-probe is uploaded.
    pub upload_time: Duration,
}
