//! What the driver and the rules say: a GPU that failed, the driver or the node under it, a program's own GPU code.
//!
//! A cause must precede its effect and meet it: same device, same process where an error strikes one process alone, in the
//! time of the container that ended. What does not meet it is told and is not blamed.

use super::{Case, end_quote, quotes};
use crate::diagnosis::{ActionCode, Class as FindingClass, Finding, Severity};
use crate::explanation::pod_on_node::affects_one_process;
use crate::explanation::timeline::line;
use crate::explanation::{Cause, Certainty, Explanation};
use crate::facts::kernel_log::KernelEvent;
use crate::xid::catalogue::{self, Class};
use crate::xid::judgement;

/// Classes of errors that a GPU, its links or its supply make.
const OF_GPU: [Class; 4] = [Class::Hardware, Class::Fabric, Class::Thermal, Class::Power];

/// The same for findings.
pub(super) const FINDINGS_OF_GPU: [FindingClass; 4] =
    [FindingClass::Hardware, FindingClass::Fabric, FindingClass::Thermal, FindingClass::Power];

pub(super) fn broken_gpu(case: &Case<'_>) -> Option<Explanation> {
    if case.pod.phase == "Succeeded" {
        return None;
    }
    let xids = grave(case.own_xids(&OF_GPU));
    let findings = case.findings(&FINDINGS_OF_GPU);
    let (certainty, what) = if xids.is_empty() {
        by_state(case, &findings)?
    } else {
        let gone = findings.iter().any(|finding| finding.severity == Severity::Fatal);
        (certainty_of(case, &xids), if gone { "its GPU failed" } else { "its GPU had an error" })
    };
    let title = findings.first().map(|finding| finding.title.clone());
    let title = title.or_else(|| xids.first().map(|event| line(event))).unwrap_or_default();
    let quoted = findings.iter().map(|finding| format!("finding {}: {}", finding.id, finding.title));
    let unmet =
        (!case.failed_container_had_gpus()).then(|| "the container that ended does not use the GPUs".to_owned());
    let ended = end_quote(case).filter(|_| case.failed().is_some());
    Some(
        case.explain(Cause::Gpu, certainty, format!("{what}: {title}"))
            .with_evidence(quotes(&xids))
            .with_evidence(quoted)
            .with_evidence(unmet)
            .with_evidence(ended)
            .with_plan_or(
                case.plan(),
                ActionCode::RestartPod,
                format!("Restart the pod on another GPU, and diagnose {}.", case.node),
            ),
    )
}

/// Those that take the GPU, or what ran on it, out of work.
fn grave(events: Vec<&KernelEvent>) -> Vec<&KernelEvent> {
    let is_grave = |event: &&KernelEvent| {
        judgement::judge(event).is_none_or(|judged| judged.severity >= catalogue::Severity::Critical)
    };
    events.into_iter().filter(is_grave).collect()
}

/// Certain where an error hit everybody on the GPU, or names a process of the pod. An error that strikes one process, and
/// names one that nobody knows any more, may have struck one of the pod's that is gone.
fn certainty_of(case: &Case<'_>, xids: &[&KernelEvent]) -> Certainty {
    let met = |event: &&KernelEvent| {
        !affects_one_process(event) || event.pid.is_none() || case.on_node.names_own_process(event)
    };
    if !case.failed_container_had_gpus() {
        Certainty::Possible
    } else if case.may_be_of_others(xids) || !xids.iter().any(met) {
        Certainty::Likely
    } else {
        Certainty::Certain
    }
}

/// No error falls into the pod's run: what its GPUs' state alone says.
fn by_state(case: &Case<'_>, findings: &[&Finding]) -> Option<(Certainty, &'static str)> {
    let worst = findings.first()?;
    let on_node = case.on_node;
    let told = |events: &[KernelEvent]| {
        events.iter().any(|event| OF_GPU.iter().any(|class| super::class_of(event) == Some(*class)))
    };
    let (earlier, later) = (told(&on_node.earlier_events), told(&on_node.later_events));
    let failed = case.failed().is_some() || case.pod.phase == "Failed";
    match (worst.severity, failed) {
        // What came after the end did not cause it.
        _ if later && !earlier => None,
        // Nothing works on such a GPU, whenever it got there.
        (Severity::Fatal, _) => Some((Certainty::Likely, "its GPU is out of service")),
        (_, true) if earlier => {
            Some((Certainty::Possible, "its GPU had a fault before the pod started, and still has it"))
        }
        (_, true) => Some((Certainty::Likely, "its GPU has a fault")),
        // A pod that runs on it was not hit: `no_problem` names what is open.
        (_, false) if earlier => None,
        (_, false) => Some((Certainty::Possible, "it is running on a GPU that has a fault")),
    }
}

pub(super) fn broken_driver(case: &Case<'_>) -> Option<Explanation> {
    let xids = grave(case.own_xids(&[Class::Driver]));
    if xids.is_empty() || case.pod.phase == "Succeeded" {
        return None;
    }
    let certainty = if case.failed_container_had_gpus() { Certainty::Certain } else { Certainty::Possible };
    Some(
        case.explain(Cause::Node, certainty, "the driver or the firmware of the GPU failed while it was running")
            .with_evidence(quotes(&xids))
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

/// What a rule says of this pod as a whole: it holds a GPU that is not there, or its container cannot open what it holds.
pub(super) fn gpu_not_accessible(case: &Case<'_>) -> Option<Explanation> {
    let own = |finding: &&Finding| finding.scope.pod_uid.as_ref() == Some(&case.pod.uid);
    // A process that is stuck has a cause of its own.
    let finding = case.grave().filter(own).find(|finding| finding.scope.pid.is_none())?;
    if case.pod.phase == "Succeeded" {
        return None;
    }
    let title = &finding.title;
    let cause = if finding.class == FindingClass::Hardware { Cause::Gpu } else { Cause::Node };
    let mut explanation = case
        .explain(cause, Certainty::Certain, format!("it cannot use its GPUs: {title}"))
        .with_evidence([format!("finding {}: {title}", finding.id)])
        .with_evidence(finding.evidence.iter().cloned())
        .with_evidence(end_quote(case));
    explanation.action = case.action_for(finding);
    Some(explanation)
}

pub(super) fn program_fault_on_gpu(case: &Case<'_>) -> Option<Explanation> {
    let xids = case.own_xids(&[Class::Application]);
    if xids.is_empty() || case.pod.phase == "Succeeded" {
        return None;
    }
    let failed = case.failed().is_some() || case.pod.phase == "Failed";
    let what = if failed {
        "its own GPU code caused a fault"
    } else {
        "one of its processes caused a GPU fault, and the pod continues"
    };
    let met = xids.iter().any(|event| event.pid.is_none() || case.on_node.names_own_process(event));
    // What ended has no process left that could be compared.
    let gone = case.on_node.processes.is_empty();
    let meets = failed && case.failed_container_had_gpus() && !case.may_be_of_others(&xids) && (met || gone);
    let certainty = if meets { Certainty::Likely } else { Certainty::Possible };
    Some(
        case.explain(Cause::Application, certainty, what)
            .with_evidence(quotes(&xids))
            .with_evidence(end_quote(case))
            .with_plan_or(
                case.plan(),
                ActionCode::RestartPod,
                "Debug the program (compute-sanitizer, CUDA_LAUNCH_BLOCKING=1). The GPU can stay in service.",
            ),
    )
}

/// Beginnings of the ids of findings about how GPUs are offered and containers are started. A program that ran had its GPU:
/// they do not explain how it ended.
const ABOUT_STARTS: [&str; 14] = [
    "stack-",
    "two-device-plugins",
    "mig-manager-",
    "driver-upgrade-",
    "inotify-",
    "runtime-",
    "cdi-",
    "gpus-not-",
    "device-plugin-",
    "device-sticky-",
    "kubelet-books-",
    "allocation-",
    "vgpu-",
    "pod-without-",
];

fn is_about_starts(finding: &Finding) -> bool {
    ABOUT_STARTS.iter().any(|start| finding.id.starts_with(start))
}

/// The driver, the fabric or the set-up of the node is in a state in which no program can use its GPU.
pub(super) fn broken_node(case: &Case<'_>) -> Option<Explanation> {
    let pod = case.pod;
    // The driver's own software asks for no GPU, and stands or falls with what is found of the driver.
    if pod.phase == "Succeeded" || !(pod.wants_gpus || pod.is_gpu_stack) {
        return None;
    }
    // What has a GPU keeps it through most of these: a pod that never failed may be well.
    let suffers = case.failed().is_some() || (pod.is_gpu_stack && pod.ready == Some(false));
    let mut findings = case.findings(&[FindingClass::Driver]);
    findings.extend(case.findings_of_node());
    if pod.is_gpu_stack {
        findings.extend(of_the_stack(case, suffers));
    } else if pod.has_run() {
        findings.retain(|finding| !is_about_starts(finding));
    }
    let first = findings.first()?;
    let certainty = if suffers { Certainty::Likely } else { Certainty::Possible };
    let quoted = findings.iter().map(|finding| format!("finding {}: {}", finding.id, finding.title));
    let mut explanation = case
        .explain(Cause::Node, certainty, format!("its node {} has a problem: {}", case.node, first.title))
        .with_evidence(quoted)
        .with_evidence(first.evidence.iter().take(2).cloned())
        .with_evidence(end_quote(case));
    explanation.action = case.action_for(first);
    Some(explanation)
}

/// Warnings about NVIDIA's stack, for a pod of it: those that name the pod, all of them where it does not work, and those about
/// what is offered for the device plugin.
fn of_the_stack<'c>(case: &'c Case<'_>, suffers: bool) -> impl Iterator<Item = &'c Finding> {
    let findings = case.diagnosis.map(|diagnosis| diagnosis.findings.as_slice()).unwrap_or_default();
    let name = case.pod.name.as_str();
    findings.iter().filter(move |finding| {
        let names_it = finding.evidence.iter().any(|line| line.contains(name));
        let offers = case.pod.is_device_plugin && finding.id.starts_with("gpus-not-");
        finding.severity == Severity::Warning && is_about_starts(finding) && (suffers || names_it || offers)
    })
}

/// Its program ended by itself on a GPU whose memory the pods that share it have used up.
pub(super) fn memory_used_up(case: &Case<'_>) -> Option<Explanation> {
    let findings = case.diagnosis.map(|diagnosis| diagnosis.findings.as_slice()).unwrap_or_default();
    let own = |finding: &&Finding| finding.addresses.iter().any(|address| case.on_node.addresses.contains(address));
    let finding = findings.iter().filter(|finding| finding.id == "gpu-memory-shared-out").find(own)?;
    // Codes from 128 are signals: memory that the GPU refuses is an error of the program.
    let end = case.failed().filter(|end| (1..126).contains(&end.exit_code) && case.failed_container_had_gpus())?;
    let what =
        format!("container {} ended by itself, and the memory of the GPU that it shares is used up", end.container);
    let mut explanation = case
        .explain(Cause::Node, Certainty::Possible, what)
        .with_evidence([format!("finding {}: {}", finding.id, finding.title)])
        .with_evidence(finding.evidence.iter().take(3).cloned())
        .with_evidence(end_quote(case));
    explanation.action = case.action_for(finding);
    let log = end.log_command(case.pod);
    explanation.action.text.push_str(&format!(" Its log says whether it ran out of GPU memory: {log}."));
    Some(explanation)
}
