//! Reads the end of the log of a container.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;
use syringe_core::text::clean;
use tokio::time::timeout;

use crate::client::connection::Connection;

/// Lines that are read.
const LINES: i64 = 20;
/// Bytes that are read at most.
const MAX_BYTES: i64 = 16 * 1024;
/// Longest line, in characters.
const MAX_LINE: usize = 300;
/// Time for the request. The explanation does not depend on it.
const TIME: Duration = Duration::from_secs(3);

/// The last lines of a container's log, or of the one before its last restart. `None` if it could not be read: the user may not read
/// logs, or there is none.
pub async fn tail(
    connection: &Connection,
    namespace: &str,
    pod: &str,
    container: &str,
    previous: bool,
) -> Option<Vec<String>> {
    let params = LogParams {
        container: Some(container.to_owned()),
        previous,
        tail_lines: Some(LINES),
        limit_bytes: Some(MAX_BYTES),
        ..LogParams::default()
    };
    let pods: Api<Pod> = Api::namespaced(connection.client.clone(), namespace);
    let log = timeout(TIME, pods.logs(pod, &params)).await.ok()?.ok()?;
    let lines: Vec<_> = log.lines().map(|line| clean(line, MAX_LINE)).filter(|line| !line.is_empty()).collect();
    let first = lines.len().saturating_sub(LINES as usize);
    Some(lines[first..].to_vec()).filter(|lines| !lines.is_empty())
}
