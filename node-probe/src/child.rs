//! Starts this program again as a child process, for tasks that need a separate process (NVML, another root directory or cgroup).
//!
//! ```text
//!   command(task) ─▶ /proc/self/exe, standard input = a socket with the task ─▶ task() ─▶ the task runs
//! ```
//!
//! A task names files and programs, so no other process may give one. It has no command line argument. The child accepts
//! a task only from a socket pair of its parent, and only if the parent runs the same executable. A user with exec
//! rights chooses the arguments and the content of standard input, but not the type of standard input.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::net::{AddressFamily, sockopt};
use rustix::process::Pid;

use crate::child_task::ChildTask;

/// The file of this program, even if it was renamed or deleted.
const PROGRAM: &str = "/proc/self/exe";
/// Maximum size of a task, which has paths and names.
const MAX_BYTES: u64 = 64 * 1024;

/// The command that runs `task`. Its standard input is in use; the caller sets the outputs.
///
/// # Errors
///
/// If no socket can be created, or the task is too large for it.
pub(crate) fn command(task: &ChildTask) -> io::Result<Command> {
    let (ours, theirs) = UnixStream::pair()?;
    // Nobody reads yet: a task that does not fit must fail and not block.
    ours.set_nonblocking(true)?;
    (&ours).write_all(&serde_json::to_vec(task)?)?;
    // The executable of a test is not this program: it would run all tests again.
    let mut command = Command::new(if cfg!(test) { "/bin/false" } else { PROGRAM });
    command.arg0(task.title()).stdin(Stdio::from(OwnedFd::from(theirs)));
    Ok(command)
}

/// The task of this process; `None` if it was not started by [`command`].
pub(crate) fn task() -> Option<ChildTask> {
    let stdin = io::stdin();
    if !is_from_our_parent(stdin.as_fd()) {
        return None;
    }
    let mut text = Vec::new();
    stdin.lock().take(MAX_BYTES).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Changes the root directory of this process to `root`. Returns an empty standard input for a program below it, which may have no
/// `/dev`.
///
/// # Errors
///
/// If that is not permitted, or the folder does not exist.
pub(crate) fn enter(root: &Path) -> io::Result<Stdio> {
    let nothing = File::open("/dev/null")?;
    rustix::process::chroot(root)?;
    std::env::set_current_dir("/")?;
    Ok(nothing.into())
}

fn is_from_our_parent(stdin: impl AsFd) -> bool {
    // Only a connected local socket has a peer process.
    let connected = sockopt::socket_domain(&stdin).is_ok_and(|family| family == AddressFamily::UNIX)
        && rustix::net::getpeername(&stdin).is_ok();
    let Some(parent) = rustix::process::getppid() else { return false };
    connected && sockopt::socket_peercred(&stdin).is_ok_and(|peer| peer.pid == parent) && runs_this_program(parent)
}

fn runs_this_program(process: Pid) -> bool {
    let file = |path: &str| std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let ours = file(PROGRAM);
    ours.is_some() && ours == file(&format!("/proc/{}/exe", process.as_raw_nonzero()))
}
