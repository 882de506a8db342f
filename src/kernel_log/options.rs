//! `Options`: settings for reading a kernel log. `Clock`: the wall-clock time at which the running boot began.

use jiff::Timestamp;

/// Converts the clock of the kernel into wall-clock time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Wall-clock time at uptime 0 of the running boot: the current time minus the monotonic clock.
    pub boot_wall_time: Timestamp,
}

/// Options for reading a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Id of the running boot, with or without dashes. Journal entries with this id are joined with the kernel buffer.
    pub running_boot_id: Option<String>,
    /// The current time. It determines the year of syslog lines, which contain no year.
    pub now: Option<Timestamp>,
    /// Lines before this time are read, but do not become events.
    pub since: Option<Timestamp>,
    /// Start of the window in which records are counted. Earlier records are also read.
    pub window: Option<Timestamp>,
    /// Maximum number of distinct events that are kept.
    pub max_events: usize,
    /// Maximum size of the records that [`EventLog::raw_lines`] returns; 0 for no records.
    ///
    /// [`EventLog::raw_lines`]: super::EventLog::raw_lines
    pub raw_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { running_boot_id: None, now: None, since: None, window: None, max_events: 512, raw_bytes: 0 }
    }
}
