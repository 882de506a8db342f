//! `LineTime`: the wall-clock time and the uptime at which a log line was printed. `timestamp`: converts microseconds.

use jiff::Timestamp;

/// The wall-clock time and the uptime of a line, if they are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LineTime {
    /// Microseconds since 1970.
    pub(super) wall: Option<i64>,
    /// Microseconds since boot.
    pub(super) uptime: Option<u64>,
    /// The newest wall-clock time of the earlier lines in a text log, if it is later than `wall` (the clock was set back).
    pub(super) not_before: Option<i64>,
}

impl LineTime {
    /// Returns the time for comparisons within one boot.
    pub(super) fn order(self) -> Option<i64> {
        self.wall.or(self.uptime.and_then(|uptime| uptime.try_into().ok()))
    }

    /// Returns the time for comparisons with other lines of the same log.
    pub(super) fn in_sequence(self) -> Option<i64> {
        self.order().map(|order| self.not_before.map_or(order, |before| before.max(order)))
    }
}

/// Converts microseconds since 1970. `None` if the value is outside of the supported range.
pub(super) fn timestamp(microseconds: i64) -> Option<Timestamp> {
    Timestamp::from_microsecond(microseconds).ok()
}
