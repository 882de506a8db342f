//! Ends one process on one GPU, and no other: the process is opened before it is checked and signalled through what was
//! opened, so a number that the kernel gives to somebody else in between leads nowhere.
//!
//! Needs a kernel that has `pidfd_open` (Linux 5.3). On older ones nothing is done: by number alone the wrong process may die.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::time::Timespec;
use syringe_core::facts::action::{Action, KillAction, KillOutcome, Obstacle};
use syringe_core::operator::protected::{self, Candidate};
use syringe_core::report::Report;

use super::gpu_view::{GpuReader, GpuView};
use super::request::KillRequest;
use crate::host::{self, Stat};
use crate::paths::Paths;
use crate::request::Request;
use crate::{files, pid_namespace};

/// How long a process may take to end after SIGKILL. One that is left then hangs inside the kernel.
const AFTER_SIGKILL: Duration = Duration::from_secs(10);
/// How long the driver may take to give the memory of an ended process back: one or two seconds is usual.
const MEMORY_TIME: Duration = Duration::from_secs(3);
/// Pause between two looks at it.
const MEMORY_PAUSE: Duration = Duration::from_millis(250);
/// Depth of ancestors that are followed: a chain that is longer is a mistake in reading.
const MAX_ANCESTORS: usize = 64;

/// Runs the order and reports it.
pub(super) fn run(order: &KillRequest, request: &Request) -> Report {
    let started = Instant::now();
    let taken_at = Timestamp::now();
    let paths = request.files.root.as_deref().map_or_else(Paths::of_this_machine, Paths::below);
    let identity = host::identity(&paths);
    let gpu_reader = GpuReader { paths, library: request.files.nvml_library.clone(), time: request.timeout / 2 };
    let action = kill(order, &gpu_reader);
    Report {
        hostname: identity.hostname,
        boot_id: identity.boot_id,
        kernel: identity.kernel,
        taken_at: Some(taken_at),
        duration_ms: crate::envelope::millis(started.elapsed()),
        action: Some(Action::Kill(Box::new(action))),
        ..crate::envelope::blank()
    }
}

fn kill(order: &KillRequest, gpu_reader: &GpuReader) -> KillAction {
    let checked = gpu(order, gpu_reader).and_then(|view| {
        Target::open(order, &gpu_reader.paths).and_then(|target| target.check(order, &view, &gpu_reader.paths))
    });
    match checked {
        Ok(checked) if order.plan => checked.action,
        Ok(checked) => checked.end(order, gpu_reader),
        Err(action) => *action,
    }
}

/// A process that is open: it keeps its identity, whatever becomes of its number.
struct Target {
    process: OwnedFd,
}

/// A target that may be ended.
struct Checked {
    target: Target,
    action: KillAction,
}

/// What ends an order early.
type Early = Box<KillAction>;

fn blank(order: &KillRequest) -> KillAction {
    let KillRequest { gpu, pid, start_ticks, .. } = order;
    KillAction { gpu: gpu.clone(), pid: *pid, start_ticks: *start_ticks, ..KillAction::default() }
}

fn refuse(action: KillAction, code: &str, why: impl Into<String>, next_step: &str) -> Early {
    let refusal = Some(Obstacle::new(code, why, next_step));
    Box::new(KillAction { outcome: KillOutcome::Refused, refusal, ..action })
}

/// The GPU that the order names. An order for a GPU that this node does not have is meant for another node, where the
/// number is another process.
fn gpu(order: &KillRequest, gpu_reader: &GpuReader) -> Result<GpuView, Early> {
    let view = gpu_reader.read(&order.gpu).ok_or_else(|| {
        let why = format!("this node has no GPU {}", order.gpu);
        refuse(blank(order), "no_such_gpu", why, "Take the exact UUID from get_gpu_inventory.")
    })?;
    if view.uses.is_empty()
        && let Some(unknown) = unknown_gpu(blank(order), &view)
    {
        return Err(unknown);
    }
    Ok(view)
}

/// A GPU of which neither NVML nor the kernel module tells the device file.
fn unknown_gpu(action: KillAction, view: &GpuView) -> Option<Early> {
    let problem = view.problem.as_ref().filter(|_| view.minor.is_none())?;
    let why = format!("which process is on the GPU cannot be told: {}", problem.why);
    Some(refuse(action, "gpu_unknown", why, "Bring the driver back first, or reboot the node."))
}

/// There is no such number here: the process has ended where all of the machine's processes can be seen, and nobody knows
/// where they cannot.
fn absent(order: &KillRequest, paths: &Paths) -> Early {
    if pid_namespace::is_initial(&paths.proc) {
        return gone(blank(order));
    }
    let why = format!(
        "whether PID {} exists cannot be told: the probe does not run in the host's PID namespace, and sees other numbers",
        order.pid
    );
    refuse(blank(order), "pid_namespace", why, "Run the probe in the host's PID namespace (--via pod).")
}

fn gone(action: KillAction) -> Early {
    let notes = vec![format!("There is no process {} any more: nothing was done.", action.pid)];
    Box::new(KillAction { outcome: KillOutcome::AlreadyGone, notes, ..action })
}

impl Target {
    /// Opens the process. What is checked from here on is what will be signalled.
    fn open(order: &KillRequest, paths: &Paths) -> Result<Self, Early> {
        let pid = order.pid;
        let number = i32::try_from(pid).ok().filter(|pid| *pid > 1).and_then(Pid::from_raw);
        let Some(number) = number else {
            let refusal = protected::refusal(&Candidate { pid: pid.min(1), ..Candidate::default() });
            return Err(Box::new(KillAction { outcome: KillOutcome::Refused, refusal, ..blank(order) }));
        };
        match pidfd_open(number, PidfdFlags::empty()) {
            Ok(process) => Ok(Self { process }),
            Err(Errno::SRCH) => Err(absent(order, paths)),
            Err(Errno::NOSYS) => Err(refuse(
                blank(order),
                "kernel_too_old",
                "this kernel has no pidfd_open (Linux 5.3): a process cannot be signalled without the risk of another one",
                "Delete the pod of the process instead.",
            )),
            Err(error) => Err(refuse(
                blank(order),
                "not_a_process",
                format!("PID {pid} could not be opened: {error}"),
                "Take the pid of a process, not of a thread, from the processes of the node.",
            )),
        }
    }

    /// Holds the process against what the caller saw and against what must not be ended.
    fn check(self, order: &KillRequest, view: &GpuView, paths: &Paths) -> Result<Checked, Early> {
        let mut action = blank(order);
        let Some(stat) = host::read_stat(&paths.proc, order.pid) else { return Err(absent(order, paths)) };
        if stat.start_ticks != Some(order.start_ticks) {
            let why = match stat.start_ticks {
                Some(ticks) => format!(
                    "PID {} belongs to another process now: it started at tick {ticks}, not {}",
                    order.pid, order.start_ticks
                ),
                None => format!("the start time of PID {} could not be read", order.pid),
            };
            return Err(refuse(action, "recycled_pid", why, "Look at the node's processes again."));
        }
        action.process = host::describe(paths, order.pid);
        if let Some(refusal) = self.protected(order.pid, &stat, paths) {
            return Err(Box::new(KillAction { outcome: KillOutcome::Refused, refusal: Some(refusal), ..action }));
        }
        if is_zombie(paths, order.pid, &stat) {
            let parent = stat.parent.unwrap_or(0);
            let why = format!("PID {} has ended already and is a zombie: its memory on the GPU is free", order.pid);
            let next = format!("Its parent, PID {parent}, must collect it; ending that parent does, too.");
            return Err(refuse(action, "zombie", why, &next));
        }
        self.on_gpu(order, action, &stat, view, paths)
    }

    fn protected(&self, pid: u32, stat: &Stat, paths: &Paths) -> Option<Obstacle> {
        let folder = paths.proc.join(pid.to_string());
        let comm = std::fs::read_to_string(folder.join("comm")).unwrap_or_default();
        let executable = std::fs::read_link(folder.join("exe")).ok();
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

    /// The process must be on this GPU now: in NVML's lists, or with the device file open.
    fn on_gpu(
        self,
        order: &KillRequest,
        mut action: KillAction,
        stat: &Stat,
        view: &GpuView,
        paths: &Paths,
    ) -> Result<Checked, Early> {
        action.gpu_index = view.index;
        action.memory_before_bytes = view.memory_used;
        // NVML's numbers are this namespace's, with old drivers the machine's: only where both are one they prove something.
        let numbers_agree = pid_namespace::is_initial(&paths.proc);
        let listed = |pid: u32| numbers_agree && view.uses.iter().any(|(on, _)| *on == pid);
        let held = |pid: u32| {
            let minors = host::held_by(paths, pid).unwrap_or_default();
            view.minor.is_some_and(|minor| minors.contains(&minor))
        };
        if listed(order.pid) {
            action.evidence.push("nvml".to_owned());
        }
        if held(order.pid) {
            action.evidence.push("device_file".to_owned());
        }
        action.children_on_gpu =
            descendants(&paths.proc, order.pid).into_iter().filter(|pid| listed(*pid) || held(*pid)).collect();
        if let Some(process) = &mut action.process {
            process.uses =
                view.uses.iter().filter(|(pid, _)| *pid == order.pid).map(|(_, gpu_use)| gpu_use.clone()).collect();
        }
        if action.evidence.is_empty() {
            return Err(not_on_gpu(action, view));
        }
        if stat.state.as_deref() == Some("D") {
            action.notes.push(
                "It is in state D now: it waits inside the kernel, and no signal is taken there until that wait ends."
                    .to_owned(),
            );
        }
        if !action.children_on_gpu.is_empty() {
            action.notes.push(format!(
                "Its descendants {:?} are on the GPU, too, and do not end with it.",
                action.children_on_gpu
            ));
        }
        Ok(Checked { target: self, action })
    }

    /// Sends a signal; `false`: the process had ended.
    fn signal(&self, signal: Signal) -> Result<bool, Errno> {
        match pidfd_send_signal(&self.process, signal) {
            Ok(()) => Ok(true),
            Err(Errno::SRCH) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits for the end of the process; `false`: it still runs. A zombie has ended.
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

fn not_on_gpu(action: KillAction, view: &GpuView) -> Early {
    let pid = action.pid;
    if !action.children_on_gpu.is_empty() {
        let why = format!("PID {pid} is not on this GPU, its descendants {:?} are", action.children_on_gpu);
        return refuse(action, "child_holds_gpu", why, "Name the descendant with its own start_ticks.");
    }
    if let Some(unknown) = unknown_gpu(action.clone(), view) {
        return unknown;
    }
    let why = format!("PID {pid} is not on this GPU: NVML does not list it there and it has no device file of it open");
    refuse(action, "no_gpu", why, "Look at the node's processes again, and name the GPU that it uses.")
}

impl Checked {
    /// SIGTERM, a wait, SIGKILL, a wait, and a look at what that changed.
    fn end(self, order: &KillRequest, gpu_reader: &GpuReader) -> KillAction {
        let Self { target, mut action } = self;
        // A signal to a process that has ended and is not collected yet succeeds: it must not be taken for the cause.
        if target.wait(Duration::ZERO) {
            return *gone(action);
        }
        let began = Instant::now();
        for (signal, name, time) in [(Signal::TERM, "SIGTERM", order.grace), (Signal::KILL, "SIGKILL", AFTER_SIGKILL)] {
            match target.signal(signal) {
                Ok(true) => {}
                // Before the first signal it ended by itself; before the second, in the moment after the wait.
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
                        "Run the probe as root, in the host's PID namespace.",
                    );
                }
            }
            if target.wait(time) {
                action.ended_by = Some(name.to_owned());
                break;
            }
        }
        action.waited_ms = Some(crate::envelope::millis(began.elapsed()));
        if action.ended_by.is_some() {
            action.outcome = KillOutcome::Ended;
        } else {
            action.outcome = KillOutcome::Survived;
            action.notes.push(survivor(&gpu_reader.paths, order.pid));
        }
        after(&mut action, order, gpu_reader);
        action
    }
}

/// Why a process did not end.
fn survivor(paths: &Paths, pid: u32) -> String {
    let state = host::read_stat(&paths.proc, pid).and_then(|stat| stat.state).unwrap_or_else(|| "?".to_owned());
    let stuck = if state == "D" {
        "it hangs inside the kernel, most likely in the driver, and no signal helps: the GPU needs a reset or the node a reboot"
    } else {
        "SIGKILL is pending, and it will end when the kernel lets it"
    };
    format!("It is still there, in state {state}: {stuck}.")
}

/// Memory afterwards: the driver needs a moment to take it back.
fn after(action: &mut KillAction, order: &KillRequest, gpu_reader: &GpuReader) {
    let end = Instant::now() + MEMORY_TIME;
    loop {
        let Some(view) = gpu_reader.read(&order.gpu) else { return };
        action.memory_after_bytes = view.memory_used;
        let listed = view.uses.iter().any(|(pid, _)| *pid == order.pid);
        if !listed || action.outcome != KillOutcome::Ended {
            return;
        }
        if Instant::now() > end {
            action.notes.push("The driver still lists it, though it has ended: its memory is not back yet.".to_owned());
            return;
        }
        std::thread::sleep(MEMORY_PAUSE);
    }
}

/// A dead process that nobody collected. A program whose first thread has ended looks alike, and lives.
fn is_zombie(paths: &Paths, pid: u32, stat: &Stat) -> bool {
    let threads = || std::fs::read_dir(paths.proc.join(pid.to_string()).join("task")).map_or(0, Iterator::count);
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
