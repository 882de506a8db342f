//! Modules of the tests of `deploy/admission-policy.yaml` and the Roles, with genuine and hostile requests.
//!
//! The genuine requests are those that the launcher makes in every mode. Each hostile request is a file in
//! `tests/policy/hostile/`. `tests/e2e.rs` sends the same files to a real API server.
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
#[allow(dead_code, reason = "shared with the tests of the probe methods")]
mod support;
