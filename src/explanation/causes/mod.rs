//! The causes, in the order in which they are asked. The first with evidence is the explanation.
//!
//! Signals and exit codes: 128 plus the signal, by POSIX shells' and the kubelet's custom. Which Xid is whose fault: the
//! catalogue's class. The reasons of pods and containers: the kubelet's and the scheduler's own words.

mod gpu;
mod kubernetes;
mod process;

use super::footprint::Footprint;
use super::timeline::line;
use super::{Cause, Certainty, ContainerState, Explanation, PodFacts};
use crate::diagnosis::{Action, ActionCode, Class as FindingClass, Diagnosis, Finding, Scope, Severity};
use crate::facts::kernel_log::{KernelEvent, KernelEventKind};
use crate::report::{Report, Section, Source};
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
    /// Whether no probe read that node.
    unread: bool,
    /// Whether that node was looked at and has no GPU.
    node_has_none: bool,
}

type Question = fn(&Case<'_>) -> Option<Explanation>;

/// In this order: whoever knows for certain is asked first, the program last.
const QUESTIONS: &[Question] = &[
    kubernetes::waiting_for_a_node,
    kubernetes::refused_or_evicted,
    process::out_of_memory,
    kubernetes::node_away,
    gpu::broken_gpu,
    gpu::broken_driver,
    gpu::out_of_its_reach,
    kubernetes::cannot_start,
    process::stuck,
    kubernetes::preempted_or_deleted,
    gpu::program_fault_on_gpu,
    gpu::broken_node,
    process::not_collected,
    process::program_ended,
    process::perhaps_stuck,
    process::all_is_well,
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
        unread: node.is_none_or(|(report, _)| report.source == Source::Api),
        node_has_none: node.is_some_and(|(report, _)| has_no_gpu(report)),
    };
    let found = QUESTIONS.iter().find_map(|question| question(&case));
    let mut explanation = found.unwrap_or_else(|| case.say(Cause::Unknown, Certainty::Possible, "nothing explains it"));
    explanation.ruled_out = ruled_out(&case, &explanation, why_not);
    if case.unread && matches!(explanation.cause, Cause::Application | Cause::None) && pod.wants_gpus {
        // Without the hardware's word the GPU cannot be cleared.
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

fn end_quote(case: &Case<'_>) -> Option<String> {
    let (name, code, reason, message) = case.ended()?;
    let message = if message.is_empty() { String::new() } else { format!(": {message}") };
    Some(format!("container {name}: {reason}, exit code {code}{message}"))
}

/// Whether PCI or NVML was asked, and whoever was names no GPU.
fn has_no_gpu(report: &Report) -> bool {
    let on_pci = Section::data_of(&report.sections.host).map(|host| host.pci_gpus.len());
    let in_nvml = Section::data_of(&report.sections.inventory).map(|inventory| inventory.gpus.len());
    let counts: Vec<usize> = on_pci.into_iter().chain(in_nvml).collect();
    !counts.is_empty() && counts.iter().all(|count| *count == 0)
}

/// Why it was not the GPU, or that nobody can say.
fn gpu_cleared(case: &Case<'_>) -> &'static str {
    if !case.footprint.addresses.is_empty() {
        "GPU: no hardware Xid or finding on its GPUs"
    } else if !case.pod.wants_gpus {
        "GPU: it asks for none"
    } else if case.node_has_none {
        "not ruled out: its GPU, since the node shows none"
    } else {
        "not ruled out: its GPU, since the node no longer knows which one it had"
    }
}

/// What was looked at and found clean, and what could not be looked at.
fn ruled_out(case: &Case<'_>, explanation: &Explanation, why_not: Option<&str>) -> Vec<String> {
    let mut lines = Vec::new();
    if case.unread {
        if let Some(why) = why_not.filter(|_| case.pod.node.is_some()) {
            lines.push(format!("not ruled out: the GPU and its driver, since the node was not read: {why}"));
        }
        return lines;
    }
    if explanation.cause != Cause::Gpu {
        lines.push(gpu_cleared(case).to_owned());
    }
    if !case.footprint.log_covers {
        lines.push("kernel log: does not reach back to the pod's start".into());
    }
    lines
}
