//! `command`, `run`: create and run the `journalctl` command that prints the kernel messages of earlier boots.
//! `exists`: whether there is a journal. `become_in_root`: executes `journalctl` in the root of the host.
//!
//! Only journalctl can read the format of the journal. Time and output are limited, and a journalctl that hangs is
//! killed. The journal is read backwards, with the newest entry first, so that a limit leaves out the oldest entries:
//! in the other direction, systemd before 254 counts `--lines` from the start of the window. Limits: a host without
//! systemd has no journal, and programs of a saved file tree are not run.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use syringe_core::kernel_log::{EventLog, record_parser};
use syringe_core::report::Problem;
use syringe_core::text::clean;

use super::lines::Lines;
use crate::child;
use crate::child_task::{ChildTask, Journal};
use crate::{files, in_root, trusted_file};

/// Time limit: half of the default deadline of the probe.
pub(super) const TIME: Duration = Duration::from_secs(4);

/// Maximum number of entries, counted from the newest entry. This number of entries has about 40 MiB.
const MAX_ENTRIES: u32 = 100_000;

/// Maximum number of bytes of output.
const MAX_OUTPUT: usize = 128 * 1024 * 1024;

/// Maximum number of bytes of entries about GPUs, which are kept to restore their order. The probe has 128 MiB of memory.
const MAX_KEPT: usize = 40 * 1024 * 1024;

/// Default window. It is needed because a journal can contain years.
pub(super) const LOOK_BACK: jiff::SignedDuration = jiff::SignedDuration::from_hours(7 * 24);

const CHUNK: usize = 64 * 1024;

/// Maximum number of bytes of the error output.
const MAX_STDERR: u64 = 2048;

/// The journal fields that the parser uses. journalctl adds time, boot and cursor.
const FIELDS: &str =
    "--output-fields=MESSAGE,PRIORITY,SYSLOG_FACILITY,_TRANSPORT,_SOURCE_MONOTONIC_TIMESTAMP,_BOOT_ID,_HOSTNAME";

/// Problem code if only the newest entries were read.
pub(super) const CUT_SHORT: &str = "timeout";

/// Returns whether the host has a journal, persistent or only for this boot.
pub(super) fn exists(host: &Path) -> bool {
    ["var/log/journal", "run/log/journal"].iter().any(|folder| {
        in_root::find(host, folder).and_then(|folder| folder.names().ok()).is_some_and(|names| !names.is_empty())
    })
}

/// Returns the command that prints the kernel entries of all boots; `None` if the host has no journalctl that only root can
/// change.
///
/// The option `-k` is not used, because it selects only this boot.
pub(super) fn command(host: &Path, since: Option<Timestamp>, now: Timestamp) -> Option<Command> {
    let trusted = |tool: &str| trusted_file::open(host, tool).ok();
    let tool = ["usr/bin/journalctl", "bin/journalctl"].into_iter().find_map(trusted)?.path;
    let since = since.or_else(|| now.checked_sub(LOOK_BACK).ok()).unwrap_or(Timestamp::UNIX_EPOCH).as_second();
    if host == Path::new("/") {
        let mut command = Command::new(tool);
        command.args(arguments(since)).stdin(Stdio::null());
        set_environment(&mut command);
        return Some(command);
    }
    // This program itself changes the root directory for journalctl, because the image of the probe has no `chroot`.
    let tool = Path::new("/").join(tool.strip_prefix(host).ok()?);
    child::command(&ChildTask::Journal(Journal { root: host.to_owned(), tool, since })).ok()
}

/// Sets a minimal environment, independent of the environment of the probe.
fn set_environment(command: &mut Command) {
    command.env_clear().envs([("PATH", "/usr/bin:/bin"), ("LC_ALL", "C"), ("TZ", "UTC")]);
}

fn arguments(since: i64) -> Vec<String> {
    let fixed = ["--no-pager", "--quiet", "--output=json", "--reverse", FIELDS, "_TRANSPORT=kernel"].map(str::to_owned);
    fixed.into_iter().chain([format!("--lines={MAX_ENTRIES}"), format!("--since=@{since}")]).collect()
}

/// Changes to the root of the host and executes its `journalctl` with the options for reading the journal. Returns only
/// if that fails.
pub(crate) fn become_in_root(journal: &Journal) -> std::io::Error {
    use std::os::unix::process::CommandExt;
    let Journal { root, tool, since } = journal;
    let nothing = match child::enter(root) {
        Ok(nothing) => nothing,
        Err(error) => return error,
    };
    let mut command = Command::new(tool);
    command.args(arguments(*since)).stdin(nothing);
    set_environment(&mut command);
    command.exec()
}

/// Entries in the order of journalctl: newest first.
#[derive(Debug, Default)]
pub(super) struct Newest {
    entries: u32,
    bytes: usize,
    /// Entries about GPUs. All other entries are pushed at once, because they are only counted.
    kept: Vec<String>,
}

impl Newest {
    pub(super) fn take(&mut self, line: &str, log: &mut EventLog) {
        self.entries = self.entries.saturating_add(1);
        let Some(record) = record_parser::parse_line(line) else { return log.push_line(line) };
        if record.is_of_interest() {
            self.bytes = self.bytes.saturating_add(line.len());
            self.kept.push(line.to_owned());
        } else {
            log.push_record(&record);
        }
    }

    /// Pushes the kept entries, oldest first. Returns whether there may be older entries.
    pub(super) fn finish(self, log: &mut EventLog) -> bool {
        self.kept.iter().rev().for_each(|line| log.push_line(line));
        self.entries >= MAX_ENTRIES
    }
}

/// Runs the command, which prints the newest entry first, and pushes its output. Returns whether older entries were
/// left out. If the command fails, the entries that were already read remain in the log.
pub(super) fn run(command: Command, log: &mut EventLog, time: Duration) -> Result<bool, Problem> {
    let mut newest = Newest::default();
    let result = print(command, log, &mut newest, time);
    let cut = newest.finish(log);
    result.map(|()| cut)
}

fn print(mut command: Command, log: &mut EventLog, newest: &mut Newest, time: Duration) -> Result<(), Problem> {
    let deadline = Instant::now() + time;
    // The standard input was set when the command was created.
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| {
        let tool = command.get_program().to_string_lossy().into_owned();
        failed(format!("cannot run {tool}: {error}"))
    })?;
    let said = child.stderr.take().map(|stderr| {
        thread::spawn(move || {
            let mut said = Vec::new();
            // If there is no error output, the exit status is used.
            let _ = stderr.take(MAX_STDERR).read_to_end(&mut said);
            said
        })
    });
    let (sender, chunks) = sync_channel(16);
    if let Some(stdout) = child.stdout.take() {
        thread::spawn(move || forward(stdout, &sender));
    }
    let (mut lines, mut taken) = (Lines::default(), 0_usize);
    loop {
        match chunks.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(chunk) => {
                taken = taken.saturating_add(chunk.len());
                lines.push(&chunk, |line| newest.take(line, log));
                if taken > MAX_OUTPUT || newest.bytes > MAX_KEPT {
                    end(child);
                    let why = format!("more than {taken} bytes; the oldest entries are missing");
                    return Err(Problem { code: CUT_SHORT.to_owned(), ..failed(why) });
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                end(child);
                let seconds = time.as_secs_f32();
                let why = format!("journalctl did not finish within {seconds:.1} s; the oldest entries are missing");
                return Err(Problem { code: CUT_SHORT.to_owned(), ..failed(why) });
            }
        }
    }
    lines.finish(|line| newest.take(line, log));
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    if status.success() {
        return Ok(());
    }
    let said = said.and_then(|thread| thread.join().ok()).unwrap_or_default();
    Err(failed(format!("{status}: {}", clean(&String::from_utf8_lossy(&said), 300))))
}

/// Forwards the output until the output ends or the receiver is dropped.
fn forward(mut stdout: impl Read, sender: &SyncSender<Vec<u8>>) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(length @ 1..) = stdout.read(&mut chunk) {
        let part = chunk.get(..length).unwrap_or_default().to_vec();
        if sender.send(part).is_err() {
            return;
        }
    }
}

/// Kills journalctl, and waits in a thread until it exits: a process that is stuck in the kernel must not block the probe.
fn end(mut child: Child) {
    let _ = child.kill();
    thread::spawn(move || child.wait());
}

fn failed(why: String) -> Problem {
    let next_step = "Only this boot is covered, as far as the kernel's ring buffer reaches. To get older entries, run \
        on the node: journalctl -o json _TRANSPORT=kernel > FILE, and analyze FILE.";
    files::problem("journal", "kernel log of earlier boots (journal)", why, next_step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;
    use syringe_core::kernel_log::Options;

    const ENTRY: &str = r#"{"__REALTIME_TIMESTAMP":"1740327858123456","_BOOT_ID":"c0ffee","_TRANSPORT":"kernel","SYSLOG_FACILITY":"0","MESSAGE":"NVRM: Xid (PCI:0000:5d:00): 79, pid=1, GPU has fallen off the bus."}"#;

    fn shell(script: &str, time: Duration) -> (EventLog, Result<bool, Problem>) {
        let mut log = EventLog::new(None, Options::default());
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let result = run(command, &mut log, time);
        (log, result)
    }

    #[test]
    fn entries_of_an_earlier_boot_become_its_events() {
        let (log, result) = shell(&format!("echo '{ENTRY}'; echo '{ENTRY}'"), TIME);
        assert_eq!(result, Ok(false));
        let events = log.finish().events;
        assert_eq!((events[0].code, events[0].boot_id.as_deref()), (Some(79), Some("c0ffee")));
    }

    #[test]
    fn a_journalctl_that_hangs_is_killed_and_its_output_stays() {
        let started = Instant::now();
        let (log, result) = shell(&format!("echo '{ENTRY}'; exec sleep 60"), Duration::from_millis(300));
        assert!(started.elapsed() < Duration::from_secs(20));
        assert_eq!(result.map_err(|problem| problem.code), Err("timeout".to_owned()));
        assert_eq!(log.finish().events.len(), 1);
    }

    #[test]
    fn the_error_output_of_journalctl_is_quoted() {
        let (_, result) = shell("echo 'No journal files were found.' >&2; exit 1", TIME);
        let problem = result.expect_err("it failed");
        assert!(problem.why.contains("exit status: 1") && problem.why.contains("No journal files"), "{}", problem.why);
        let missing = run(Command::new("/nonexistent/tool"), &mut EventLog::new(None, Options::default()), TIME);
        assert!(missing.expect_err("it cannot run").why.contains("/nonexistent/tool"));
    }

    #[test]
    fn the_command_reads_all_boots_within_a_window() {
        let asked = arguments(1794614400);
        assert!(asked.contains(&"--since=@1794614400".to_owned()), "{asked:?}");
        assert!(asked.contains(&"_TRANSPORT=kernel".to_owned()) && !asked.contains(&"-k".to_owned()));
    }

    #[test]
    fn only_a_journalctl_that_only_root_can_change_is_run() {
        let tree = Tree::new();
        let now: Timestamp = "2026-11-21T00:00:00Z".parse().expect("a time");
        assert!(command(tree.path(), None, now).is_none());
        tree.file("usr/bin/journalctl", "");
        let made = command(tree.path(), None, now).expect("there is a tool");
        assert_eq!(made.get_args().count(), 0, "no argument names the root or the program");
        let folder = tree.path().join("usr/bin");
        std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("ours");
        assert!(command(tree.path(), None, now).is_none());
    }

    /// A journalctl that behaves like systemd before 254: it prints the first entries of the window, or with --reverse the
    /// newest entries, newest first.
    const BEFORE_254: &str = r#"
        lines=3
        for argument; do case "$argument" in --reverse) reverse=yes;; esac; done
        entry() { echo "{\"__REALTIME_TIMESTAMP\":\"17403278${1}000000\",\"_BOOT_ID\":\"c0ffee\",\"_TRANSPORT\":\"kernel\",\"SYSLOG_FACILITY\":\"0\",\"MESSAGE\":\"$2\"}"; }
        all() {
            entry 50 "usb 1-1: new device"; entry 51 "usb 1-1: gone"; entry 52 "usb 1-1: back"
            entry 57 "NVRM: GPU at PCI:0000:5d:00: GPU-b6c3b2be-c55b-d076-fa0e-d464e4c7e08b"
            entry 58 "NVRM: GPU Board Serial Number: 1653723052734"
            entry 59 "NVRM: Xid (PCI:0000:5d:00): 79, GPU has fallen off the bus."
        }
        if [ "$reverse" ]; then all | tac | head -n $lines; else all | head -n $lines; fi
    "#;

    #[test]
    fn the_newest_entries_are_read_in_order_with_every_version_of_systemd() {
        let mut log = EventLog::new(None, Options::default());
        let mut command = Command::new("sh");
        command.args(["-c", BEFORE_254, "journalctl"]).args(arguments(0));
        assert_eq!(run(command, &mut log, TIME), Ok(false));
        let facts = log.finish();
        assert_eq!(facts.coverage[0].records, 3);
        let events: Vec<_> = facts.events.iter().map(|event| (event.code, event.gpu_uuid.is_some())).collect();
        assert_eq!(events, [(Some(79), true)]);
        let serial = facts.events[0].details.get("board_serial").map(String::as_str);
        assert_eq!(serial, Some("1653723052734"), "the line belongs to the GPU that was named before it");
    }

    #[test]
    fn a_journal_with_more_entries_than_the_limit_is_truncated() {
        let (_, result) = shell(&format!("yes '{ENTRY}' | head -n {MAX_ENTRIES}"), Duration::from_secs(60));
        assert_eq!(result, Ok(true));
    }

    #[test]
    fn an_empty_journal_folder_is_not_a_journal() {
        let tree = Tree::new();
        tree.folder("var/log/journal");
        assert!(!exists(tree.path()));
        tree.folder("var/log/journal/0123456789abcdef");
        assert!(exists(tree.path()));
    }
}
