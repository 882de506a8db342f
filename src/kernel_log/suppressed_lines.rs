//! `Suppressed`: the times at which the kernel suppressed log lines. Event counts at these times are lower bounds.
//! `count`: the number of suppressed lines that a log line reports.
//!
//! Source: `lib/ratelimit.c` (`FUNCTION: N callbacks suppressed`) and `kernel/printk` (`N messages suppressed`, `N output
//! lines suppressed due to ratelimiting`).

use jiff::Timestamp;

use crate::facts::kernel_log::KernelEvent;

use crate::kernel_log::line_time::LineTime;
use crate::kernel_log::scan::decimal;

/// Maximum time between an event and the line that reports suppressed lines. A rate limit has windows of 5 s, and the
/// kernel prints this line with the first message of the next window.
const NEAR: i64 = 10_000_000;

/// Maximum number of time spans. If there are more, the last span is extended.
const MAX: usize = 64;

/// The times at which lines were suppressed.
#[derive(Debug, Default)]
pub(super) struct Suppressed {
    /// Boot, start and end of each span, in microseconds since 1970.
    spans: Vec<(usize, i64, i64)>,
    /// Whether lines were suppressed at an unknown time.
    undated: bool,
}

/// Returns how many lines were suppressed according to a text.
#[inline]
pub(super) fn count(text: &str) -> Option<u64> {
    // Almost all lines fail this check.
    if !["suppressed", "suppressed.", "ratelimiting"].iter().any(|end| text.ends_with(end)) {
        return None;
    }
    const MARKERS: [&str; 3] = [" callbacks suppressed", " messages suppressed", " output lines suppressed"];
    let at = MARKERS.iter().find_map(|marker| text.rfind(marker))?;
    let before = text.get(..at)?;
    let digits = before.rsplit(' ').next()?;
    decimal(digits).filter(|(_, rest)| rest.is_empty()).map(|(number, _)| number)
}

impl Suppressed {
    pub(super) fn note(&mut self, boot: usize, moment: LineTime) {
        let Some(wall) = moment.wall else {
            self.undated = true;
            return;
        };
        let full = self.spans.len() >= MAX;
        match self.spans.last_mut() {
            Some((last_boot, from, to))
                if *last_boot == boot && (full || wall.abs_diff(*to) <= NEAR.unsigned_abs()) =>
            {
                *from = wall.min(*from);
                *to = wall.max(*to);
            }
            _ if full => {}
            _ => self.spans.push((boot, wall, wall)),
        }
    }

    /// Moves the times of one boot to another boot.
    pub(super) fn move_boot(&mut self, from: usize, to: usize) {
        self.spans.iter_mut().filter(|(boot, ..)| *boot == from).for_each(|(boot, ..)| *boot = to);
    }

    /// Returns whether lines of this event may have been suppressed.
    pub(super) fn touches(&self, boot: usize, event: &KernelEvent) -> bool {
        let time = |time: Option<Timestamp>| time.map(Timestamp::as_microsecond);
        let (Some(first), Some(last)) = (time(event.first), time(event.last)) else {
            return self.undated || self.spans.iter().any(|(of, ..)| *of == boot);
        };
        let near = |(of, from, to): &(usize, i64, i64)| {
            *of == boot && first <= to.saturating_add(NEAR) && from.saturating_sub(NEAR) <= last
        };
        self.undated || self.spans.iter().any(near)
    }
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn every_wording_of_the_kernel_is_counted() {
        for (text, lines) in [
            ("nv_printf: 39 callbacks suppressed", Some(39)),
            ("printk: 8 messages suppressed.", Some(8)),
            ("printk: dmesg: 12 output lines suppressed due to ratelimiting", Some(12)),
            ("nvidia-modeset: x callbacks suppressed", None),
            ("a warning was suppressed", None),
        ] {
            assert_eq!(count(text), lines, "{text}");
        }
    }
}
