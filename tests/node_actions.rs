//! Modules of the tests of `node-probe kill` and `reset`, and of reading the journal, on a simulated machine.
//!
//! The processes are real. The fake NVML library replaces the driver, a script replaces `nvidia-smi`, and ordinary files
//! replace the GPU devices.
#![cfg(target_os = "linux")]

#[path = "node_actions/journal.rs"]
mod journal;
#[path = "node_actions/kill.rs"]
mod kill;
#[path = "node_actions/reset.rs"]
mod reset;
#[path = "node_actions/support.rs"]
mod support;
