//! `describe`, `read_stat`, `read_thread`, `arguments`, `start_time`: read one process or thread from `/proc/PID`.
//! `ProcContext`, `boot_time`: facts of the system that descriptions of processes need (boot time, user names).
//! The modules find processes with an open GPU, blocked threads, daemons and services.

pub(in crate::host) mod action_facts;
mod blocked_threads;
pub(in crate::host) mod daemons;
mod open_device_files;
pub(in crate::host) mod section;
pub(in crate::host) mod services;
pub(in crate::host) mod units;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use syringe_core::facts::processes::GpuProcess;
use syringe_core::text::clean;

use crate::paths::{Paths, own_cgroup};
use crate::{cgroup, files, in_root};

/// Clock ticks per second in procfs (`USER_HZ`): 100 on x86-64 and arm64, independent of `HZ`.
const TICKS_PER_SECOND: u64 = 100;

/// Maximum number of bytes that are read of a command line. The report shows less.
const MAX_COMMAND_BYTES: usize = 4096;

/// Maximum time for reading the command line. The read either returns at once or blocks.
const COMMAND_TIME: Duration = Duration::from_millis(250);

/// Maximum size of a passwd file.
const MAX_PASSWD: usize = 1024 * 1024;

/// Facts of the system that the description of every process needs, read once.
pub(in crate::host) struct ProcContext {
    boot: Option<i64>,
    users: HashMap<u32, String>,
    own_cgroup: String,
}

impl ProcContext {
    pub(in crate::host) fn read(paths: &Paths) -> Self {
        let passwd = in_root::find(&paths.host, "etc/passwd").and_then(|file| file.whole(MAX_PASSWD).ok());
        Self {
            boot: boot_time(paths),
            users: users(&String::from_utf8_lossy(&passwd.unwrap_or_default())),
            own_cgroup: own_cgroup(&paths.proc),
        }
    }
}

/// Returns the time at which the machine was booted, in seconds since 1970.
pub(in crate::host) fn boot_time(paths: &Paths) -> Option<i64> {
    // The file has a line for each interrupt, so it is long on a large machine. The boot time is after these lines.
    let stat = files::whole(&paths.proc.join("stat"), 4 * files::SMALL).unwrap_or_default();
    let stat = String::from_utf8_lossy(&stat);
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

/// Returns the time at which a process started.
pub(in crate::host) fn start_time(proc: &Path, boot: Option<i64>, pid: u32) -> Option<Timestamp> {
    started_at(boot, read_stat(proc, pid)?.start_ticks)
}

/// Returns the arguments of a process. They can contain secrets and must not be in a report.
pub(in crate::host) fn arguments(proc: &Path, pid: u32) -> Option<Vec<String>> {
    let file = proc.join(pid.to_string()).join("cmdline");
    let line = files::head_of(&file, &file, MAX_COMMAND_BYTES, Some(COMMAND_TIME)).ok()?;
    let words = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
    Some(words.collect())
}

fn users(passwd: &str) -> HashMap<u32, String> {
    let mut users = HashMap::new();
    for line in passwd.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(uid)) = (fields.next(), fields.nth(1).and_then(|uid| uid.parse().ok())) {
            // If two names have the same ID, the system shows the first name.
            users.entry(uid).or_insert_with(|| clean(name, 40));
        }
    }
    users
}

/// Some fields of `/proc/PID/stat`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Scheduler state (one letter).
    pub(crate) state: Option<String>,
    pub(crate) parent: Option<u32>,
    /// Start time, in clock ticks since boot.
    pub(crate) start_ticks: Option<u64>,
    /// Whether the process is a kernel thread.
    pub(crate) kernel_thread: bool,
}

/// The state of a thread at one read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::host) struct ThreadState {
    /// Whether the thread is in uninterruptible sleep.
    pub(in crate::host) waits: bool,
    /// Number of context switches, voluntary and involuntary.
    pub(in crate::host) switches: Option<u64>,
}

/// Reads one thread; `None` if the thread has exited. `folder`: `/proc/PID/task/TID`.
pub(in crate::host) fn read_thread(folder: &Path) -> Option<ThreadState> {
    let waits = stat(&files::text(&folder.join("stat"))?).state.as_deref() == Some("D");
    let status = if waits { files::text(&folder.join("status")) } else { None };
    Some(ThreadState { waits, switches: status.map(|status| switches(&status)) })
}

/// Returns the sum of `voluntary_ctxt_switches:` and `nonvoluntary_ctxt_switches:`.
fn switches(status: &str) -> u64 {
    let lines = status.lines().filter_map(|line| line.split_once("_ctxt_switches:"));
    lines.filter_map(|(_, count)| count.trim().parse::<u64>().ok()).fold(0, u64::saturating_add)
}

/// `PF_KTHREAD` in the kernel's flags of a process.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// Returns the current state of one process; `None` if the process does not exist.
pub(crate) fn read_stat(proc: &Path, pid: u32) -> Option<Stat> {
    Some(stat(&files::text(&proc.join(pid.to_string()).join("stat"))?))
}

/// Parses `pid (comm) state ppid …`. `comm` may contain spaces and parentheses, so fields are counted from the last
/// `)`.
fn stat(text: &str) -> Stat {
    let Some((_, rest)) = text.rsplit_once(')') else { return Stat::default() };
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // `fields` begins with the state, which is field 3 in the manual page of `/proc/PID/stat`.
    let field = |number: usize| fields.get(number - 3).copied();
    Stat {
        state: field(3).filter(|state| state.len() == 1).map(|state| clean(state, 1)),
        parent: field(4).and_then(|parent| parent.parse().ok()),
        start_ticks: field(22).and_then(|ticks| ticks.parse().ok()),
        kernel_thread: field(9)
            .and_then(|flags| flags.parse::<u64>().ok())
            .is_some_and(|flags| flags & KERNEL_THREAD != 0),
    }
}

/// Describes one process, with empty `uses` and `open_device_files`. `None` if the process does not exist.
pub(in crate::host) fn describe(proc: &Path, pid: u32, context: &ProcContext) -> Option<GpuProcess> {
    let folder = proc.join(pid.to_string());
    let Stat { state, parent, start_ticks, .. } = stat(&files::text(&folder.join("stat"))?);
    let uid = files::text(&folder.join("status")).and_then(|status| uid(&status));
    let groups = files::text(&folder.join("cgroup")).map(|text| cgroup::parse(&text, &context.own_cgroup));
    let groups = groups.unwrap_or_default();
    let zombie = state.as_deref() == Some("Z");
    // Reading the command line needs the lock of the memory map, which a process that hangs in the driver may hold.
    let stuck = state.as_deref() == Some("D");
    Some(GpuProcess {
        pid,
        name: files::text(&folder.join("comm")).map(|name| clean(&name, 40)),
        command: if stuck { None } else { command(&folder) },
        uid,
        user: uid.and_then(|uid| context.users.get(&uid).cloned()),
        started_at: started_at(context.boot, start_ticks),
        start_ticks,
        state,
        threads: None,
        uses: Vec::new(),
        open_device_files: Vec::new(),
        pod_uid: groups.pod_uid,
        container_id: groups.container_id,
        qos: groups.qos,
        parent_pid: parent.filter(|_| zombie),
    })
}

/// Returns the real user ID, which is the first number of the line `Uid:`.
fn uid(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Returns the command line without possible secrets. Kernel threads and zombies have no command line.
fn command(folder: &Path) -> Option<String> {
    let file = folder.join("cmdline");
    // A thread that hangs in the driver may hold the lock of the memory map, although the state of the main thread does
    // not show it.
    let line = files::head_of(&file, &file, MAX_COMMAND_BYTES, Some(COMMAND_TIME)).ok()?;
    let line = syringe_core::text::command::shorten(String::from_utf8_lossy(&line).split('\0'));
    (!line.is_empty()).then_some(line)
}

fn started_at(boot: Option<i64>, ticks: Option<u64>) -> Option<Timestamp> {
    let ticks = ticks?;
    let milliseconds = i64::try_from(ticks / TICKS_PER_SECOND * 1000 + ticks % TICKS_PER_SECOND * 10).ok()?;
    Timestamp::from_millisecond(boot?.checked_mul(1000)?.checked_add(milliseconds)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    #[test]
    fn parentheses_and_blanks_in_a_name_do_not_shift_the_fields() {
        let text = "4242 (a) R 1 (b) S 17 1 1 0 -1 0 0 0 0 0 5 5 0 0 20 0 9 0 987654 0 0";
        let expected =
            Stat { state: Some("S".into()), parent: Some(17), start_ticks: Some(987_654), kernel_thread: false };
        assert_eq!(stat(text), expected);
        assert_eq!(stat("no parenthesis"), Stat::default());
        assert_eq!(stat("1 (x) "), Stat::default());
    }

    #[test]
    fn a_process_is_described_with_its_user_start_and_pod() {
        let tree = Tree::new();
        tree.file("proc/stat", "cpu 1 2\nbtime 1763688000\nprocesses 1\n");
        tree.file("etc/passwd", "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/:/bin/sh\nalso:x:1000:1::/:/bin/sh\n");
        tree.file("proc/4242/stat", "4242 (python3) S 17 1 1 0 -1 0 0 0 0 0 5 5 0 0 20 0 9 0 12345 0 0");
        tree.file("proc/4242/comm", "python3\n").file("proc/4242/status", "Name:\tpython3\nUid:\t1000\t0\t0\t0\n");
        tree.file("proc/4242/cmdline", b"python3\0train.py\0--name\0a\x1b[31mb\0--token=hunter2\0");
        let context = ProcContext::read(&tree.paths());
        let process = describe(&tree.paths().proc, 4242, &context).expect("the process is there");
        assert_eq!(process.command.as_deref(), Some("python3 train.py --name … --token=…"));
        assert_eq!((process.uid, process.user.as_deref()), (Some(1000), Some("alice")));
        assert_eq!(process.started_at.map(|at| at.to_string()).as_deref(), Some("2025-11-21T01:22:03.45Z"));
        assert_eq!((process.start_ticks, process.parent_pid), (Some(12_345), None));
        assert!(describe(&tree.paths().proc, 1, &context).is_none());
    }

    #[test]
    fn the_command_line_of_a_process_that_hangs_in_the_kernel_is_not_read() {
        let tree = Tree::new();
        tree.file("proc/9/stat", "9 (python3) D 17 1 1 0 -1 0 0 0 0 0 5 5 0 0 20 0 9 0 12345 0 0");
        tree.file("proc/9/cmdline", "python3\0").file("proc/9/comm", "python3\n");
        let process = describe(&tree.paths().proc, 9, &ProcContext::read(&tree.paths())).expect("the process is there");
        assert_eq!((process.command, process.name.as_deref()), (None, Some("python3")));
    }

    #[test]
    fn a_zombie_names_the_parent_that_must_reap_it() {
        let tree = Tree::new();
        tree.file("proc/9/stat", "9 (python3) Z 17 1 1 0 -1 0 0 0 0 0 5 5 0 0 20 0 9 0 12345 0 0");
        tree.file("proc/9/cmdline", "");
        let process = describe(&tree.paths().proc, 9, &ProcContext::read(&tree.paths())).expect("the process is there");
        assert_eq!((process.state.as_deref(), process.parent_pid, process.command), (Some("Z"), Some(17), None));
    }
}
