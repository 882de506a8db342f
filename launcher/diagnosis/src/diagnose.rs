//! `diagnose`: applies all rules to the facts of a node. `first_failing_pod`: the first failing pod of NVIDIA's stack.

use syringe_core::classification::Severity;
use syringe_core::facts::kubernetes::{KubernetesFacts, NvidiaPod};
use syringe_core::report::Report;
use syringe_core::section_name::SectionName;
use syringe_core::text::clean;
use syringe_core::unknown::Unknown;

use crate::conclusion::{
    availability, contradictions, health, merge, not_checked, one_fault, plan, ruled_out, stack_stages, summary,
    unknown,
};
use crate::finding::{Diagnosis, Scope, Verdict};
use crate::input::named_causes::with_named_causes;
use crate::input::node::Node;
use crate::rules;

/// Diagnoses a node from its report and the data from the Kubernetes API.
pub fn diagnose(report: &Report, kubernetes: &KubernetesFacts) -> Diagnosis {
    let report = with_named_causes(report);
    let report = report.as_ref();
    let node = Node::new(report, kubernetes);
    let faults = ruled_out::check(&node);
    let (mut unknown, undecided) = unknown::list(&node, rules::unread(&node), &faults);
    let contradictions = contradictions::list(&node);
    unknown.extend(contradictions.iter().cloned());
    let mut drafts = rules::drafts(&node);
    availability::raise(&node, &mut drafts);
    one_fault::join(&mut drafts);
    let stack = stack_stages::list(&node, &drafts);
    // If there is a finding, it already reports the fault of the stage and its reason.
    let found = drafts.iter().any(|draft| draft.severity > Severity::Info);
    let doubts = if found { Vec::new() } else { stack_stages::doubts(&node, &stack) };
    let decisive = contradictions.iter().any(|one| one.section != SectionName::Processes.as_str());
    let undecided = undecided || decisive || !doubts.is_empty();
    unknown.extend(doubts);
    // Otherwise another finding explains why the node cannot be read.
    let no_probe = kubernetes.no_probe.as_ref().filter(|_| !found);
    unknown.extend(
        no_probe.map(|why| Unknown::new("kubernetes", format!("no probe ran on the node: {}", clean(why, 240)))),
    );
    let all_checked = unknown::unchecked_sections(&node).is_empty();
    let health = health::score(&node, &drafts, !undecided && all_checked);
    let plan = plan::make_plans(&node, &mut drafts);
    let mut concluded = merge::into_findings(drafts, &node.name);
    for Scope { pod, pod_uid, .. } in concluded.iter_mut().map(|concluded| &mut concluded.finding.scope) {
        *pod = pod_uid.as_deref().and_then(|uid| node.pod_name(uid));
    }
    let worst = concluded.iter().map(|concluded| concluded.finding.severity).max().unwrap_or_default();
    // A node without GPUs does not get the verdict `healthy`.
    let no_gpu = node.listed().next().is_none() && (node.inventory().is_some() || node.host().is_some());
    let nothing_read = node.gpus.is_empty() && report.sections.xid.is_none();
    let mut partly_checked = node.partly_checked();
    let host = SectionName::Host;
    if unknown.iter().any(|one| one.section == host.as_str()) && !partly_checked.contains(&host) {
        partly_checked.push(host);
    }
    let mut checked = node.checked();
    checked.retain(|section| !partly_checked.contains(section));
    let verdict = match worst {
        Severity::Fatal => Verdict::Fatal,
        Severity::Critical => Verdict::Critical,
        Severity::Warning => Verdict::Warning,
        Severity::Info if undecided || nothing_read || no_gpu => Verdict::Unknown,
        Severity::Info if !all_checked => Verdict::NoFaultFound,
        Severity::Info => Verdict::Healthy,
    };
    let uids =
        node.processes().into_iter().flat_map(|section| &section.processes).filter_map(|one| one.pod_uid.clone());
    let pod_names = uids.filter_map(|uid| Some((uid.clone(), node.pod_name(&uid)?))).collect();
    let kernel_log = node.kernel_log().map(|log| log.coverage.clone()).unwrap_or_default();
    Diagnosis {
        verdict,
        undecided: undecided || nothing_read || no_gpu,
        summary: summary::write(&node, verdict, &concluded, &faults),
        checked,
        partly_checked,
        not_requested: unknown::not_requested(&node),
        plan,
        not_checked: not_checked::list(&node, &faults),
        unknown,
        kernel_log,
        stack,
        health,
        pod_names,
        findings: concluded.into_iter().map(|concluded| concluded.finding).collect(),
    }
}

/// Returns the first failing pod of NVIDIA's stack on the node, according to Kubernetes alone, and the container whose
/// log may contain the reason.
pub fn first_failing_pod(kubernetes: &KubernetesFacts) -> Option<(&NvidiaPod, &str)> {
    let report = Report::default();
    let node = Node::new(&report, kubernetes);
    // The pod is looked up in `kubernetes`, which lives longer than `node`.
    let (failing, container) = node.stack.log_to_read(&node)?;
    let pod = kubernetes.nvidia_pods.as_ref()?.iter().find(|pod| pod.uid == failing.uid)?;
    let container = pod.containers.iter().find(|one| one.name == container)?;
    Some((pod, container.name.as_str()))
}
