//! `serve`: serves `pods/log`, the output of the main process of a container.
//! It supports `container`, `tailLines`, `limitBytes`, and `follow`, which waits until the container exits and then
//! sends the whole log at once. `timestamps` is ignored.

use std::sync::Arc;

use http::Response;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use syringe_core::unknown::NOT_IN_ARCHIVE;

use crate::api_error::ApiError;
use crate::cluster_state::ClusterState;
use crate::query::Query;
use crate::request_info::RequestInfo;
use crate::response::{Body, plain_text};
use crate::{get_and_list, kubelet_connection};

/// Serves the log of a container.
pub(crate) async fn serve(
    state: &Arc<ClusterState>,
    info: &RequestInfo,
    query: &Query,
) -> Result<Response<Body>, ApiError> {
    let mut pod = get_and_list::find::<Pod>(state, info)?;
    let container = kubelet_connection::container_name(&pod, query.get("container"))?;
    let name = get_and_list::key(info).1;
    let node = kubelet_connection::node_name(&pod, &name)?;
    kubelet_connection::check_reachable(state, node)?;
    let saved =
        || pod.metadata.uid.as_ref().and_then(|uid| state.runtime.log(uid, &container)).filter(|log| !log.is_empty());
    // A real kubelet also uses the status, which is updated later than the runtime. A container that waits for its next
    // start can still have the log of its last run.
    if !has_started(&pod, &container) && saved().is_none() {
        let reason = waiting_reason(&pod, &container).unwrap_or_else(|| "ContainerCreating".to_owned());
        return Err(ApiError::BadRequest(format!(
            "container \"{container}\" in pod \"{name}\" is waiting to start: {reason}"
        )));
    }
    let mut changed = state.changed.subscribe();
    while query.flag("follow") && !has_ended(&pod, &container) {
        if changed.changed().await.is_err() {
            break;
        }
        match get_and_list::find::<Pod>(state, info) {
            Ok(current) if current.metadata.uid == pod.metadata.uid => pod = current,
            _ => break,
        }
    }
    let log = pod.metadata.uid.as_ref().and_then(|uid| state.runtime.log(uid, &container));
    if log.is_none() && state.is_saved {
        return Err(ApiError::BadRequest(format!("{NOT_IN_ARCHIVE}the log of container {container}")));
    }
    let log = log.unwrap_or_default();
    Ok(plain_text(200, limit(&log, query).to_vec()))
}

fn limit<'a>(log: &'a [u8], query: &Query) -> &'a [u8] {
    let mut start = 0;
    if let Some(lines) = query.number("tailLines").and_then(|lines| usize::try_from(lines).ok()) {
        let body = log.strip_suffix(b"\n").unwrap_or(log);
        let ends = (0..body.len()).rev().filter(|at| body[*at] == b'\n');
        start = match lines {
            0 => log.len(),
            lines => ends.skip(lines - 1).map(|at| at + 1).next().unwrap_or(0),
        };
    }
    let tail = &log[start..];
    let max_bytes = query.number("limitBytes").and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(usize::MAX);
    &tail[..tail.len().min(max_bytes)]
}

fn container_status<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let pod_status = pod.status.as_ref()?;
    let statuses = pod_status.container_statuses.iter().chain(&pod_status.init_container_statuses);
    let mut statuses = statuses.chain(&pod_status.ephemeral_container_statuses).flatten();
    statuses.find(|status| status.name == container)
}

fn has_started(pod: &Pod, container: &str) -> bool {
    let state = container_status(pod, container).and_then(|status| status.state.as_ref());
    state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
}

fn has_ended(pod: &Pod, container: &str) -> bool {
    container_status(pod, container)
        .and_then(|status| status.state.as_ref())
        .is_some_and(|state| state.terminated.is_some())
}

fn waiting_reason(pod: &Pod, container: &str) -> Option<String> {
    container_status(pod, container)?.state.as_ref()?.waiting.as_ref()?.reason.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_limited_by_lines_and_by_bytes() {
        let limit = |query| String::from_utf8_lossy(limit(b"one\ntwo\nthree\n", &Query::parse(query))).into_owned();
        assert_eq!(limit(""), "one\ntwo\nthree\n");
        assert_eq!(limit("tailLines=2"), "two\nthree\n");
        assert_eq!(limit("tailLines=9"), "one\ntwo\nthree\n");
        assert_eq!(limit("tailLines=0"), "");
        assert_eq!(limit("limitBytes=4"), "one\n");
        assert_eq!(limit("tailLines=1&limitBytes=2"), "th");
    }
}
