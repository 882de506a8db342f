//! Causes in the memory, the processes and the exit codes of a pod. `out_of_memory`, `damaged_host_memory`, `stuck`,
//! `possibly_stuck`, `stopped`, `zombie`, `ends_without_error`, `limited_by_its_container`, `program_ended`,
//! `one_crashed`: explain a failed or hanging program. `no_problem`: explains pods that have no problem, or only a
//! finding or message that may concern them.

use std::collections::BTreeSet;

use jiff::SignedDuration;

use crate::evidence;
use crate::explanation::causes::failing_part::{self, Doubt};
use crate::explanation::causes::program_message::{before_its_end, speaks_of_gpus};
use crate::explanation::causes::start::CRASH_LOOP;
use crate::explanation::causes::{
    Case, NOT_IDENTIFIED, claims, effects, end_quote, event_quote, finding_quote, injection, is_fault, is_teardown,
    quotes,
};
use crate::explanation::types::{Cause, Certainty, Explanation};
use crate::finding::{Action, Finding, Plan, Urgency};
use crate::input::processes::{Stuck, has_unknown_place, waits_outside_driver};
use crate::messages::phrases::{self, Part};
use crate::messages::shapes::{self, Reading};
use crate::messages::{elsewhere, owners};
use crate::rule::About;
use crate::rules;
use syringe_core::classification::{ActionCode, Class, Severity};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind};
use syringe_core::facts::kubernetes::pod::{ContainerFacts, ContainerState, PodEvent, Termination};
use syringe_core::facts::processes::GpuProcess;
use syringe_core::facts::telemetry::GpuTelemetry;
use syringe_core::kernel_log::host_lines;
use syringe_core::report::Section;
use syringe_core::text::clean;

pub(crate) fn out_of_memory(case: &Case<'_>) -> Option<Explanation> {
    // A later end of the container for another reason has another cause.
    let is_past = |event: &&KernelEvent| {
        let other = case.failed().filter(|end| end.reason != "OOMKilled" && end.exit_code != 137);
        let gap = other.and_then(|end| end.finished).zip(event.last).map(|(end, kill)| end.duration_since(kill));
        gap.is_some_and(|gap| gap > SAME_TIME)
    };
    let is_kill = |event: &&KernelEvent| event.kind == KernelEventKind::OomKill;
    let kills: Vec<_> = case.on_node.own_events.iter().filter(is_kill).filter(|event| !is_past(event)).collect();
    let ended = case.ended().filter(|end| end.reason == "OOMKilled" && !case.is_over(end));
    if ended.is_none() && kills.is_empty() {
        return None;
    }
    let whole_node = kills.iter().any(|event| event.is_kill_of_whole_node());
    // The kubelet writes this event only if the kernel killed a process because the whole node had no memory left.
    let near = |event: &&PodEvent| {
        let end = ended.and_then(|end| end.finished);
        event.reason == "SystemOOM"
            && event.time.zip(end).is_some_and(|(at, end)| at.duration_since(end).abs() <= SAME_TIME)
    };
    let of_node = case.pod.related_warnings.iter().rfind(near);
    let of_limit = kills
        .iter()
        .any(|event| event.details.get("constraint").is_some_and(|constraint| constraint == "CONSTRAINT_MEMCG"));
    let whole_node = whole_node || (of_node.is_some() && !of_limit);
    let evidence = ended.and_then(|_| end_quote(case)).into_iter().chain(of_node.map(event_quote));
    // A container without its own limit can only exceed the memory that the node or other containers of the pod leave.
    let spec = ended.and_then(|end| case.pod.specs.iter().find(|spec| spec.name == end.container));
    let limit = spec.and_then(|spec| spec.memory_limit.as_deref());
    let shown = !case.unread && case.on_node.log_covers;
    let largest = kills.iter().filter_map(|event| event.resident_bytes()).max();
    let total = case.report.and_then(|report| Section::data_of(&report.sections.host)?.memory_total_bytes);
    // A process without a limit that had much of the memory is the reason itself.
    let own = largest.zip(total).filter(|(own, total)| *own >= total / LARGE_SHARE);
    let (cause, what, action) = match (whole_node, limit) {
        (true, None) if spec.is_some() && own.is_some() => (
            Cause::Application,
            format!(
                "the node ran out of memory, and the kernel killed the container: its process used {} of {}, and the container has no memory \
                 limit",
                evidence::bytes(own.unwrap_or_default().0),
                evidence::bytes(total.unwrap_or_default())
            ),
            "Set a request and a limit of memory on the container that fit its use, or reduce its use (data loader workers, caches).".to_owned(),
        ),
        (true, _) => (
            Cause::Node,
            "the node ran out of memory, and the kernel killed the container".to_owned(),
            "Find out what uses the memory of the node, and set memory limits on pods.".to_owned(),
        ),
        // A kernel log that covers this time would show that the node ran out of memory.
        (false, None) if spec.is_some() && kills.is_empty() && !shown => (
            Cause::Node,
            "the kernel killed the container because the node ran out of memory: the container has no memory limit (host memory, not GPU \
             memory)"
                .to_owned(),
            format!(
                "Set a request and a limit of memory on the container that fit its use, and find out what else uses the memory of {}.",
                case.node
            ),
        ),
        (false, limit) => (
            Cause::Application,
            match limit {
                Some(limit) => {
                    format!("the container exceeded its memory limit of {limit} (host memory, not GPU memory)")
                }
                None if spec.is_some() => "the container exceeded its memory limit (host memory, not GPU memory); its \
                                           specification has no limit, so the limit comes from a parent cgroup"
                    .to_owned(),
                None => "the container exceeded its memory limit (host memory, not GPU memory)".to_owned(),
            },
            "Raise the memory limit, or reduce the memory use (data loader workers, pinned memory).".to_owned(),
        ),
    };
    // Without the specification and the kernel line, it is not known whether the node or the pod ran out of memory.
    let undecided = kills.is_empty() && (of_node.is_some() || limit.is_none() && (spec.is_none() || shown));
    let certainty = if undecided { Certainty::Likely } else { Certainty::Certain };
    Some(
        case.explain(cause, certainty, what)
            .with_evidence(evidence)
            .with_evidence(quotes(&kills))
            .with_action(ActionCode::FixLimits, action),
    )
}

/// A process with at least this share (1/4) of the memory of the node is large.
const LARGE_SHARE: u64 = 4;

/// Maximum time between a kernel line about host memory and the end of the affected container.
const SAME_TIME: SignedDuration = SignedDuration::from_secs(60);

/// Explains a container that the kernel killed because of an uncorrectable error of host memory.
pub(crate) fn damaged_host_memory(case: &Case<'_>) -> Option<Explanation> {
    let end = case.failed()?;
    let bus_error =
        end.exit_code == 135 || ["Bus error", "bus error", "SIGBUS"].iter().any(|words| end.message.contains(words));
    let near = |event: &KernelEvent| {
        let near = |time: &jiff::Timestamp| end.finished.is_some_and(|end| time.duration_since(end).abs() <= SAME_TIME);
        event.occurred_at().iter().any(near)
    };
    let processes = case.report.and_then(|report| Section::data_of(&report.sections.processes));
    // The process that the kernel killed no longer exists.
    let lives = |pid: u32| {
        processes.is_some_and(|all| all.processes.iter().any(|process| process.pid == pid))
            && !case.on_node.pids.contains(&pid)
    };
    let ended_it = |event: &&KernelEvent| match event.pid {
        Some(pid) => !lives(pid) && near(event),
        None => bus_error && near(event),
    };
    let log = case.report.and_then(|report| Section::data_of(&report.sections.xid));
    let events: Vec<&KernelEvent> =
        log.into_iter().flat_map(|log| &log.events).filter(|event| is_of_host_memory(event)).filter(ended_it).collect();
    if events.is_empty() {
        return None;
    }
    let what = format!("an uncorrectable error of the memory of its node ended container {} (SIGBUS)", end.container);
    let advice = format!(
        "Restart the pod. Check the hardware log (BMC) of {} for the memory module (DIMM): the program and the GPU are not the cause.",
        case.node
    );
    let certainty = if events.iter().any(|event| event.pid.is_some()) { Certainty::Certain } else { Certainty::Likely };
    Some(
        case.explain(Cause::Node, certainty, what)
            .with_evidence(end_quote(case))
            .with_evidence(quotes(&events))
            .with_action(ActionCode::RestartPod, advice),
    )
}

/// Returns whether an event is about an uncorrectable error of host memory, or about a machine check that may be such
/// an error.
fn is_of_host_memory(event: &KernelEvent) -> bool {
    let uncorrected = ["exception", "firmware_recoverable", "firmware_fatal", "memory_uncorrected"];
    match event.kind {
        KernelEventKind::Mce => event.sub_code.as_deref().is_some_and(|sub| uncorrected.contains(&sub)),
        _ => host_lines::row_of(event).is_some_and(|row| row.finding == Some("host-memory-error")),
    }
}

/// Explains a pod whose process is stuck in the driver, according to the diagnosis. Kubernetes still shows it as
/// running.
pub(crate) fn stuck(case: &Case<'_>) -> Option<Explanation> {
    let stuck: Vec<_> = waiting(case).filter(|process| case.stuck(process) == Some(Stuck::Permanent)).collect();
    if stuck.is_empty() || case.pod.phase != "Running" {
        return None;
    }
    let is_reason = |event: &&KernelEvent| {
        let gone = match event.kind {
            KernelEventKind::Xid => matches!(event.code, Some(79 | 119 | 120)),
            kind => kind == KernelEventKind::OffBus,
        };
        let hung = event.kind == KernelEventKind::HungTask
            && event.pid.is_some_and(|task| stuck.iter().any(|process| process.has_task(task)));
        hung || gone
    };
    let events: Vec<_> = case.on_node.own_events.iter().filter(is_reason).collect();
    Some(
        case.explain(Cause::Node, Certainty::Likely, "its process hangs inside the driver (state D)")
            .with_evidence(stuck.iter().map(|process| in_words(process)))
            .with_evidence(quotes(&events))
            .with_plan_or(
                said_of(case, &stuck),
                ActionCode::DrainAndReboot,
                format!("No signal ends a process in state D: drain and reboot {}.", case.node),
            ),
    )
}

/// Returns the pod's processes with a thread in uninterruptible sleep.
fn waiting<'c>(case: &'c Case<'_>) -> impl Iterator<Item = &'c GpuProcess> {
    case.on_node.processes.iter().filter(|process| process.is_uninterruptible())
}

/// If a pod stays in Terminating for longer than this, the grace period is not the only reason.
const LONG_TERMINATING: SignedDuration = SignedDuration::from_mins(30);

/// Explains a running pod whose process waits in the kernel for storage or the network. If the pod is being deleted, this
/// wait is the reason why it does not end.
pub(crate) fn waits_for_storage(case: &Case<'_>) -> Option<Explanation> {
    let storage = case.all_findings().find(|finding| finding.id == "remote-storage-not-responding");
    let is_silent = storage.is_some_and(|finding| finding.severity > Severity::Info);
    let may_wait = |process: &GpuProcess| is_silent && has_unknown_place(process);
    let process = waiting(case).find(|process| waits_outside_driver(process) || may_wait(process))?;
    let (certainty, what) = if waits_outside_driver(process) {
        (Certainty::Likely, "its process waits for storage or the network (state D), and not in the NVIDIA driver")
    } else {
        (
            Certainty::Possible,
            "its process waits in the kernel (state D), and a file server does not respond to the node",
        )
    };
    let advice = "Restore the file server or the disk first: the process then continues or ends. Reboot the node only if that is not possible.";
    (case.pod.phase == "Running").then(|| {
        case.explain(Cause::Node, certainty, what)
            .with_evidence([in_words(process)])
            .with_evidence(storage.map(finding_quote))
            .with_evidence(storage.into_iter().flat_map(|finding| finding.evidence.iter().take(2).cloned()))
            .with_action(ActionCode::Watch, advice)
    })
}

/// Explains a pod whose process may be stuck. One reading is no proof, because a driver call can be in state D for a
/// moment.
pub(crate) fn possibly_stuck(case: &Case<'_>) -> Option<Explanation> {
    if let Some(explanation) = waits_for_storage(case) {
        return Some(explanation);
    }
    let waiting: Vec<_> = waiting(case).collect();
    // If a process was asked to end long ago, its wait in the kernel is not short.
    let deleted = case
        .pod
        .deleted
        .zip(case.report.and_then(|report| report.taken_at))
        .map(|(deleted, now)| now.duration_since(deleted));
    if !waiting.is_empty() && deleted.is_some_and(|age| age > LONG_TERMINATING) {
        let explained = case.explain(
            Cause::Node,
            Certainty::Likely,
            "it is being deleted, and its process waits in the kernel, where no signal ends it (state D)",
        );
        return Some(explained.with_evidence(waiting.iter().map(|process| in_words(process))).with_action(
            ActionCode::DrainAndReboot,
            "Drain and reboot the node (power-cycle it if the reboot hangs): only that ends the process.",
        ));
    }
    (!waiting.is_empty() && case.pod.phase == "Running").then(|| {
        case.explain(
            Cause::Node,
            Certainty::Possible,
            "its process is in uninterruptible sleep at this moment (state D)",
        )
        .with_evidence(waiting.iter().map(|process| in_words(process)))
        .with_plan_or(
            said_of(case, &waiting),
            ActionCode::Watch,
            "Explain the pod again in a minute: if the process is still in state D, the driver hangs.",
        )
    })
}

/// Explains a pod whose process on a GPU is stopped by a signal or a debugger.
pub(crate) fn stopped(case: &Case<'_>) -> Option<Explanation> {
    let stopped: Vec<_> = ["T", "t"].into_iter().flat_map(|state| case.processes_in(state)).collect();
    (!stopped.is_empty() && case.pod.phase == "Running").then(|| {
        case.explain(Cause::Application, Certainty::Certain, "its process on the GPU is stopped (state T) and does nothing")
            .with_evidence(stopped.iter().map(|process| in_words(process)))
            .with_action(
                ActionCode::FixApplication,
                "Find out who stopped the process (SIGSTOP, a debugger). SIGCONT continues the process. If it was stopped for a long time, restart the job.",
            )
    })
}

/// Returns the action of the diagnosis for the GPU, or else for the process, because the hang of a process on a lost
/// GPU is a consequence of the loss.
fn said_of(case: &Case<'_>, processes: &[&GpuProcess]) -> Option<Action> {
    let of_process =
        case.all_findings().find(|finding| processes.iter().any(|process| finding.scope.pid == Some(process.pid)));
    case.severe_plan().or_else(|| of_process.map(|finding| case.action_for(finding)))
}

/// Explains a pod with a zombie process.
pub(crate) fn zombie(case: &Case<'_>) -> Option<Explanation> {
    let dead: Vec<_> = case.processes_in("Z").collect();
    (!dead.is_empty() && case.pod.phase == "Running").then(|| {
        case.explain(Cause::Application, Certainty::Likely, "one of its processes is a zombie")
            .with_evidence(dead.iter().map(|process| in_words(process)))
            .with_action(
                ActionCode::RestartPod,
                "Restart the pod, or end the parent process. Find out in the log of the container why the process ended.",
            )
    })
}

/// Explains a container whose program ends without an error and is restarted repeatedly.
pub(crate) fn ends_without_error(case: &Case<'_>) -> Option<Explanation> {
    let ends_well = |container: &ContainerFacts| {
        let waits = matches!(&container.state, ContainerState::Waiting { reason, .. } if reason == CRASH_LOOP);
        let state = if waits { container.last.as_ref()? } else { &container.state };
        let end = Termination::of(container, state, waits)?;
        (container.restarts > 0 && end.exit_code == 0 && !end.never_ran()).then_some(())
    };
    if !matches!(case.pod.phase.as_str(), "Running" | "Pending") || case.failed().is_some() {
        return None;
    }
    let container = case.pod.containers.iter().find(|container| ends_well(container).is_some())?;
    let (name, restarts) = (&container.name, container.restarts);
    // An init container that was restarted once and then completed is not in a restart loop.
    let waits = matches!(&container.state, ContainerState::Waiting { .. });
    waits.then(|| {
        let what = format!(
            "the program of container {name} ends with exit code 0, and its restartPolicy starts it again ({restarts} restarts)"
        );
        case.explain(Cause::Application, Certainty::Certain, what).with_evidence(ends(container)).with_action(
            ActionCode::FixApplication,
            format!(
                "If the program is meant to finish, run it in a Job, or with restartPolicy OnFailure. If it is meant to keep running, \
                 find out in its log why it exits ({}).",
                failing_part::where_is_log(
                    case,
                    name,
                    &format!("kubectl logs -n {} {} -c {name} --previous", case.pod.namespace, case.pod.name)
                )
            ),
        )
    })
}

fn ends(container: &ContainerFacts) -> Option<String> {
    let end = Termination::of(container, container.last.as_ref()?, true)?;
    let at = end.finished.map(|time| format!(" at {time:.0}")).unwrap_or_default();
    Some(format!("container {} ended{at}: {}, exit code {}", end.container, end.reason, end.exit_code))
}

/// Returns whether the node ran out of memory when a container ended.
fn node_ran_out_of_memory(case: &Case<'_>, end: &Termination<'_>) -> bool {
    let near = |event: &&KernelEvent| {
        let apart = event.last.zip(end.finished).map(|(kill, end)| kill.duration_since(end).abs());
        apart.is_some_and(|apart| apart <= SignedDuration::from_secs(60))
    };
    let log = case.report.and_then(|report| Section::data_of(&report.sections.xid));
    log.into_iter().flat_map(|log| &log.events).filter(|event| event.is_kill_of_whole_node()).any(|event| near(&event))
}

/// Returns whether a fact shows who may have ended a container with SIGKILL, other than the program itself.
pub(super) fn is_killed_by_another(case: &Case<'_>, end: &Termination<'_>) -> bool {
    let is_asked = case.pod.deleted.is_some() || case.pod.disruption.is_some();
    is_asked || case.events(&ENDINGS).next().is_some() || node_ran_out_of_memory(case, end)
}

/// Reasons of events about a request to end a pod.
const ENDINGS: [&str; 5] = ["Killing", "Stopped", "Preempted", "Evicted", "TaintManagerEviction"];

/// Signals with which the kernel ends a program, by exit code, their meaning, and the advice.
const SIGNALS: [(i32, &str, &str); 8] = [
    (131, "was ended by SIGQUIT, on request or by its own watchdog", ""),
    (
        132,
        "used an instruction that the processor does not have (SIGILL): its build needs a newer processor, for example with AVX-512",
        "Use a build for the processor of {node}, or a node with a newer processor.",
    ),
    (133, "stopped at a trap (SIGTRAP): an assertion failed in native code", ""),
    (
        135,
        "had a bus error (SIGBUS): /dev/shm is often too small for its workers",
        "Mount an emptyDir with medium Memory and a sizeLimit at /dev/shm, or use fewer workers. If /dev/shm is large enough, look for damaged files \
         that the program maps.",
    ),
    (136, "divided by zero or had another arithmetic error (SIGFPE)", ""),
    (152, "used up its limit of processor time (SIGXCPU)", "Raise the limit of processor time (ulimit -t)."),
    (153, "exceeded its limit of the size of files (SIGXFSZ)", "Raise the limit of the size of files (ulimit -f)."),
    (
        159,
        "made a system call that its seccomp profile does not allow (SIGSYS)",
        "Use a seccomp profile that allows the system call (kernel line with type=SECCOMP), or another build.",
    ),
];

/// Explains a program that exited without a message by a limit of its container: shared memory, memory, processes, or a
/// setting that matches no interface. The facts come from the running container that replaced the failed one.
pub(crate) fn limited_by_its_container(case: &Case<'_>) -> Option<Explanation> {
    let end = case.ended().filter(|end| end.exit_code != 0 && !matches!(end.exit_code, 137 | 143))?;
    let is_silent = end.message.is_empty() && case.pod.log_lines.is_empty() && case.log_on_node().next().is_none();
    let limits = |finding: &&Finding| {
        let own = finding.scope.pod_uid.as_ref() == Some(&case.pod.uid) && finding.class == Class::Application;
        // A small shared memory is a reason only if something failed.
        let counts = finding.severity > Severity::Info || finding.id == "container-shared-memory-small";
        own && counts && finding.id.starts_with("container-")
    };
    let finding = case.all_findings().filter(limits).max_by_key(|finding| finding.severity).filter(|_| is_silent)?;
    let what = format!("the program ended with exit code {}; possibly because: {}", end.exit_code, finding.headline());
    let explanation = case.explain(Cause::Application, Certainty::Possible, what);
    let explanation =
        explanation.with_evidence([finding_quote(finding)]).with_evidence(finding.evidence.iter().cloned());
    let Action { code, text } = case.action_for(finding);
    Some(explanation.with_evidence(end_quote(case)).with_action(code, text))
}

/// Explains a program that reports in its own words that it finds no GPU, if another container of the pod requests the
/// GPU.
fn has_no_request(case: &Case<'_>, end: &Termination<'_>) -> Option<Explanation> {
    let in_log = case.pod.log_lines.iter().map(String::as_str).chain(case.log_on_node());
    let words = end.message.lines().chain(in_log).find(|line| injection::finds_no_gpu(line))?;
    let holder = injection::requested_by_other(case)?;
    let container = end.container;
    let what = format!(
        "container {container} finds no GPU (\"{}\"); this container requests no GPU, but container {holder} of the pod requests the GPU",
        shapes::words_of(words)
    );
    let advice = format!(
        "Request the GPU in the limits of container {container} (nvidia.com/gpu: 1), which uses the GPU, and not in \
         the limits of {holder}. A GPU belongs to the container that requests it, not to the pod."
    );
    let explanation = case.explain(Cause::Application, Certainty::Likely, what).with_evidence(end_quote(case));
    Some(explanation.with_action(ActionCode::ChangeRequest, advice))
}

/// Maximum length of the name of a library.
const MAX_LIBRARY: usize = 80;

/// Maximum time between a crash in the kernel log and the end of the container. The kernel writes a core dump in between.
const WITH_ITS_END: SignedDuration = SignedDuration::from_mins(1);

/// Returns the library in which the program of a container crashed, with the kernel line. The line must name a process
/// of the pod, or must be the only crash at that time.
fn crashed_in<'c>(case: &'c Case<'_>, end: &Termination<'_>) -> Option<(&'c str, &'c KernelEvent)> {
    let log = case.report.and_then(|report| Section::data_of(&report.sections.xid))?;
    let at_end = |event: &&KernelEvent| {
        let apart = event.last.zip(end.finished).map(|(last, end)| end.duration_since(last).abs());
        event.kind == KernelEventKind::Segfault && apart.is_some_and(|apart| apart <= WITH_ITS_END)
    };
    let crashes: Vec<&KernelEvent> = log.events.iter().filter(at_end).collect();
    let own = crashes.iter().find(|event| case.on_node.names_own_process(event));
    let only = || crashes.first().filter(|_| matches!(end.exit_code, 139 | 134 | 11) && crashes.len() == 1);
    let event = own.or_else(only)?;
    Some((event.details.get("library")?.as_str(), event))
}

/// Explains a program that exited for no other known cause.
pub(crate) fn program_ended(case: &Case<'_>) -> Option<Explanation> {
    let end = case.failed().filter(|end| end.exit_code != 0)?;
    if let Some(explanation) = has_no_request(case, &end) {
        return Some(explanation);
    }
    let Termination { container, exit_code, reason, message, .. } = end;
    let crash = crashed_in(case, &end);
    let what = match exit_code {
        126 => "could not execute its command".to_owned(),
        127 => "did not find a command (exit code 127)".to_owned(),
        139 | 134 if crash.is_some() => {
            let library = crash.map(|(library, _)| clean(library, MAX_LIBRARY)).unwrap_or_default();
            format!("crashed in the library {library}, according to the kernel log")
        }
        134 => "aborted (SIGABRT): an assertion failed, or a library such as NCCL aborted".to_owned(),
        137 if node_ran_out_of_memory(case, &end) => {
            "was killed (SIGKILL); at that time the kernel killed a process because the node had no memory left".to_owned()
        }
        137 => "was killed (SIGKILL); no OOM kill, eviction or failed probe was found, and the sender of the signal is not \
                known"
            .to_owned(),
        139 => "crashed (SIGSEGV)".to_owned(),
        143 => "was terminated (SIGTERM); the sender of the signal is not known".to_owned(),
        code => match SIGNALS.iter().find(|(signal, ..)| *signal == code) {
            Some((_, meaning, _)) => format!("{meaning} (exit code {code})"),
            None => format!("exited with exit code {code}"),
        },
    };
    let reading = said(case, message);
    let near = case.on_node.node_events.iter().filter(|event| !is_teardown(event)).collect::<Vec<_>>();
    // Another process sends these two signals.
    let sent = matches!(exit_code, 137 | 143);
    // An unknown message about GPU software may be about the GPU, the node or the program.
    let in_log = case.pod.log_lines.iter().map(String::as_str).chain(case.log_on_node());
    let told = if message.is_empty() { shapes::telling_lines(in_log) } else { Vec::new() };
    let of_gpus =
        speaks_of_gpus(message) || told.into_iter().any(|line| shapes::is_error(line) && speaks_of_gpus(line));
    // The message names a device that a finding is about.
    let in_message =
        std::iter::once(message).chain(case.pod.log_lines.iter().map(String::as_str).filter(|_| message.is_empty()));
    let named = in_message.filter(|_| !sent).find_map(|text| claims::named(case, text));
    let covered = near.is_empty() && case.on_node.log_covers;
    let certainty = if covered && !sent && !of_gpus { Certainty::Likely } else { Certainty::Possible };
    let (cause, code) = match (sent || of_gpus, case.pod.is_gpu_stack) {
        _ if named.is_some() => (Cause::Node, ActionCode::Watch),
        (true, _) => (Cause::Unknown, ActionCode::Watch),
        // NVIDIA's software is not an application, so its failure is a fault of the node.
        (false, true) => (Cause::Node, ActionCode::Watch),
        (false, false) => match &reading {
            Some((reading, _)) => (reading.cause, ActionCode::Watch),
            // If the node has a fault that ends programs, an exit code alone does not show that the program is the
            // cause.
            None if node_ends_programs(case) || (exit_code > 128 && shares_gpus(case)) => {
                (Cause::Unknown, ActionCode::Watch)
            }
            None => (Cause::Application, ActionCode::FixApplication),
        },
    };
    let certainty = match &reading {
        _ if named.is_some() => Certainty::Likely,
        Some(_) if sent => Certainty::Possible,
        Some((_, of_log)) => {
            if *of_log {
                Certainty::Possible
            } else {
                Certainty::Likely
            }
        }
        None => certainty,
    };
    let now =
        if case.pod.running().any(|(name, _)| name == container) { "; the container is running again" } else { "" };
    // The message of the container does not contain the reason, or there is no message.
    let why = match &reading {
        _ if named.is_some() => named
            .map(|finding| format!("; its message names a part of the node that has a fault: {}", finding.headline()))
            .unwrap_or_default(),
        Some((reading, _)) => format!("; it reports that {}", reading.what),
        None if sent || SIGNALS.iter().any(|(signal, ..)| *signal == exit_code) => String::new(),
        None if exit_code > 128 && shares_gpus(case) => format!(
            "; {NOT_IDENTIFIED}. Software that shares GPUs ({}) runs a library inside its program. This library, or its replacement by an \
             update of the device plugin, can crash the program",
            case.pod.other_resources.join(", ")
        ),
        None => format!("; {NOT_IDENTIFIED}"),
    };
    let of_signal = || SIGNALS.iter().find(|(signal, ..)| *signal == exit_code).map(|(.., advice)| *advice);
    let advice = reading.map(|(reading, _)| reading.advice(case.node));
    let advice = advice.or_else(|| Some(of_signal()?.replace("{node}", case.node))).unwrap_or_default();
    let log = failing_part::where_is_log(case, end.container, &end.log_command(case.pod));
    let log = format!("Check the log of the container: {log}");
    let log = match crash {
        Some((library, _)) => format!(
            "Check that {} is compatible with the driver and the other libraries of the image (versions of CUDA, \
             NCCL, PyTorch and of plugins). Look for the crash in the issues of this library. {log}",
            clean(library, MAX_LIBRARY)
        ),
        None => log,
    };
    let advice = if advice.is_empty() { log } else { format!("{advice} {log}") };
    let beside =
        claims::concerns(case).into_iter().filter(|finding| named.is_none_or(|named| !std::ptr::eq(*finding, named)));
    Some(
        case.explain(cause, certainty, format!("container {container} {what} ({reason}){now}{why}"))
            .with_evidence(end_quote(case))
            .with_evidence(crash.map(|(_, event)| crate::explanation::timeline::line(event)))
            .with_evidence(named.map(finding_quote))
            .with_evidence(named.into_iter().flat_map(|finding| finding.evidence.iter().take(2).cloned()))
            .with_evidence(
                quotes(&near)
                    .into_iter()
                    .map(|quote| format!("on the node during this time (the GPU of the pod is not known): {quote}")),
            )
            .with_evidence(before_its_end(case))
            .with_evidence(
                beside.map(|finding| format!("{}; nothing shows that it ended the program", finding_quote(finding))),
            )
            .with_plan_or(named.map(|finding| case.action_for(finding)), code, advice),
    )
}

/// Returns whether the pod requests parts of GPUs (memory or cores, by resource name) from software that shares GPUs:
/// HAMi, gpushare, Volcano and others.
fn shares_gpus(case: &Case<'_>) -> bool {
    let of_shares = |name: &String| {
        let name = name.to_ascii_lowercase();
        name.contains("gpu") && ["mem", "core", "share", "fraction"].iter().any(|part| name.contains(part))
    };
    case.pod.other_resources.iter().any(of_shares)
}

/// Returns whether a finding about the whole node ends programs, for example missing device files. Other causes handle
/// faults of one GPU, because they compare the time of the fault with the end of the program.
fn node_ends_programs(case: &Case<'_>) -> bool {
    let of_node = |finding: &&&Finding| {
        finding.addresses.is_empty() && finding.scope.gpu.is_none() && finding.scope.pci.is_none()
    };
    claims::concerns(case).iter().filter(of_node).any(|finding| effects::ends_programs(finding).is_some())
}

/// Returns the meaning of the last error message of the program, recognized by its general form, and whether this
/// message comes from the log.
fn said(case: &Case<'_>, message: &str) -> Option<(Reading, bool)> {
    let own = shapes::read_log(message.lines()).map(|(_, reading)| (reading, false));
    // A general statement is less informative than a message about another process.
    let specific = own.clone().filter(|(reading, _)| reading.is_specific());
    let other = || elsewhere::read(message).map(|line| (shapes::of_something_else(line), false));
    specific.or_else(other).or(own).or_else(|| {
        let in_log = || case.pod.log_lines.iter().map(String::as_str).chain(case.log_on_node());
        let other = || {
            let text = in_log().collect::<Vec<_>>().join("\n");
            let line = elsewhere::read(in_log().next_back()?).or_else(|| elsewhere::read_report(&text))?;
            Some((shapes::of_something_else(line), true))
        };
        shapes::read_log(in_log()).map(|(_, reading)| (reading, true)).or_else(other)
    })
}

/// Explains a running pod of which one process crashed: the kernel logged the crash, a GPU of the pod has no process any
/// more, and its other GPUs have one.
pub(crate) fn one_crashed(case: &Case<'_>) -> Option<Explanation> {
    let on_node = case.on_node;
    let used: BTreeSet<u32> = on_node.processes.iter().flat_map(|process| &process.uses).map(|one| one.gpu).collect();
    let idle: Vec<String> = on_node.indices.difference(&used).map(ToString::to_string).collect();
    if case.pod.phase != "Running" || idle.is_empty() || used.is_empty() {
        return None;
    }
    let (from, _) = case.pod.run();
    let is_own = |event: &&KernelEvent| {
        let in_run = from.zip(event.last).is_some_and(|(from, last)| last >= from);
        let is_known = |process: &GpuProcess| process.name.is_some() && process.name == event.process;
        let has_ended = event.pid.is_some_and(|pid| !on_node.pids.contains(&pid));
        event.kind == KernelEventKind::Segfault && in_run && has_ended && on_node.processes.iter().any(is_known)
    };
    let log = Section::data_of(&case.report?.sections.xid)?;
    let crash = log.events.iter().rev().find(is_own)?;
    let library = crash.details.get("library").map(|name| format!(" in {}", clean(name, 80))).unwrap_or_default();
    let what = format!(
        "one of its processes crashed{library}, and GPU {} has no process of the pod: the other processes may wait for it",
        idle.join(", ")
    );
    Some(case.explain(Cause::Application, Certainty::Likely, what).with_evidence(quotes(&[crash])).with_action(
        ActionCode::RestartPod,
        "Restart the job. Read the log of the process that crashed (a core dump shows the place), and check the version of the library \
         that the kernel line names. The GPU has no fault.",
    ))
}

/// The kubelet records the end of a container that a reboot ended within this time after the boot.
const WITH_BOOT: SignedDuration = SignedDuration::from_mins(5);

/// Explains a pod that is running or completed. It has no problem only if its node was read, and no finding is about
/// it.
pub(crate) fn no_problem(case: &Case<'_>) -> Option<Explanation> {
    let (certainty, what) = match case.pod.phase.as_str() {
        "Succeeded" => (Certainty::Likely, "the pod completed successfully"),
        // Waiting and failed containers are handled by earlier causes.
        "Running" if case.pod.ready == Some(true) => (Certainty::Likely, "the pod is running and Ready"),
        "Running" => (Certainty::Possible, "the pod is running, and it is not known whether it is Ready"),
        _ => return None,
    };
    let needs_gpus = case.pod.wants_gpus || case.pod.is_gpu_stack;
    let waits = siblings(case);
    let what = format!("{what}{waits}");
    let what = what.as_str();
    if case.unread && needs_gpus {
        let diagnose = format!("Diagnose the node when it can be read (diagnose_gpu_node for {}).", case.node);
        let unread = "its node was not read, so a problem of the GPU or the driver is not ruled out";
        if let Some(doubt) = doubtful(case, &format!("{what}; {unread}")) {
            let code = doubt.action.code;
            let advice = format!("{} {diagnose}", doubt.action.text);
            return Some(doubt.with_action(code, advice));
        }
        let what = format!("{what}; {unread}");
        return Some(case.explain(Cause::Unknown, Certainty::Possible, what).with_action(ActionCode::Watch, diagnose));
    }
    let findings = claims::concerns(case);
    let faults: Vec<_> = case.on_node.own_events.iter().filter(|event| is_fault(event)).collect();
    // A finding about the pod has priority over a finding about its GPU, which has priority over a finding about its
    // node.
    if let Some(first) = findings.iter().min_by_key(|finding| (!is_of_pod(case, finding), !is_of_gpu(case, finding))) {
        return Some(beside_finding(case, what, first, &findings).with_evidence(quotes(&faults)));
    }
    if !faults.is_empty() {
        let what = format!(
            "{what}; the kernel logged an error of its GPU while the pod ran, but the error did not end the pod"
        );
        return Some(
            case.explain(Cause::Gpu, Certainty::Possible, what)
                .with_evidence(quotes(&faults))
                .with_action(ActionCode::Watch, format!("See diagnose_gpu_node for {}.", case.node)),
        );
    }
    if let Some(waiting) = waits_for_siblings(case) {
        return Some(waiting);
    }
    if let Some(hang) = busy_without_work(case, what) {
        return Some(hang);
    }
    if let Some(drain) = will_be_drained(case, what) {
        return Some(drain);
    }
    if let Some(doubt) = doubtful(case, what).or_else(|| other_devices_visible(case, what)) {
        return Some(doubt);
    }
    let what = match case.pod.phase.as_str() {
        "Running" if !needs_gpus && case.pod.other_resources.is_empty() => {
            format!("{what}, it requests no GPU, and no problem was found")
        }
        "Running" if !needs_gpus || claims::sections_not_read(case).is_empty() => {
            format!("{what}, and no problem was found")
        }
        "Running" => format!("{what}, and no problem was found in the data that was read"),
        _ => what.to_owned(),
    };
    let others = others_on_its_gpus(case);
    let what = if others.is_empty() { what } else { format!("{what}; other pods use its GPU too, and it can be slow") };
    let restart = case.ended().filter(|end| end.exit_code != 0 && end.was_restarted).map(|end| {
        let at = end.finished.map(|time| format!(" at {time:.0}")).unwrap_or_default();
        let apart = end.finished.zip(case.booted()).map(|(end, boot)| end.duration_since(boot).abs());
        let boot = if apart.is_some_and(|apart| apart <= WITH_BOOT) { " when its node rebooted" } else { "" };
        format!(
            "container {} ended{at}{boot} ({}, exit code {}) and has run since its restart",
            end.container, end.reason, end.exit_code
        )
    });
    Some(
        case.explain(Cause::None, certainty, what)
            .with_evidence(restart)
            .with_evidence(evidence::lines(others, SHOWN_DOUBTS))
            .with_action(ActionCode::None, "No action needed."),
    )
}

/// Returns the processes of other pods that use the shared GPUs of the pod now.
fn others_on_its_gpus(case: &Case<'_>) -> Vec<String> {
    let section = case.report.and_then(|report| Section::data_of(&report.sections.processes));
    let is_shared = case.on_node.shares && case.pod.phase == "Running";
    let processes = section.into_iter().flat_map(|section| &section.processes).filter(|_| is_shared);
    let is_other = |process: &&GpuProcess| process.pod_uid.as_deref().is_some_and(|uid| uid != case.pod.uid);
    let mut lines = Vec::new();
    for process in processes.filter(is_other) {
        let own = process.uses.iter().filter(|usage| case.on_node.indices.contains(&usage.gpu));
        lines.extend(own.map(|usage| {
            let memory = usage.memory_bytes.map(|bytes| format!(", {}", evidence::bytes(bytes))).unwrap_or_default();
            format!("shared GPU {}: {} of another pod{memory}", usage.gpu, evidence::process(process))
        }));
    }
    lines
}

/// Minimum use of a GPU, maximum use of its memory, and maximum percentage of its power limit, at which its kernels only
/// wait: the kernels of a collective run until all ranks take part.
const WAITING_KERNEL: (u32, u32, u32) = (99, 1, 35);

/// Explains a running pod with several GPUs that are all busy, but move no data and draw little power.
fn busy_without_work(case: &Case<'_>, what: &str) -> Option<Explanation> {
    let telemetry = Section::data_of(&case.report?.sections.telemetry)?;
    let (busy, memory, power) = WAITING_KERNEL;
    let is_own = |gpu: &&GpuTelemetry| case.on_node.indices.contains(&gpu.index);
    let own: Vec<&GpuTelemetry> = telemetry.gpus.iter().filter(is_own).collect();
    let draw = |gpu: &GpuTelemetry| {
        let now = gpu.power.draw_milliwatts?;
        let limit = gpu.power.enforced_limit_milliwatts.or(gpu.power.limit_milliwatts)?;
        let used = &gpu.utilization;
        let waits = used.gpu_percent? >= busy && used.memory_percent? <= memory && now / power * 100 < limit;
        waits.then_some((now / 1000, limit / 1000))
    };
    let draws: Vec<(u32, u32)> = own.iter().map(|gpu| draw(gpu)).collect::<Option<_>>()?;
    let (most, limit) = draws.iter().copied().max().filter(|_| draws.len() > 1 && case.pod.phase == "Running")?;
    let what = format!(
        "{what}; but its {} GPUs are busy without work: their memory is not used, and each draws at most {most} W of {limit} W, so their \
         kernels probably wait, as in a hung collective operation of NCCL",
        draws.len()
    );
    Some(case.explain(Cause::Unknown, Certainty::Possible, what).with_action(
        ActionCode::Watch,
        "If the log of the job shows no progress, find the rank that does not take part (py-spy dump of each rank, NCCL_DEBUG=INFO, the logs of \
         all ranks), and restart the job. If the log shows progress, no action is needed.",
    ))
}

/// Words, in lower case, of a program that waits for other ranks of its job.
const WAITS: [&str; 5] = ["waiting for", "wait for", "rendezvous", "to join", "barrier"];

/// Explains a running pod whose log says that it waits, and whose job has pods that do not run.
fn waits_for_siblings(case: &Case<'_>) -> Option<Explanation> {
    let others = &case.pod.siblings_not_running;
    if others.is_empty() || case.pod.phase != "Running" {
        return None;
    }
    let is_wait = |line: &&str| {
        let line = line.to_ascii_lowercase();
        WAITS.iter().any(|words| line.contains(words))
    };
    let (container, line) = failing_part::logs(case)
        .into_iter()
        .find_map(|(container, lines)| Some((container, *lines.last().filter(|line| is_wait(line))?)))?;
    let what =
        format!("the pod runs and waits for other pods of its job{} (\"{}\")", siblings(case), shapes::words_of(line));
    let first = others.first()?.split(' ').next().unwrap_or_default();
    Some(
        case.explain(Cause::Cluster, Certainty::Likely, what)
            .with_evidence([format!("log of container {container}: {line}")])
            .with_action(
                ActionCode::Watch,
                format!("Explain the pods that do not run (explain_gpu_pod for {first}): this pod continues when all ranks have joined."),
            ),
    )
}

/// Explains a pod that runs without a problem on a node that must be drained for the repair of another GPU.
fn will_be_drained(case: &Case<'_>, what: &str) -> Option<Explanation> {
    let drains = |plan: &&Plan| {
        plan.addresses.is_empty() && matches!(plan.action, ActionCode::DrainAndReset | ActionCode::DrainAndReboot)
    };
    let diagnosis = case.diagnosis.filter(|_| case.pod.phase == "Running" && case.pod.wants_gpus)?;
    let plan = diagnosis.plan.iter().filter(drains).find(|plan| plan.urgency > Urgency::NextMaintenance)?;
    let of_plan = diagnosis.findings.iter().filter(|finding| plan.findings.contains(&finding.id));
    let first = of_plan.max_by_key(|finding| finding.severity)?;
    let what = format!(
        "{what}, and no problem of its own GPUs was found; but its node must be drained for the repair of another part: {}",
        first.headline()
    );
    let advice = format!(
        "Let the pod save its work (checkpoint), and move it to another node before {} is drained. {}",
        case.node, plan.before_plan
    );
    Some(
        case.explain(Cause::Node, Certainty::Likely, what)
            .with_evidence([finding_quote(first)])
            .with_evidence(first.evidence.iter().take(2).cloned())
            .with_action(ActionCode::Watch, advice.trim_end()),
    )
}

/// Explains a running or completed pod about which a message reports a problem: a virtual machine without its GPU, a
/// job that its operator cannot complete, or an error in its log.
fn doubtful(case: &Case<'_>, what: &str) -> Option<Explanation> {
    let doubts = failing_part::doubts(case);
    let first = doubts.first()?;
    let Doubt { source, message, .. } = first;
    let part = if first.of_log { Part::Program } else { Part::Start };
    let phrase = phrases::known(part, message);
    let reading = shapes::read(message);
    let meaning = match (phrase, &reading) {
        _ if message.is_empty() => format!("; {NOT_IDENTIFIED}"),
        (Some(phrase), _) => format!(": {} (\"{}\")", phrase.meaning(message), shapes::words_of(message)),
        (None, Some(reading)) => format!(": {} (\"{}\")", reading.what, shapes::words_of(message)),
        (None, None) => format!(": \"{}\"; {NOT_IDENTIFIED}", shapes::words_of(message)),
    };
    // The error in the log of a ready container has no effect that Kubernetes detects.
    let lacks = phrase.is_some_and(|phrase| phrase.finds_no_gpu() || phrase.what.contains("does not find some CUDA"));
    let unused = first.of_log && lacks && uses_no_gpu(case);
    let advice = phrase.map(|phrase| phrase.advice_for(message, case.node));
    let advice = match (advice, first.of_log) {
        (Some(advice), true) if unused => Some(advice),
        (Some(advice), true) => Some(format!("If the program makes no progress: {}", phrases::lowercased(&advice))),
        (None, true) => None,
        (advice, false) => advice.or(reading.map(|reading| reading.advice(case.node))),
    };
    let advice = advice.filter(|text| !text.is_empty());
    let (cause, code) = match phrase.filter(|_| !first.of_log) {
        Some(phrase) => (phrase.cause, phrase.code),
        None => (Cause::Unknown, ActionCode::Watch),
    };
    let note = if unused { "; no process of the pod uses its GPU" } else { "" };
    let what = format!("{what}, but {source}{meaning}{note}");
    let certainty = if phrase.is_some() && !first.of_log { Certainty::Likely } else { Certainty::Possible };
    let lack = if case.pod.is_gpu_stack { injection::doubt(case, message) } else { None };
    let owners = owners::about([message.as_str()]).join(" ").replace("{node}", case.node);
    let advice = lack.or(advice).unwrap_or_else(|| {
        "Read the message. No other fact shows a problem of the pod, and the message may have no effect.".to_owned()
    });
    Some(
        case.explain(cause, certainty, what)
            .with_evidence(doubts.iter().take(SHOWN_DOUBTS).map(|doubt| doubt.quote.clone()))
            .with_action(code, format!("{owners} {advice}").trim_start()),
    )
}

/// A program that has run for this time without its GPU does not use the GPU.
const SHOULD_USE: SignedDuration = SignedDuration::from_mins(30);

/// Returns whether no process of the pod uses the GPUs that the kubelet allocated to it. All processes must have been read.
fn uses_no_gpu(case: &Case<'_>) -> bool {
    let section = case.report.and_then(|report| Section::data_of(&report.sections.processes));
    let is_read = section.is_some_and(|section| section.host_pid_namespace);
    let started = case.pod.running().filter_map(|(_, since)| since).min();
    let age = case.report.and_then(|report| report.taken_at).zip(started).map(|(now, since)| now.duration_since(since));
    let uses_one = case.on_node.processes.iter().any(|process| !process.uses.is_empty());
    is_read && !case.on_node.addresses.is_empty() && !uses_one && age.is_some_and(|age| age > SHOULD_USE)
}

/// Returns a text about the other pods of the same controller that do not run, because the running pod may wait for
/// them.
fn siblings(case: &Case<'_>) -> String {
    let others = &case.pod.siblings_not_running;
    if others.is_empty() || case.pod.phase != "Running" {
        return String::new();
    }
    format!("; other pods of its controller do not run: {}", evidence::some(others, SHOWN_DOUBTS))
}

/// Maximum number of messages about a running pod, and maximum number of other pods of its job.
const SHOWN_DOUBTS: usize = 4;

/// Explains a running pod that mounts device files of the host in addition to the devices of a plugin. A container sees
/// all these devices, but may open only the devices of the plugin.
fn other_devices_visible(case: &Case<'_>, what: &str) -> Option<Explanation> {
    let pod = case.pod;
    if pod.phase != "Running" || pod.is_gpu_stack || pod.host_devices.is_empty() || pod.other_resources.is_empty() {
        return None;
    }
    let (mounted, requested) = (pod.host_devices.join(", "), pod.other_resources.join(", "));
    let what = format!(
        "{what}; it mounts {mounted} of its node, so in addition to its own devices ({requested}) it sees devices \
            that it is not permitted to open. A library such as NCCL or libfabric may choose such a device, fail, and \
            use a slower network"
    );
    Some(
        case.explain(Cause::Application, Certainty::Possible, what)
            .with_evidence([format!("hostPath volumes: {mounted}"), format!("requested devices: {requested}")])
            .with_action(
                ActionCode::FixApplication,
                format!("If its network is slow or fails, remove the mount of {mounted}: the device plugin adds the device files."),
            ),
    )
}

fn is_of_pod(case: &Case<'_>, finding: &Finding) -> bool {
    finding.scope.pod_uid.as_ref() == Some(&case.pod.uid)
        || finding.scope.pid.is_some_and(|pid| case.on_node.pids.contains(&pid))
}

fn is_of_gpu(case: &Case<'_>, finding: &Finding) -> bool {
    case.is_on_its_gpus(finding)
}

/// Explains a pod that is running or completed, if a finding concerns the pod.
fn beside_finding(case: &Case<'_>, what: &str, first: &Finding, findings: &[&Finding]) -> Explanation {
    let affects = case.pod.phase == "Running" && effects::ends_programs(first).is_some();
    let (cause, whose) = match (first.class, is_of_pod(case, first), is_of_gpu(case, first)) {
        (Class::Application, true, _) => (Cause::Application, "the pod"),
        (Class::Application | Class::Driver, false, true) => (Cause::Node, "its GPU"),
        (_, _, true) if rules::about(&first.id) == Some(About::Network) => {
            (Cause::Node, "a network port next to its GPU")
        }
        (_, _, true) => (Cause::Gpu, "its GPU"),
        (_, true, false) => (Cause::Node, "the pod"),
        // It is not known whether the finding affects this pod.
        (_, false, false) => (if affects { Cause::Node } else { Cause::Unknown }, "its node"),
    };
    let what = format!("{what}; there is a finding about {whose}: {}", first.headline());
    let mut explanation = case
        .explain(cause, Certainty::Possible, what)
        .with_evidence(findings.iter().map(|finding| finding_quote(finding)))
        .with_evidence(first.evidence.iter().take(2).cloned());
    explanation.action = case.action_for(first);
    explanation
}

fn in_words(process: &GpuProcess) -> String {
    let GpuProcess { pid, name, state, .. } = process;
    format!("pid {pid} {}: state {}", name.as_deref().unwrap_or("?"), state.as_deref().unwrap_or("?"))
}
