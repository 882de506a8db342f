//! Probes: create a pod on a node, read one JSON document from it, delete the pod.
//!
//! ```text
//!   types, target_container, random_name             requests, results, names
//!   launcher_identity                                which launcher process created a pod
//!   open_probes, launcher_session                    what may exist now; what all probes share
//!   pod_spec, next_steps                             the Pod object; commands that set up a cluster
//!   admission_policy, create_forbidden               what to do when a pod is refused
//!   image_reference, present_image                   names of images; the probe's image on a node
//!   audit_record                                     the audit log's line of one call
//!   probe_context                                    settings, request, deadline and connection of one probe
//!   exec_websocket, container_state, exec_retry      exec, tried until the container runs
//!   read_report                                      the report in what the probe printed
//!   delete_pod, end_container                        delete a pod, end an ephemeral container
//!   late_pod, late_container                         the same for one that comes after its creation was given up
//!   pod_lifecycle, sweep                             create and delete; delete what killed launchers left
//!   methods, api_only                                pod, ephemeral, inject, logs; a report without a probe
//!   probe_slots                                      the limit on probes in flight
//!   runner                                           one probe by one method: create, read, clean up
//!   method_memory, auto, dispatch                    which methods do not work here; `--via auto`; the method of the settings
//!   prober                                           tasks that nothing cancels
//! ```
//!
//! Each module imports only from those above it. A probe is a task that nothing cancels: a caller that gives up stops
//! waiting, and the task goes on until the pod is deleted. [`Prober::settle`] waits for all of them.

mod admission_policy;
pub(crate) mod api_only;
mod audit_record;
mod auto;
mod container_state;
mod create_forbidden;
mod delete_pod;
mod dispatch;
mod end_container;
mod exec_failure;
mod exec_retry;
mod exec_websocket;
mod image_reference;
mod late_container;
mod late_pod;
mod launcher_identity;
mod launcher_session;
mod method_memory;
mod methods;
mod next_steps;
mod open_probes;
mod pod_lifecycle;
mod pod_spec;
mod present_image;
mod probe_context;
mod probe_slots;
mod prober;
mod pull_progress;
mod random_name;
mod read_report;
mod runner;
mod sweep;
mod target_container;
mod types;

pub(crate) use admission_policy::next_step_of_rejection;
pub use audit_record::{ActionDetails, AuditRecord};
pub use launcher_identity::LauncherIdentity;
#[cfg(any(test, fuzzing))]
pub use methods::archive;
pub(crate) use methods::{inject_preview, printed};
pub use pod_spec::{CONTAINER, MANAGED_BY, ProbePod};
pub use prober::Prober;
pub(crate) use prober::SETTLE_TIME;
pub(crate) use random_name::random_suffix;
pub use sweep::SweepResult;
pub use target_container::TargetContainer;
pub use types::{OnPhase, Phase, ProbeRequest, ProbeResult, Timings};
