//! `read_file`: reads a saved kernel log in one of many text formats.
//!
//! Formats: `/dev/kmsg` records, `dmesg` with each of its time formats, journal lines, syslog (also RFC 5424) and
//! `talosctl dmesg`. The lines may also have colors, quotes, and file or node names around them.
//!
//! The log is streamed, so a large log does not need much memory. Limits: no compressed files, no binary journal files.
//! Times without a zone are read as UTC. Lines with only the uptime get no wall-clock time, because the boot time is
//! unknown.

use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use syringe_core::facts::kernel_log::KernelLog;
use syringe_core::kernel_log as xid;
use syringe_core::kernel_log::EventLog;
use syringe_core::report::{Problem, Section};
use syringe_core::text::clean;

use super::lines::Lines;
use super::options::Options;
use crate::files;

/// Maximum size: a month of logs of a node with many messages. The rest is reported as missing.
const MAX_BYTES: u64 = 1024 * 1024 * 1024;

/// Time limit, needed because standard input may never end.
const TIME: Duration = Duration::from_secs(30);

const CHUNK: usize = 64 * 1024;

/// First bytes of file formats that are not text.
const NOT_TEXT: [(&[u8], &str); 7] = [
    (&[0x1f, 0x8b], "gzip: unpack it first (gunzip)"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd: unpack it first (unzstd)"),
    (&[0xfd, b'7', b'z', b'X', b'Z'], "xz: unpack it first (unxz)"),
    (b"BZh", "bzip2: unpack it first (bunzip2)"),
    (&[0xff, 0xfe], UTF_16),
    (&[0xfe, 0xff], UTF_16),
    (b"LPKSHHRH", "a binary journal: print it with journalctl --file=FILE -o json _TRANSPORT=kernel"),
];

/// Advice for UTF-16 files, which PowerShell writes with `>`.
const UTF_16: &str = "UTF-16: convert it first (iconv -f UTF-16 -t UTF-8)";

/// Returns whether a log begins with UTF-16 text, which has many zero bytes.
fn is_wide(part: &[u8]) -> bool {
    let head = part.get(..256).unwrap_or(part);
    head.iter().filter(|byte| **byte == 0).count() * 3 > head.len()
}

/// Reads a saved log; `-` is standard input.
pub(crate) fn read_file(path: &Path, options: &Options) -> Section<KernelLog> {
    let (name, opened): (_, io::Result<Box<dyn Read>>) = if path == Path::new("-") {
        ("standard input".to_owned(), Ok(Box::new(io::stdin().lock())))
    } else {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        (clean(&name, 100), files::open(path).map(|file| Box::new(file) as Box<dyn Read>))
    };
    let result = opened.map_err(|error| unreadable(&name, &error.to_string())).and_then(|reader| {
        let mut log = EventLog::new(
            None,
            xid::Options { now: Some(Timestamp::now()), window: options.since, ..xid::Options::default() },
        );
        log.source(&name);
        let problem = push(reader, &name, &mut log)?;
        let mut log = log.finish();
        if let Some(since) = options.since {
            xid::drop_events_before(&mut log, since);
        }
        Ok((log, problem))
    });
    match result {
        Ok((log, problem)) => Section::read(log, problem.into_iter().collect()),
        Err(problem) => Section::failed(problem),
    }
}

/// Pushes every line. Returns a problem if only a part of the log could be read, and `Err` if nothing could be read.
fn push(mut reader: impl Read, name: &str, log: &mut EventLog) -> Result<Option<Problem>, Problem> {
    let started = Instant::now();
    let (mut lines, mut chunk, mut taken) = (Lines::default(), vec![0; CHUNK], 0_u64);
    let cut = |why: &str| {
        files::problem("truncated", format!("the end of {name}"), why, "Reduce the log to the days of interest.")
    };
    loop {
        let length = match reader.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => length,
            // The end of `/dev/kmsg` is reached.
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::BrokenPipe) => continue,
            Err(error) if taken == 0 => return Err(unreadable(name, &error.to_string())),
            Err(error) => return Ok(Some(cut(&error.to_string()))),
        };
        let part = chunk.get(..length).unwrap_or_default();
        if taken == 0
            && let Some((_, what)) = NOT_TEXT.iter().find(|(magic, _)| part.starts_with(magic))
        {
            return Err(unreadable(name, &format!("not text but {what}")));
        }
        if taken == 0 && is_wide(part) {
            return Err(unreadable(name, &format!("not text but {UTF_16}")));
        }
        taken = taken.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        lines.push(part, |line| log.push_line(line));
        if taken > MAX_BYTES || started.elapsed() > TIME {
            return Ok(Some(cut(&format!("only the first {taken} bytes were read"))));
        }
    }
    lines.finish(|line| log.push_line(line));
    Ok(None)
}

fn unreadable(name: &str, why: &str) -> Problem {
    let next_step = "Use a text file: the output of dmesg, journalctl or cat /dev/kmsg, or a syslog file.";
    files::problem("kernel_log_file", format!("kernel log {name}"), why, next_step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;
    use syringe_core::report::Status;

    const NOW: Options = Options { since: None, journal: false };

    #[test]
    fn every_format_of_a_saved_log_is_read() {
        let text = "NVRM: Xid (PCI:0000:5d:00): 79, pid=1, GPU has fallen off the bus.";
        let tree = Tree::new();
        for (name, content) in [
            ("kmsg", format!("3,7,171620236,-;{text}\n SUBSYSTEM=pci\n DEVICE=+pci:0000:5d:00.0\n")),
            ("dmesg", format!("[  171.620236] {text}\n")),
            ("dmesg-T", format!("[Sun Feb 23 16:24:18 2025] {text}")),
            ("syslog", format!("Feb 23 16:24:18 gpu-1 kernel: {text}\r\n")),
            ("rfc5424", format!("<3>1 2025-02-23T16:24:18Z gpu-1 kernel - - - {text}\n")),
            ("journal", format!("{{\"_TRANSPORT\":\"kernel\",\"SYSLOG_FACILITY\":\"0\",\"MESSAGE\":\"{text}\"}}\n")),
        ] {
            tree.file(name, content);
            let section = read_file(&tree.path().join(name), &NOW);
            let log = section.data.expect(name);
            assert_eq!((log.events.len(), log.events[0].code), (1, Some(79)), "{name}");
            assert_eq!(log.coverage[0].source, name);
        }
    }

    #[test]
    fn a_file_that_is_not_text_is_refused_with_the_way_to_convert_it() {
        let tree = Tree::new();
        tree.file("kern.log.2.gz", [0x1f, 0x8b, 8, 0]).file("system.journal", "LPKSHHRH....");
        let text = "[  171.620236] NVRM: Xid (PCI:0000:5d:00): 79, pid=1, GPU has fallen off the bus.\r\n";
        let wide = |mark: &str| format!("{mark}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
        tree.file("powershell", wide("\u{feff}")).file("no-mark", wide(""));
        for (name, hint) in [
            ("kern.log.2.gz", "gunzip"),
            ("system.journal", "journalctl"),
            ("missing", "No such file"),
            ("powershell", "UTF-16"),
            ("no-mark", "UTF-16"),
        ] {
            let section = read_file(&tree.path().join(name), &NOW);
            assert_eq!(section.status, Status::Error);
            assert!(section.problems[0].why.contains(hint), "{}", section.problems[0].why);
        }
    }

    #[test]
    fn a_read_error_keeps_the_lines_before_it() {
        struct Broken(bool);
        impl Read for Broken {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                if std::mem::replace(&mut self.0, true) {
                    return Err(io::Error::other("input/output error"));
                }
                let line = b"[ 1.0] NVRM: Xid (PCI:0000:5d:00): 79, GPU lost\n";
                buffer[..line.len()].copy_from_slice(line);
                Ok(line.len())
            }
        }
        let mut log = EventLog::new(None, xid::Options::default());
        let problem = push(Broken(false), "x", &mut log).expect("a part was read");
        assert_eq!(problem.map(|problem| problem.code).as_deref(), Some("truncated"));
        assert_eq!(log.finish().events.len(), 1);
    }
}
