//! Modules that find out why a cluster rejected a pod (admission policy, status 403), and which step fixes the cause.

pub(super) mod admission_policy;
pub(super) mod create_forbidden;
pub(super) mod next_steps;
