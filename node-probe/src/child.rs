//! This program, started by itself: for what needs a process of its own (NVML, another root directory, another cgroup).
//!
//! ```text
//!   command(task) ─▶ /proc/self/exe, standard input = a socket with the task in it ─▶ task() ─▶ carried out
//! ```
//!
//! A task names files and programs, so nobody else may give one. There is no word for it on the command line. The child takes
//! a task only from a socket pair that its parent made, and only from a parent that runs the same executable. Whoever execs
//! into the container chooses words and what comes out of standard input, but not what standard input is.

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

use crate::task::Task;

/// This program's file, whatever its name is and whether it still has one.
const PROGRAM: &str = "/proc/self/exe";
/// Largest task: paths and names.
const MAX_BYTES: u64 = 64 * 1024;

/// The command that carries out `task`. Its standard input is taken; the outputs are the caller's to choose.
///
/// # Errors
///
/// Where no socket can be made, or the task is too large for one.
pub(crate) fn command(task: &Task) -> io::Result<Command> {
    let (ours, theirs) = UnixStream::pair()?;
    // Nobody reads yet: what does not fit must fail and not wait.
    ours.set_nonblocking(true)?;
    (&ours).write_all(&serde_json::to_vec(task)?)?;
    // A test of this library is not this program: started anew it would run every test.
    let mut command = Command::new(if cfg!(test) { "/bin/false" } else { PROGRAM });
    command.arg0(task.title()).stdin(Stdio::from(OwnedFd::from(theirs)));
    Ok(command)
}

/// The task of this process; `None` where it was not started by [`command`].
pub(crate) fn task() -> Option<Task> {
    let stdin = io::stdin();
    if !is_from_our_parent(stdin.as_fd()) {
        return None;
    }
    let mut text = Vec::new();
    stdin.lock().take(MAX_BYTES).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Makes `root` the root directory of this process. Returns an empty standard input for what is run there, which may have no
/// `/dev`.
///
/// # Errors
///
/// Where that is not permitted, or there is no such folder.
pub(crate) fn enter(root: &Path) -> io::Result<Stdio> {
    let nothing = File::open("/dev/null")?;
    rustix::process::chroot(root)?;
    std::env::set_current_dir("/")?;
    Ok(nothing.into())
}

fn is_from_our_parent(stdin: impl AsFd) -> bool {
    // Only a connected socket of this machine has a process at its other end.
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
