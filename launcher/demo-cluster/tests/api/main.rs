//! Drives the embedded cluster with the real client: every verb, exec on both protocols, and each fault.
#![allow(clippy::unwrap_used)]

mod exec;
mod faults;
mod pods;
mod reading;
mod support;
