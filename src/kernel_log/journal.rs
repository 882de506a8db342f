//! `parse`: parses one line of `journalctl -o json`.
//!
//! Only the fields of journald are trusted: `_TRANSPORT=kernel` with the facility of the kernel. The entry of a program
//! that writes to `/dev/kmsg` has this transport, but not this facility. Other fields are skipped.

use std::borrow::Cow;

use serde::Deserialize;

use crate::kernel_log::log_time::WallTime;
use crate::kernel_log::record::{Origin, Record};

/// A field as journald prints it: text, an array of bytes (text with control characters), `null` (too long), or an
/// array of texts (the entry contains the field more than once).
#[derive(Deserialize)]
#[serde(untagged)]
enum Field<'a> {
    #[serde(borrow)]
    Text(Cow<'a, str>),
    Bytes(Vec<u8>),
    Other(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(rename = "MESSAGE", borrow)]
    message: Option<Field<'a>>,
    #[serde(rename = "_TRANSPORT", borrow)]
    transport: Option<Field<'a>>,
    #[serde(rename = "SYSLOG_FACILITY", borrow)]
    facility: Option<Field<'a>>,
    #[serde(rename = "PRIORITY", borrow)]
    level: Option<Field<'a>>,
    #[serde(rename = "__REALTIME_TIMESTAMP", borrow)]
    realtime: Option<Field<'a>>,
    #[serde(rename = "_SOURCE_MONOTONIC_TIMESTAMP", borrow)]
    monotonic: Option<Field<'a>>,
    #[serde(rename = "_BOOT_ID", borrow)]
    boot_id: Option<Field<'a>>,
    #[serde(rename = "_HOSTNAME", borrow)]
    hostname: Option<Field<'a>>,
}

/// Parses one entry. `None` if the line is not a JSON object, or has no message.
pub(super) fn parse(line: &str) -> Option<Record<'_>> {
    let entry: Entry<'_> = serde_json::from_str(line).ok()?;
    let facility = number(entry.facility.as_ref());
    let kernel = matches!(&entry.transport, Some(Field::Text(transport)) if transport == "kernel");
    let of_kernel = facility.unwrap_or(0) == 0;
    // If an export does not contain the fields of journald, the origin is unknown.
    let origin = match entry.transport {
        _ if kernel && of_kernel => Origin::Kernel,
        None if of_kernel => Origin::Unclear,
        _ => Origin::Program,
    };
    Some(Record {
        origin,
        facility: facility.or(kernel.then_some(0)).and_then(|facility| facility.try_into().ok()),
        level: number(entry.level.as_ref()).and_then(|level| level.try_into().ok()),
        uptime_us: number(entry.monotonic.as_ref()),
        wall: number(entry.realtime.as_ref())
            .and_then(|time| time.try_into().ok())
            .map(|microseconds| WallTime::At { microseconds, zone: true }),
        boot_id: text(entry.boot_id),
        hostname: text(entry.hostname),
        has_prefix: true,
        ..Record::bare(message(entry.message?)?)
    })
}

fn message(field: Field<'_>) -> Option<Cow<'_, str>> {
    match field {
        Field::Text(text) => Some(text),
        Field::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned().into()),
        Field::Other(_) => None,
    }
}

fn text(field: Option<Field<'_>>) -> Option<Cow<'_, str>> {
    match field {
        Some(Field::Text(text)) => Some(text),
        _ => None,
    }
}

fn number(field: Option<&Field<'_>>) -> Option<u64> {
    match field {
        Some(Field::Text(text)) => text.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: &str = r#"{"__REALTIME_TIMESTAMP":"1740327858123456","_SOURCE_MONOTONIC_TIMESTAMP":"171620236","_BOOT_ID":"c0ffee","_TRANSPORT":"kernel","SYSLOG_FACILITY":"0","PRIORITY":"3","_HOSTNAME":"gpu-1","MESSAGE":"NVRM: \"x\"","N":1}"#;

    #[test]
    fn a_kernel_entry_carries_its_boot_and_both_times() {
        let record = parse(KERNEL).expect("an entry");
        assert_eq!((record.origin, record.facility, record.level), (Origin::Kernel, Some(0), Some(3)));
        assert_eq!((record.boot_id.as_deref(), record.hostname.as_deref()), (Some("c0ffee"), Some("gpu-1")));
        assert_eq!(record.uptime_us, Some(171_620_236));
        assert_eq!(record.wall.and_then(|wall| wall.microseconds(None)), Some(1_740_327_858_123_456));
        assert_eq!(record.text, "NVRM: \"x\"");
    }

    #[test]
    fn only_the_kernel_itself_is_trusted() {
        for (from, to, origin) in [
            (r#""_TRANSPORT":"kernel""#, r#""_TRANSPORT":"syslog""#, Origin::Program),
            (r#""_TRANSPORT":"kernel","#, "", Origin::Unclear),
            (r#""SYSLOG_FACILITY":"0""#, r#""SYSLOG_FACILITY":"1""#, Origin::Program),
        ] {
            let line = KERNEL.replace(from, to);
            let record = parse(&line).expect("an entry");
            assert_eq!(record.origin, origin, "{to}");
        }
    }

    #[test]
    fn a_message_of_bytes_is_text_and_one_without_is_no_record() {
        let bytes = parse(r#"{"MESSAGE":[78,86,82,77,58,10,255],"_TRANSPORT":"kernel"}"#).expect("an entry");
        assert_eq!(bytes.text, "NVRM:\n\u{fffd}");
        for line in [r#"{"MESSAGE":null}"#, r#"{"A":"b"}"#, "{", r#"{"MESSAGE":["a","b"]}"#] {
            assert!(parse(line).is_none(), "{line}");
        }
    }
}
