//! Modules of the tests of `node-probe kill`, `reset` and the journal on a simulated machine with real processes.
//!
//! The fake NVML library replaces the driver, a script replaces `nvidia-smi`, and ordinary files replace the GPU devices.
#![cfg(target_os = "linux")]

#[path = "node_actions/journal.rs"]
mod journal;
#[path = "node_actions/kill.rs"]
mod kill;
#[path = "node_actions/reset.rs"]
mod reset;
#[path = "node_actions/support.rs"]
mod support;
