//! Causes in the GPU, the driver or the node of a pod, from kernel events and findings. `error_of_its_gpu`,
//! `state_of_its_gpu`, `broken_driver`, `broken_node`: a fault of this part. `program_fault_on_gpu`: a fault of the
//! program's GPU code. `memory_used_up`: a shared GPU is full.
//!
//! An event is a cause only if it precedes the end of the container and matches it: the device is the same, the event
//! occurred while the failed container ran, and, if the error affects one process only, the process is the same. Other
//! events are shown, but are not the cause.

use crate::explanation::causes::{
    Case, NEAR, class_of, effects, end_quote, failing_part, finding_quote, program_message, quotes,
};
use crate::explanation::pod_on_node::{affects_one_process, is_fault_of_switch};
use crate::explanation::timeline::line;
use crate::explanation::types::{Cause, Certainty, Explanation};
use crate::finding::Finding;
use crate::input::xids;
use syringe_core::classification::{ActionCode, Class, Severity};
use syringe_core::facts::kernel_log::KernelEvent;
use syringe_core::kernel_log::event_meaning;

/// Classes of errors of a GPU, its links or its power supply.
pub(crate) const OF_GPU: [Class; 4] = [Class::Hardware, Class::Fabric, Class::Thermal, Class::Power];

/// Explains a pod by an error of its GPU during its run.
pub(crate) fn error_of_its_gpu(case: &Case<'_>) -> Option<Explanation> {
    let xids = causing(case, &OF_GPU);
    if xids.is_empty() {
        return None;
    }
    let findings = with_mechanism(case);
    let gone = findings.iter().any(|finding| finding.severity == Severity::Fatal);
    let switch = xids.iter().all(|event| is_fault_of_switch(event));
    let (certainty, what) = match (case.pod.phase.as_str(), switch) {
        ("Succeeded", false) => (
            Certainty::Possible,
            "the pod completed, but its results may be wrong: its GPU had an error while the pod ran",
        ),
        ("Succeeded", true) => return None,
        (_, true) if case.failed().is_none() => {
            (Certainty::Possible, "an NVSwitch of its node failed while the pod ran")
        }
        (_, true) => (Certainty::Likely, "an NVSwitch of its node failed while the pod ran"),
        (_, false) => (certainty_of(case, &xids), if gone { "its GPU failed" } else { "its GPU had an error" }),
    };
    Some(of_gpu(case, certainty, what, &xids, &findings))
}

/// Explains a pod by the state of its GPUs, if a finding about them ends programs.
pub(crate) fn state_of_its_gpu(case: &Case<'_>) -> Option<Explanation> {
    let findings = with_mechanism(case);
    let (certainty, what) = by_state(case, &findings).filter(|_| case.pod.phase != "Succeeded")?;
    Some(of_gpu(case, certainty, what, &[], &findings))
}

/// Returns the severe events of these classes about the pod's GPUs and their switches that may have ended the pod.
/// Empty if the pod is still running and its GPU works again.
fn causing<'c>(case: &'c Case<'_>, classes: &[Class]) -> Vec<&'c KernelEvent> {
    if case.pod.phase == "Running" && case.failed().is_none() && case.works_again() {
        return Vec::new();
    }
    let mut events = severe(case.own_xids(classes));
    events.retain(|event| case.can_have_ended(event));
    events
}

/// Returns the severe findings about the pod's GPUs and their switches that end programs.
fn with_mechanism<'c>(case: &'c Case<'_>) -> Vec<&'c Finding> {
    let mut findings = case.findings(&OF_GPU);
    findings.retain(|finding| effects::ends_programs(finding).is_some());
    findings
}

/// Evidence of a GPU that is inferred.
const INFERRED: &str = "the GPU of the pod is inferred: it failed when the pod ended, and no pod has it now";

fn of_gpu(
    case: &Case<'_>,
    certainty: Certainty,
    what: &str,
    xids: &[&KernelEvent],
    findings: &[&Finding],
) -> Explanation {
    let title = findings.first().map(|finding| finding.headline());
    let title = title.or_else(|| xids.first().map(|event| line(event))).unwrap_or_default();
    let unmet =
        (!case.failed_container_had_gpus()).then(|| "the container that terminated does not use the GPUs".to_owned());
    let mechanism = findings.first().and_then(|finding| Some((finding, effects::ends_programs(finding)?)));
    case.explain(Cause::Gpu, certainty, format!("{what}: {title}"))
        .with_evidence(quotes(xids))
        .with_evidence(findings.iter().map(|finding| finding_quote(finding)))
        .with_evidence(mechanism.map(|(finding, mechanism)| format!("{}: {mechanism}", finding.id)))
        .with_evidence(unmet)
        .with_evidence(case.on_node.is_inferred.then(|| INFERRED.to_owned()))
        .with_evidence(end_quote(case))
        .with_plan_or(
            case.plan(),
            ActionCode::RestartPod,
            format!("Restart the pod on another GPU, and diagnose {}.", case.node),
        )
}

/// Returns the events that stop the GPU or the programs on it.
fn severe(events: Vec<&KernelEvent>) -> Vec<&KernelEvent> {
    let is_severe =
        |event: &&KernelEvent| event_meaning::of(event).is_none_or(|judged| judged.severity >= Severity::Critical);
    events.into_iter().filter(is_severe).filter(|event| !xids::lets_work_continue(event)).collect()
}

/// Returns `Certain` if an error affects all processes on the GPU, or names a process of the pod. If an error affects
/// only one process and names an unknown process, this process may have belonged to the pod.
fn certainty_of(case: &Case<'_>, xids: &[&KernelEvent]) -> Certainty {
    let matches = |event: &&KernelEvent| {
        !affects_one_process(event) || event.pid.is_none() || case.on_node.names_own_process(event)
    };
    if !case.failed_container_had_gpus() || case.on_node.is_inferred {
        Certainty::Possible
    } else if case.may_be_of_others(xids) || !xids.iter().any(matches) {
        Certainty::Likely
    } else {
        Certainty::Certain
    }
}

/// Returns the cause from the state of the pod's GPUs, if no error occurred while the pod ran.
fn by_state(case: &Case<'_>, findings: &[&Finding]) -> Option<(Certainty, &'static str)> {
    let worst = findings.first()?;
    let on_node = case.on_node;
    let has_gpu_error =
        |events: &[KernelEvent]| events.iter().any(|event| OF_GPU.iter().any(|class| class_of(event) == Some(*class)));
    let (earlier, later) = (has_gpu_error(&on_node.earlier_events), has_gpu_error(&on_node.later_events));
    let failed = case.failed().is_some() || case.pod.phase == "Failed";
    match (worst.severity, failed) {
        // An error after the end of the container did not cause its end.
        _ if later && !earlier => None,
        // A program that uses one GPU does not need the switch.
        _ if case.is_of_switch(worst) => Some((Certainty::Possible, "an NVSwitch of its node has a fault")),
        // No program works on a GPU with a fatal fault, no matter when the fault occurred.
        (Severity::Fatal, _) => Some((inferred(case), "its GPU is out of service")),
        (_, true) if earlier => {
            Some((Certainty::Possible, "its GPU had a fault before the pod started, and still has it"))
        }
        (_, true) => Some((inferred(case), "its GPU has a fault")),
        // The running pod is not affected: `no_problem` reports the finding.
        (_, false) if earlier => None,
        (_, false) => Some((Certainty::Possible, "the pod is running on a GPU that has a fault")),
    }
}

/// Returns `Likely` if the container ended shortly before the node was read, and its message does not name another
/// cause.
fn inferred(case: &Case<'_>) -> Certainty {
    let Some(end) = case.failed() else { return Certainty::Likely };
    let read = case.report.and_then(|report| report.taken_at);
    let near = read.zip(end.finished).is_none_or(|(read, end)| read.duration_since(end) <= NEAR);
    let of_something_else =
        !end.message.is_empty() && !end.never_ran() && !program_message::speaks_of_gpus(end.message);
    if near && !of_something_else { Certainty::Likely } else { Certainty::Possible }
}

pub(crate) fn broken_driver(case: &Case<'_>) -> Option<Explanation> {
    let xids = causing(case, &[Class::Driver]);
    if xids.is_empty() || case.pod.phase == "Succeeded" {
        return None;
    }
    let is_known = case.failed_container_had_gpus() && !case.on_node.is_inferred;
    let certainty = if is_known { Certainty::Certain } else { Certainty::Possible };
    Some(
        case.explain(Cause::Node, certainty, "the driver or the firmware of the GPU failed while the pod was running")
            .with_evidence(quotes(&xids))
            .with_evidence(case.on_node.is_inferred.then(|| INFERRED.to_owned()))
            .with_plan_or(
                case.plan(),
                ActionCode::DrainAndReset,
                format!(
                    "Drain {} and reset the GPU. If it happens again, check the driver and firmware versions.",
                    case.node
                ),
            ),
    )
}

/// Explains a pod by a finding about this pod: its GPU is missing, or its container cannot open the GPU.
pub(crate) fn gpu_not_accessible(case: &Case<'_>) -> Option<Explanation> {
    let own = |finding: &&Finding| finding.scope.pod_uid.as_ref() == Some(&case.pod.uid);
    // The cause `stuck` explains findings about a process.
    let finding = case.severe_findings().filter(own).find(|finding| finding.scope.pid.is_none())?;
    if case.pod.phase == "Succeeded" {
        return None;
    }
    let title = finding.headline();
    let cause = match finding.class {
        Class::Hardware => Cause::Gpu,
        Class::Application => Cause::Application,
        _ => Cause::Node,
    };
    let mut explanation = case
        .explain(cause, Certainty::Certain, format!("the pod cannot use its GPUs: {title}"))
        .with_evidence([finding_quote(finding)])
        .with_evidence(finding.evidence.iter().cloned())
        .with_evidence(end_quote(case));
    explanation.action = case.action_for(finding);
    Some(explanation)
}

/// Explains a pod by a fault that its own GPU code caused. Xids that report the end of a program are not a cause.
pub(crate) fn program_fault_on_gpu(case: &Case<'_>) -> Option<Explanation> {
    if case.pod.phase == "Succeeded" {
        return None;
    }
    let mut damaged = case.own_xids(&[Class::Application, Class::Hardware]);
    damaged.retain(|event| event.code.is_some_and(|code| xids::DAMAGED_COMMANDS.contains(&code)));
    if !damaged.is_empty() {
        let what = "its GPU received damaged commands: according to NVIDIA, the usual reason is the quality of the \
            PCIe link";
        return Some(
            case.explain(Cause::Gpu, Certainty::Possible, what)
                .with_evidence(quotes(&damaged))
                .with_evidence(end_quote(case))
                .with_plan_or(
                    case.severe_plan(),
                    ActionCode::Watch,
                    format!("Check the PCIe errors of the GPU (diagnose_gpu_node for {}). If it happens again, drain the node and run diagnostics.", case.node),
                ),
        );
    }
    let xids = case.own_xids(&[Class::Application]);
    if xids.is_empty() {
        return None;
    }
    let failed = case.failed().is_some() || case.pod.phase == "Failed";
    let what = if failed {
        "its own GPU code caused a fault"
    } else {
        "one of its processes caused a GPU fault, and the pod continues to run"
    };
    let matches = xids.iter().any(|event| event.pid.is_none() || case.on_node.names_own_process(event));
    // A terminated container has no processes that could be compared.
    let gone = case.on_node.processes.is_empty();
    let meets = failed && case.failed_container_had_gpus() && !case.may_be_of_others(&xids) && (matches || gone);
    let certainty = if meets { Certainty::Likely } else { Certainty::Possible };
    Some(
        case.explain(Cause::Application, certainty, what)
            .with_evidence(quotes(&xids))
            .with_evidence(end_quote(case))
            .with_plan_or(
                case.severe_plan(),
                ActionCode::FixApplication,
                "Debug the program (compute-sanitizer, CUDA_LAUNCH_BLOCKING=1). The GPU can stay in service.",
            ),
    )
}

/// Explains a pod by a finding about its node that affects every GPU program.
pub(crate) fn broken_node(case: &Case<'_>) -> Option<Explanation> {
    let pod = case.pod;
    // Pods of NVIDIA's software request no GPU, but they depend on the driver.
    if pod.phase == "Succeeded" || !(pod.wants_gpus || pod.is_gpu_stack) {
        return None;
    }
    // Most of these findings do not affect a pod that already has its GPU.
    let suffers = case.failed().is_some() || (pod.is_gpu_stack && pod.ready == Some(false));
    let mut findings = case.findings(&[Class::Driver]);
    findings.extend(case.findings_of_node());
    if pod.is_gpu_stack {
        findings.extend(of_the_stack(case, suffers));
    } else if pod.has_run() {
        findings.retain(|finding| effects::ends_programs(finding).is_some());
    }
    let first = findings.first()?;
    let certainty = if suffers { inferred(case) } else { Certainty::Possible };
    let quoted = findings.iter().map(|finding| finding_quote(finding));
    let mut explanation = case
        .explain(Cause::Node, certainty, format!("its node {} has a problem: {}", case.node, first.headline()))
        .with_evidence(quoted)
        .with_evidence(first.evidence.iter().take(2).cloned())
        .with_evidence(end_quote(case));
    explanation.action = case.action_for(first);
    Some(explanation)
}

/// Returns the warnings that can explain a pod of NVIDIA's software: warnings that name the pod, all warnings if the
/// pod fails, and, for the device plugin, warnings about advertised GPUs.
fn of_the_stack<'c>(case: &'c Case<'_>, suffers: bool) -> impl Iterator<Item = &'c Finding> {
    let name = case.pod.name.as_str();
    case.all_findings().filter(move |finding| {
        let names_it = finding.evidence.iter().any(|line| line.contains(name));
        let offers = case.pod.is_device_plugin && finding.id.starts_with("gpus-not-");
        finding.severity == Severity::Warning && effects::stops_starts(finding) && (suffers || names_it || offers)
    })
}

/// Explains a program that exited on a shared GPU whose memory is full.
pub(crate) fn memory_used_up(case: &Case<'_>) -> Option<Explanation> {
    let own = |finding: &&Finding| case.is_on_own_gpu(finding);
    let finding = case.all_findings().filter(|finding| finding.id == "shared-gpu-memory-full").find(own)?;
    // Exit codes of 128 or more report a signal, but a program reports failed GPU memory allocations by its own exit
    // code.
    let end = case.failed().filter(|end| (1..126).contains(&end.exit_code) && case.failed_container_had_gpus())?;
    let what = format!("container {} exited, and the memory of its shared GPU is full", end.container);
    let mut explanation = case
        .explain(Cause::Node, Certainty::Possible, what)
        .with_evidence([finding_quote(finding)])
        .with_evidence(finding.evidence.iter().take(3).cloned())
        .with_evidence(end_quote(case));
    explanation.action = case.action_for(finding);
    let log = failing_part::where_is_log(case, end.container, &end.log_command(case.pod));
    explanation.action.text.push_str(&format!(" Check in its log whether it ran out of GPU memory: {log}."));
    Some(explanation)
}
