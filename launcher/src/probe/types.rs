//! Request, result and progress of a probe.

use std::sync::Arc;
use std::time::Duration;

use syringe_core::probe_command::ProbeCommand;
use syringe_core::report::Report;

use super::target_container::TargetContainer;
use crate::settings::ProbeMethod;

/// Progress of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Other probes of this launcher are in flight; the pod is created when one of them ends.
    Queue {
        /// How many calls wait before this one.
        before: u32,
        /// Maximum number of probes in flight.
        limit: u16,
    },
    /// The pod is being created.
    Create,
    /// The pod exists; its container is starting.
    Start,
    /// The node pulls the image of the container.
    Pull,
    /// The probe runs.
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

    /// The number of the phase, 0 while it waits to begin, and the number of phases.
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

    /// Text for the user.
    pub fn description(self) -> String {
        match self {
            Self::Queue { before, limit } => {
                format!("waiting: {limit} probes are in flight (--max-probes), and {before} more wait before this one")
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

/// Callback for each phase. Must not block.
pub type OnPhase = Arc<dyn Fn(Phase) + Send + Sync>;

/// What one probe is to read or do.
#[derive(Clone)]
pub struct ProbeRequest {
    /// Node to read.
    pub node: String,
    /// The command of `node-probe`.
    pub command: ProbeCommand,
    /// Tool that asks, for the labels of the pod.
    pub tool: &'static str,
    /// The container that the question is about.
    pub target: Option<TargetContainer>,
    /// Time for everything but the deletion.
    pub deadline: Duration,
    /// Additional time if node-probe is uploaded.
    pub upload_time: Duration,
}

/// What a probe returned.
#[derive(Clone, Debug)]
pub struct ProbeResult {
    /// The document.
    pub report: Report,
    /// The method that was used.
    pub via: ProbeMethod,
    /// Name of the pod that was used.
    pub pod: String,
    /// Whether the object of the pod is certainly deleted. Its container ends a moment later.
    pub deleted: bool,
    /// Why it is not, and what to do.
    pub left_behind: Option<String>,
    /// A process of the probe that is known to stay on the node, and how to find it.
    pub process_left: Option<String>,
    /// How long each phase took.
    pub timings: Timings,
    /// Remarks about how the document was read (a retry, a probe that did not end).
    pub note: Option<String>,
    /// Methods that were passed over and why, each once for a launcher.
    pub passed_over: Vec<String>,
}

/// Duration of each phase.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Until the API server had the pod.
    pub create: Duration,
    /// From there until the probe ran.
    pub start: Duration,
    /// Until its document was complete.
    pub exec: Duration,
    /// Until the pod was gone.
    pub remove: Duration,
    /// All of it.
    pub total: Duration,
}

/// A container in which the probe runs.
#[derive(Clone, Debug)]
pub(super) struct ProbeContainer {
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) container: String,
    pub(super) image: String,
    /// The method that created it.
    pub(super) method: ProbeMethod,
    /// Next step if the image does not contain the program.
    pub(super) if_missing: &'static str,
}

/// What is left on the cluster after a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CleanUp {
    /// Name of the pod that was used.
    pub(super) pod: String,
    /// Whether the object of the pod is certainly deleted.
    pub(super) deleted: bool,
    /// What is left, and what to do about it.
    pub(super) left_behind: Option<String>,
}

/// Whether an object that we asked the API server to create exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CreateOutcome {
    /// It was refused, or never asked for.
    NotCreated,
    /// It exists.
    Created {
        /// Its UID: a later object of the same name has another one.
        uid: Option<String>,
    },
    /// The answer left it open: it exists, will exist in a moment, or never will.
    Unknown,
    /// No answer came: it may still be created at any time until the API server gives up the request.
    Unanswered,
}
