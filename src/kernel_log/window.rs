//! `reach`, `covers`: the time that the kernel logs cover without a gap.
//! `last_before`: the end of the newest log before a time. Constants: names of logs, notes about truncated logs.
//!
//! The logs of a node can have gaps between them, e.g. if a text log ended last week and a ring buffer begins an hour
//! ago. "No Xid since" is only true back to the first gap. Limits: a gap inside one log cannot be distinguished from a
//! kernel without messages.

use jiff::{SignedDuration, Timestamp};

use crate::facts::kernel_log::Coverage;

/// Maximum difference between the times of a record in two logs. The times differ because the kernel clock is not
/// corrected while the system is running.
const DRIFT: SignedDuration = SignedDuration::from_mins(5);

/// Time for shutdown, self-test and boot of a GPU server. No driver is running during this time.
const REBOOT: SignedDuration = SignedDuration::from_mins(30);

/// A healthy kernel may log nothing for hours. A text log without lines for more than this time was probably closed.
const SILENCE: SignedDuration = SignedDuration::from_hours(24);

/// Name of the journal as a source. The journal covers the time until now.
pub const JOURNAL: &str = "journal";

/// Text logs of a host, in `/var/log`. All contain the same kernel lines; `kern.log` contains no other lines.
pub const TEXT_LOGS: [&str; 3] = ["kern.log", "messages", "syslog"];

/// Note for a log that has newer records that were not read.
pub const CUT: &str = "cut: the newest entries are missing";

/// Note for a log of which only the newest part was read: `from` is the start of that part.
pub const CUT_BEFORE: &str = "cut: older entries were not read";

/// Returns the time since which the logs cover everything. `None` if no log covers the present, or if the times of the
/// logs are not known.
pub fn reach(logs: &[Coverage], now: Timestamp) -> Option<Timestamp> {
    reach_of(&seamless(logs), now)
}

fn reach_of(logs: &[Coverage], now: Timestamp) -> Option<Timestamp> {
    let dated = || logs.iter().filter(|log| log.from.is_some());
    // The kernel buffer contains the newest records, so the covered time is computed back from the buffer. A log that
    // ended before the buffer begins does not extend this time.
    let buffer = dated().filter(|log| log.complete_since_boot.is_some()).min_by_key(|log| log.from);
    let newest = buffer.or_else(|| {
        let newest = dated().max_by_key(|log| (log.to, log.from))?;
        let whole_journal = newest.source == JOURNAL && !is_cut(newest);
        (whole_journal || meets(newest, now, SILENCE)).then_some(newest)
    })?;
    Some(back(logs, newest.from?, if newest.complete_since_boot == Some(true) { REBOOT } else { DRIFT }))
}

/// Returns whether the logs cover the time between two moments.
pub fn covers(logs: &[Coverage], from: Timestamp, until: Timestamp, now: Timestamp) -> bool {
    let logs = seamless(logs);
    reach_of(&logs, now).is_some_and(|reach| reach <= from) || back(&logs, until, DRIFT) <= from
}

/// Returns the logs. Each text log is extended back to the end of the rotated log before it, because a kernel that logs
/// nothing after a rotation leaves no gap. Only records of the kernel define the times.
fn seamless(logs: &[Coverage]) -> Vec<Coverage> {
    let rotated = |log: &Coverage| logs.iter().find(|other| other.source == format!("{}.1", log.source))?.to;
    let begins = |log: &Coverage, from: Timestamp| {
        let before = rotated(log).filter(|end| from.duration_since(*end) <= SILENCE);
        before.map_or(from, |end| from.min(end))
    };
    let from = |log: &Coverage| log.from.map(|from| begins(log, from));
    logs.iter().map(|log| Coverage { from: from(log), ..log.clone() }).collect()
}

/// Returns the time to which the logs reach back from `reach` without a gap. A pause between two logs is allowed.
fn back(logs: &[Coverage], mut reach: Timestamp, mut pause: SignedDuration) -> Timestamp {
    let before = |reach, pause| {
        logs.iter().filter(|log| meets(log, reach, pause)).filter_map(|log| log.from).filter(|from| *from < reach).min()
    };
    while let Some(from) = before(reach, pause) {
        (reach, pause) = (from, DRIFT);
    }
    reach
}

/// Returns the end of the newest log that ended before `moment`.
pub fn last_before(logs: &[Coverage], moment: Timestamp) -> Option<Timestamp> {
    logs.iter().filter_map(|log| log.to).filter(|to| *to < moment).max()
}

fn is_cut(log: &Coverage) -> bool {
    log.note.contains(CUT)
}

/// Returns whether the log continues until `moment`, or ends at most `pause` before it. The newest records of a
/// truncated log are missing, so only a very short pause is allowed.
fn meets(log: &Coverage, moment: Timestamp, pause: SignedDuration) -> bool {
    let pause = if is_cut(log) { pause.min(DRIFT) } else { pause };
    log.to.is_some_and(|to| moment.duration_since(to) <= pause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        format!("2026-11-{text}:00Z").parse().expect("a time")
    }

    /// Returns a log with the times of the first and last record, in the form `21T02:00` (day and time).
    fn log(source: &str, from: &str, to: &str, complete_since_boot: Option<bool>) -> Coverage {
        let source = source.to_owned();
        Coverage { source, from: Some(time(from)), to: Some(time(to)), complete_since_boot, ..Coverage::default() }
    }

    fn reached(logs: &[Coverage]) -> Option<Timestamp> {
        reach(logs, time("21T02:00"))
    }

    #[test]
    fn logs_that_overlap_reach_back_to_the_earliest() {
        let logs = [
            log("/dev/kmsg", "21T01:00", "21T01:30", Some(false)),
            log("/var/log/kern.log.1", "07T00:00", "14T00:00", None),
            log("/var/log/kern.log", "14T00:01", "21T01:30", None),
        ];
        assert_eq!(reached(&logs), Some(time("07T00:00")));
    }

    #[test]
    fn a_silent_kernel_after_a_rotation_leaves_no_gap() {
        let rotated = |name: &str, begins: &str| {
            let before = log(&format!("/var/log/{name}.1"), "07T00:00", "14T00:00", None);
            reached(&[before, log(&format!("/var/log/{name}"), begins, "21T01:30", None)])
        };
        assert_eq!(rotated("kern.log", "14T23:00"), Some(time("07T00:00")));
        assert_eq!(rotated("kern.log", "15T09:00"), Some(time("15T09:00")), "the log had ended before");
        assert_eq!(rotated("messages", "14T23:00"), Some(time("07T00:00")), "only records of the kernel count");
        let other = [
            log("/var/log/messages.1", "07T00:00", "14T00:00", None),
            log("/var/log/kern.log", "14T23:00", "21T01:30", None),
        ];
        assert_eq!(reached(&other), Some(time("14T23:00")), "another log's end");
    }

    #[test]
    fn a_log_that_ended_days_ago_does_not_extend_the_buffer() {
        let logs = [
            log("/var/log/syslog", "01T00:00", "17T00:00", None),
            log("/dev/kmsg", "21T01:00", "21T01:30", Some(false)),
        ];
        assert_eq!(reached(&logs), Some(time("21T01:00")));
        assert_eq!(last_before(&logs, time("21T01:00")), Some(time("17T00:00")));
        // A journal that ended days ago does not extend the time that the kernel buffer covers.
        let logs = [Coverage { source: "journal".to_owned(), ..logs[0].clone() }, logs[1].clone()];
        assert_eq!(reached(&logs), Some(time("21T01:00")));
    }

    #[test]
    fn a_reboot_is_no_gap_but_a_night_without_power_is() {
        let kmsg = log("/dev/kmsg", "20T12:00", "20T12:05", Some(true));
        let before = log("journal", "10T00:00", "20T11:45", None);
        assert_eq!(reached(&[kmsg.clone(), before]), Some(time("10T00:00")));
        let before = log("journal", "10T00:00", "19T22:00", None);
        assert_eq!(reached(&[kmsg, before]), Some(time("20T12:00")));
    }

    #[test]
    fn a_silent_kernel_is_covered_and_an_old_file_does_not_cover_the_present() {
        assert_eq!(reached(&[log("/dev/kmsg", "01T00:00", "01T00:05", Some(true))]), Some(time("01T00:00")));
        assert_eq!(reached(&[log("journal", "14T02:00", "15T00:00", None)]), Some(time("14T02:00")));
        assert_eq!(reached(&[log("kern.log", "14T02:00", "20T20:00", None)]), Some(time("14T02:00")));
        assert_eq!(reached(&[log("kern.log", "01T00:00", "09T00:00", None)]), None);
        assert_eq!(reached(&[]), None);
    }

    #[test]
    fn a_truncated_journal_ends_at_its_last_record() {
        let whole = log("journal", "14T02:00", "20T20:00", None);
        let cut = Coverage { note: format!("some records have no wall-clock time; {CUT}"), ..whole.clone() };
        assert_eq!(reached(std::slice::from_ref(&whole)), Some(time("14T02:00")));
        assert_eq!(reached(std::slice::from_ref(&cut)), None, "nothing of the last six hours was read");
        let kmsg = log("/dev/kmsg", "20T20:20", "21T01:30", Some(true));
        assert_eq!(reached(&[whole, kmsg.clone()]), Some(time("14T02:00")), "a reboot");
        assert_eq!(reached(&[cut.clone(), kmsg]), Some(time("20T20:20")), "records before the reboot were not read");
        let near = log("/dev/kmsg", "20T20:00", "21T01:30", Some(false));
        assert_eq!(reached(&[cut, near]), Some(time("14T02:00")), "they meet");
    }

    #[test]
    fn a_span_of_the_past_is_covered_by_a_log_that_holds_all_of_it() {
        let now = time("21T02:00");
        let logs = [
            log("/var/log/syslog", "01T00:00", "17T00:00", None),
            log("/dev/kmsg", "21T01:00", "21T01:30", Some(false)),
        ];
        assert!(covers(&logs, time("02T00:00"), time("03T00:00"), now));
        assert!(covers(&logs, time("21T01:10"), now, now));
        assert!(!covers(&logs, time("16T00:00"), time("17T12:00"), now), "the time ends in the gap");
        assert!(!covers(&logs, time("16T00:00"), now, now), "the gap is within the time");
    }
}
