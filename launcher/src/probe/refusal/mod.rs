//! Why a cluster refused a pod, and what changes that.

pub(super) mod admission_policy;
pub(super) mod create_forbidden;
pub(super) mod next_steps;
