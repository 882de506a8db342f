//! `first_cause`: tries the causes of a pod's state in order. The first one with evidence is the explanation.

use crate::explanation::causes::{
    Case, CauseRule, MAX_EVIDENCE, NOT_IDENTIFIED, claims, end_quote, event_quote, eviction, gpu, has_no_gpu, kubelet,
    kubelet_admission, not_created, process, program_message, scheduling, start, state,
};
use crate::explanation::pod_on_node::PodOnNode;
use crate::explanation::types::{Cause, Certainty, Explanation};
use crate::finding::Diagnosis;
use syringe_core::facts::kubernetes::node::KubernetesInput;
use syringe_core::facts::kubernetes::pod::{ContainerState, PodFacts};
use syringe_core::report::{Report, Source};
use syringe_core::text::clean;

/// Kind of evidence of a cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Evidence {
    /// A message or an event about the pod, its container, its process or its GPU.
    Direct,
    /// The present state of the GPU or node, or the exit code alone.
    Inferred,
}
use Evidence::{Direct, Inferred};

/// The parts of the system in the order in which a pod passes them. A cause in one part precedes its effects in later parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// Controllers, API server, scheduler.
    Cluster,
    /// The node: admission, evictions and kills by the kubelet and the kernel, readiness.
    Node,
    /// Image, volumes, configuration, sandbox and start of the containers.
    Start,
    /// GPUs and driver.
    Device,
    /// The program, and requests to end it.
    Program,
    /// No failure.
    Running,
}

/// The causes in the order in which they are tried: direct evidence first, and then in the order of the system.
const CAUSES: &[(Evidence, Part, CauseRule)] = &[
    (Direct, Part::Cluster, not_created::not_created),
    (Direct, Part::Cluster, scheduling::waiting_for_a_node),
    (Direct, Part::Node, kubelet_admission::refused),
    (Direct, Part::Node, eviction::refused_or_evicted),
    (Direct, Part::Node, process::out_of_memory),
    (Direct, Part::Node, eviction::node_not_ready),
    (Direct, Part::Start, start::cannot_start),
    (Direct, Part::Device, gpu::error_of_its_gpu),
    (Direct, Part::Device, gpu::broken_driver),
    (Direct, Part::Device, gpu::gpu_not_accessible),
    (Direct, Part::Device, process::stuck),
    (Direct, Part::Program, kubelet::killed_by_a_probe),
    (Direct, Part::Program, eviction::preempted_or_deleted),
    (Direct, Part::Program, program_message::said_by_the_program),
    (Direct, Part::Program, gpu::program_fault_on_gpu),
    (Direct, Part::Program, process::ends_without_error),
    (Inferred, Part::Device, gpu::state_of_its_gpu),
    (Inferred, Part::Device, gpu::broken_node),
    (Inferred, Part::Device, kubelet::no_gpu_allocated),
    (Inferred, Part::Device, gpu::memory_used_up),
    (Inferred, Part::Device, kubelet::device_unhealthy),
    (Inferred, Part::Program, process::zombie),
    (Inferred, Part::Program, process::program_ended),
    (Inferred, Part::Running, process::possibly_stuck),
    (Inferred, Part::Running, kubelet::not_ready),
    (Inferred, Part::Running, process::no_problem),
];

/// Returns the explanation from the first cause that has evidence.
pub(crate) fn first_cause(
    pod: &PodFacts,
    on_node: &PodOnNode,
    node: Option<(&Report, &Diagnosis)>,
    unread_reason: Option<&str>,
) -> Explanation {
    let case = Case {
        pod,
        on_node,
        diagnosis: node.map(|(_, diagnosis)| diagnosis),
        report: node.map(|(report, _)| report),
        name: format!("{}/{} ({})", pod.namespace, pod.name, state(pod, on_node)),
        node: pod.node.as_deref().unwrap_or("no node"),
        unread: node.is_none_or(|(report, _)| report.source == Source::Api),
        node_has_none: node.is_some_and(|(report, _)| has_no_gpu(report)),
    };
    let found = CAUSES.iter().find_map(|(_, _, rule)| rule(&case));
    let nothing = match pod.phase.as_str() {
        "Pending" if pod.node.is_some() => "its containers are starting, and the reason for the delay is not known",
        _ => NOT_IDENTIFIED,
    };
    let mut explanation = found.unwrap_or_else(|| case.explain(Cause::Unknown, Certainty::Possible, nothing));
    if explanation.cause == Cause::Gpu {
        explanation.unknown = claims::judge(&case, unread_reason).1;
        explanation.unknown.retain(|unknown| unknown.section != claims::GPU);
    } else {
        (explanation.ruled_out, explanation.unknown) = claims::judge(&case, unread_reason);
    }
    let inferred = explanation.certainty == Certainty::Likely;
    let is_partly_unread = case.unread
        || case.diagnosis.is_some_and(lacks_kubernetes_input)
        || !claims::sections_not_read(&case).is_empty();
    if is_partly_unread && inferred && matches!(explanation.cause, Cause::Application | Cause::None) && pod.wants_gpus {
        // If the hardware was not read, a GPU fault is possible. If the pods of the node were not read, a fault of NVIDIA's
        // stack is possible. A reason that the kubelet or the scheduler reported stays certain.
        explanation.certainty = Certainty::Possible;
    }
    quote_the_failing_part(&case, &mut explanation);
    explanation
}

/// Adds the messages of the failing part that are not in the evidence yet: every explanation contains them.
fn quote_the_failing_part(case: &Case<'_>, explanation: &mut Explanation) {
    let pod = case.pod;
    let status = pod.reason.as_ref().map(|reason| match &pod.message {
        Some(message) => (message.clone(), format!("pod status: {reason}: {message}")),
        None => (reason.clone(), format!("pod status: {reason}")),
    });
    let waiting = pod.containers.iter().filter_map(|container| match &container.state {
        ContainerState::Waiting { reason, message } if !message.is_empty() => {
            Some((message.clone(), format!("container {}: {reason}: {message}", container.name)))
        }
        _ => None,
    });
    let end = case.failed().filter(|end| !end.message.is_empty());
    let end = end.and_then(|end| Some((end.message.to_owned(), end_quote(case)?)));
    let failing = explanation.cause != Cause::None;
    let warnings = pod.events.iter().rev().filter(|event| {
        failing && !event.message.is_empty() && !event.is_ours() && !NORMAL_EVENTS.contains(&event.reason.as_str())
    });
    let warning = warnings.take(MAX_WARNINGS).map(|event| (event.message.clone(), event_quote(event)));
    let missing: Vec<String> = status
        .into_iter()
        .chain(waiting)
        .chain(end)
        .chain(warning)
        .filter(|(message, _)| !explanation.evidence.iter().any(|line| line.contains(&short(message))))
        .map(|(_, quote)| quote)
        .collect();
    explanation.evidence.truncate(MAX_EVIDENCE.saturating_sub(missing.len()).max(1));
    *explanation = std::mem::take(explanation).with_evidence(missing);
}

/// Returns the cleaned end of a message. A text that contains this end already quotes the message.
fn short(message: &str) -> String {
    let cleaned = clean(message, usize::MAX);
    cleaned.chars().skip(cleaned.chars().count().saturating_sub(RECOGNIZED)).collect()
}

/// Number of characters at the end of a message that identify it.
const RECOGNIZED: usize = 60;

/// Maximum number of events that are quoted besides the evidence of a cause.
const MAX_WARNINGS: usize = 2;

/// Reasons of events that report no problem.
const NORMAL_EVENTS: [&str; 12] = [
    "Scheduled",
    "Pulling",
    "Pulled",
    "Created",
    "Started",
    "Killing",
    "SuccessfulAttachVolume",
    "AddedInterface",
    "SuccessfulCreate",
    "SuccessfulDelete",
    "TriggeredScaleUp",
    "SandboxChanged",
];

/// Returns whether data from Kubernetes that the rules need was not read.
fn lacks_kubernetes_input(diagnosis: &Diagnosis) -> bool {
    let inputs = KubernetesInput::ALL.map(KubernetesInput::section);
    diagnosis.unknown.iter().any(|unknown| inputs.contains(&unknown.section.as_str()))
}

#[cfg(test)]
mod tests {
    use super::CAUSES;

    #[test]
    fn causes_are_tried_in_the_order_of_the_system() {
        assert!(CAUSES.is_sorted_by_key(|(evidence, part, _)| (*evidence, *part)));
    }
}
