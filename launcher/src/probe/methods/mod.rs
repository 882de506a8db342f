//! Modules of the probe methods pod, logs, inject and ephemeral, and of their steps. See `deploy/METHODS.md`.

pub(super) mod ephemeral;
pub(super) mod inject;
pub(super) mod logs;
pub(super) mod pod;
mod pod_preview;
pub(super) mod probe_steps;

#[cfg(any(test, fuzzing))]
pub use inject::fuzzing::archive;
pub(crate) use inject::preview as inject_preview;
pub(crate) use pod_preview::printed;
