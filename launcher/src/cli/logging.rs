//! `start`: sets up the log, which is written to standard error as text or as JSON lines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::progress::Messages;
use crate::settings::{LogFormat, OutputSettings};
use kube_read::client::api_log;

/// Default filter: warnings, except kube's message for each rejected exec, because a few execs are rejected while a pod
/// is starting.
const DEFAULT_LOG: &str = "warn,kube_client=off,rmcp=error";

/// Starts logging. The MCP server writes JSON lines, and so does a command whose standard error is not a terminal.
pub(super) fn start(settings: &OutputSettings, serves: bool) {
    let filter = EnvFilter::try_from_env("GPU_SYRINGE_LOG").unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG));
    let filter = match format!("{}=debug", api_log::TARGET).parse() {
        Ok(requests) if settings.verbose => filter.add_directive(requests),
        _ => filter,
    };
    let default = if std::io::stderr().is_terminal() && !serves { LogFormat::Text } else { LogFormat::Json };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Messages);
    let _ = match settings.log_format.unwrap_or(default) {
        LogFormat::Json => log.json().try_init(),
        LogFormat::Text => log.with_target(false).with_ansi(false).try_init(),
    };
}
