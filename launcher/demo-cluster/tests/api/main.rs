//! Tests of the cluster with the real client: access, every verb, exec with both subprotocols, and each fault.
#![allow(clippy::unwrap_used)]

mod access;
mod exec;
mod faults;
mod pods;
mod reading;
mod support;
