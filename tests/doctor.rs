//! Modules of the tests of `gpu-syringe doctor`: each fault must lead to the right checks and a command that fixes it.

#![allow(clippy::unwrap_used)]

#[path = "support/bed.rs"]
mod bed;
#[path = "support/mod.rs"]
mod support;

#[path = "doctor/cluster.rs"]
mod cluster;
#[path = "doctor/faults.rs"]
mod faults;
#[path = "doctor/healthy.rs"]
mod healthy;
