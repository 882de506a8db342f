//! `command`, `output`, `end`: start this program again as a child process for a task, with a deadline.
//! `task`: the task of this child process. `isolate`, `enter`, `limit` and others: restrict the child process.
//!
//! These tasks are calls of NVML, and tasks with another root directory, cgroup or network.
//!
//! ```text
//!   command(task) ─▶ /proc/self/exe, standard input = a socket with the task ─▶ task() ─▶ the task runs
//! ```
//!
//! A task contains paths of files and programs, so no other process may provide a task. A task is not passed as a
//! command line argument. The child accepts a task only from a socket pair of its parent, and only if the parent runs
//! the same executable. A user with exec rights chooses the arguments and the content of standard input, but not the
//! type of standard input.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, sockopt};
use rustix::process::{
    DumpableBehavior, Pid, Resource, Rlimit, Signal, getppid, set_dumpable_behavior, set_parent_process_death_signal,
    setrlimit,
};

use crate::child_task::ChildTask;

/// The executable of this program, even if the file was renamed or deleted.
const PROGRAM: &str = "/proc/self/exe";
/// Maximum size of a task (which contains paths and names), and maximum size of an output.
const MAX_BYTES: u64 = 64 * 1024;
/// Maximum time for a process to exit after it was killed, and for its last output.
const KILL_TIME: Duration = Duration::from_millis(200);
/// The value of `oom_score_adj` with which the kernel kills this process first if the pod runs out of memory.
const END_FIRST: &str = "1000";
/// Maximum size of a core dump. A limit of 1 also prevents the kernel from starting a program for the dump.
const NO_DUMP: u64 = 1;
/// Pause between two checks of a process.
const PAUSE: Duration = Duration::from_millis(2);

/// Reserves standard output of a child process for its answers, so that output of a library cannot mix with them.
pub(crate) fn take_output() -> io::Result<File> {
    let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    rustix::stdio::dup2_stdout(File::options().write(true).open("/dev/null")?)?;
    Ok(output)
}

/// Returns the command that runs `task`. The task is passed on standard input; the caller sets the outputs.
///
/// # Errors
///
/// Fails if no socket can be created, or if the task is too large for the socket.
pub(crate) fn command(task: &ChildTask) -> io::Result<Command> {
    let (ours, theirs) = UnixStream::pair()?;
    // Nothing reads from the socket yet, so writing a task that is too large for the socket must fail instead of
    // blocking.
    ours.set_nonblocking(true)?;
    (&ours).write_all(&serde_json::to_vec(task)?)?;
    // In a test, the executable is the test program, which would run all tests again.
    let mut command = Command::new(if cfg!(test) { "/bin/false" } else { PROGRAM });
    command.arg0(task.title()).stdin(Stdio::from(OwnedFd::from(theirs)));
    Ok(command)
}

/// Returns the task of this process; `None` if the process was not started by [`command`].
pub(crate) fn task() -> Option<ChildTask> {
    let stdin = io::stdin();
    if !is_from_our_parent(stdin.as_fd()) {
        return None;
    }
    let mut text = Vec::new();
    stdin.lock().take(MAX_BYTES).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Closes the descriptors that this process inherited, except standard input, output and error. A container runtime or
/// a caller can leave descriptors open in the probe. Must be called before this process opens files.
pub(crate) fn close_inherited() {
    let Ok(folder) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers: Vec<i32> = folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    // The descriptor of the folder is closed already.
    let is_open = |number: &i32| *number > 2 && std::fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_ok();
    for number in numbers.into_iter().filter(is_open) {
        // SAFETY: nothing in this process owns one of these descriptors.
        #[allow(unsafe_code, reason = "the owner of an inherited descriptor is another process")]
        unsafe {
            rustix::io::close(number);
        }
    }
}

/// Returns the process that started this process, even if it has exited since.
pub(crate) fn parent() -> Option<Pid> {
    sockopt::socket_peercred(io::stdin()).ok().map(|peer| peer.pid)
}

/// Runs a command with a deadline. The command is killed if it does not exit within `time`.
///
/// # Errors
///
/// Fails if the command cannot be started, or does not exit in time. A process that hangs in the kernel remains, and the
/// error contains the ID of this process.
pub(crate) fn output(mut command: Command, time: Duration) -> io::Result<Output> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (stdout, stderr) = (read_all(child.stdout.take()), read_all(child.stderr.take()));
    let status = match end(&mut child, time)? {
        End::Exited(status) => status,
        End::Late { left } => {
            let left = left.map(left_behind).unwrap_or_default();
            let why = format!("the process did not end within {:.1} s{left}", time.as_secs_f32());
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
    };
    let text = |part: Receiver<Vec<u8>>| part.recv_timeout(KILL_TIME).unwrap_or_default();
    Ok(Output { status, stdout: text(stdout), stderr: text(stderr) })
}

/// How a process with a time limit ended.
pub(crate) enum End {
    Exited(ExitStatus),
    /// The process did not exit in time and was killed. `left`: its ID, if it is still there after the kill.
    Late {
        left: Option<u32>,
    },
}

/// Waits for a process, and kills it if it does not exit within `time`.
///
/// # Errors
///
/// Fails if the process cannot be waited for.
pub(crate) fn end(child: &mut Child, time: Duration) -> io::Result<End> {
    if let Some(status) = wait(child, time)? {
        return Ok(End::Exited(status));
    }
    let _ = child.kill();
    Ok(End::Late { left: wait(child, KILL_TIME)?.is_none().then(|| child.id()) })
}

/// Returns how a process ended: its signal or its exit status.
pub(crate) fn exit_text(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => {
            let name = rustix::process::Signal::from_named_raw(signal).map(|signal| format!(" ({signal:?})"));
            format!("was killed by signal {signal}{}", name.unwrap_or_default())
        }
        (None, Some(code)) => format!("exited with status {code}"),
        (None, None) => "ended".to_owned(),
    }
}

/// Makes this child the first process that the kernel kills if memory is scarce, and prevents dumps and traces of its
/// memory.
///
/// # Errors
///
/// Fails if the limits cannot be set, or if the parent has ended.
pub(crate) fn isolate() -> io::Result<()> {
    std::fs::write("/proc/self/oom_score_adj", END_FIRST)?;
    limit(Resource::Core, NO_DUMP)?;
    end_with_parent()
}

/// Sets a limit of this process.
///
/// # Errors
///
/// Fails if this is not permitted.
pub(crate) fn limit(resource: Resource, most: u64) -> io::Result<()> {
    Ok(setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?)
}

/// Makes the kernel kill this process when its parent exits, and prevents dumps and traces. A change of the user of
/// this process clears these settings.
///
/// # Errors
///
/// Fails if the parent has ended.
pub(crate) fn end_with_parent() -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // A parent that ended earlier sends no signal.
    match getppid() == parent() {
        true => Ok(()),
        false => Err(io::Error::other("the probe has ended")),
    }
}

/// Returns the text for a process that cannot be killed.
pub(crate) fn left_behind(process: u32) -> String {
    format!(
        "; process {process} of the probe hangs in the kernel and could not be killed: the process stays until its kernel call returns"
    )
}

/// Reads an output in a thread, because a full pipe would block the child.
fn read_all(output: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut text = Vec::new();
        let _ = output.map(|output| output.take(MAX_BYTES).read_to_end(&mut text));
        let _ = sender.send(text);
    });
    receiver
}

fn wait(child: &mut Child, time: Duration) -> io::Result<Option<ExitStatus>> {
    let end = Instant::now() + time;
    loop {
        match child.try_wait()? {
            None if Instant::now() < end => thread::sleep(PAUSE),
            status => return Ok(status),
        }
    }
}

/// Changes the root directory of this process to `root`. Returns an empty standard input for a program below this root,
/// because the root may have no `/dev`.
///
/// # Errors
///
/// Fails if the change is not permitted, or if the folder does not exist.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null());
        command
    }

    #[test]
    fn a_child_that_hangs_is_killed_in_time() {
        let started = Instant::now();
        let error = output(shell("exec sleep 60"), Duration::from_millis(100)).expect_err("it hangs");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(!error.to_string().contains("could not be killed"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }

    #[test]
    fn outputs_and_status_are_returned_and_bounded() {
        let done = output(shell("echo out; echo err >&2; exit 3"), Duration::from_secs(20)).expect("it ends");
        assert_eq!((done.status.code(), done.stdout, done.stderr), (Some(3), b"out\n".to_vec(), b"err\n".to_vec()));
        let flood = output(shell("head -c 300000 /dev/zero"), Duration::from_secs(20)).expect("it ends");
        assert_eq!(flood.stdout.len() as u64, MAX_BYTES);
    }
}
