//! Modules of the tests of the demo cluster's API with the real client: access, exec, faults, pods, get/list/watch, and
//! their support functions.
#![allow(clippy::unwrap_used)]

mod access;
mod exec;
mod faults;
mod pods;
mod reading;
mod support;
