//! Drives the embedded cluster with the real client: every verb, exec on both protocols, and each fault.
#![allow(clippy::unwrap_used)]

#[path = "embedded_api/exec.rs"]
mod exec;
#[path = "embedded_api/faults.rs"]
mod faults;
#[path = "embedded_api/pods.rs"]
mod pods;
#[path = "embedded_api/reading.rs"]
mod reading;
#[path = "embedded_api/support.rs"]
mod support;
