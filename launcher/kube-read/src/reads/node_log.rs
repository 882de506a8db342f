//! `read`: reads kernel messages from log files that a node's kubelet serves, for nodes on which no probe can run.
//!
//! This needs the permission `get` on `nodes/proxy`, which gives access to the whole API of a kubelet.
//! `deploy/rbac.yaml` does not grant this permission, but gpu-syringe uses it if the user has it. NodeLogQuery is not
//! sufficient, because it reads the journal of systemd units, which does not contain kernel messages. Only the newest 4
//! MiB are read, and compressed files are not read. A node that has only a journal has no such file.
//!
//! Classic log files contain the node's local time without its time zone. The time zone is computed from the
//! modification time of the file, which the kubelet sends, because the newest line was written at that time.

use std::time::Duration;

use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use jiff::fmt::rfc2822;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use kube::client::Body;
use syringe_core::facts::kernel_log::KernelLog;
use syringe_core::kernel_log as xid;
use syringe_core::kernel_log::record::Record;
use syringe_core::kernel_log::window::TEXT_LOGS;
use syringe_core::kernel_log::{EventLog, Options, record_parser, window};
use syringe_core::text::clean;
use tokio::time::{Instant, timeout, timeout_at};

use crate::client::connection::Connection;
use crate::failure::kube_reason;

/// Maximum number of bytes that are read from the end of a log. These bytes pass through the API server.
const MAX_BYTES: usize = 4 << 20;
/// Time limit, because an answer without a probe should be fast.
const TIME: Duration = Duration::from_secs(8);
/// The part of `TIME` that is reserved for the rotated file.
const TIME_FOR_OLDER: Duration = Duration::from_secs(3);
/// Time zones differ by quarters of an hour, up to 14 h.
const QUARTER: SignedDuration = SignedDuration::from_mins(15);
/// Maximum difference between the newest line and the file's modification time, apart from the time zone.
const WRITTEN_WITHIN: SignedDuration = SignedDuration::from_mins(2);
/// Maximum time zone offset.
const FARTHEST: SignedDuration = SignedDuration::from_hours(14);

/// The last part of a file.
struct Tail {
    text: String,
    /// Whether the file was cut at its start, so that the first line may be incomplete.
    begins_inside: bool,
    modified: Option<Timestamp>,
}

/// How the time zone of a log was found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Zone {
    /// The lines contain the time zone.
    Named,
    /// The time zone, computed from the newest line and the modification time of the file.
    Computed(TimeZone),
    Unknown,
}

/// Reads kernel messages since `since`, or returns the reason why that is not possible.
pub async fn read(
    connection: &Connection,
    node: &str,
    since: Option<Timestamp>,
    time: Duration,
) -> Result<KernelLog, String> {
    let (now, time) = (connection.now(), time.min(TIME));
    let end = Instant::now() + time;
    let late = || format!("no answer within {time:?}");
    let mut stale = None;
    // The log files are tried in this order, until one is found that is still being written.
    for name in TEXT_LOGS {
        let newest = timeout_at(end, tail(connection, node, name, MAX_BYTES)).await.map_err(|_| late())??;
        let Some(newest) = newest else { continue };
        // Shortly after a rotation the newest file is almost empty.
        let room = MAX_BYTES.saturating_sub(newest.text.len());
        let rotated = format!("{name}.1");
        let older = if newest.begins_inside || room == 0 {
            None
        } else {
            let left = end.saturating_duration_since(Instant::now()).min(TIME_FOR_OLDER);
            // If the older file cannot be read, the lines of the newest file are used without it.
            timeout(left, tail(connection, node, &rotated, room)).await.ok().and_then(Result::ok).flatten()
        };
        let log = parsed([(rotated.as_str(), older.as_ref()), (name, Some(&newest))], since, now);
        if window::reach(&log.coverage, now).is_some() {
            return Ok(log);
        }
        // A file that is no longer written has no information about the current state.
        let ended = log.coverage.iter().filter_map(|coverage| coverage.to).max();
        stale.get_or_insert(match ended {
            Some(ended) => format!("{name} ends at {ended:.0}: the file is no longer written"),
            None => format!("{name} contains no line with a time"),
        });
    }
    Err(stale.unwrap_or_else(|| {
        format!(
            "the kubelet of the node serves none of {} in /var/log; the node may have only a journal",
            TEXT_LOGS.join(", ")
        )
    }))
}

/// Parses the events of log files, the older file first.
fn parsed(files: [(&str, Option<&Tail>); 2], since: Option<Timestamp>, now: Timestamp) -> KernelLog {
    let files = files.into_iter().filter_map(|(name, tail)| Some((name, tail?)));
    let zone = zone(files.clone().rev().map(|(_, tail)| tail), now);
    // If the time zone is unknown, more lines are kept.
    let since = since.map(|since| if zone == Zone::Unknown { since - FARTHEST } else { since });
    let mut log = EventLog::new(None, Options { now: Some(now), window: since, ..Options::default() });
    for (name, tail) in files {
        log.source(&format!("/var/log/{name}"));
        for mut record in records(tail) {
            if let Zone::Computed(zone) = &zone {
                record.localise(zone, now);
            }
            log.push_record(&record);
        }
    }
    let mut log = log.finish();
    if let Some(since) = since {
        xid::drop_events_before(&mut log, since);
    }
    for coverage in log.coverage.iter_mut().filter(|_| matches!(zone, Zone::Computed(_))) {
        coverage.note = "local times: the time zone was computed from the modification time of the file".to_owned();
    }
    log
}

fn records(tail: &Tail) -> impl Iterator<Item = Record<'_>> {
    tail.text.lines().skip(usize::from(tail.begins_inside)).filter_map(record_parser::parse_line)
}

/// Returns the time zone, from the newest line with a time and the modification time of the file.
fn zone<'a>(mut newest_first: impl Iterator<Item = &'a Tail>, now: Timestamp) -> Zone {
    let last = |tail: &'a Tail| {
        let last =
            tail.text.lines().rev().filter_map(record_parser::parse_line).find(|record| record.wall.is_some())?;
        Some((tail.modified, last.local_time(now)))
    };
    let (modified, local) = match newest_first.find_map(last) {
        None | Some((_, None)) => return Zone::Named,
        Some((None, Some(_))) => return Zone::Unknown,
        Some((Some(modified), Some(local))) => (modified, local),
    };
    let ahead = local.duration_since(modified);
    let past_quarter = ahead.as_secs().rem_euclid(QUARTER.as_secs());
    let below = SignedDuration::from_secs(ahead.as_secs() - past_quarter);
    let offset = if past_quarter * 2 > QUARTER.as_secs() { below + QUARTER } else { below };
    let fits = offset.abs() <= FARTHEST && (ahead - offset).abs() <= WRITTEN_WITHIN;
    let told = Offset::try_from(offset).ok().filter(|_| fits);
    told.map_or(Zone::Unknown, |offset| Zone::Computed(TimeZone::fixed(offset)))
}

/// Reads the last `most` bytes of a file in `/var/log`. Returns `None` if there is no such file.
async fn tail(connection: &Connection, node: &str, name: &str, most: usize) -> Result<Option<Tail>, String> {
    let request = Request::get(format!("/api/v1/nodes/{node}/proxy/logs/{name}"))
        .header(header::RANGE, format!("bytes=-{most}"))
        .body(Body::empty())
        .map_err(|error| error.to_string())?;
    let response = connection.client.send(request).await.map_err(|error| kube_reason(&error))?;
    let (parts, body) = response.into_parts();
    // If the response has more than `most` bytes, the kubelet does not support ranges.
    let bytes = Limited::new(body, most + 1).collect().await.map(|body| body.to_bytes());
    match (parts.status, bytes) {
        (StatusCode::NOT_FOUND, _) => Ok(None),
        (StatusCode::OK | StatusCode::PARTIAL_CONTENT, Ok(bytes)) if bytes.len() <= most => {
            let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
            let begins_inside = text(header::CONTENT_RANGE).is_some_and(|range| !range.starts_with("bytes 0-"));
            let text = String::from_utf8_lossy(&bytes).into_owned();
            Ok(Some(Tail { text, begins_inside, modified: modified(&parts.headers) }))
        }
        (StatusCode::OK | StatusCode::PARTIAL_CONTENT, _) => {
            Err(format!("the kubelet cannot return only the end of {name}"))
        }
        (status, bytes) => Err(refusal(status, &bytes.unwrap_or_default())),
    }
}

fn modified(headers: &HeaderMap) -> Option<Timestamp> {
    let text = headers.get(header::LAST_MODIFIED)?.to_str().ok()?;
    Some(rfc2822::parse(text).ok()?.timestamp())
}

/// Returns the message of a rejected request: a `Status` of the API server, or the plain text of a kubelet.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    let object: Option<kube::core::Status> = serde_json::from_slice(body).ok();
    let message = object.map(|object| object.message).filter(|message| !message.is_empty());
    let message = message.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    format!("{} (HTTP {})", clean(message.trim(), 300), status.as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-21T12:00:00Z".parse().expect("a time")
    }

    /// A log without time zones whose newest line was written at 11:59:58 UTC, with an Xid ten minutes before it.
    fn tail(local_end: &str, local_xid: &str, modified: Option<&str>) -> Tail {
        let text = format!(
            "{local_xid} gpu-1 kernel: NVRM: Xid (PCI:0000:5d:00): 31, pid=1, fault\n{local_end} gpu-1 systemd[1]: Started\n"
        );
        Tail { text, begins_inside: false, modified: modified.map(|time| time.parse().expect("a time")) }
    }

    fn xid(tail: &Tail, since: &str) -> Option<String> {
        let since = Some(since.parse().expect("a time"));
        let log = parsed([("syslog.1", None), ("syslog", Some(tail))], since, now());
        log.events.first().and_then(|event| event.last).map(|time| time.to_string())
    }

    #[test]
    fn the_zone_of_a_log_is_told_by_its_modification() {
        let written = Some("2026-11-21T11:59:58Z");
        for (end, at) in [
            ("Nov 21 06:59:58", "Nov 21 06:49:58"),
            ("Nov 21 11:59:57", "Nov 21 11:49:58"),
            ("Nov 21 17:44:58", "Nov 21 17:34:58"),
            ("Nov 22 01:59:58", "Nov 22 01:49:58"),
        ] {
            let told = xid(&tail(end, at, written), "2026-11-21T11:00:00Z");
            assert_eq!(told.as_deref(), Some("2026-11-21T11:49:58Z"), "{end}");
            assert_eq!(xid(&tail(end, at, written), "2026-11-21T11:55:00Z"), None, "{end}");
        }
    }

    #[test]
    fn an_empty_file_after_a_rotation_leaves_it_to_the_one_before() {
        let older = tail("Nov 21 06:59:58", "Nov 21 06:49:58", Some("2026-11-21T11:59:58Z"));
        let newest = Tail { text: String::new(), begins_inside: false, modified: Some(now()) };
        let log = parsed([("syslog.1", Some(&older)), ("syslog", Some(&newest))], None, now());
        let last = log.events.first().and_then(|event| event.last).map(|time| time.to_string());
        assert_eq!(last.as_deref(), Some("2026-11-21T11:49:58Z"));
    }

    #[test]
    fn where_the_zone_stays_unknown_more_is_told_than_was_asked_for() {
        let unknown = tail("Nov 21 06:59:58", "Nov 21 06:49:58", None);
        assert_eq!(xid(&unknown, "2026-11-21T11:00:00Z").as_deref(), Some("2026-11-21T06:49:58Z"));
        // The file's modification time differs from its newest line by a time that is not a time zone offset.
        let odd = tail("Nov 21 10:52:00", "Nov 21 10:42:00", Some("2026-11-21T11:59:58Z"));
        assert_eq!(xid(&odd, "2026-11-21T11:00:00Z").as_deref(), Some("2026-11-21T10:42:00Z"));
    }

    #[test]
    fn the_modification_is_read_as_http_writes_it() {
        let mut headers = HeaderMap::new();
        headers.insert(header::LAST_MODIFIED, "Sat, 21 Nov 2026 15:06:10 GMT".parse().expect("a value"));
        assert_eq!(modified(&headers).map(|time| time.to_string()).as_deref(), Some("2026-11-21T15:06:10Z"));
    }

    #[test]
    fn a_named_zone_stands() {
        let named = tail("2026-11-21T06:59:58-05:00", "2026-11-21T06:49:58-05:00", None);
        assert_eq!(xid(&named, "2026-11-21T11:00:00Z").as_deref(), Some("2026-11-21T11:49:58Z"));
    }
}
