//! `pods/log`: what a container's main process wrote. Understands `container`, `tailLines`, `limitBytes`, `timestamps`
//! (ignored: no times are kept) and `follow`, which waits for the container's end and answers in one piece.

use std::sync::Arc;

use http::Response;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::answer::{Body, Refusal, plain};
use super::query::Query;
use super::route::Target;
use super::shared::Shared;
use super::{exec, kubelet, read};

/// Serves the log of a container.
pub(super) async fn serve(shared: &Arc<Shared>, target: &Target, query: &Query) -> Result<Response<Body>, Refusal> {
    let mut pod = read::find::<Pod>(shared, target)?;
    let container = exec::container(&pod, query.get("container"))?;
    let name = read::key(target).1;
    let node = exec::node(&pod, &name)?;
    if !kubelet::reachable(shared, node) {
        return Err(exec::unreachable(shared, node));
    }
    // As in a kubelet, the status decides, which is behind the runtime.
    if !has_started(&pod, &container) {
        let why = waiting_reason(&pod, &container).unwrap_or_else(|| "ContainerCreating".to_owned());
        return Err(Refusal::BadRequest(format!(
            "container \"{container}\" in pod \"{name}\" is waiting to start: {why}"
        )));
    }
    let mut changed = shared.changed.subscribe();
    while query.flag("follow") && !has_ended(&pod, &container) {
        if changed.changed().await.is_err() {
            break;
        }
        match read::find::<Pod>(shared, target) {
            Ok(now) if now.metadata.uid == pod.metadata.uid => pod = now,
            _ => break,
        }
    }
    let log = pod.metadata.uid.as_ref().and_then(|uid| shared.runtime.log(uid, &container)).unwrap_or_default();
    Ok(plain(200, cut(&log, query).to_vec()))
}

fn cut<'a>(log: &'a [u8], query: &Query) -> &'a [u8] {
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
    let limit = query.number("limitBytes").and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    &tail[..tail.len().min(limit)]
}

fn slot<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let mut slots = status.container_statuses.iter().chain(&status.ephemeral_container_statuses).flatten();
    slots.find(|slot| slot.name == container)
}

fn has_started(pod: &Pod, container: &str) -> bool {
    let state = slot(pod, container).and_then(|slot| slot.state.as_ref());
    state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
}

fn has_ended(pod: &Pod, container: &str) -> bool {
    slot(pod, container).and_then(|slot| slot.state.as_ref()).is_some_and(|state| state.terminated.is_some())
}

fn waiting_reason(pod: &Pod, container: &str) -> Option<String> {
    slot(pod, container)?.state.as_ref()?.waiting.as_ref()?.reason.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_cut_by_lines_and_by_bytes() {
        let cut = |query| String::from_utf8_lossy(cut(b"one\ntwo\nthree\n", &Query::parse(query))).into_owned();
        assert_eq!(cut(""), "one\ntwo\nthree\n");
        assert_eq!(cut("tailLines=2"), "two\nthree\n");
        assert_eq!(cut("tailLines=9"), "one\ntwo\nthree\n");
        assert_eq!(cut("tailLines=0"), "");
        assert_eq!(cut("limitBytes=4"), "one\n");
        assert_eq!(cut("tailLines=1&limitBytes=2"), "th");
    }
}
