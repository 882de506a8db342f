//! The bodies of the fuzz targets `kmsg` and `journal`: properties of reading `/dev/kmsg` and `journalctl` output.

use std::io::{self, ErrorKind, Read};
use std::time::Duration;

use syringe_core::facts::kernel_log::KernelLog;
use syringe_core::kernel_log::{EventLog, Options};

use super::journal::Newest;
use super::kmsg;
use super::lines::Lines;
use crate::fuzzing::assert_clean;
use crate::fuzzing::common::in_time;

/// Time limit of a read. No input may reach this limit.
const LONG: Duration = Duration::from_secs(60);

/// A device that returns one record for each read, or an error for a record that starts with a byte below 4.
struct Device<'a> {
    records: std::slice::Split<'a, u8, fn(&u8) -> bool>,
}

impl Read for Device<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(record) = self.records.next() else { return Err(ErrorKind::WouldBlock.into()) };
        match record.first() {
            Some(1) => return Err(ErrorKind::BrokenPipe.into()),
            Some(2) => return Err(ErrorKind::Interrupted.into()),
            Some(3) => return Err(io::Error::other("an I/O error")),
            _ => {}
        }
        let length = record.len().min(buffer.len());
        buffer[..length].copy_from_slice(&record[..length]);
        Ok(length)
    }
}

/// Fuzz target `kmsg`. `data` contains records of `/dev/kmsg`, separated by zero bytes.
pub fn kmsg(data: &[u8]) {
    let records = data.split((|byte| *byte == 0) as fn(&u8) -> bool);
    let count = records.clone().count() as u64;
    let mut log = EventLog::new(None, Options::default());
    log.source("/dev/kmsg");
    let drained = in_time(|| kmsg::drain(&mut Device { records }, &mut log, u64::MAX, LONG));
    let facts = in_time(|| log.finish());
    assert!(
        facts.coverage.iter().map(|coverage| coverage.records).sum::<u64>() <= count,
        "more records than were read"
    );
    assert!(drained.is_err() || facts.coverage.len() == 1);
    assert_clean(&facts, data.len());
}

/// Fuzz target `journal`. The first byte is the length of a chunk, and the rest is output of journalctl. The result
/// must not depend on the length of the chunks.
pub fn journal(data: &[u8]) {
    let Some((length, text)) = data.split_first() else { return };
    let one = in_time(|| read_journal(text, text.len()));
    let pieces = in_time(|| read_journal(text, usize::from(*length)));
    assert_eq!(one, pieces, "chunks of {length} bytes change the events");
    assert_clean(&one, data.len());
}

fn read_journal(text: &[u8], chunk: usize) -> KernelLog {
    let (mut log, mut newest, mut lines) =
        (EventLog::new(None, Options::default()), Newest::default(), Lines::default());
    log.source("journal");
    for chunk in text.chunks(chunk.max(1)) {
        lines.push(chunk, |line| newest.take(line, &mut log));
    }
    lines.finish(|line| newest.take(line, &mut log));
    newest.finish(&mut log);
    log.finish()
}
