//! `RawLines`: the newest records of each log as text, with a size limit, for an archive.

use std::collections::VecDeque;

use jiff::Timestamp;

use crate::kernel_log::record::Record;

/// The newest records of each log. The first log is the most important: later logs get the space that is left.
#[derive(Debug, Default)]
pub(super) struct RawLines {
    /// Maximum number of bytes; 0 keeps nothing.
    limit: usize,
    bytes: usize,
    done: Vec<String>,
    current: VecDeque<String>,
}

impl RawLines {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Begins the next log.
    pub(super) fn source(&mut self, name: &str) {
        if self.limit > 0 {
            self.done.extend(self.current.drain(..));
            self.done.push(format!("# {name}"));
        }
    }

    /// Adds a record of the kernel. The caller leaves out records that a program wrote. `wall`: microseconds since 1970.
    pub(super) fn push(&mut self, record: &Record<'_>, wall: Option<i64>) {
        if self.limit == 0 {
            return;
        }
        let Record { facility, level, seq, uptime_us, text, .. } = record;
        let line = match (seq, uptime_us) {
            (Some(seq), Some(uptime)) => {
                let priority = u32::from(facility.unwrap_or(0)) * 8 + u32::from(level.unwrap_or(6));
                format!("{priority},{seq},{uptime},-;{text}")
            }
            _ => match wall.and_then(|wall| Timestamp::from_microsecond(wall).ok()) {
                Some(wall) => format!("{wall:.6} kernel: {text}"),
                None => text.to_string(),
            },
        };
        self.bytes += line.len() + 1;
        self.current.push_back(line);
        while self.bytes > self.limit
            && let Some(oldest) = self.current.pop_front()
        {
            self.bytes -= oldest.len() + 1;
        }
    }

    /// Returns the records, oldest first in each log.
    pub(super) fn take(&mut self) -> Vec<String> {
        self.done.extend(self.current.drain(..));
        std::mem::take(&mut self.done)
    }
}

#[cfg(test)]
mod tests {
    use crate::kernel_log::{EventLog, Options};

    #[test]
    fn the_newest_records_of_the_first_log_are_kept_and_result_in_the_same_events() {
        let lines: Vec<_> = (0..100)
            .map(|at| format!("3,{at},{},-;NVRM: Xid (PCI:0000:3b:00): 31, pid={at}", at * 1_000_000))
            .collect();
        let mut log = EventLog::new(None, Options { raw_bytes: 600, ..Options::default() });
        log.source("/dev/kmsg");
        lines.iter().for_each(|line| log.push_line(line));
        log.push_line("30,100,5,-;program: text");
        log.source("journal");
        log.push_line("2026-11-21T02:45:10.000000Z host kernel: usb 1-1: new device");
        let raw = log.raw_lines();
        assert_eq!((raw[0].as_str(), raw.last().map(String::as_str)), ("# /dev/kmsg", Some("# journal")));
        assert_eq!(raw[raw.len() - 2], lines[99], "{raw:?}");
        assert!((8..14).contains(&raw.len()), "{raw:?}");
        let mut again = EventLog::new(None, Options::default());
        raw.iter().for_each(|line| again.push_line(line));
        assert_eq!(again.finish().events.len(), raw.len() - 2);
    }

    #[test]
    fn a_line_that_continues_a_message_of_a_program_is_left_out() {
        let mut log = EventLog::new(None, Options { raw_bytes: 600, ..Options::default() });
        log.source("/var/log/messages");
        log.push_line("Nov 21 02:45:10 host sshd[77]: a message of a program");
        log.push_line("with a secret in its second line");
        log.push_line("Nov 21 02:45:11 host kernel: usb 1-1: new device");
        let raw = log.raw_lines().join("\n");
        assert!(!raw.contains("secret") && !raw.contains("sshd") && raw.contains("new device"), "{raw}");
    }
}
