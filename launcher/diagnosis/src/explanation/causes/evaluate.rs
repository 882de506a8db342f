//! `CAUSES`: the possible causes of a pod's state, in order.
//! `first_cause`: the explanation from the first cause that has evidence.

use crate::explanation::causes::{
    Case, CauseRule, NOT_IDENTIFIED, claims, eviction, failing_part, gpu, has_no_gpu, kubelet, kubelet_admission,
    linked_pods, not_created, own_settings, process, program_message, scheduling, start, state, subject_owner,
};
use crate::explanation::pod_on_node::PodOnNode;
use crate::explanation::types::{Cause, Certainty, Explanation};
use crate::finding::{Action, Diagnosis, Finding, Verdict};
use crate::input::platforms;
use jiff::SignedDuration;
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kubernetes::node::KubernetesInput;
use syringe_core::facts::kubernetes::pod::PodFacts;
use syringe_core::report::{Report, Source};

/// Kind of evidence of a cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Evidence {
    /// A message or an event about the pod, its container, its process or its GPU.
    Direct,
    /// The current state of the GPU or node, or only an exit code.
    Inferred,
}
use Evidence::{Direct, Inferred};

/// The stages that a pod passes, in order. A cause in one stage precedes its effects in later stages.
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
    /// The program, and requests to stop it.
    Program,
    /// No failure.
    Running,
}

/// The causes in the order in which they are tried: direct evidence first, then in the order of the stages.
const CAUSES: &[(Evidence, Part, CauseRule)] = &[
    (Direct, Part::Cluster, not_created::not_created),
    (Direct, Part::Cluster, scheduling::waiting_for_a_node),
    (Direct, Part::Node, eviction::after_completion),
    (Direct, Part::Node, kubelet_admission::refused),
    (Direct, Part::Node, eviction::refused_or_evicted),
    (Direct, Part::Node, process::out_of_memory),
    (Direct, Part::Node, process::damaged_host_memory),
    (Direct, Part::Node, eviction::lost_by_a_reboot),
    (Direct, Part::Node, eviction::node_not_ready),
    (Direct, Part::Start, kubelet::stopped_by_its_hook),
    (Direct, Part::Start, start::cannot_start),
    (Direct, Part::Device, gpu::error_of_its_gpu),
    (Direct, Part::Device, gpu::broken_driver),
    (Direct, Part::Device, gpu::gpu_not_accessible),
    (Direct, Part::Device, process::stuck),
    (Direct, Part::Device, process::stopped),
    (Direct, Part::Program, kubelet::killed_by_a_probe),
    (Direct, Part::Program, kubelet::sandbox_changed),
    (Direct, Part::Program, eviction::preempted_or_deleted),
    (Direct, Part::Program, program_message::child_killed),
    (Direct, Part::Program, program_message::said_by_the_program),
    (Direct, Part::Program, program_message::child_crashed),
    (Direct, Part::Program, gpu::program_fault_on_gpu),
    (Direct, Part::Program, process::ends_without_error),
    (Direct, Part::Program, kubelet::kept_by_a_sidecar),
    (Inferred, Part::Device, gpu::state_of_its_gpu),
    (Inferred, Part::Device, gpu::broken_node),
    (Inferred, Part::Device, kubelet::no_gpu_allocated),
    (Inferred, Part::Device, gpu::memory_used_up),
    (Inferred, Part::Device, kubelet::device_unhealthy),
    (Inferred, Part::Device, eviction::older_than_the_driver),
    (Inferred, Part::Program, kubelet::waits_for_init),
    (Inferred, Part::Program, process::zombie),
    (Inferred, Part::Program, process::limited_by_its_container),
    (Inferred, Part::Program, process::program_ended),
    (Inferred, Part::Program, process::one_crashed),
    (Inferred, Part::Running, kubelet::pulls_its_image),
    (Inferred, Part::Running, process::possibly_stuck),
    (Inferred, Part::Running, kubelet::not_ready),
    (Inferred, Part::Running, process::no_problem),
];

/// A pod that is younger than this may still be starting.
const STARTING: SignedDuration = SignedDuration::from_secs(60);

/// Explains a pod on a node that was created less than a minute ago and has no warning.
fn just_created(case: &Case<'_>) -> Option<Explanation> {
    let age = case.report?.taken_at?.duration_since(case.pod.created?);
    let is_new =
        case.pod.phase == "Pending" && case.pod.node.is_some() && (SignedDuration::ZERO..STARTING).contains(&age);
    let what = format!("the pod was created {} s ago, and its containers are starting", age.as_secs());
    (is_new && !case.pod.events.iter().any(|event| event.warning)).then(|| {
        let explanation = case.explain(Cause::None, Certainty::Likely, what);
        explanation.with_action(ActionCode::None, "Wait, and explain the pod again in a minute if it does not run.")
    })
}

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
    let mut explanation = found.or_else(|| just_created(&case)).unwrap_or_else(|| {
        let nothing = case.explain(Cause::Unknown, Certainty::Possible, nothing);
        nothing.with_action(ActionCode::None, "Explain the pod again in some minutes, and read its newest events.")
    });
    tell_as_past(&case, on_node, node, &mut explanation);
    let is_doubtful = is_contradicted(&case, &explanation);
    if is_doubtful {
        // This statement comes from the program, not from the diagnosis.
        let said = case.failed().map(|end| format!("container {}: ", end.container));
        let said = said.map(|said| explanation.summary.replacen(&said, &format!("{said}its message reports that "), 1));
        let said = said.unwrap_or_else(|| explanation.summary.clone());
        let what = format!("{}; but the node has no fault of a GPU", said.trim_end_matches('.'));
        let advice = format!(
            "Compare the time of the message with the boot, the driver load and the GPU resets of {}. A fault before \
             these events is over. Restart the pod. If the message comes again, read the kernel log of that time.",
            case.node
        );
        (explanation.cause, explanation.certainty, explanation.summary) = (Cause::Unknown, Certainty::Possible, what);
        explanation.action = Action { code: ActionCode::Watch, text: advice };
    }
    if explanation.cause == Cause::Gpu {
        explanation.unknown = claims::judge(&case, unread_reason).1;
        explanation.unknown.retain(|unknown| unknown.section != claims::GPU);
    } else {
        (explanation.ruled_out, explanation.unknown) = claims::judge(&case, unread_reason);
        // The message of the pod contradicts what the node reports now.
        explanation.ruled_out.retain(|claim| !is_doubtful || !claim.starts_with("GPU"));
    }
    let inferred = explanation.certainty == Certainty::Likely;
    let is_partly_unread = case.unread
        || case.diagnosis.is_some_and(lacks_kubernetes_input)
        || !claims::sections_not_read(&case).is_empty();
    if is_partly_unread && inferred && matches!(explanation.cause, Cause::Application | Cause::None) && pod.wants_gpus {
        // If the hardware was not read, a GPU fault is possible. If the pods of the node were not read, a fault of
        // NVIDIA's stack is possible. A reason from the kubelet or the scheduler stays certain.
        explanation.certainty = Certainty::Possible;
    }
    failing_part::quote(&case, &mut explanation);
    own_settings::add(&case, &mut explanation);
    subject_owner::add(&case, &mut explanation);
    linked_pods::add(&case, &mut explanation);
    add_platform(&case, &mut explanation);
    claims::join(&case, &mut explanation);
    explanation
}

/// Minimum time for which a restarted container must run before its earlier end is reported as past.
const STEADY: SignedDuration = SignedDuration::from_mins(10);

/// Rewords the explanation of an earlier end of a container in the past tense. Conditions: the pod is Ready, its
/// container has run longer than before that end, and only this end explains the pod.
fn tell_as_past(
    case: &Case<'_>,
    on_node: &PodOnNode,
    node: Option<(&Report, &Diagnosis)>,
    explanation: &mut Explanation,
) {
    let Some(end) = case.ended().filter(|end| end.was_restarted && case.pod.ready == Some(true)) else { return };
    let since = case.pod.running().find(|(name, _)| *name == end.container).and_then(|(_, since)| since);
    let now = node.and_then(|(report, _)| report.taken_at);
    let (Some(since), Some(now), Some(finished)) = (since, now, end.finished) else { return };
    let before = end.started.map(|started| finished.duration_since(started)).unwrap_or_default();
    if now.duration_since(since) < STEADY.max(before) || explanation.cause == Cause::None {
        return;
    }
    let mut pod = case.pod.clone();
    pod.containers.iter_mut().for_each(|container| (container.last, container.restarts) = (None, 0));
    pod.log_lines.clear();
    pod.other_logs.retain(|log| !log.previous && log.container != end.container);
    let present = Case { pod: &pod, on_node, name: case.name.clone(), ..*case };
    let now_has = CAUSES.iter().find_map(|(_, _, rule)| rule(&present));
    if now_has.is_none_or(|present| present.cause != Cause::None) {
        return;
    }
    let past = format!(
        "{}: it has run and been Ready since {since:.0}; before, its container {} ended at {finished:.0}: ",
        case.name, end.container
    );
    explanation.summary = explanation.summary.replacen(&format!("{}: ", case.name), &past, 1);
    if explanation.certainty == Certainty::Certain {
        explanation.certainty = Certainty::Likely;
    }
    explanation.action.code = ActionCode::Watch;
    explanation.action.text = format!("No action is needed now. If it happens again: {}", explanation.action.text);
}

/// Adds a note about the platform of the node, if a pod of NVIDIA's software fails or waits on the node.
fn add_platform(case: &Case<'_>, explanation: &mut Explanation) {
    let fails = case.pod.is_gpu_stack && explanation.cause != Cause::None;
    let Some(note) = case.report.filter(|_| fails).and_then(platforms::note) else { return };
    if !explanation.action.text.contains(&note) {
        explanation.action.text = format!("{} {note}", explanation.action.text).trim_start().to_owned();
    }
}

/// Returns whether an explanation recommends the repair of a GPU although the node was read and is healthy or needs no
/// repair. In that case, only a message of the pod reports a fault. Such a message can be old, quoted or wrong.
fn is_contradicted(case: &Case<'_>, explanation: &Explanation) -> bool {
    let repairs = |code: ActionCode| {
        use ActionCode::{ContactVendor, DrainAndReboot, DrainAndReset, ResetGpu};
        matches!(code, ResetGpu | DrainAndReset | DrainAndReboot | ContactVendor)
    };
    let needs_none = |diagnosis: &Diagnosis| {
        let asks = |finding: &Finding| finding.severity > Severity::Info && repairs(finding.action.code);
        let of_gpu = explanation.cause == Cause::Gpu && !diagnosis.undecided;
        of_gpu && diagnosis.plan.is_empty() && !diagnosis.findings.iter().any(asks)
    };
    let is_ready = case.pod.node_ready != Some(false);
    let healthy = |diagnosis: &Diagnosis| diagnosis.verdict <= Verdict::NoFaultFound || needs_none(diagnosis);
    repairs(explanation.action.code) && is_ready && !case.unread && case.diagnosis.is_some_and(healthy)
}

/// Returns whether data from Kubernetes that the rules need was not read.
fn lacks_kubernetes_input(diagnosis: &Diagnosis) -> bool {
    let inputs = KubernetesInput::ALL.map(KubernetesInput::section);
    diagnosis.unknown.iter().any(|unknown| unknown.section.split(", ").any(|section| inputs.contains(&section)))
}

#[cfg(test)]
mod tests {
    use super::CAUSES;

    #[test]
    fn causes_are_tried_in_the_order_of_the_system() {
        assert!(CAUSES.is_sorted_by_key(|(evidence, part, _)| (*evidence, *part)));
    }
}
