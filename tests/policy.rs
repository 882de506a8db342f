//! The shipped admission policy (`deploy/admission-policy.yaml`), evaluated: over every request that the launcher makes in
//! every mode, and over hostile ones, one file each in `tests/policy/hostile/`. `tests/e2e.rs` sends the same files to a
//! real API server.
#![allow(clippy::unwrap_used)]

#[path = "policy/admission.rs"]
mod admission;
#[path = "policy/cases.rs"]
mod cases;
#[path = "policy/expressions.rs"]
mod expressions;
#[path = "policy/genuine.rs"]
mod genuine;
#[path = "policy/hostile.rs"]
mod hostile;
#[path = "policy/manifests.rs"]
mod manifests;
#[path = "policy/pod.rs"]
mod pod;
#[path = "policy/rbac.rs"]
mod rbac;
#[path = "methods/support.rs"]
#[allow(dead_code, reason = "shared with the tests of the ways")]
mod support;
