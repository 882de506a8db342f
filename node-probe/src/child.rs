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
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::net::{AddressFamily, sockopt};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::actions::DriverTool;
use crate::nvml::Questions;

/// This program's file, whatever its name is and whether it still has one.
const PROGRAM: &str = "/proc/self/exe";
/// Largest task: paths and names.
const MOST_BYTES: u64 = 64 * 1024;

/// What a child does.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Ask NVML.
    Nvml(Questions),
    /// Become the host's journalctl.
    Journal(Journal),
    /// Say what a container can open.
    DeviceAccess(DeviceAccess),
    /// Become the driver's own tool.
    DriverTool(DriverTool),
}

/// Where the host's journal is, and from when on it is read.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Journal {
    /// The host's root.
    pub(crate) root: PathBuf,
    /// journalctl, as seen below that root.
    pub(crate) tool: PathBuf,
    /// Start of the window, seconds since 1970.
    pub(crate) since: i64,
}

/// Which devices to ask for, and where.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DeviceAccess {
    /// `cgroup.procs` of the container.
    pub(crate) theirs: PathBuf,
    /// `cgroup.procs` of the probe.
    pub(crate) ours: PathBuf,
    /// The container's `/dev`.
    pub(crate) folder: PathBuf,
    /// Device files in it.
    pub(crate) names: Vec<String>,
}

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
    stdin.lock().take(MOST_BYTES).read_to_end(&mut text).ok()?;
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

impl Task {
    /// What a list of processes shows.
    fn title(&self) -> &'static str {
        match self {
            Self::Nvml(_) => "node-probe: NVML",
            Self::Journal(_) => "node-probe: journal",
            Self::DeviceAccess(_) => "node-probe: devices of a container",
            Self::DriverTool(_) => "node-probe: nvidia-smi",
        }
    }
}
