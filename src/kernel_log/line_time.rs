//! When a line was printed.

use jiff::Timestamp;

/// The time of a line, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LineTime {
    /// Microseconds since 1970.
    pub(super) wall: Option<i64>,
    /// Microseconds since boot.
    pub(super) uptime: Option<u64>,
}

impl LineTime {
    /// The time to compare by, within one boot.
    pub(super) fn order(self) -> Option<i64> {
        self.wall.or(self.uptime.and_then(|uptime| uptime.try_into().ok()))
    }
}

/// Microseconds since 1970 as a time, if there is such a time.
pub(super) fn timestamp(microseconds: i64) -> Option<Timestamp> {
    Timestamp::from_microsecond(microseconds).ok()
}
