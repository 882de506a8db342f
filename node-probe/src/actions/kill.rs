//! `run`: stops one process that uses a GPU, after checks.
//!
//! The process is opened (pidfd) before it is checked, and every signal is sent through the pidfd, so that a recycled
//! process ID is never signalled.
//!
//! The kill action needs a kernel with `pidfd_open` (Linux 5.3). On older kernels nothing is done, because a signal by
//! number may reach another process.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::time::Timespec;
use syringe_core::action_rules::protected::{self, Candidate};
use syringe_core::facts::action::{Action, KillAction, KillOutcome, Obstacle};
use syringe_core::probe_command::KillCommand;
use syringe_core::report::Report;

use super::gpu_facts::{GpuFacts, GpuReader};
use super::stuck_process_text;
use crate::host::{self, Stat};
use crate::paths::Paths;
use crate::request::Request;
use crate::{files, paths};

/// Maximum time for a process to exit after SIGKILL. A process that remains after this time hangs in the kernel.
const AFTER_SIGKILL: Duration = Duration::from_secs(10);
/// Maximum time for the driver to free the memory of a process that has exited. It usually takes one or two seconds.
const MEMORY_TIME: Duration = Duration::from_secs(3);
/// Pause between two checks of the memory.
const MEMORY_PAUSE: Duration = Duration::from_millis(250);
/// Maximum depth of ancestors. A longer chain is a read error.
const MAX_ANCESTORS: usize = 64;

/// Runs the kill request and reports the result.
pub(super) fn run(kill_request: &KillCommand, request: &Request) -> Report {
    let started = Instant::now();
    let taken_at = Timestamp::now();
    let paths = request.files.root.as_deref().map_or_else(Paths::of_this_machine, Paths::below);
    let identity = host::identity(&paths);
    let gpu_reader = GpuReader { paths, library: request.files.nvml_library.clone(), time: request.timeout / 2 };
    let action = kill(kill_request, &gpu_reader);
    Report {
        hostname: identity.hostname,
        boot_id: identity.boot_id,
        kernel: identity.kernel,
        taken_at: Some(taken_at),
        duration_ms: crate::document::millis(started.elapsed()),
        action: Some(Action::Kill(Box::new(action))),
        ..crate::document::blank()
    }
}

fn kill(kill_request: &KillCommand, gpu_reader: &GpuReader) -> KillAction {
    let checked = gpu(kill_request, gpu_reader).and_then(|view| {
        Target::open(kill_request, &gpu_reader.paths)
            .and_then(|target| target.check(kill_request, &view, &gpu_reader.paths))
    });
    match checked {
        Ok(checked) if kill_request.plan => checked.action,
        Ok(checked) => checked.end(kill_request, gpu_reader),
        Err(action) => *action,
    }
}

/// An open process (pidfd). The pidfd refers to the same process even if the process ID is recycled.
struct Target {
    process: OwnedFd,
}

/// A target that passed all checks.
struct Checked {
    target: Target,
    action: KillAction,
}

/// The result of a request that stops before the first signal.
type Early = Box<KillAction>;

fn blank(kill_request: &KillCommand) -> KillAction {
    let KillCommand { gpu, pid, start_ticks, .. } = kill_request;
    KillAction { gpu: gpu.clone(), pid: *pid, start_ticks: *start_ticks, ..KillAction::default() }
}

fn refuse(action: KillAction, code: &str, why: impl Into<String>, next_step: &str) -> Early {
    let refusal = Some(Obstacle::new(code, why, next_step));
    Box::new(KillAction { outcome: KillOutcome::Refused, refusal, ..action })
}

/// Returns the GPU of the request. If this node does not have the GPU, the request is for another node, on
/// which the process ID belongs to another process.
fn gpu(kill_request: &KillCommand, gpu_reader: &GpuReader) -> Result<GpuFacts, Early> {
    let view = gpu_reader.read(&kill_request.gpu).ok_or_else(|| {
        let why = format!("this node has no GPU {}", kill_request.gpu);
        refuse(blank(kill_request), "no_such_gpu", why, "Use the UUID from get_gpu_inventory.")
    })?;
    if view.uses.is_empty()
        && let Some(unknown) = unknown_gpu(blank(kill_request), &view)
    {
        return Err(unknown);
    }
    Ok(view)
}

/// Returns the refusal for a GPU whose device file is unknown to both NVML and the kernel module.
fn unknown_gpu(action: KillAction, view: &GpuFacts) -> Option<Early> {
    let problem = view.problem.as_ref().filter(|_| view.minor.is_none())?;
    let why = format!("cannot determine which processes use the GPU: {}", problem.why);
    Some(refuse(action, "gpu_unknown", why, "Repair the driver first, or reboot the node."))
}

/// Returns the result if no process has this ID: the process has exited if the probe sees all processes of the host;
/// otherwise its state is unknown.
fn absent(kill_request: &KillCommand, paths: &Paths) -> Early {
    if paths::is_initial_pid_namespace(&paths.proc) {
        return gone(blank(kill_request));
    }
    let why = format!(
        "cannot determine whether PID {} exists: the probe is not in the PID namespace of the host",
        kill_request.pid
    );
    refuse(blank(kill_request), "pid_namespace", why, "Run the probe in the PID namespace of the host (--via pod).")
}

fn gone(action: KillAction) -> Early {
    let notes = vec![format!("Process {} no longer exists: nothing was done.", action.pid)];
    Box::new(KillAction { outcome: KillOutcome::AlreadyGone, notes, ..action })
}

impl Target {
    /// Opens the process. All checks and signals use the open process.
    fn open(kill_request: &KillCommand, paths: &Paths) -> Result<Self, Early> {
        let pid = kill_request.pid;
        let number = i32::try_from(pid).ok().filter(|pid| *pid > 1).and_then(Pid::from_raw);
        let Some(number) = number else {
            let refusal = protected::refusal(&Candidate { pid: pid.min(1), ..Candidate::default() });
            return Err(Box::new(KillAction { outcome: KillOutcome::Refused, refusal, ..blank(kill_request) }));
        };
        match pidfd_open(number, PidfdFlags::empty()) {
            Ok(process) => Ok(Self { process }),
            Err(Errno::SRCH) => Err(absent(kill_request, paths)),
            Err(Errno::NOSYS) => Err(refuse(
                blank(kill_request),
                "kernel_too_old",
                "this kernel has no pidfd_open (Linux 5.3), so a signal could reach another process",
                "Delete the pod of the process instead.",
            )),
            Err(error) => Err(refuse(
                blank(kill_request),
                "not_a_process",
                format!("PID {pid} could not be opened: {error}"),
                "Use the ID of a process, not of a thread.",
            )),
        }
    }

    /// Compares the process with the request, and with the processes that must not be stopped.
    fn check(self, kill_request: &KillCommand, view: &GpuFacts, paths: &Paths) -> Result<Checked, Early> {
        let mut action = blank(kill_request);
        let Some(stat) = host::read_stat(&paths.proc, kill_request.pid) else {
            // A blocked read does not prove that the process has exited.
            if paths::is_initial_pid_namespace(&paths.proc) && !self.wait(Duration::ZERO) {
                let why = format!("the state of PID {} could not be read, but it still exists", kill_request.pid);
                let next_step = "Check the node for processes in state D.";
                return Err(refuse(action, "process_unreadable", why, next_step));
            }
            return Err(absent(kill_request, paths));
        };
        if stat.start_ticks != Some(kill_request.start_ticks) {
            let why = match stat.start_ticks {
                Some(ticks) => format!(
                    "PID {} now belongs to another process: it started at tick {ticks}, not {}",
                    kill_request.pid, kill_request.start_ticks
                ),
                None => format!("the start time of PID {} could not be read", kill_request.pid),
            };
            return Err(refuse(action, "recycled_pid", why, "List the processes of the node again."));
        }
        action.process = host::describe(paths, kill_request.pid);
        if let Some(refusal) = self.protected(kill_request.pid, &stat, paths) {
            return Err(Box::new(KillAction { outcome: KillOutcome::Refused, refusal: Some(refusal), ..action }));
        }
        if is_zombie(paths, kill_request.pid, &stat) {
            let parent = stat.parent.unwrap_or(0);
            let why = format!("PID {} is a zombie: it has ended, and its GPU memory is free", kill_request.pid);
            let next = format!(
                "The parent of the zombie, PID {parent}, must reap it. Stopping the parent also removes \
                the zombie."
            );
            return Err(refuse(action, "zombie", why, &next));
        }
        self.on_gpu(kill_request, action, view, paths)
    }

    fn protected(&self, pid: u32, stat: &Stat, paths: &Paths) -> Option<Obstacle> {
        let folder = paths.proc.join(pid.to_string());
        let comm = files::text(&folder.join("comm")).unwrap_or_default();
        let executable = files::link(&folder.join("exe")).ok();
        let executable = executable.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
        protected::refusal(&Candidate {
            pid,
            parent: stat.parent,
            comm: comm.trim_end(),
            executable: executable.map(|name| name.strip_suffix(" (deleted)").unwrap_or(name)),
            kernel_thread: stat.kernel_thread,
            ours: pid == std::process::id() || ancestors(&paths.proc, std::process::id()).contains(&pid),
        })
    }

    /// Checks that the process uses this GPU now: NVML lists the process, or the process has the device file open.
    fn on_gpu(
        self,
        kill_request: &KillCommand,
        mut action: KillAction,
        view: &GpuFacts,
        paths: &Paths,
    ) -> Result<Checked, Early> {
        action.gpu_index = view.index;
        action.memory_before_bytes = view.memory_used;
        // NVML reports IDs of this PID namespace; old drivers report IDs of the host. So the IDs are used only if both
        // namespaces are the same.
        let numbers_agree = paths::is_initial_pid_namespace(&paths.proc);
        let listed = |pid: u32| numbers_agree && view.uses.iter().any(|(on, _)| *on == pid);
        let held = |pid: u32| {
            let minors = host::held_by(paths, pid).unwrap_or_default();
            view.minor.is_some_and(|minor| minors.contains(&minor))
        };
        if listed(kill_request.pid) {
            action.evidence.push("nvml".to_owned());
        }
        if held(kill_request.pid) {
            action.evidence.push("device_file".to_owned());
        }
        action.children_on_gpu =
            descendants(&paths.proc, kill_request.pid).into_iter().filter(|pid| listed(*pid) || held(*pid)).collect();
        if let Some(process) = &mut action.process {
            process.uses = view
                .uses
                .iter()
                .filter(|(pid, _)| *pid == kill_request.pid)
                .map(|(_, gpu_use)| gpu_use.clone())
                .collect();
        }
        if action.evidence.is_empty() {
            return Err(not_on_gpu(action, view));
        }
        if let Some(why) = stuck_process_text::why(paths, kill_request.pid) {
            action.notes.push(format!("The process is waiting in state D now: {why}."));
        }
        if !action.children_on_gpu.is_empty() {
            action.notes.push(format!(
                "The descendants {:?} of the process also use the GPU, and are not stopped with the process.",
                action.children_on_gpu
            ));
        }
        Ok(Checked { target: self, action })
    }

    /// Sends a signal; `false` if the process had already exited.
    fn signal(&self, signal: Signal) -> Result<bool, Errno> {
        match pidfd_send_signal(&self.process, signal) {
            Ok(()) => Ok(true),
            Err(Errno::SRCH) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits at most `time` for the process to exit. Returns `false` if it is still running; a zombie counts as exited.
    fn wait(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).ok();
            match poll(&mut [PollFd::new(&self.process, PollFlags::IN)], left.as_ref()) {
                Ok(0) => return false,
                Ok(_) => return true,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }
}

fn not_on_gpu(action: KillAction, view: &GpuFacts) -> Early {
    let pid = action.pid;
    if !action.children_on_gpu.is_empty() {
        let why = format!("PID {pid} does not use this GPU, but its descendants {:?} do", action.children_on_gpu);
        return refuse(action, "child_holds_gpu", why, "Use pid and start_ticks of the descendant.");
    }
    if let Some(unknown) = unknown_gpu(action.clone(), view) {
        return unknown;
    }
    let why =
        format!("PID {pid} does not use this GPU: NVML does not list it, and it does not have the device file open");
    refuse(action, "no_gpu", why, "List the processes of the node again, and specify the GPU that the process uses.")
}

impl Checked {
    /// Sends SIGTERM, waits, sends SIGKILL, waits, and checks the result.
    fn end(self, kill_request: &KillCommand, gpu_reader: &GpuReader) -> KillAction {
        let Self { target, mut action } = self;
        // A signal to a zombie succeeds, but is not the reason why the process exited.
        if target.wait(Duration::ZERO) {
            return *gone(action);
        }
        let began = Instant::now();
        for (signal, name, time) in
            [(Signal::TERM, "SIGTERM", kill_request.grace), (Signal::KILL, "SIGKILL", AFTER_SIGKILL)]
        {
            match target.signal(signal) {
                Ok(true) => {}
                // The process exited on its own before the first signal, or directly after the wait for SIGTERM.
                Ok(false) if signal == Signal::TERM => return *gone(action),
                Ok(false) => {
                    action.ended_by = Some("SIGTERM".to_owned());
                    break;
                }
                Err(error) => {
                    let why = format!("{name} could not be sent: {error}");
                    return *refuse(
                        action,
                        "no_permission",
                        why,
                        "Run the probe as root in the PID namespace of the host.",
                    );
                }
            }
            if target.wait(time) {
                action.ended_by = Some(name.to_owned());
                break;
            }
        }
        action.waited_ms = Some(crate::document::millis(began.elapsed()));
        if action.ended_by.is_some() {
            action.outcome = KillOutcome::Ended;
        } else {
            action.outcome = KillOutcome::Survived;
            action.notes.push(stuck_process_text::survivor(&gpu_reader.paths, kill_request.pid));
        }
        after(&mut action, kill_request, gpu_reader);
        action
    }
}

/// Checks the GPU memory after the process has exited. The driver needs some time to free the memory.
fn after(action: &mut KillAction, kill_request: &KillCommand, gpu_reader: &GpuReader) {
    let end = Instant::now() + MEMORY_TIME;
    loop {
        let Some(view) = gpu_reader.read(&kill_request.gpu) else { return };
        action.memory_after_bytes = view.memory_used;
        let listed = view.uses.iter().any(|(pid, _)| *pid == kill_request.pid);
        if !listed || action.outcome != KillOutcome::Ended {
            return;
        }
        if Instant::now() > end {
            action.notes.push(
                "The driver still lists the process although it has ended: its memory is not free yet.".to_owned(),
            );
            return;
        }
        std::thread::sleep(MEMORY_PAUSE);
    }
}

/// Returns whether a process is dead but not reaped. A live program whose main thread has exited looks the same.
fn is_zombie(paths: &Paths, pid: u32, stat: &Stat) -> bool {
    let threads = || files::names(&paths.proc.join(pid.to_string()).join("task")).map_or(0, |tasks| tasks.len());
    stat.state.as_deref() == Some("Z") && threads() <= 1
}

fn ancestors(proc: &Path, pid: u32) -> Vec<u32> {
    let parent = |pid: &u32| host::read_stat(proc, *pid)?.parent.filter(|parent| *parent > 0);
    std::iter::successors(parent(&pid), parent).take(MAX_ANCESTORS).collect()
}

fn descendants(proc: &Path, pid: u32) -> Vec<u32> {
    let pids = files::pids(proc).unwrap_or_default();
    let parents: Vec<(u32, u32)> =
        pids.into_iter().filter_map(|pid| Some((pid, host::read_stat(proc, pid)?.parent?))).collect();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        next += 1;
        let children = parents.iter().filter(|(child, of)| *of == parent && *child != pid).map(|(child, _)| *child);
        let new: Vec<u32> = children.filter(|child| !found.contains(child)).collect();
        found.extend(new);
    }
    found.split_off(1)
}

#[cfg(test)]
#[path = "kill_tests.rs"]
mod tests;
