//! `watch`: serves a stream of changes, one JSON object per line, from the resource version that the client sends.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api_error::ApiError;
use crate::cluster_state::ClusterState;
use crate::collection::{Change, Selection};
use crate::get_and_list;
use crate::kinds::Kind;
use crate::query::Query;
use crate::request_info::RequestInfo;
use crate::response::{self, Body};
use crate::selector::Fields;
use crate::store::Stored;

/// Duration of a watch without `timeoutSeconds`. A real API server uses 30 to 60 minutes.
const DEFAULT_TIMEOUT_SECONDS: u64 = 1_800;

#[derive(Serialize)]
struct WatchEvent<'a, T> {
    #[serde(rename = "type")]
    kind: &'static str,
    object: &'a T,
}

fn write_event(into: &mut BytesMut, kind: &'static str, object: &impl Serialize) {
    // The serialization of a watch event does not fail.
    if let Ok(bytes) = serde_json::to_vec(&WatchEvent { kind, object }) {
        into.put_slice(&bytes);
        into.put_u8(b'\n');
    }
}

struct Watcher<K> {
    state: Arc<ClusterState>,
    selection: Selection,
    cursor: u64,
    /// The existing objects, for a watch without a version.
    existing: VecDeque<Arc<K>>,
    changed: watch::Receiver<u64>,
    deadline: Instant,
    ended: bool,
}

/// Serves `watch`.
pub(crate) fn watch<K: Stored>(
    state: &Arc<ClusterState>,
    info: &RequestInfo,
    query: &Query,
) -> Result<Response<Body>, ApiError> {
    let mut selection = get_and_list::selection::<K>(info, query)?;
    if let Some(name) = &info.name {
        let one = format!("metadata.name={name}");
        selection.fields = Fields::parse(&one, K::FIELDS).map_err(ApiError::BadRequest)?;
    }
    let version = match query.get("resourceVersion") {
        None | Some("0") => None,
        Some(version) => Some(
            version.parse().map_err(|_| ApiError::BadRequest(format!("Invalid value: \"{version}\": not a number")))?,
        ),
    };
    let seconds = query.number("timeoutSeconds").unwrap_or(DEFAULT_TIMEOUT_SECONDS);
    let (existing, now) = state.store(|store| {
        let wanted = version.is_none().then(|| K::collection(store).page(&selection, None, None).items);
        (wanted.unwrap_or_default().into(), store.version())
    });
    let watcher = Watcher {
        state: Arc::clone(state),
        selection,
        cursor: version.unwrap_or(now),
        existing,
        changed: state.changed.subscribe(),
        deadline: Instant::now() + Duration::from_secs(seconds),
        ended: false,
    };
    let frames = stream::unfold(watcher, |mut watcher: Watcher<K>| async {
        let bytes = watcher.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(bytes)), watcher))
    });
    Ok(response::json_stream(StreamBody::new(frames).boxed_unsync()))
}

impl<K: Stored> Watcher<K> {
    /// Returns the next lines; `None` at the end of the watch.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut lines = BytesMut::new();
        for object in self.existing.drain(..) {
            write_event(&mut lines, "ADDED", &*object);
        }
        loop {
            self.write_changes(&mut lines);
            if !lines.is_empty() {
                return Some(lines.freeze());
            }
            let stop = self.state.stop.clone();
            tokio::select! {
                () = tokio::time::sleep_until(self.deadline) => return None,
                () = stop.cancelled() => return None,
                changed = self.changed.changed() => changed.ok()?,
            }
        }
    }

    /// Writes the changes after the cursor, and moves the cursor.
    fn write_changes(&mut self, lines: &mut BytesMut) {
        self.changed.mark_unchanged();
        let cursor = self.cursor;
        let selection = &self.selection;
        let (changes, version) = self.state.store(|store| {
            let changes = K::collection(store).since(cursor);
            let wanted = |change: &&Change<K>| event(change, selection).is_some();
            (changes.map(|changes| changes.filter(wanted).cloned().collect::<Vec<_>>()), store.version())
        });
        let Some(changes) = changes else {
            let expired = ApiError::Expired(format!("too old resource version: {cursor} ({version})"));
            write_event(lines, "ERROR", &expired.status());
            self.ended = true;
            return;
        };
        for change in &changes {
            if let Some((kind, object)) = event(change, selection) {
                write_event(lines, kind, object);
            }
        }
        self.cursor = cursor.max(version);
    }
}

/// Returns the event of a change for a client that watches only the selected objects.
fn event<'a, K: Kind>(change: &'a Change<K>, selection: &Selection) -> Option<(&'static str, &'a K)> {
    let before = change.before.as_deref().filter(|object| selection.matches(*object));
    let after = change.after.as_deref().filter(|object| selection.matches(*object));
    match (before, after) {
        (None, Some(object)) => Some(("ADDED", object)),
        (Some(_), Some(object)) => Some(("MODIFIED", object)),
        // The event contains the current state of an object that is no longer selected, and the last state of a deleted
        // object.
        (Some(last), None) => Some(("DELETED", change.after.as_deref().unwrap_or(last))),
        (None, None) => None,
    }
}
