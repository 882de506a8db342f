//! How its processes end, hang or go on: memory, the kernel's states, exit codes. The last to be asked.

use super::{Case, end_quote, quotes};
use crate::diagnosis::ActionCode;
use crate::explanation::{Cause, Certainty, Explanation};
use crate::facts::kernel_log::{KernelEvent, KernelEventKind};
use crate::facts::processes::GpuProcess;

pub(super) fn out_of_memory(case: &Case<'_>) -> Option<Explanation> {
    let kills: Vec<_> =
        case.footprint.own_events.iter().filter(|event| event.kind == KernelEventKind::OomKill).collect();
    let ended = case.ended().filter(|(_, _, reason, _)| *reason == "OOMKilled");
    if ended.is_none() && kills.is_empty() {
        return None;
    }
    let whole_node = kills
        .iter()
        .any(|event| event.details.get("constraint").is_some_and(|constraint| constraint == "CONSTRAINT_NONE"));
    let evidence = ended.map(|(name, code, ..)| format!("container {name}: OOMKilled, exit code {code}"));
    let (cause, what, action) = if whole_node {
        (
            Cause::Node,
            "the node ran out of memory and its kernel killed it",
            "Find what fills the node's memory; give pods limits.",
        )
    } else {
        (
            Cause::Application,
            "it used more host memory than its limit (not GPU memory)",
            "Raise the memory limit, or use less (data loader workers, pinned memory).",
        )
    };
    // The kubelet's word alone does not say whose memory ran out: the kernel's line does.
    let certainty = if kills.is_empty() { Certainty::Likely } else { Certainty::Certain };
    Some(case.say(cause, certainty, what).because(evidence).because(quotes(&kills)).so(ActionCode::RestartPod, action))
}

/// A process that waits for the driver for ever: the kernel says so, or its GPU is gone. The pod looks alive and is not.
pub(super) fn stuck(case: &Case<'_>) -> Option<Explanation> {
    let waiting = processes_in(case, "D");
    let speaks = |event: &&KernelEvent| {
        let gone = event.kind == KernelEventKind::OffBus || matches!(event.code, Some(79 | 119 | 120));
        let hung = event.kind == KernelEventKind::HungTask
            && event.pid.is_some_and(|pid| waiting.iter().any(|process| process.pid == pid));
        hung || (gone && event.kind != KernelEventKind::Sxid)
    };
    let witnesses: Vec<_> = case.footprint.own_events.iter().filter(speaks).collect();
    if waiting.is_empty() || witnesses.is_empty() || case.pod.phase != "Running" {
        return None;
    }
    Some(
        case.say(Cause::Node, Certainty::Likely, "its process hangs inside the driver (state D)")
            .because(waiting.iter().map(|process| in_words(process)))
            .because(quotes(&witnesses))
            .so(
                ActionCode::DrainAndReboot,
                format!("No signal helps a process in state D: drain {} and reset or reboot it.", case.node),
            ),
    )
}

/// What one look cannot tell: every call into the driver shows state D for a moment.
pub(super) fn perhaps_stuck(case: &Case<'_>) -> Option<Explanation> {
    let waiting = processes_in(case, "D");
    (!waiting.is_empty() && case.pod.phase == "Running").then(|| {
        case.say(Cause::Node, Certainty::Possible, "its process waits in the kernel at this moment (state D)")
            .because(waiting.iter().map(|process| in_words(process)))
            .so(ActionCode::Watch, "Ask again in a minute: if it still waits, the driver hangs.")
    })
}

/// A process that is dead and that its parent does not collect.
pub(super) fn not_collected(case: &Case<'_>) -> Option<Explanation> {
    let dead = processes_in(case, "Z");
    (!dead.is_empty() && case.pod.phase == "Running").then(|| {
        case.say(Cause::Application, Certainty::Likely, "a process of it is dead and its parent does not collect it")
            .because(dead.iter().map(|process| in_words(process)))
            .so(
                ActionCode::RestartPod,
                "Start the pod again, or end the parent process; see why the process ended (kubectl logs).",
            )
    })
}

pub(super) fn program_ended(case: &Case<'_>) -> Option<Explanation> {
    let (name, code, reason, _) = case.ended().filter(|(_, code, ..)| *code != 0)?;
    let what = match code {
        134 => "aborted itself (SIGABRT): an assertion, or a library such as NCCL gave up".to_owned(),
        135 => "had a bus error (SIGBUS): often /dev/shm is too small for its workers".to_owned(),
        137 => "was killed (SIGKILL), and nothing here says by whom".to_owned(),
        139 => "crashed (SIGSEGV)".to_owned(),
        143 => "was asked to end (SIGTERM)".to_owned(),
        code => format!("ended by itself with exit code {code}"),
    };
    let near = case.footprint.near_events.iter().collect::<Vec<_>>();
    let certainty = if near.is_empty() && case.footprint.log_covers { Certainty::Likely } else { Certainty::Possible };
    Some(
        case.say(Cause::Application, certainty, format!("container {name} {what} ({reason})"))
            .because(end_quote(case))
            .because(
                quotes(&near)
                    .into_iter()
                    .map(|quote| format!("on the node meanwhile, GPU of the pod not known: {quote}")),
            )
            .so(ActionCode::RestartPod, "Read the container's log (kubectl logs --previous)."),
    )
}

pub(super) fn all_is_well(case: &Case<'_>) -> Option<Explanation> {
    let what = match case.pod.phase.as_str() {
        "Succeeded" => "it ended in order",
        "Running" => "it runs, and nothing is found against it",
        _ => return None,
    };
    Some(case.say(Cause::None, Certainty::Likely, what).so(ActionCode::None, "Nothing to do."))
}

fn processes_in<'c>(case: &Case<'c>, state: &str) -> Vec<&'c GpuProcess> {
    case.footprint.processes.iter().filter(|process| process.state.as_deref() == Some(state)).collect()
}

fn in_words(process: &GpuProcess) -> String {
    let GpuProcess { pid, name, state, .. } = process;
    format!("pid {pid} {}: state {}", name.as_deref().unwrap_or("?"), state.as_deref().unwrap_or("?"))
}
