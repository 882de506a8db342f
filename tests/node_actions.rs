//! Runs the built `node-probe kill` and `node-probe reset` on a machine that is made of files: the fake NVML library for
//! the driver, a script for `nvidia-smi`, ordinary files for the GPUs, and real processes.
#![cfg(target_os = "linux")]

#[path = "node_actions/journal.rs"]
mod journal;
#[path = "node_actions/kill.rs"]
mod kill;
#[path = "node_actions/reset.rs"]
mod reset;
#[path = "node_actions/support.rs"]
mod support;
