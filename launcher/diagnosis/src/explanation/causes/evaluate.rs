//! Tries the causes in order. The first one with evidence is the explanation.

use crate::explanation::causes::{
    Case, CauseRule, MAX_EVIDENCE, eviction, gpu, has_no_gpu, kubelet, kubelet_admission, not_created, process,
    scheduling, start, state,
};
use crate::explanation::pod_on_node::PodOnNode;
use crate::explanation::types::{Cause, Certainty, Explanation};
use crate::finding::Diagnosis;
use syringe_core::facts::kubernetes::node::KubernetesInput;
use syringe_core::facts::kubernetes::pod::PodFacts;
use syringe_core::report::{Report, Source};

/// The causes in the order in which they are tried. A cause comes before the causes that explain only its effects.
const CAUSES: &[CauseRule] = &[
    not_created::not_created,
    scheduling::waiting_for_a_node,
    kubelet_admission::refused,
    eviction::refused_or_evicted,
    process::out_of_memory,
    eviction::node_not_ready,
    start::cannot_start,
    gpu::broken_gpu,
    gpu::broken_driver,
    gpu::gpu_not_accessible,
    process::stuck,
    kubelet::killed_by_a_probe,
    eviction::preempted_or_deleted,
    gpu::program_fault_on_gpu,
    gpu::broken_node,
    start::cannot_start_for_another_reason,
    kubelet::no_gpu_allocated,
    process::zombie,
    gpu::memory_used_up,
    kubelet::device_unhealthy,
    process::program_ended,
    process::possibly_stuck,
    kubelet::not_ready,
    process::no_problem,
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
    let found = CAUSES.iter().find_map(|rule| rule(&case));
    let nothing = match pod.phase.as_str() {
        "Pending" if pod.node.is_some() => "its containers are starting, and the reason for the delay is not known",
        _ => "the cause was not found",
    };
    let mut explanation = found.unwrap_or_else(|| case.explain(Cause::Unknown, Certainty::Possible, nothing));
    explanation.ruled_out = ruled_out(&case, &explanation, unread_reason);
    let inferred = explanation.certainty == Certainty::Likely;
    let is_partly_unread = case.unread || case.diagnosis.is_some_and(lacks_kubernetes_input);
    if is_partly_unread && inferred && matches!(explanation.cause, Cause::Application | Cause::None) && pod.wants_gpus {
        // If the hardware was not read, a GPU fault is possible. If the pods of the node were not read, a fault of NVIDIA's
        // stack is possible. Reasons that the kubelet or the scheduler reported stay certain.
        explanation.certainty = Certainty::Possible;
    }
    explanation.evidence.truncate(MAX_EVIDENCE);
    explanation
}

/// Returns whether data from Kubernetes that the rules need was not read.
fn lacks_kubernetes_input(diagnosis: &Diagnosis) -> bool {
    let inputs = KubernetesInput::ALL.map(KubernetesInput::section);
    diagnosis.unknown.iter().any(|unknown| inputs.contains(&unknown.section.as_str()))
}

/// States that no GPU fault was found, or why a GPU fault is not ruled out.
fn gpu_line(case: &Case<'_>) -> String {
    if !case.on_node.addresses.is_empty() {
        let findings = case.findings(&gpu::OF_GPU);
        return match findings.first() {
            None => "GPU: no hardware Xid or finding on its GPUs".to_owned(),
            Some(finding) => format!(
                "GPU: there is a finding on its GPU, {} ({}); nothing shows that it affected this pod",
                finding.title, finding.id
            ),
        };
    }
    if !case.pod.wants_gpus {
        "GPU: this pod requests no GPU"
    } else if case.node_has_none {
        "GPU fault not ruled out: the node lists no GPU"
    } else {
        "GPU fault not ruled out: the kubelet has no record of which GPU this pod got"
    }
    .to_owned()
}

/// Returns what was ruled out, and what could not be ruled out because it was not read.
fn ruled_out(case: &Case<'_>, explanation: &Explanation, unread_reason: Option<&str>) -> Vec<String> {
    let mut lines = Vec::new();
    if case.unread {
        if let Some(why) = unread_reason.filter(|_| case.pod.node.is_some()) {
            lines.push(format!("GPU or driver fault not ruled out: the node was not read: {why}"));
        }
        return lines;
    }
    if explanation.cause != Cause::Gpu {
        lines.push(gpu_line(case));
    }
    if !case.on_node.log_covers {
        lines.push("kernel log: does not cover the start of the pod".into());
    }
    lines
}
