//! The causes, in the order in which they are asked. The first with evidence is the explanation.
//!
//! Signals and exit codes: 128 plus the signal, by POSIX shells' and the kubelet's custom. Which Xid is whose fault: the
//! catalogue's class. The reasons of pods and containers: the kubelet's and the scheduler's own words.

use super::footprint::Footprint;
use super::timeline::line;
use super::{Cause, Certainty, ContainerState, Explanation, PodFacts};
use crate::diagnosis::{Action, ActionCode, Class as FindingClass, Diagnosis, Finding, Scope, Severity};
use crate::facts::kernel_log::{KernelEvent, KernelEventKind};
use crate::facts::processes::GpuProcess;
use crate::report::Report;
use crate::text::clean;
use crate::xid::catalogue::{self, Class};

/// Quotes in one explanation.
const MOST_EVIDENCE: usize = 8;

/// Everything that a cause may ask.
struct Case<'a> {
    pod: &'a PodFacts,
    footprint: &'a Footprint,
    diagnosis: Option<&'a Diagnosis>,
    /// The pod, as sentences name it.
    name: String,
    /// Its node, as sentences name it.
    node: &'a str,
}

type Question = fn(&Case<'_>) -> Option<Explanation>;

/// In this order: whoever knows for certain is asked first, the program last.
const QUESTIONS: &[Question] = &[
    waiting_for_a_node,
    refused_or_evicted,
    out_of_memory,
    node_away,
    broken_gpu,
    broken_driver,
    cannot_start,
    stuck,
    preempted_or_deleted,
    program_fault_on_gpu,
    broken_node,
    not_collected,
    program_ended,
    perhaps_stuck,
    all_is_well,
];

/// The first cause that has evidence.
pub(super) fn first(
    pod: &PodFacts,
    footprint: &Footprint,
    node: Option<(&Report, &Diagnosis)>,
    why_not: Option<&str>,
) -> Explanation {
    let case = Case {
        pod,
        footprint,
        diagnosis: node.map(|(_, diagnosis)| diagnosis),
        name: format!("{}/{}", pod.namespace, pod.name),
        node: pod.node.as_deref().unwrap_or("no node"),
    };
    let found = QUESTIONS.iter().find_map(|question| question(&case));
    let mut explanation = found.unwrap_or_else(|| case.say(Cause::Unknown, Certainty::Possible, "nothing explains it"));
    explanation.ruled_out = ruled_out(&case, &explanation, why_not);
    if node.is_none() && matches!(explanation.cause, Cause::Application | Cause::None) && pod.wants_gpus {
        // Without the node's word the GPU cannot be cleared.
        explanation.certainty = Certainty::Possible;
    }
    explanation.evidence.truncate(MOST_EVIDENCE);
    explanation
}

impl Case<'_> {
    fn say(&self, cause: Cause, certainty: Certainty, what: impl AsRef<str>) -> Explanation {
        let summary = format!("{}: {}.", self.name, what.as_ref());
        Explanation { cause, certainty, summary, ..Explanation::default() }
    }

    fn ended(&self) -> Option<(&str, i32, &str, &str)> {
        match self.pod.end()? {
            (name, ContainerState::Terminated { exit_code, reason, message, .. }) => {
                Some((name, *exit_code, reason, message))
            }
            _ => None,
        }
    }

    /// Kernel events about this pod whose code the catalogue puts into one of `classes`.
    fn own_xids(&self, classes: &[Class]) -> Vec<&KernelEvent> {
        self.footprint
            .own_events
            .iter()
            .filter(|event| class_of(event).is_some_and(|class| classes.contains(&class)))
            .collect()
    }

    /// Whether events on its GPUs may be about pods that share them: none names a process of its own.
    fn may_be_of_others(&self, events: &[&KernelEvent]) -> bool {
        let own = |event: &&KernelEvent| event.pid.is_some_and(|pid| self.footprint.pids.contains(&pid));
        self.footprint.shares && !events.iter().any(own)
    }

    /// What is grave on the node.
    fn grave(&self) -> impl Iterator<Item = &Finding> {
        let findings = self.diagnosis.map(|diagnosis| diagnosis.findings.as_slice()).unwrap_or_default();
        findings.iter().filter(|finding| finding.severity >= Severity::Critical)
    }

    /// Findings about the pod's GPUs.
    fn findings(&self, classes: &[FindingClass]) -> Vec<&Finding> {
        let own =
            |finding: &&Finding| finding.addresses.iter().any(|address| self.footprint.addresses.contains(address));
        self.grave().filter(|finding| classes.contains(&finding.class)).filter(own).collect()
    }

    /// Findings about the node as a whole: no GPU, process or pod of it in particular.
    fn findings_of_node(&self) -> Vec<&Finding> {
        let whole = |finding: &&Finding| {
            let Scope { node: _, gpu, uuid, pci, pid, pod_uid } = &finding.scope;
            let anything = gpu.is_some() || uuid.is_some() || pci.is_some() || pid.is_some() || pod_uid.is_some();
            !anything && finding.addresses.is_empty()
        };
        self.grave().filter(whole).collect()
    }
}

impl Explanation {
    fn because(mut self, evidence: impl IntoIterator<Item = String>) -> Self {
        self.evidence.extend(evidence.into_iter().map(|line| clean(&line, 240)));
        self
    }

    fn so(mut self, code: ActionCode, text: impl Into<String>) -> Self {
        self.action = Action { code, text: text.into() };
        self
    }
}

fn class_of(event: &KernelEvent) -> Option<Class> {
    match event.kind {
        KernelEventKind::Xid => catalogue::xid(event.code?).map(|entry| entry.class),
        KernelEventKind::OffBus => Some(Class::Hardware),
        KernelEventKind::Sxid => Some(Class::Fabric),
        KernelEventKind::RmInitFailed | KernelEventKind::GspFailed => Some(Class::Driver),
        _ => None,
    }
}

fn quotes(events: &[&KernelEvent]) -> Vec<String> {
    let quote = |event: &&KernelEvent| {
        let time = event.first.map(|time| format!("{time:.0}")).unwrap_or_default();
        format!("kernel {time}: {}", line(event))
    };
    events.iter().map(quote).collect()
}

fn waiting_for_a_node(case: &Case<'_>) -> Option<Explanation> {
    let waits = case.pod.phase == "Pending" && case.pod.node.is_none();
    let why = case.pod.message.clone().unwrap_or_else(|| "the scheduler has not said why".into());
    waits.then(|| {
        case.say(Cause::Cluster, Certainty::Certain, "no node can take it yet")
            .because([format!("scheduler: {why}")])
            .so(ActionCode::Watch, "See what stands against each GPU node; free GPUs, or change what the pod asks for.")
    })
}

fn refused_or_evicted(case: &Case<'_>) -> Option<Explanation> {
    let reason = case.pod.reason.as_deref()?;
    let message = case.pod.message.clone().unwrap_or_default();
    let (cause, what, action) = match reason {
        "Evicted" => (
            Cause::Node,
            "its node evicted it",
            "Look at the node's disk, memory and PID pressure, then start the pod again.",
        ),
        "UnexpectedAdmissionError" => (
            Cause::Node,
            "the kubelet could not give it its devices",
            "Look at the device plugin on the node, then start the pod again.",
        ),
        "NodeLost" | "NodeShutdown" | "Terminated" => {
            (Cause::Node, "its node went away", "Look at the node; start the pod again elsewhere.")
        }
        "Preempting" | "Preempted" => {
            (Cause::Cluster, "a pod of higher priority took its place", "Start it again, or raise its priority.")
        }
        "DeadlineExceeded" => (
            Cause::Application,
            "it ran longer than its activeDeadlineSeconds",
            "Raise the deadline, or make it faster.",
        ),
        reason if reason.starts_with("OutOf") => {
            (Cause::Node, "its node had no room for it", "Start it again: the scheduler will choose anew.")
        }
        _ => return None,
    };
    let code = if cause == Cause::Application { ActionCode::None } else { ActionCode::RestartPod };
    Some(
        case.say(cause, Certainty::Certain, what)
            .because([format!("pod status: {reason}: {message}")])
            .so(code, action),
    )
}

fn out_of_memory(case: &Case<'_>) -> Option<Explanation> {
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

fn node_away(case: &Case<'_>) -> Option<Explanation> {
    (case.pod.node_ready == Some(false) && case.pod.phase != "Succeeded").then(|| {
        let what = format!("its node {} is not Ready", case.node);
        case.say(Cause::Node, Certainty::Certain, what).because([format!("node {}: Ready is not True", case.node)]).so(
            ActionCode::DrainAndReboot,
            format!("Bring {} back (kubelet, network, power); the pod starts again elsewhere.", case.node),
        )
    })
}

fn broken_gpu(case: &Case<'_>) -> Option<Explanation> {
    let classes = [Class::Hardware, Class::Fabric, Class::Thermal, Class::Power];
    let xids: Vec<_> = case
        .own_xids(&classes)
        .into_iter()
        .filter(|event| {
            event.code.and_then(catalogue::xid).is_none_or(|entry| entry.severity >= catalogue::Severity::Critical)
        })
        .collect();
    let findings =
        case.findings(&[FindingClass::Hardware, FindingClass::Fabric, FindingClass::Thermal, FindingClass::Power]);
    let failed = case.pod.phase != "Succeeded";
    if !failed || (xids.is_empty() && findings.is_empty()) {
        return None;
    }
    // A fault found now on a GPU that the pod no longer has is only a hint.
    let certainty =
        if xids.is_empty() || case.may_be_of_others(&xids) { Certainty::Likely } else { Certainty::Certain };
    let title = findings.first().map(|finding| finding.title.clone());
    let title = title.or_else(|| xids.first().map(|event| line(event))).unwrap_or_default();
    let action = findings.first().map(|finding| finding.action.clone());
    let quoted = findings.iter().map(|finding| format!("finding {}: {}", finding.id, finding.title));
    let mut explanation =
        case.say(Cause::Gpu, certainty, format!("its GPU failed: {title}")).because(quotes(&xids)).because(quoted);
    explanation.action = action.unwrap_or_else(|| Action {
        code: ActionCode::RestartPod,
        text: format!("Start the pod again on another GPU, and have {} diagnosed.", case.node),
    });
    Some(explanation)
}

fn broken_driver(case: &Case<'_>) -> Option<Explanation> {
    let xids: Vec<_> = case
        .own_xids(&[Class::Driver])
        .into_iter()
        .filter(|event| {
            event.code.and_then(catalogue::xid).is_none_or(|entry| entry.severity >= catalogue::Severity::Critical)
        })
        .collect();
    if xids.is_empty() || case.pod.phase == "Succeeded" {
        return None;
    }
    let finding = case.findings(&[FindingClass::Driver]).first().map(|finding| finding.action.clone());
    let mut explanation = case
        .say(Cause::Node, Certainty::Certain, "the driver or the GPU's firmware failed under it")
        .because(quotes(&xids));
    explanation.action = finding.unwrap_or_else(|| Action {
        code: ActionCode::DrainAndReset,
        text: format!("Drain {} and reset the GPU; look at driver and firmware versions if it comes again.", case.node),
    });
    Some(explanation)
}

fn cannot_start(case: &Case<'_>) -> Option<Explanation> {
    let (name, reason, message) = case.pod.containers.iter().find_map(|container| match &container.state {
        ContainerState::Waiting { reason, message } => {
            Some((container.name.as_str(), reason.as_str(), message.as_str()))
        }
        _ => None,
    })?;
    let (cause, what) = match reason {
        "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => {
            (Cause::Application, format!("the image of container {name} cannot be pulled"))
        }
        "CreateContainerConfigError" => {
            (Cause::Application, format!("container {name} refers to a secret or config map that is not there"))
        }
        "CreateContainerError" | "RunContainerError" => {
            (Cause::Node, format!("the container runtime cannot start container {name}"))
        }
        _ => return None,
    };
    Some(
        case.say(cause, Certainty::Certain, what)
            .because([format!("container {name}: {reason}: {message}")])
            .so(ActionCode::None, "Correct what the message names; nothing is wrong with the GPU."),
    )
}

/// A process that waits for the driver for ever: the kernel says so, or its GPU is gone. The pod looks alive and is not.
fn stuck(case: &Case<'_>) -> Option<Explanation> {
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
fn perhaps_stuck(case: &Case<'_>) -> Option<Explanation> {
    let waiting = processes_in(case, "D");
    (!waiting.is_empty() && case.pod.phase == "Running").then(|| {
        case.say(Cause::Node, Certainty::Possible, "its process waits in the kernel at this moment (state D)")
            .because(waiting.iter().map(|process| in_words(process)))
            .so(ActionCode::Watch, "Ask again in a minute: if it still waits, the driver hangs.")
    })
}

/// A process that is dead and that its parent does not collect.
fn not_collected(case: &Case<'_>) -> Option<Explanation> {
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

fn processes_in<'c>(case: &Case<'c>, state: &str) -> Vec<&'c GpuProcess> {
    case.footprint.processes.iter().filter(|process| process.state.as_deref() == Some(state)).collect()
}

fn in_words(process: &GpuProcess) -> String {
    let GpuProcess { pid, name, state, .. } = process;
    format!("pid {pid} {}: state {}", name.as_deref().unwrap_or("?"), state.as_deref().unwrap_or("?"))
}

fn preempted_or_deleted(case: &Case<'_>) -> Option<Explanation> {
    let reasons = ["Preempted", "TaintManagerEviction", "Killing", "NodeNotReady", "Evicted"];
    let ended = case.ended().is_some_and(|(_, code, ..)| matches!(code, 137 | 143));
    let event = case.pod.events.iter().rev().find(|event| reasons.contains(&event.reason.as_str()))?;
    let asked = event.reason != "Killing" || case.pod.deleted.is_some();
    (asked && (ended || case.pod.deleted.is_some())).then(|| {
        case.say(Cause::Cluster, Certainty::Likely, "Kubernetes ended it on purpose")
            .because([format!("event {}: {}", event.reason, event.message)])
            .so(ActionCode::RestartPod, "Nothing is wrong with the GPU; see who deleted or preempted the pod.")
    })
}

fn program_fault_on_gpu(case: &Case<'_>) -> Option<Explanation> {
    let xids = case.own_xids(&[Class::Application]);
    if xids.is_empty() || case.pod.phase == "Succeeded" {
        return None;
    }
    let certainty = if case.may_be_of_others(&xids) { Certainty::Possible } else { Certainty::Likely };
    Some(
        case.say(Cause::Application, certainty, "its own GPU code faulted; no fault of the GPU was found")
            .because(quotes(&xids))
            .because(end_quote(case))
            .so(
                ActionCode::RestartPod,
                "Debug the program (compute-sanitizer, CUDA_LAUNCH_BLOCKING=1); the GPU can stay in service.",
            ),
    )
}

/// The driver, the fabric or the set-up of the node is in a state in which no program can use its GPU.
fn broken_node(case: &Case<'_>) -> Option<Explanation> {
    let mut findings = case.findings(&[FindingClass::Driver]);
    findings.extend(case.findings_of_node());
    let first = findings.first()?;
    if case.pod.phase == "Succeeded" || !case.pod.wants_gpus {
        return None;
    }
    // What has a GPU keeps it through most of these: a pod that never failed may be well.
    let certainty = if case.ended().is_some() { Certainty::Likely } else { Certainty::Possible };
    let quoted = findings.iter().map(|finding| format!("finding {}: {}", finding.id, finding.title));
    let mut explanation = case
        .say(Cause::Node, certainty, format!("its node {} is in trouble: {}", case.node, first.title))
        .because(quoted)
        .because(first.evidence.iter().take(2).cloned())
        .because(end_quote(case));
    explanation.action = first.action.clone();
    Some(explanation)
}

fn program_ended(case: &Case<'_>) -> Option<Explanation> {
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

fn all_is_well(case: &Case<'_>) -> Option<Explanation> {
    let what = match case.pod.phase.as_str() {
        "Succeeded" => "it ended in order",
        "Running" => "it runs, and nothing is found against it",
        _ => return None,
    };
    Some(case.say(Cause::None, Certainty::Likely, what).so(ActionCode::None, "Nothing to do."))
}

fn end_quote(case: &Case<'_>) -> Option<String> {
    let (name, code, reason, message) = case.ended()?;
    let message = if message.is_empty() { String::new() } else { format!(": {message}") };
    Some(format!("container {name}: {reason}, exit code {code}{message}"))
}

/// What was looked at and found clean, and what could not be looked at.
fn ruled_out(case: &Case<'_>, explanation: &Explanation, why_not: Option<&str>) -> Vec<String> {
    let mut lines = Vec::new();
    match (case.diagnosis, why_not) {
        (None, Some(why)) if case.pod.node.is_some() => {
            lines.push(format!("not ruled out: the GPU and its driver, since the node was not read: {why}"))
        }
        (None, _) => {}
        (Some(_), _) => {
            if explanation.cause != Cause::Gpu {
                let known = if case.footprint.addresses.is_empty() {
                    "its GPUs are no longer known to the node"
                } else {
                    "no hardware Xid or finding on its GPUs"
                };
                lines.push(format!("GPU: {known}"));
            }
            if !case.footprint.log_covers {
                lines.push("kernel log: does not reach back to the pod's start".into());
            }
        }
    }
    lines
}
