//! Causes in the processes of the pod: memory, state in the kernel, exit codes.

use crate::explanation::causes::{ALL_CLASSES, Case, end_quote, finding_quote, quotes};
use crate::explanation::types::{Cause, Certainty, Explanation};
use crate::finding::Action;
use crate::input::processes::Stuck;
use syringe_core::classification::ActionCode;
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind};
use syringe_core::facts::kubernetes::pod::Termination;
use syringe_core::facts::processes::GpuProcess;

pub(crate) fn out_of_memory(case: &Case<'_>) -> Option<Explanation> {
    let kills: Vec<_> = case.on_node.own_events.iter().filter(|event| event.kind == KernelEventKind::OomKill).collect();
    let ended = case.ended().filter(|end| end.reason == "OOMKilled");
    if ended.is_none() && kills.is_empty() {
        return None;
    }
    let whole_node = kills
        .iter()
        .any(|event| event.details.get("constraint").is_some_and(|constraint| constraint == "CONSTRAINT_NONE"));
    let evidence = ended.and_then(|_| end_quote(case));
    let (cause, what, action) = if whole_node {
        (
            Cause::Node,
            "the node ran out of memory, and the kernel killed it",
            "Find out what uses the memory of the node; set memory limits on pods.",
        )
    } else {
        (
            Cause::Application,
            "it exceeded its memory limit (host memory, not GPU memory)",
            "Raise the memory limit, or reduce the memory use (data loader workers, pinned memory).",
        )
    };
    // The kubelet does not report whether the memory of the node or of the pod ran out; the kernel line does.
    let certainty = if kills.is_empty() { Certainty::Likely } else { Certainty::Certain };
    Some(
        case.explain(cause, certainty, what)
            .with_evidence(evidence)
            .with_evidence(quotes(&kills))
            .with_action(ActionCode::RestartPod, action),
    )
}

/// Explains a pod whose process is stuck in the driver, according to the diagnosis. Kubernetes still shows it as running.
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

/// Explains a pod whose process may be stuck. One reading does not prove it, because a driver call can be in state D for a
/// moment.
pub(crate) fn possibly_stuck(case: &Case<'_>) -> Option<Explanation> {
    let waiting: Vec<_> = waiting(case).collect();
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
            "Run this again in a minute: if the process is still in state D, the driver hangs.",
        )
    })
}

/// Returns the action of the diagnosis for the GPU, or else for the process: a process that hangs on a lost GPU is a
/// consequence of the loss.
fn said_of(case: &Case<'_>, processes: &[&GpuProcess]) -> Option<Action> {
    let of_process =
        case.all_findings().find(|finding| processes.iter().any(|process| finding.scope.pid == Some(process.pid)));
    case.plan().or_else(|| of_process.map(|finding| case.action_for(finding)))
}

/// Explains a pod with a zombie process.
pub(crate) fn zombie(case: &Case<'_>) -> Option<Explanation> {
    let dead: Vec<_> = case.processes_in("Z").collect();
    (!dead.is_empty() && case.pod.phase == "Running").then(|| {
        case.explain(Cause::Application, Certainty::Likely, "one of its processes is a zombie")
            .with_evidence(dead.iter().map(|process| in_words(process)))
            .with_action(
                ActionCode::RestartPod,
                "Restart the pod, or end the parent process. Find out why the process ended (kubectl logs).",
            )
    })
}

/// Explains a program that exited, if no other cause was found.
pub(crate) fn program_ended(case: &Case<'_>) -> Option<Explanation> {
    let end = case.ended().filter(|end| end.exit_code != 0)?;
    let Termination { container, exit_code, reason, .. } = end;
    let what = match exit_code {
        126 => "could not execute its command".to_owned(),
        127 => "did not find a command (exit code 127)".to_owned(),
        134 => "aborted (SIGABRT): an assertion failed, or a library such as NCCL aborted".to_owned(),
        135 => "had a bus error (SIGBUS): /dev/shm is often too small for its workers".to_owned(),
        137 => "was killed (SIGKILL); no OOM kill, eviction or failed probe was found, and the sender of the signal is not \
                known"
            .to_owned(),
        139 => "crashed (SIGSEGV)".to_owned(),
        143 => "was terminated (SIGTERM); the sender of the signal is not known".to_owned(),
        code => format!("exited with exit code {code}"),
    };
    let near = case.on_node.node_events.iter().collect::<Vec<_>>();
    // Another process sends these two signals.
    let sent = matches!(exit_code, 137 | 143);
    let covered = near.is_empty() && case.on_node.log_covers;
    let certainty = if covered && !sent { Certainty::Likely } else { Certainty::Possible };
    let cause = match (sent, case.pod.is_gpu_stack) {
        (true, _) => Cause::Unknown,
        // NVIDIA's software is no application: its failure is a fault of the node.
        (false, true) => Cause::Node,
        (false, false) => Cause::Application,
    };
    let now = if case.pod.running().any(|(name, _)| name == container) { "; it is running again" } else { "" };
    Some(
        case.explain(cause, certainty, format!("container {container} {what} ({reason}){now}"))
            .with_evidence(end_quote(case))
            .with_evidence(
                quotes(&near)
                    .into_iter()
                    .map(|quote| format!("on the node during this time, the GPU of the pod is not known: {quote}")),
            )
            .with_action(
                ActionCode::RestartPod,
                format!("Check the log of the container: {}", end.log_command(case.pod)),
            ),
    )
}

/// States that no problem was found. Findings about the pod's GPUs are still listed.
pub(crate) fn no_problem(case: &Case<'_>) -> Option<Explanation> {
    let findings = case.findings(&ALL_CLASSES);
    let open = findings
        .first()
        .map(|first| format!("; there is a finding on its GPU, but it did not affect the pod: {}", first.title));
    let open = open.unwrap_or_default();
    let (certainty, what) = match case.pod.phase.as_str() {
        "Succeeded" => (Certainty::Likely, "it completed successfully".to_owned()),
        // Waiting and failed containers were handled before.
        "Running" if case.pod.ready == Some(true) => {
            (Certainty::Likely, format!("it is running and Ready, and no problem was found{open}"))
        }
        "Running" => (
            Certainty::Possible,
            format!("it is running and no problem was found; it is not known whether it is Ready{open}"),
        ),
        _ => return None,
    };
    let quoted = findings.iter().map(|finding| finding_quote(finding));
    let plan = if case.pod.phase == "Running" { case.plan() } else { None };
    Some(case.explain(Cause::None, certainty, what).with_evidence(quoted.filter(|_| plan.is_some())).with_plan_or(
        plan,
        ActionCode::None,
        "No action needed.",
    ))
}

fn in_words(process: &GpuProcess) -> String {
    let GpuProcess { pid, name, state, .. } = process;
    format!("pid {pid} {}: state {}", name.as_deref().unwrap_or("?"), state.as_deref().unwrap_or("?"))
}
