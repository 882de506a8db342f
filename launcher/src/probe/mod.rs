//! Modules that run a probe: create a pod on a node, read one JSON document from the pod, delete the pod. `Prober`
//! starts probes.
//!
//! - `lifecycle`: the pod object, its creation and deletion, and the clean-up after killed launchers
//! - `exec`: exec with retries until the container is running, and the report that the probe prints
//! - `methods`: pod, ephemeral, inject, logs
//! - `choose`: the choice of the method and the image of a probe
//! - `refusal`: why a cluster rejected a pod, and which step fixes the cause
//!
//! A probe is a task that nothing cancels: a caller that gives up stops waiting, but the task continues until the pod is
//! deleted. [`Prober::settle`] waits for all these tasks.

pub(crate) mod api_only;
mod audit_record;
mod choose;
mod exec;
mod lifecycle;
mod methods;
mod probe_context;
mod probe_slots;
mod prober;
mod refusal;
mod request;
mod result;
mod runner;
mod target_container;

pub use audit_record::{ActionDetails, AuditRecord};
pub use lifecycle::launcher_identity::LauncherIdentity;
pub use lifecycle::pod_spec::{CONTAINER, MANAGED_BY, ProbePod};
pub(crate) use lifecycle::random_name::random_suffix;
pub use lifecycle::sweep::SweepResult;
#[cfg(any(test, fuzzing))]
pub use methods::archive;
pub(crate) use methods::{inject_preview, printed};
pub use prober::Prober;
pub(crate) use prober::SETTLE_TIME;
pub(crate) use refusal::admission_policy::{is_of_variable, next_step_of_rejection};
pub use request::{OnPhase, Phase, ProbeRequest};
pub use result::{ProbeResult, Timings};
pub use target_container::TargetContainer;
