//! What the driver and the rules say: a GPU that failed, the driver or the node under it, a program's own GPU code.

use super::{Case, end_quote, quotes};
use crate::diagnosis::{Action, ActionCode, Class as FindingClass, Finding};
use crate::explanation::timeline::line;
use crate::explanation::{Cause, Certainty, Explanation};
use crate::xid::catalogue::{self, Class};
use crate::xid::judgement;

pub(super) fn broken_gpu(case: &Case<'_>) -> Option<Explanation> {
    let classes = [Class::Hardware, Class::Fabric, Class::Thermal, Class::Power];
    let xids: Vec<_> = case
        .own_xids(&classes)
        .into_iter()
        .filter(|event| judgement::judge(event).is_none_or(|judged| judged.severity >= catalogue::Severity::Critical))
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

pub(super) fn broken_driver(case: &Case<'_>) -> Option<Explanation> {
    let xids: Vec<_> = case
        .own_xids(&[Class::Driver])
        .into_iter()
        .filter(|event| judgement::judge(event).is_none_or(|judged| judged.severity >= catalogue::Severity::Critical))
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

/// What a rule says of this pod as a whole: it holds a GPU that is not there, or its container cannot open what it holds.
pub(super) fn out_of_its_reach(case: &Case<'_>) -> Option<Explanation> {
    let own = |finding: &&Finding| finding.scope.pod_uid.as_ref() == Some(&case.pod.uid);
    // A process that is stuck has a cause of its own.
    let finding = case.grave().filter(own).find(|finding| finding.scope.pid.is_none())?;
    if case.pod.phase == "Succeeded" {
        return None;
    }
    let title = &finding.title;
    let cause = if finding.class == FindingClass::Hardware { Cause::Gpu } else { Cause::Node };
    let mut explanation = case
        .say(cause, Certainty::Certain, format!("its GPUs are out of its reach: {title}"))
        .because([format!("finding {}: {title}", finding.id)])
        .because(finding.evidence.iter().cloned())
        .because(end_quote(case));
    explanation.action = finding.action.clone();
    Some(explanation)
}

pub(super) fn program_fault_on_gpu(case: &Case<'_>) -> Option<Explanation> {
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
pub(super) fn broken_node(case: &Case<'_>) -> Option<Explanation> {
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
