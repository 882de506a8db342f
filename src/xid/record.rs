//! One record of a kernel log, in any spelling, taken apart: who wrote it, when, and its text.
//!
//! Spellings: `/dev/kmsg` records; `dmesg` with its time formats and `-x`; syslog files; `journalctl` in its short
//! formats and `-o json`; RFC 5424; `talosctl dmesg`; any of these inside of colours, quotes, file and node names. Source of the first: the kernel's `dev-kmsg` documentation.
//!
//! Only facility 0 is the kernel's own word. A program may write to `/dev/kmsg`, but the kernel never lets it claim
//! facility 0; so everything else is a [`Origin::Program`] and no evidence.
//!
//! Limits: fragments of one line that old kernels printed in pieces (flags `c` and `+`) are not put together again.

use std::borrow::Cow;

use jiff::Timestamp;
use jiff::tz::TimeZone;

pub use super::log_time::WallTime;
use super::{line_parser, scan, suppressed};

/// Who wrote a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The kernel, as far as the spelling can tell.
    Kernel,
    /// A program. Never evidence.
    Program,
    /// The spelling does not tell: the kernel's line without its tag, or a program's. No evidence, but no all-clear either.
    Unclear,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Who wrote it.
    pub origin: Origin,
    /// Syslog facility, where the spelling carries one. 0 is the kernel.
    pub facility: Option<u8>,
    /// Syslog level, 0 (emergency) to 7 (debug).
    pub level: Option<u8>,
    /// Sequence number (`/dev/kmsg` only). A gap means lost records.
    pub seq: Option<u64>,
    /// Microseconds since boot.
    pub uptime_us: Option<u64>,
    /// Microseconds since the line before (`dmesg -H`).
    pub delta_us: Option<u64>,
    /// Wall-clock time, where the record carries one.
    pub wall: Option<WallTime>,
    /// The boot (journal only).
    pub boot_id: Option<Cow<'a, str>>,
    /// The host (syslog and journal).
    pub hostname: Option<Cow<'a, str>>,
    /// The flags of a `/dev/kmsg` record.
    pub flags: Option<&'a str>,
    /// Thread or CPU that printed it (`T1946`, `C12`), where the kernel was built to say so.
    pub caller: Option<&'a str>,
    /// Whether the line had any prefix. One without may be the rest of the line before.
    pub has_prefix: bool,
    /// What it says. `/dev/kmsg` escapes are undone by [`Record::plain_text`].
    pub text: Cow<'a, str>,
}

impl<'a> Record<'a> {
    /// A record of which only the text is known.
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

    /// Whether it may be about a GPU or about lines that are missing. What is not, only counts as read.
    pub fn is_of_interest(&self) -> bool {
        let text = self.text.trim_start();
        line_parser::family(text).is_some() || line_parser::mentions_nvidia(text) || suppressed::count(text).is_some()
    }

    /// The time of a line that does not name its zone, read as UTC.
    pub fn local_time(&self, now: Timestamp) -> Option<Timestamp> {
        let wall = self.wall.filter(|wall| !matches!(wall, WallTime::At { zone: true, .. }))?;
        Timestamp::from_microsecond(wall.microseconds(Some(now.as_microsecond()))?).ok()
    }

    /// Gives a local time its zone.
    pub fn localise(&mut self, zone: &TimeZone, now: Timestamp) {
        if let Some(local) = self.local_time(now)
            && let Ok(time) = zone.to_timestamp(TimeZone::UTC.to_datetime(local))
        {
            self.wall = Some(WallTime::At { microseconds: time.as_microsecond(), zone: true });
        }
    }

    /// The text with `\xNN` undone. Costs nothing when there is none.
    pub fn plain_text(&self) -> Cow<'_, str> {
        scan::unescape(&self.text)
    }
}
