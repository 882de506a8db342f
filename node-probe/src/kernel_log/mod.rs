//! `read`: reads the kernel's buffer, and the host's journal or text logs for earlier boots. `read_file`: a saved log.
//! `read_with_raw`: also keeps the newest records as text.
//!
//! ```text
//!   kmsg ─────────┐ this boot, as far back as the ring buffer reaches
//!   journal ──────┼─▶ EventLog (syringe_core::kernel_log) ─▶ KernelLog, each line once
//!   text_logs ────┘ earlier boots: the journal, else a text log
//!   saved ────────▶ the same, from one file
//! ```
//!
//! No source waits for new records, and every source has a limit on time and size. Other modules interpret the lines.
//! `syslog(2)` is not used: it reads the same buffer, and there is no safe interface to it.

#[cfg(any(test, fuzzing))]
#[path = "../../../fuzz/checks/kernel_log.rs"]
pub(crate) mod fuzzing;
mod journal;
mod kmsg;
mod lines;
mod options;
mod pstore;
mod saved;
mod text_logs;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use jiff::Timestamp;
use syringe_core::facts::kernel_log::{Coverage, KernelLog};
use syringe_core::kernel_log as xid;
use syringe_core::kernel_log::window::{CUT_BEFORE, JOURNAL};
use syringe_core::kernel_log::{Clock, EventLog};
use syringe_core::report::{Problem, Section};

pub(crate) use self::journal::become_in_root;
pub(crate) use self::options::Options;
pub(crate) use self::saved::read_file;
use crate::paths::{Owner, Paths};
use crate::{files, host};

/// Maximum size of the `dev/kmsg` file in saved trees.
const MAX_SAVED: usize = 64 * 1024 * 1024;

/// Maximum size of the records in a report: half of the largest report.
const MAX_RAW: usize = 2 << 20;

/// The kernel's buffer, open for reading.
struct Buffer {
    file: File,
    path: PathBuf,
    /// Whether the buffer is a device (on a machine) and not a file (in a saved tree).
    live: bool,
}

/// Reads this machine's kernel log.
pub(crate) fn read(paths: &Paths, options: &Options) -> Section<KernelLog> {
    read_with_raw(paths, options, None)
}

/// Reads this machine's kernel log, and adds its records to `raw`.
pub(crate) fn read_with_raw(paths: &Paths, options: &Options, raw: Option<&mut Vec<String>>) -> Section<KernelLog> {
    let now = Timestamp::now();
    let opened = open(paths);
    let (began, clock) = match &opened {
        Ok(Buffer { live: false, .. }) => (u64::MAX, boot_of_tree(paths)),
        _ => {
            let (began, clock) = kmsg::clocks();
            (began, Some(clock))
        }
    };
    let running_boot_id = host::identity(paths).boot_id;
    // A state of a GPU may have begun before the requested window. Therefore, the logs are always read for at least the
    // default window, and the events are filtered later.
    let since = options.since.map(|since| since.min(now.checked_sub(journal::LOOK_BACK).unwrap_or(since)));
    let raw_bytes = if raw.is_some() { MAX_RAW } else { 0 };
    let window = options.since;
    let mut log = EventLog::new(
        clock,
        xid::Options { running_boot_id, now: Some(now), window, raw_bytes, ..xid::Options::default() },
    );
    let mut problems = Vec::new();
    let buffer = opened.and_then(|buffer| kernel_buffer(buffer, &mut log, began, &mut problems));
    let boot_is_there = *buffer.as_ref().unwrap_or(&false);
    let window_in_boot = clock.zip(options.since).is_some_and(|(clock, since)| since >= clock.boot_wall_time);
    let mut note = text_logs::Found::default();
    let (mut others, mut journal) = (0, Journal::default());
    // Other logs are only needed for earlier boots, or if the buffer lost its beginning. In the root of a workload
    // every file belongs to the workload: there is no log of this machine, and no program is run.
    if paths.owner == Owner::Node && !(boot_is_there && window_in_boot) {
        if options.journal {
            journal = from_journal(paths, &mut log, since, now, &mut problems);
        }
        if !journal.answered {
            note = from_text_logs(paths, &mut log, since, now, &mut problems);
        }
        others = note.names.len() + usize::from(journal.answered);
    }
    if let Err(error) = buffer {
        problems.push(no_buffer(&error));
        if others == 0 {
            return Section { problems, ..Section::failed(Problem::default()) };
        }
    }
    if let Some(raw) = raw {
        *raw = log.raw_lines();
    }
    let mut facts = log.finish();
    for coverage in facts.coverage.iter_mut().filter(|coverage| note.names.contains(&coverage.source)) {
        coverage.note = note.note.to_owned();
    }
    if journal.cut {
        note_cut(&mut facts);
    }
    facts.coverage.extend(pstore::coverage(paths));
    if let Some(since) = options.since {
        xid::drop_events_before(&mut facts, since);
    }
    Section::read(facts, problems)
}

/// Opens `/dev/kmsg` of the probe or of the host.
fn open(paths: &Paths) -> io::Result<Buffer> {
    // In the root of a workload, the file belongs to the workload.
    let of_host = (paths.owner == Owner::Node).then(|| paths.host.join("dev/kmsg"));
    let places: Vec<PathBuf> = [paths.dev.join("kmsg")].into_iter().chain(of_host).collect();
    let mut first = None;
    for place in places {
        match open_one(&place) {
            Ok(buffer) => return Ok(buffer),
            Err(error) => drop(first.get_or_insert(error)),
        }
    }
    Err(first.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
}

fn open_one(place: &Path) -> io::Result<Buffer> {
    let file = files::open(place)?;
    let kind = file.metadata()?.file_type();
    if kind.is_char_device() || kind.is_file() {
        Ok(Buffer { file, path: place.to_owned(), live: kind.is_char_device() })
    } else {
        Err(io::Error::other("not a device and not a regular file"))
    }
}

/// Pushes the records of the kernel's buffer. Returns whether the buffer still had the first record of this boot.
fn kernel_buffer(buffer: Buffer, log: &mut EventLog, began: u64, problems: &mut Vec<Problem>) -> io::Result<bool> {
    let Buffer { mut file, path, live } = buffer;
    log.source("/dev/kmsg");
    if !live {
        let text = read_all(files::BoundedReader::new(file, &path))?;
        let mut lines = lines::Lines::default();
        lines.push(&text, |line| log.push_line(line));
        lines.finish(|line| log.push_line(line));
        let first = text.split(|byte| *byte == b'\n').next().map(String::from_utf8_lossy);
        return Ok(first.and_then(|first| xid::record_parser::parse_kmsg(&first)?.seq) == Some(0));
    }
    let drained = kmsg::drain(&mut file, log, began, kmsg::TIME)?;
    if drained.end == kmsg::End::TimeUp {
        let why = format!("the kernel prints faster than the log can be read ({:.1} s)", kmsg::TIME.as_secs_f32());
        problems.push(files::problem("timeout", "the newest records of /dev/kmsg", why, "Read the log again."));
    }
    Ok(drained.since_boot)
}

fn read_all(file: files::BoundedReader) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, u64::try_from(MAX_SAVED).unwrap_or(u64::MAX)), &mut text)?;
    Ok(text)
}

/// Returns the boot time of the machine that a saved tree is from.
fn boot_of_tree(paths: &Paths) -> Option<Clock> {
    let stat = files::text(&paths.proc.join("stat"))?;
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())?;
    Some(Clock { boot_wall_time: Timestamp::from_second(seconds).ok()? })
}

/// The result of reading the journal of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Journal {
    /// Whether the journal was read, possibly in part: no other log is then read for earlier boots.
    answered: bool,
    /// Whether older entries are missing, because of a limit or an early end.
    cut: bool,
}

/// Pushes the journal of the host, if the host has a journal and a journalctl. Errors become problems.
fn from_journal(
    paths: &Paths,
    log: &mut EventLog,
    since: Option<Timestamp>,
    now: Timestamp,
    problems: &mut Vec<Problem>,
) -> Journal {
    let command = journal::command(&paths.host, since, now).filter(|_| journal::exists(&paths.host));
    command.map(|command| push_journal(command, log, journal::TIME, problems)).unwrap_or_default()
}

fn push_journal(command: Command, log: &mut EventLog, time: Duration, problems: &mut Vec<Problem>) -> Journal {
    log.source(JOURNAL);
    match journal::run(command, log, time) {
        Ok(cut) => Journal { answered: true, cut },
        Err(problem) => {
            let answered = problem.code == journal::CUT_SHORT;
            problems.push(problem);
            Journal { answered, cut: true }
        }
    }
}

/// Notes that the journal has older entries that were not read.
fn note_cut(facts: &mut KernelLog) {
    let begun = |log: &&mut Coverage| log.source == JOURNAL && log.records > 0;
    for Coverage { note, .. } in facts.coverage.iter_mut().filter(begun) {
        *note = if note.is_empty() { CUT_BEFORE.to_owned() } else { format!("{note}; {CUT_BEFORE}") };
    }
}

fn from_text_logs(
    paths: &Paths,
    log: &mut EventLog,
    since: Option<Timestamp>,
    now: Timestamp,
    problems: &mut Vec<Problem>,
) -> text_logs::Found {
    text_logs::read(&paths.host, log, since, now).unwrap_or_else(|error| {
        problems.push(files::problem("text_log", "kernel log of earlier boots (/var/log)", error, ""));
        text_logs::Found::default()
    })
}

fn no_buffer(error: &io::Error) -> Problem {
    let next_step = match error.kind() {
        io::ErrorKind::NotFound => {
            "A privileged pod has /dev/kmsg. Without this file, the kernel log of this boot cannot be read."
        }
        io::ErrorKind::PermissionDenied => {
            "kernel.dmesg_restrict=1 requires CAP_SYSLOG. To read the Xids of this boot, run the probe in a privileged container."
        }
        _ => "Run on the node: dmesg -T | grep -i -e NVRM -e AER.",
    };
    files::problem("kmsg", "kernel log of this boot (/dev/kmsg)", error, next_step)
}

#[cfg(test)]
mod tests;
