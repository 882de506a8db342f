//! `Record`: one record of a kernel log, with its writer (`Origin`), time and text, and conversions of its time.
//! `record_parser` parses it.
//!
//! Formats: `/dev/kmsg` records; `dmesg` with its time formats and `-x`; syslog files; `journalctl` in its short formats
//! and `-o json`; RFC 5424. The format of `/dev/kmsg` is described in `dev-kmsg` of the kernel documentation.
//!
//! Only records of facility 0 are from the kernel. A program can write to `/dev/kmsg`, but not with facility 0. All
//! other records are [`Origin::Program`] and are not evidence.
//!
//! Limits: the fragments of a line that old kernels print separately (flags `c` and `+`) are not joined.

use std::borrow::Cow;

use jiff::Timestamp;
use jiff::tz::TimeZone;

pub use crate::kernel_log::log_time::WallTime;
use crate::kernel_log::{line_parser, scan, suppressed_lines};

/// The writer of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The kernel, according to the format.
    Kernel,
    /// A program. Its records are never evidence.
    Program,
    /// The format does not show the writer: the line is a kernel line without its tag, or a line of a program. The
    /// record is not evidence, but it prevents a healthy verdict.
    Unclear,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The writer of the record.
    pub origin: Origin,
    /// Syslog facility, if the format contains it. 0 is the kernel.
    pub facility: Option<u8>,
    /// Syslog level, 0 (emergency) to 7 (debug).
    pub level: Option<u8>,
    /// Sequence number (`/dev/kmsg` only). A gap means lost records.
    pub seq: Option<u64>,
    /// Microseconds since boot.
    pub uptime_us: Option<u64>,
    /// Microseconds since the previous line (`dmesg -H`).
    pub delta_us: Option<u64>,
    /// Wall-clock time, if the record contains it.
    pub wall: Option<WallTime>,
    /// Boot id (journal only).
    pub boot_id: Option<Cow<'a, str>>,
    /// Host name (syslog and journal).
    pub hostname: Option<Cow<'a, str>>,
    /// The flags of a `/dev/kmsg` record.
    pub flags: Option<&'a str>,
    /// Thread or CPU that printed the record (`T1946`, `C12`), if the kernel prints it.
    pub caller: Option<&'a str>,
    /// Whether the line had a prefix. A line without a prefix may continue the previous line.
    pub has_prefix: bool,
    /// The text. [`Record::plain_text`] reverts the escapes of `/dev/kmsg`.
    pub text: Cow<'a, str>,
}

impl<'a> Record<'a> {
    /// Creates a record that contains only a text.
    pub fn bare(text: impl Into<Cow<'a, str>>) -> Self {
        Self {
            origin: Origin::Kernel,
            facility: None,
            level: None,
            seq: None,
            uptime_us: None,
            delta_us: None,
            wall: None,
            boot_id: None,
            hostname: None,
            flags: None,
            caller: None,
            has_prefix: false,
            text: text.into(),
        }
    }

    /// Returns whether the record may be about a GPU or about missing lines. Other records are only counted.
    pub fn is_of_interest(&self) -> bool {
        let text = self.text.trim_start();
        line_parser::family(text).is_some()
            || line_parser::mentions_nvidia(text)
            || suppressed_lines::count(text).is_some()
    }

    /// Returns the time of a line without a time zone, read as UTC.
    pub fn local_time(&self, now: Timestamp) -> Option<Timestamp> {
        let wall = self.wall.filter(|wall| !matches!(wall, WallTime::At { zone: true, .. }))?;
        Timestamp::from_microsecond(wall.microseconds(Some(now.as_microsecond()))?).ok()
    }

    /// Sets the time from a local time in this time zone.
    pub fn localise(&mut self, zone: &TimeZone, now: Timestamp) {
        if let Some(local) = self.local_time(now)
            && let Ok(time) = zone.to_timestamp(TimeZone::UTC.to_datetime(local))
        {
            self.wall = Some(WallTime::At { microseconds: time.as_microsecond(), zone: true });
        }
    }

    /// Returns the text with `\xNN` unescaped. Does not allocate if the text has no escapes.
    pub fn plain_text(&self) -> Cow<'_, str> {
        scan::unescape(&self.text)
    }
}
