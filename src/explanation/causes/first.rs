//! The causes, in the order in which they are asked. The first with evidence is the explanation.

use super::{admission, creation, Case, MOST_EVIDENCE, Question, gpu, has_no_gpu, kubelet, kubernetes, process, scheduling, start, state};
use crate::diagnosis::Diagnosis;
use crate::explanation::footprint::Footprint;
use crate::explanation::{Cause, Certainty, Explanation, PodFacts};
use crate::report::{Report, Source};

/// In this order: whoever knows for certain is asked first, the program last.
const QUESTIONS: &[Question] = &[
    creation::not_created,
    scheduling::waiting_for_a_node,
    admission::refused,
    kubernetes::refused_or_evicted,
    process::out_of_memory,
    kubernetes::node_away,
    start::cannot_start,
    gpu::broken_gpu,
    gpu::broken_driver,
    gpu::out_of_its_reach,
    process::stuck,
    kubelet::killed_by_a_probe,
    kubernetes::preempted_or_deleted,
    gpu::program_fault_on_gpu,
    gpu::broken_node,
    start::cannot_start_for_another_reason,
    kubelet::given_no_gpu,
    process::not_collected,
    process::program_ended,
    process::perhaps_stuck,
    kubelet::not_ready,
    process::all_is_well,
];

/// The first cause that has evidence.
pub(crate) fn cause(
    pod: &PodFacts,
    footprint: &Footprint,
    node: Option<(&Report, &Diagnosis)>,
    why_not: Option<&str>,
) -> Explanation {
    let case = Case {
        pod,
        footprint,
        diagnosis: node.map(|(_, diagnosis)| diagnosis),
        report: node.map(|(report, _)| report),
        name: format!("{}/{} ({})", pod.namespace, pod.name, state(pod, footprint)),
        node: pod.node.as_deref().unwrap_or("no node"),
        unread: node.is_none_or(|(report, _)| report.source == Source::Api),
        node_has_none: node.is_some_and(|(report, _)| has_no_gpu(report)),
    };
    let found = QUESTIONS.iter().find_map(|question| question(&case));
    let nothing = match pod.phase.as_str() {
        "Pending" if pod.node.is_some() => "its containers are being started, and nothing says what they wait for",
        _ => "nothing that was read explains it",
    };
    let mut explanation = found.unwrap_or_else(|| case.say(Cause::Unknown, Certainty::Possible, nothing));
    explanation.ruled_out = ruled_out(&case, &explanation, why_not);
    let inferred = explanation.certainty == Certainty::Likely;
    if case.unread && inferred && matches!(explanation.cause, Cause::Application | Cause::None) && pod.wants_gpus {
        // Without the hardware's word the GPU cannot be cleared; what the kubelet or the scheduler said stands.
        explanation.certainty = Certainty::Possible;
    }
    explanation.evidence.truncate(MOST_EVIDENCE);
    explanation
}

/// Why it was not the GPU, or that nobody can say.
fn gpu_cleared(case: &Case<'_>) -> String {
    if !case.footprint.addresses.is_empty() {
        let findings = case.findings(&gpu::FINDINGS_OF_GPU);
        return match findings.first() {
            None => "GPU: no hardware Xid or finding on its GPUs".to_owned(),
            Some(finding) => format!(
                "GPU: {} ({}) is open on its GPU; nothing shows that it hit this pod",
                finding.title, finding.id
            ),
        };
    }
    if !case.pod.wants_gpus {
        "GPU: this pod requests none"
    } else if case.node_has_none {
        "not ruled out: its GPU, since the node shows none"
    } else {
        "not ruled out: its GPU, since the kubelet has no record of which one it had"
    }
    .to_owned()
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
        lines.push(gpu_cleared(case));
    }
    if !case.footprint.log_covers {
        lines.push("kernel log: does not reach back to the pod's start".into());
    }
    lines
}
