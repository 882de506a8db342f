//! Modules that run the probe in a container by exec, and read the report from the output of the probe.

pub(super) mod container_state;
pub(super) mod failure;
pub(super) mod pull_progress;
pub(super) mod read_report;
pub(super) mod retry;
pub(super) mod websocket;
