//! `LineTime`: the time at which a line was printed.

use jiff::Timestamp;

/// The wall-clock time and the uptime of a line, if they are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LineTime {
    /// Microseconds since 1970.
    pub(super) wall: Option<i64>,
    /// Microseconds since boot.
    pub(super) uptime: Option<u64>,
}

impl LineTime {
    /// Returns the time for comparisons within one boot.
    pub(super) fn order(self) -> Option<i64> {
        self.wall.or(self.uptime.and_then(|uptime| uptime.try_into().ok()))
    }
}

/// Converts microseconds since 1970. `None` if the value is outside of the supported range.
pub(super) fn timestamp(microseconds: i64) -> Option<Timestamp> {
    Timestamp::from_microsecond(microseconds).ok()
}
