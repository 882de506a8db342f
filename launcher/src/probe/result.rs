//! `ProbeResult`, `Timings`: the result of a probe. `ProbeContainer`, `CleanUp`, `CreateOutcome`: results of its steps.

use std::time::Duration;

use syringe_core::report::Report;

use crate::settings::ProbeMethod;

/// The report of a probe, and what remains in the cluster.
#[derive(Clone, Debug)]
pub struct ProbeResult {
    pub report: Report,
    /// The method that was used.
    pub via: ProbeMethod,
    /// Name of the pod that was used.
    pub pod: String,
    /// Whether the pod object is certainly deleted. The container exits a moment later.
    pub deleted: bool,
    /// If the pod object is not deleted: the reason, and what to do.
    pub left_behind: Option<String>,
    /// A process of the probe that stays on the node, and how to find it.
    pub process_left: Option<String>,
    /// How long each phase took.
    pub timings: Timings,
    /// Notes about how the document was read (a retry, a probe that did not exit).
    pub note: Option<String>,
    /// Methods that were not used, with the reason. Each line is returned only once per launcher.
    pub passed_over: Vec<String>,
}

/// Duration of each phase.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Time from the start of the call until the API server had created the pod.
    pub create: Duration,
    /// Time from the creation until the probe started.
    pub start: Duration,
    /// Time from the start of the probe until the document was complete.
    pub exec: Duration,
    /// Time from the complete document until the pod was deleted.
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
    /// The method that created the container.
    pub(super) method: ProbeMethod,
    /// Next step if the image does not contain the program.
    pub(super) if_missing: &'static str,
}

/// The outcome of the clean-up after a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CleanUp {
    /// Name of the pod that was used.
    pub(super) pod: String,
    /// Whether the pod object is certainly deleted.
    pub(super) deleted: bool,
    /// The objects that are left, and the command that deletes them.
    pub(super) left_behind: Option<String>,
}

/// What is known about the creation of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CreateOutcome {
    /// The creation was rejected or never requested.
    NotCreated,
    Created {
        /// The UID. A later object with the same name has another UID.
        uid: Option<String>,
    },
    /// The response does not show whether the object exists, will exist in a moment, or will never exist.
    Unknown,
    /// There was no response: the object may be created at any time until the API server ends the request.
    Unanswered,
}
