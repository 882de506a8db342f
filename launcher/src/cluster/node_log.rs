//! The kernel's lines in the log files that a node's kubelet serves: the hardware's own word where no probe may go.
//!
//! It asks for `get` on `nodes/proxy`, which reaches all of a kubelet: `deploy/rbac.yaml` does not grant it, and whoever has
//! it already is served. A NodeLogQuery would not do: it asks the journal for the lines of systemd units, and the kernel is
//! none. Limits: the newest 4 MiB, uncompressed; a node that keeps a journal alone has no such file.

use std::time::Duration;

use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use jiff::Timestamp;
use kube::client::Body;
use syringe_core::facts::kernel_log::KernelLog;
use syringe_core::text::clean;
use syringe_core::xid::{EventLog, Options};
use tokio::time::timeout;

use super::Connection;
use crate::error::kube_reason;

/// Files below `/var/log`. The first that exists is read: on one host they hold the same kernel lines.
const LOGS: [&str; 3] = ["kern.log", "messages", "syslog"];
/// Taken of a log, its end. Some weeks of a quiet node; it passes through the API server.
const MOST_BYTES: usize = 4 << 20;
/// Time for all of it: an answer without a probe should be a quick one.
const TIME: Duration = Duration::from_secs(8);

/// The end of a file.
struct Tail {
    bytes: Vec<u8>,
    /// Whether there is more before it, so that its first line may be a piece of one.
    begins_inside: bool,
}

/// Reads the kernel's lines since `since`, or says why it cannot.
pub(crate) async fn read(
    connection: &Connection,
    node: &str,
    since: Option<Timestamp>,
    time: Duration,
) -> Result<KernelLog, String> {
    let time = time.min(TIME);
    timeout(time, found(connection, node, since)).await.unwrap_or_else(|_| Err(format!("no answer within {time:?}")))
}

async fn found(connection: &Connection, node: &str, since: Option<Timestamp>) -> Result<KernelLog, String> {
    for name in LOGS {
        let Some(newest) = tail(connection, node, name, MOST_BYTES).await? else { continue };
        // Right after a rotation the newest file has next to nothing.
        let room = MOST_BYTES.saturating_sub(newest.bytes.len());
        let rotated = format!("{name}.1");
        let older = if newest.begins_inside || room == 0 {
            None
        } else {
            // What was read is worth more than the reason why the rest was not.
            tail(connection, node, &rotated, room).await.unwrap_or_default()
        };
        let mut log = EventLog::new(None, Options { now: Some(Timestamp::now()), since, ..Options::default() });
        for (name, tail) in older.iter().map(|tail| (rotated.as_str(), tail)).chain([(name, &newest)]) {
            log.source(&format!("/var/log/{name}"));
            push(&mut log, tail);
        }
        return Ok(log.finish());
    }
    Err(format!("its kubelet serves none of {} of /var/log; it may keep a journal alone", LOGS.join(", ")))
}

fn push(log: &mut EventLog, tail: &Tail) {
    let text = String::from_utf8_lossy(&tail.bytes);
    text.lines().skip(usize::from(tail.begins_inside)).for_each(|line| log.push_line(line));
}

/// The last `most` bytes of a file of `/var/log`; `None`: there is no such file.
async fn tail(connection: &Connection, node: &str, name: &str, most: usize) -> Result<Option<Tail>, String> {
    let request = Request::get(format!("/api/v1/nodes/{node}/proxy/logs/{name}"))
        .header(header::RANGE, format!("bytes=-{most}"))
        .body(Body::empty())
        .map_err(|error| error.to_string())?;
    let response = connection.client.send(request).await.map_err(|error| kube_reason(&error))?;
    let (parts, body) = response.into_parts();
    // One byte over is a kubelet that does not serve parts, and then this is the file's old end.
    let bytes = Limited::new(body, most + 1).collect().await.map(|body| body.to_bytes().to_vec());
    match (parts.status, bytes) {
        (StatusCode::NOT_FOUND, _) => Ok(None),
        (StatusCode::OK | StatusCode::PARTIAL_CONTENT, Ok(bytes)) if bytes.len() <= most => {
            let range = parts.headers.get(header::CONTENT_RANGE).and_then(|range| range.to_str().ok());
            let begins_inside = range.is_some_and(|range| !range.starts_with("bytes 0-"));
            Ok(Some(Tail { bytes, begins_inside }))
        }
        (StatusCode::OK | StatusCode::PARTIAL_CONTENT, _) => Err(format!("the end of {name} could not be read alone")),
        (status, bytes) => Err(refusal(status, &bytes.unwrap_or_default())),
    }
}

/// The words of whoever refused: a `Status` of the API server, or the plain text of a kubelet.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    let object: Option<kube::core::Status> = serde_json::from_slice(body).ok();
    let words = object.map(|object| object.message).filter(|message| !message.is_empty());
    let words = words.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    format!("{} (HTTP {})", clean(words.trim(), 300), status.as_u16())
}
