//! Modules for an exec in a probe container: container state, pull progress, retries, websocket, report, failures.

pub(super) mod container_state;
pub(super) mod failure;
pub(super) mod pull_progress;
pub(super) mod read_report;
pub(super) mod retry;
pub(super) mod websocket;
