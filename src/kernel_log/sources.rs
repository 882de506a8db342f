//! `Source`: the time window, gaps, unrecognized lines and record count of one log while it is read.

use crate::facts::kernel_log::Coverage;
use crate::text::clean;

use crate::kernel_log::line_parser;
use crate::kernel_log::line_time::timestamp;
use crate::kernel_log::record::{Origin, Record, WallTime};

/// Maximum number of unrecognized lines that are kept as samples.
const MAX_SAMPLES: usize = 3;

const SAMPLE_CAP: usize = 200;

/// One log while it is being read.
#[derive(Debug, Default)]
pub(super) struct Source {
    name: String,
    from: Option<i64>,
    to: Option<i64>,
    /// Time span of the lines whose boot is not known yet; their clock may be wrong.
    open: Option<(i64, i64)>,
    any: bool,
    records: u64,
    lost: u64,
    last_seq: Option<u64>,
    complete: Option<bool>,
    without_year: bool,
    without_zone: bool,
    without_wall: bool,
    unread: u64,
    unread_errors: u64,
    /// Samples of unrecognized lines, each with a flag: whether the line reports an error.
    samples: Vec<(bool, String)>,
    suppressed: u64,
}

impl Source {
    pub(super) fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// Counts one record with the wall-clock time `wall` (microseconds since 1970). Only records of the kernel extend the
    /// period that the log covers, because records of programs do not show that the kernel was logging. Records before
    /// `window` (the start of the window in which records are counted) are not counted. `open`: whether the boot of the
    /// record is still unknown.
    pub(super) fn count(&mut self, record: &Record<'_>, wall: Option<i64>, window: Option<i64>, open: bool) {
        if !std::mem::replace(&mut self.any, true) {
            self.complete = complete(record);
        }
        if let Some(seq) = record.seq {
            // A sequence number that is lower than the previous number means another capture in the same file, not lost
            // records.
            let expected = self.last_seq.and_then(|last| last.checked_add(1));
            self.lost = self.lost.saturating_add(expected.map_or(0, |expected| seq.saturating_sub(expected)));
            self.last_seq = Some(seq);
        }
        if record.origin != Origin::Kernel {
            return;
        }
        let is_before = wall.zip(window).is_some_and(|(wall, window)| wall < window);
        self.records += u64::from(!is_before);
        match record.wall {
            Some(WallTime::NoYear { .. }) => self.without_year = true,
            Some(WallTime::At { zone: false, .. }) => self.without_zone = true,
            _ => {}
        }
        match wall {
            Some(wall) if open => {
                self.open = Some(self.open.map_or((wall, wall), |(from, to)| (from.min(wall), to.max(wall))));
            }
            Some(wall) => {
                self.from = Some(self.from.map_or(wall, |from| from.min(wall)));
                self.to = Some(self.to.map_or(wall, |to| to.max(wall)));
            }
            None => self.without_wall = true,
        }
    }

    /// Ends the time span of the lines whose boot was not known. `valid`: whether the times of these lines are correct.
    pub(super) fn close_open(&mut self, valid: bool) {
        if let Some((from, to)) = self.open.take().filter(|_| valid) {
            self.from = Some(self.from.map_or(from, |known| known.min(from)));
            self.to = Some(self.to.map_or(to, |known| known.max(to)));
        }
    }

    /// Counts an unrecognized line about NVIDIA.
    pub(super) fn count_unread(&mut self, text: &str) {
        self.count_unread_lines(text, 1);
    }

    /// Counts several unrecognized lines, with one of them as a sample.
    pub(super) fn count_unread_lines(&mut self, text: &str, lines: u64) {
        self.count_lines(text, lines, line_parser::speaks_of_error(text));
    }

    /// Counts an unrecognized line about another device (network card, PCIe port). Such a line reports no GPU error.
    pub(super) fn count_unread_device(&mut self, text: &str) {
        self.count_lines(text, 1, false);
    }

    fn count_lines(&mut self, text: &str, lines: u64, error: bool) {
        self.unread = self.unread.saturating_add(lines);
        self.unread_errors = self.unread_errors.saturating_add(if error { lines } else { 0 });
        // Lines that differ only in hexadecimal digits have one common sample. A line with an error is preferred.
        let shape = |text: &str| text.chars().filter(|letter| !letter.is_ascii_hexdigit()).collect::<String>();
        let sample = clean(text, SAMPLE_CAP);
        if self.samples.iter().any(|(_, known)| shape(known) == shape(&sample)) {
            return;
        }
        if self.samples.len() < MAX_SAMPLES {
            self.samples.push((error, sample));
        } else if let Some(chat) = self.samples.iter_mut().rev().find(|(known, _)| error && !known) {
            *chat = (error, sample);
        }
    }

    /// Counts lines that the kernel suppressed.
    pub(super) fn suppress(&mut self, lines: u64) {
        self.suppressed = self.suppressed.saturating_add(lines);
    }

    /// Returns the coverage of the log.
    pub(super) fn coverage(self) -> Coverage {
        let Self {
            name,
            from,
            to,
            open: _,
            any: _,
            records,
            lost,
            last_seq: _,
            complete,
            without_year,
            without_zone,
            without_wall,
            unread,
            unread_errors,
            samples,
            suppressed,
        } = self;
        let notes = [
            (without_year, "no year in the log; the latest possible year is assumed"),
            (without_year || without_zone, "time zone not stated, read as UTC"),
            (without_wall, "some records have no wall-clock time"),
        ];
        let notes: Vec<&str> = notes.into_iter().filter_map(|(given, note)| given.then_some(note)).collect();
        Coverage {
            source: name,
            from: from.and_then(timestamp),
            to: to.and_then(timestamp),
            records,
            lost_records: lost,
            complete_since_boot: complete,
            unread_lines: unread,
            unread_errors,
            unread_samples: samples.into_iter().map(|(_, sample)| sample).collect(),
            suppressed_lines: suppressed,
            note: notes.join("; "),
        }
    }
}

/// Returns whether a log that begins with this record begins at boot. For text logs this is rarely known.
fn complete(first: &Record<'_>) -> Option<bool> {
    /// The kernel prints its banner before its clock starts.
    const FIRST_MILLISECOND: u64 = 1000;
    match (first.seq, first.uptime_us) {
        (Some(seq), _) => Some(seq == 0),
        (None, Some(uptime)) if first.wall.is_none() => Some(uptime < FIRST_MILLISECOND),
        _ => None,
    }
}
