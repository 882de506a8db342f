//! Modules of the probe methods. `deploy/METHODS.md` lists where each method works, what it needs and what it leaves behind.

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
