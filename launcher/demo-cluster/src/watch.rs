//! `watch`: a stream of changes, one JSON object a line, from the resource version that the client names.

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

use super::answer::{self, Body, Refusal};
use super::kinds::Kind;
use super::query::Query;
use super::read;
use super::route::Target;
use super::shared::Shared;
use super::store::{Change, Selection};

/// How long a watch lasts when the client does not say: the API server picks 30 to 60 minutes.
const DEFAULT_TIMEOUT_SECONDS: u64 = 1_800;

#[derive(Serialize)]
struct Line<'a, T> {
    #[serde(rename = "type")]
    kind: &'static str,
    object: &'a T,
}

fn line(into: &mut BytesMut, kind: &'static str, object: &impl Serialize) {
    // The objects are the client library's own types, whose serialisation has no error to give.
    if let Ok(bytes) = serde_json::to_vec(&Line { kind, object }) {
        into.put_slice(&bytes);
        into.put_u8(b'\n');
    }
}

struct Watcher<K> {
    shared: Arc<Shared>,
    selection: Selection,
    cursor: u64,
    /// What exists already, for a watch that names no version.
    existing: VecDeque<Arc<K>>,
    changed: watch::Receiver<u64>,
    deadline: Instant,
    ended: bool,
}

/// `watch`.
pub(super) fn watch<K: Kind>(shared: &Arc<Shared>, target: &Target, query: &Query) -> Result<Response<Body>, Refusal> {
    let mut selection = read::selection::<K>(target, query)?;
    if let Some(name) = &target.name {
        let one = format!("metadata.name={name}");
        selection.fields = super::selector::Fields::parse(&one, K::FIELDS).map_err(Refusal::BadRequest)?;
    }
    let version = match query.get("resourceVersion") {
        None | Some("0") => None,
        Some(version) => Some(
            version.parse().map_err(|_| Refusal::BadRequest(format!("Invalid value: \"{version}\": not a number")))?,
        ),
    };
    let seconds = query.number("timeoutSeconds").unwrap_or(DEFAULT_TIMEOUT_SECONDS);
    let (existing, now) = shared.store(|store| {
        let wanted = version.is_none().then(|| K::collection(store).page(&selection, None, None).items);
        (wanted.unwrap_or_default().into(), store.version())
    });
    let watcher = Watcher {
        shared: Arc::clone(shared),
        selection,
        cursor: version.unwrap_or(now),
        existing,
        changed: shared.changed.subscribe(),
        deadline: Instant::now() + Duration::from_secs(seconds),
        ended: false,
    };
    let frames = stream::unfold(watcher, |mut watcher: Watcher<K>| async {
        let bytes = watcher.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(bytes)), watcher))
    });
    Ok(answer::stream(StreamBody::new(frames).boxed_unsync()))
}

impl<K: Kind> Watcher<K> {
    /// The next lines; `None` at the end of the watch.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut lines = BytesMut::new();
        for object in self.existing.drain(..) {
            line(&mut lines, "ADDED", &*object);
        }
        loop {
            self.collect(&mut lines);
            if !lines.is_empty() {
                return Some(lines.freeze());
            }
            let stop = self.shared.stop.clone();
            tokio::select! {
                () = tokio::time::sleep_until(self.deadline) => return None,
                () = stop.cancelled() => return None,
                changed = self.changed.changed() => changed.ok()?,
            }
        }
    }

    /// Writes the changes since the cursor, and moves it.
    fn collect(&mut self, lines: &mut BytesMut) {
        self.changed.mark_unchanged();
        let cursor = self.cursor;
        let selection = &self.selection;
        let (changes, version) = self.shared.store(|store| {
            let changes = K::collection(store).since(cursor);
            let wanted = |change: &&Change<K>| event(change, selection).is_some();
            (changes.map(|changes| changes.filter(wanted).cloned().collect::<Vec<_>>()), store.version())
        });
        let Some(changes) = changes else {
            let gone = Refusal::Expired(format!("too old resource version: {cursor} ({version})"));
            line(lines, "ERROR", &gone.status());
            self.ended = true;
            return;
        };
        for change in &changes {
            if let Some((kind, object)) = event(change, selection) {
                line(lines, kind, object);
            }
        }
        self.cursor = cursor.max(version);
    }
}

/// What a change is to a client that sees only the selected objects.
fn event<'a, K: Kind>(change: &'a Change<K>, selection: &Selection) -> Option<(&'static str, &'a K)> {
    let before = change.before.as_deref().filter(|object| selection.matches(*object));
    let after = change.after.as_deref().filter(|object| selection.matches(*object));
    match (before, after) {
        (None, Some(object)) => Some(("ADDED", object)),
        (Some(_), Some(object)) => Some(("MODIFIED", object)),
        // An object that left the selection is told as it is now, one that went as it was last.
        (Some(last), None) => Some(("DELETED", change.after.as_deref().unwrap_or(last))),
        (None, None) => None,
    }
}
