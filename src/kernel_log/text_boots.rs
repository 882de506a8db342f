//! `TextBoots`: finds the boot of each line in a log without boot ids, from the order, times and uptimes of the lines.
//!
//! A text log grows only at its end. A new boot begins where the kernel prints its banner, where the uptime decreases,
//! or where a correct clock is set back by hours. Boots before the running boot have earlier times. Times alone are not
//! sufficient, because the clock of a server can be wrong until it is synchronized. If a later line of the same boot
//! has a time of the running boot, all lines of that boot belong to the running boot.

use crate::kernel_log::known_text::SAME_LINE;
use crate::kernel_log::line_time::LineTime;

/// One hour, in microseconds.
const HOUR: i64 = 3_600_000_000;

/// Normal difference between wall-clock time and uptime, because the clock of the kernel drifts.
const DRIFT: i64 = HOUR / 12;

/// A clock that is set back by more than this time shows a reboot without a clock battery. The end of daylight saving
/// time sets local time back by only one hour.
const SET_BACK: i64 = 2 * HOUR;

/// If a text log has no lines for this time (half a year), the clock was probably set forward.
const SILENCE: i64 = 180 * 24 * HOUR;

/// The boot of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BootOfLine {
    Running,
    /// Not known yet: an earlier boot, unless a later line shows that it is the running boot.
    Open,
}

/// What a line shows about the earlier lines whose boot is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenLines {
    /// The boot of these lines is still not known.
    Stay,
    OfRunningBoot,
    OfEarlierBoot,
}

/// The boots of one text log while it is being read.
#[derive(Debug, Default)]
pub(super) struct TextBoots {
    running: bool,
    /// Whether the lines that are being read started with a new boot: a banner, a lower uptime, or a clock that was set
    /// back.
    begins_with_boot: bool,
    wall: Option<i64>,
    newest_wall: Option<i64>,
    uptime: Option<i64>,
}

impl TextBoots {
    /// Returns the boot of the next line, what the line shows about the earlier lines with an unknown boot, and its
    /// time. `boot_time`: the time at uptime 0 of the running boot. `stamped`: the time in the line.
    pub(super) fn next(
        &mut self,
        stamped: Option<i64>,
        uptime: Option<i64>,
        is_banner: bool,
        boot_time: i64,
    ) -> (BootOfLine, OpenLines, LineTime) {
        let Some(wall) = stamped else {
            return (BootOfLine::Running, OpenLines::Stay, LineTime { wall: None, uptime: None, not_before: None });
        };
        let fell = self.uptime.zip(uptime).is_some_and(|(before, now)| now.saturating_add(SAME_LINE) < before);
        let set_back = !self.running && self.wall.is_some_and(|before| wall.saturating_add(SET_BACK) < before);
        let begins = is_banner || fell || set_back && uptime.is_none();
        let jumped = self.wall.is_some_and(|before| wall.saturating_sub(before) > SILENCE);
        let counts_up = self.uptime.is_some() && uptime.is_some() && !fell;
        let mut before = OpenLines::Stay;
        if begins {
            before = OpenLines::OfEarlierBoot;
            *self = Self { begins_with_boot: true, newest_wall: None, running: false, ..Self::default() };
        }
        let dated_now = wall.saturating_add(SAME_LINE) >= boot_time;
        if dated_now && !self.running {
            self.running = true;
            if !begins {
                let same_boot = self.begins_with_boot || jumped || counts_up;
                before = if same_boot { OpenLines::OfRunningBoot } else { OpenLines::OfEarlierBoot };
            }
        }
        (self.wall, self.uptime) = (Some(wall), uptime.or(self.uptime));
        if !self.running {
            return (BootOfLine::Open, before, LineTime { wall: Some(wall), uptime: None, not_before: None });
        }
        // For a line of the running boot, the time follows from the uptime, even if the clock was wrong.
        let exact = uptime.map(|uptime| boot_time.saturating_add(uptime));
        let wall = exact.filter(|exact| exact.abs_diff(wall) > DRIFT.unsigned_abs()).unwrap_or(wall);
        let not_before = self.newest_wall.filter(|newest| exact.is_none() && *newest > wall);
        self.newest_wall = self.newest_wall.max(Some(wall));
        (BootOfLine::Running, before, LineTime { wall: Some(wall), uptime: None, not_before })
    }

    /// Returns whether the lines with an unknown boot belong to the running boot, at the end of the log. If such lines
    /// are more than half a year old, but have an uptime that the running boot has reached, their clock was wrong,
    /// because no text log is kept for so long.
    pub(super) fn end(&self, boot_time: i64, now: Option<i64>) -> OpenLines {
        let reached = self.uptime.zip(now).is_some_and(|(uptime, now)| boot_time.saturating_add(uptime) <= now);
        let years_ago = self.wall.zip(now).is_some_and(|(wall, now)| now.saturating_sub(wall) > SILENCE);
        if !self.running && reached && years_ago { OpenLines::OfRunningBoot } else { OpenLines::OfEarlierBoot }
    }
}
