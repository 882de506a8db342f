//! The result of a probe, and of its steps.

use std::time::Duration;

use syringe_core::report::Report;

use crate::settings::ProbeMethod;

/// The result of a probe.
#[derive(Clone, Debug)]
pub struct ProbeResult {
    pub report: Report,
    /// The method that was used.
    pub via: ProbeMethod,
    /// Name of the pod that was used.
    pub pod: String,
    /// Whether the object of the pod is certainly deleted. Its container ends a moment later.
    pub deleted: bool,
    /// The reason if it is not, and what to do.
    pub left_behind: Option<String>,
    /// A process of the probe that stays on the node, and how to find it.
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

/// The outcome of the clean-up after a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CleanUp {
    /// Name of the pod that was used.
    pub(super) pod: String,
    /// Whether the object of the pod is certainly deleted.
    pub(super) deleted: bool,
    /// The objects that are left, and the command that deletes them.
    pub(super) left_behind: Option<String>,
}

/// Whether an object whose creation was requested exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CreateOutcome {
    /// It was refused, or never requested.
    NotCreated,
    Created {
        /// Its UID: a later object of the same name has another one.
        uid: Option<String>,
    },
    /// The answer left it open: it exists, will exist in a moment, or never will.
    Unknown,
    /// No answer came: it may still be created at any time until the API server gives up the request.
    Unanswered,
}
