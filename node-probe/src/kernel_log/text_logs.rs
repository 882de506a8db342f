//! `read`: reads the first existing text log of a host without a journal: `kern.log`, `messages` or `syslog`.
//!
//! The times are in the local time of the host, often without a year. Limits: only the newest part of
//! the newest two files is read, and only if the files are not compressed.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use syringe_core::kernel_log::EventLog;
use syringe_core::kernel_log::record::WallTime;
use syringe_core::kernel_log::record_parser;
use syringe_core::kernel_log::window::TEXT_LOGS;

use super::lines::Lines;
use crate::files;
use crate::in_root::{self, HostFile};

/// Maximum number of bytes that are read from the end of each file.
const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// Time limit for all files.
const TIME: Duration = Duration::from_millis(1500);

const CHUNK: usize = 64 * 1024;

/// The logs that were read.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The name of each log in the coverage.
    pub(super) names: Vec<String>,
    /// A note about the accuracy of the times.
    pub(super) note: &'static str,
}

/// Pushes the text log of the host, beginning with the older file.
pub(super) fn read(host: &Path, log: &mut EventLog, since: Option<Timestamp>, now: Timestamp) -> io::Result<Found> {
    let mut found = Found::default();
    // Read the first log that exists.
    let mut names = TEXT_LOGS.iter().map(|name| format!("var/log/{name}"));
    let Some(name) = names.find(|name| in_root::find(host, name).is_some()) else { return Ok(found) };
    let deadline = Instant::now() + TIME;
    let zone = zone(host);
    for name in [format!("{name}.1"), name] {
        let Some(file) = in_root::find(host, &name).filter(|file| recent(file, since)) else { continue };
        let name = format!("/{name}");
        log.source(&name);
        found.names.push(name);
        let without_year = push(&file, log, &zone, now, deadline)?;
        if without_year {
            found.note =
                "the log has no year, so the latest possible year is assumed; times are in the time zone of the host";
        }
    }
    Ok(found)
}

/// Returns whether the log was written in the window.
fn recent(file: &HostFile, since: Option<Timestamp>) -> bool {
    let written = file.modified();
    let written = written.and_then(|time| Timestamp::try_from(time).ok());
    since.is_none_or(|since| written.is_none_or(|written| written >= since))
}

/// Returns the time zone of the host; UTC if the time zone cannot be read.
fn zone(host: &Path) -> TimeZone {
    let file = in_root::find(host, "etc/localtime").and_then(|file| file.whole(files::SMALL).ok());
    file.and_then(|rules| TimeZone::tzif("host", &rules).ok()).unwrap_or(TimeZone::UTC)
}

fn push(file: &HostFile, log: &mut EventLog, zone: &TimeZone, now: Timestamp, deadline: Instant) -> io::Result<bool> {
    let (opened, begun_inside) = file.opened(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(MAX_BYTES)))?;
        Ok((file, length > MAX_BYTES))
    })?;
    let (mut lines, mut chunk, mut without_year) = (Lines::default(), vec![0; CHUNK], false);
    // The first line after a seek is incomplete.
    let mut skip = begun_inside;
    let mut line = |line: &str| {
        if std::mem::take(&mut skip) {
            return;
        }
        if let Some(mut record) = record_parser::parse_line(line) {
            without_year |= matches!(record.wall, Some(WallTime::NoYear { .. }));
            record.localise(zone, now);
            log.push_record(&record);
        }
    };
    let mut reader = files::BoundedReader::new(opened, &file.path).take(MAX_BYTES);
    while let Ok(length @ 1..) = reader.read(&mut chunk) {
        lines.push(chunk.get(..length).unwrap_or_default(), &mut line);
        if Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the log is too long to read in time"));
        }
    }
    lines.finish(&mut line);
    Ok(without_year)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;
    use syringe_core::kernel_log::Options;

    fn now() -> Timestamp {
        "2026-11-21T00:00:00Z".parse().expect("a time")
    }

    fn events(tree: &Tree) -> (Found, syringe_core::facts::kernel_log::KernelLog) {
        let mut log = EventLog::new(None, Options { now: Some(now()), ..Options::default() });
        let found = read(tree.path(), &mut log, None, now()).expect("the log can be read");
        (found, log.finish())
    }

    /// Returns a minimal time zone file: no transitions, always `+02`. As in version 2 of the format, the file contains
    /// the data twice and ends with the rule.
    fn two_hours_east() -> Vec<u8> {
        let mut block = b"TZif2".to_vec();
        block.extend([0; 15]);
        block.extend([0_u32, 0, 0, 0, 1, 4].into_iter().flat_map(u32::to_be_bytes));
        block.extend(7200_i32.to_be_bytes());
        block.extend(b"\0\0+02\0");
        [&block[..], &block[..], b"\n<+02>-2\n"].concat()
    }

    #[test]
    fn one_of_several_logs_is_read_with_its_older_file_first() {
        let tree = Tree::new();
        let xid = |day| {
            format!("2026-11-{day}T01:02:03.000000+01:00 gpu-1 kernel: NVRM: Xid (PCI:0000:5d:00): 79, GPU lost\n")
        };
        tree.file("var/log/kern.log", xid(20)).file("var/log/kern.log.1", xid(10)).file("var/log/syslog", xid(20));
        let (found, facts) = events(&tree);
        assert_eq!(found.names, ["/var/log/kern.log.1", "/var/log/kern.log"]);
        assert_eq!((facts.events[0].code, facts.events[0].count), (Some(79), 2));
        assert_eq!(facts.events[0].last.map(|at| at.to_string()).as_deref(), Some("2026-11-20T00:02:03Z"));
    }

    #[test]
    fn local_times_are_read_in_the_hosts_zone() {
        let tree = Tree::new();
        tree.file("var/log/messages", "Nov 20 10:00:00 gpu-1 kernel: NVRM: Xid (PCI:0000:5d:00): 79, GPU lost\n");
        tree.file("etc/localtime", two_hours_east());
        let (found, facts) = events(&tree);
        assert_eq!(facts.events[0].last.map(|at| at.to_string()).as_deref(), Some("2026-11-20T08:00:00Z"));
        assert!(found.note.contains("has no year"));
    }

    #[test]
    fn a_log_that_ended_before_the_window_is_not_read() {
        let tree = Tree::new();
        tree.file("var/log/messages", "Nov 20 10:00:00 gpu-1 kernel: NVRM: Xid (PCI:0000:5d:00): 79, GPU lost\n");
        let mut log = EventLog::new(None, Options::default());
        let tomorrow = Timestamp::now().checked_add(jiff::SignedDuration::from_hours(24)).expect("a time");
        let found = read(tree.path(), &mut log, Some(tomorrow), now()).expect("nothing to be read");
        assert_eq!(found.names, Vec::<String>::new());
    }

    #[test]
    fn a_host_without_text_logs_has_none() {
        assert_eq!(events(&Tree::new()).0.names, Vec::<String>::new());
    }
}
