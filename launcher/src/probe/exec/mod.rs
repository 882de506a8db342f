//! Exec in a container until it runs, and the report in what the probe printed.

pub(super) mod container_state;
pub(super) mod failure;
pub(super) mod pull_progress;
pub(super) mod read_report;
pub(super) mod retry;
pub(super) mod websocket;
