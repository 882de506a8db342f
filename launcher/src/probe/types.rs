//! What a probe is asked and what it answers. Types without behaviour.

use std::sync::Arc;
use std::time::Duration;

use syringe_core::report::Report;

use super::target_container::TargetContainer;
use crate::settings::ProbeMethod;

/// How far a call has come, told to whoever waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The pod is being created.
    Create,
    /// The pod exists; its container is awaited.
    Start,
    /// The probe runs.
    Read,
    /// The pod is being removed.
    Remove,
    /// Of several nodes that are read in one call, so many are done.
    Nodes {
        /// Read, or failed.
        done: u32,
        /// All that are to be read.
        total: u32,
    },
}

impl Phase {
    /// Phases of one node's call.
    const OF_ONE_NODE: u32 = 4;

    /// How far, from 1, and of how much.
    pub fn position(self) -> (u32, u32) {
        match self {
            Self::Create => (1, Self::OF_ONE_NODE),
            Self::Start => (2, Self::OF_ONE_NODE),
            Self::Read => (3, Self::OF_ONE_NODE),
            Self::Remove => (4, Self::OF_ONE_NODE),
            Self::Nodes { done, total } => (done, total),
        }
    }

    /// In words.
    pub fn words(self) -> String {
        match self {
            Self::Create => "creating the probe pod".into(),
            Self::Start => "waiting for the probe's container".into(),
            Self::Read => "reading the node".into(),
            Self::Remove => "removing the probe pod".into(),
            Self::Nodes { done, total } => format!("{done} of {total} nodes"),
        }
    }
}

/// Told of each phase. Must not block.
pub type OnPhase = Arc<dyn Fn(Phase) + Send + Sync>;

/// One probe to be made.
#[derive(Clone)]
pub struct ProbeRequest {
    /// Node to read.
    pub node: String,
    /// Words after `node-probe`.
    pub command: Vec<String>,
    /// Tool on whose behalf, for the pod's labels.
    pub tool: &'static str,
    /// The container that the question is about.
    pub target: Option<TargetContainer>,
    /// Time for everything, removal not included.
    pub deadline: Duration,
}

/// What a probe brought back.
#[derive(Clone, Debug)]
pub struct ProbeResult {
    /// The document.
    pub report: Report,
    /// The way by which it came.
    pub via: ProbeMethod,
    /// Name of the pod that was used.
    pub pod: String,
    /// Whether the pod is gone for certain.
    pub removed: bool,
    /// Why it is not, and what to do.
    pub left_behind: Option<String>,
    /// How long each phase took.
    pub timings: Timings,
    /// What a reader should know of the way the document came (a retry, a probe that did not end).
    pub note: Option<String>,
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
    /// What to do when the image does not hold the program that is run in it.
    pub(super) if_missing: &'static str,
}

/// What is left of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CleanUp {
    /// Name of the pod that was used.
    pub(super) pod: String,
    /// Whether every trace is gone for certain.
    pub(super) removed: bool,
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
    /// The answer was lost or left it open: it exists, will exist in a moment, or never will.
    Unknown,
}
