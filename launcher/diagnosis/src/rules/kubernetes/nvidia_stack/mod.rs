//! NVIDIA's stack on the node: whether the node advertises its GPUs, and if not, which stage is the first broken one. Sources:
//! pods and labels in the API, and the report of the probe.
//!
//! Other groups evaluate the driver, the runtime and the counts. [`apply`] joins their findings: it keeps the finding about
//! the first broken stage, with its reason, and removes those about later stages.

mod advertised;
mod broken;
mod configuration;
mod gpu_operator;
mod pods;
mod rules;
mod stages;
mod starting;

use crate::input::node::Node;
use crate::rule::draft::Draft;
use crate::stack_stage::{StackStage, Stage};
use advertised::{advertises_gpus, is_passed_through};
use broken::Broken;
use rules::{
    BROKEN_DRIVER, CONSEQUENCES, DRIVER_ABSENT, DRIVER_RULES, MIG_MANAGER_STUCK, NOT_ADVERTISED, UPGRADE_STUCK,
    is_runtime_rule,
};
use syringe_core::classification::Severity;
use syringe_core::facts::kubernetes::node::Component;

/// The rules of this group.
pub(crate) const RULES: &[crate::rule::declaration::Rule] = rules::RULES;

/// Findings from labels and configuration alone.
pub(crate) fn judge(node: &Node<'_>) -> Vec<Draft> {
    if is_passed_through(node) {
        return Vec::new();
    }
    let own =
        [gpu_operator::mig_manager_stuck(node), gpu_operator::upgrade_stuck(node), configuration::two_plugins(node)];
    own.into_iter().chain([configuration::runtime_restarted(node)]).flatten().collect()
}

/// The stages, as far as it was read.
pub(crate) fn stages(node: &Node<'_>, drafts: &[Draft]) -> Vec<StackStage> {
    let broken = broken::first(node).filter(|_| !advertises_gpus(node));
    stages::stages(node, drafts, broken.as_ref())
}

/// Why it is not known whether the GPUs are advertised, if only the ResourceSlices of a DRA driver could tell.
pub(crate) fn unread_slices(node: &Node<'_>) -> Option<String> {
    let undecided = node.kubernetes.advertises_no_gpus() && advertised::may_advertise_by_dra(node);
    let why = "the ResourceSlices could not be read: whether the DRA driver offers the GPUs of the node is not known";
    (undecided && node.answering().next().is_some()).then(|| why.to_owned())
}

/// UID and container of the log that may contain the reason, according to the API.
pub(crate) fn log_to_read(node: &Node<'_>) -> Option<(String, String)> {
    broken::log_to_read(node).map(|(pod, container)| (pod.uid.clone(), container.to_owned()))
}

/// Keeps only the finding about the first broken stage.
pub(crate) fn apply(node: &Node<'_>, drafts: &mut Vec<Draft>) {
    if is_passed_through(node) {
        return;
    }
    if starting::downgrade_findings(node, drafts) || !pods::is_settled(node) {
        return;
    }
    // A stuck upgrade is the reason why its driver pod does not start.
    let upgrading = drafts.iter().any(|draft| draft.rule.id == UPGRADE_STUCK.id);
    let broken = broken::first(node).filter(|broken| !(upgrading && broken.rule.id == BROKEN_DRIVER.id));
    let none_answers = node.answering().next().is_none();
    let is_absent = |draft: &&mut Draft| none_answers && DRIVER_RULES.contains(&draft.rule.id) && !is_mild(draft);
    if let Some(draft) = drafts.iter_mut().find(is_absent) {
        *draft = driver_absent(node, draft.clone(), broken.as_ref());
        demote_runtime(drafts);
        return;
    }
    let unoffered = if advertises_gpus(node) { Vec::new() } else { evidence_of_consequences(drafts) };
    if !advertises_gpus(node) && broken.as_ref().is_some_and(|broken| broken.stage == Stage::Driver) {
        demote_runtime(drafts);
    }
    if let Some(draft) = drafts.iter_mut().find(|draft| is_reason(node, draft)) {
        *draft = with_toolkit(node, draft.clone(), broken.as_ref()).with_all_evidence(unoffered);
        drafts.retain(|draft| !is_consequence(draft));
        return;
    }
    let may_be_inotify = may_be_inotify(node, drafts, broken.as_ref());
    let found = configuration::not_deployed(node, &unoffered)
        .or_else(|| configuration::inotify(node, &unoffered).filter(|_| may_be_inotify))
        .or_else(|| Some(broken?.draft(node, unoffered)));
    match found {
        Some(draft) => {
            drafts.retain(|draft| !is_consequence(draft) || advertises_gpus(node));
            drafts.push(draft);
        }
        None => {
            let not_advertised = drafts.iter_mut().find(|draft| draft.rule.id == NOT_ADVERTISED);
            if let Some(draft) = not_advertised {
                *draft = configuration::why_no_plugin(node, draft.clone());
            }
        }
    }
}

/// Adds the state of the toolkit's pod, which may show why the runtime is not configured. The action stays.
fn with_toolkit(node: &Node<'_>, draft: Draft, broken: Option<&Broken<'_>>) -> Draft {
    let toolkit = broken.filter(|broken| broken.stage == Stage::Runtime && is_runtime_rule(draft.rule.id));
    let Some(toolkit) = toolkit else { return draft };
    let (action, advice) = (draft.action, draft.advice.clone());
    toolkit.explain(node, draft.with_evidence(toolkit.words.clone())).with_action(action, advice)
}

/// Whether a plugin is missing, and no log gives another reason. A node may deliberately advertise no GPU, and the count may be
/// too high, because descriptors that processes share are counted for each process.
fn may_be_inotify(node: &Node<'_>, drafts: &[Draft], broken: Option<&Broken<'_>>) -> bool {
    let missing = drafts.iter().any(|draft| is_consequence(draft) && draft.severity > Severity::Info);
    let phrase = broken.and_then(|broken| broken.phrase(node));
    missing && phrase.is_none_or(|phrase| phrase.id == "inotify-exhausted")
}

/// If the driver is missing, a missing runtime configuration is a consequence: the toolkit waits for the driver.
fn demote_runtime(drafts: &mut [Draft]) {
    let of_runtime = |draft: &&mut Draft| draft.severity >= Severity::Warning && is_runtime_rule(draft.rule.id);
    for draft in drafts.iter_mut().filter(of_runtime) {
        *draft = draft
            .clone()
            .with_severity(Severity::Info)
            .with_evidence("the driver must be repaired first: see its finding");
    }
}

fn is_mild(draft: &Draft) -> bool {
    draft.severity < Severity::Critical
}

/// Whether another finding gives the reason why no GPU is advertised.
fn is_reason(node: &Node<'_>, draft: &Draft) -> bool {
    let of_labels = [MIG_MANAGER_STUCK.id, UPGRADE_STUCK.id].contains(&draft.rule.id);
    draft.severity >= Severity::Warning && !advertises_gpus(node) && (of_labels || is_runtime_rule(draft.rule.id))
}

fn is_consequence(draft: &Draft) -> bool {
    CONSEQUENCES.contains(&draft.rule.id)
}

fn evidence_of_consequences(drafts: &[Draft]) -> Vec<String> {
    let of = drafts.iter().filter(|draft| is_consequence(draft));
    of.flat_map(|draft| draft.evidence.iter().cloned()).collect()
}

/// The finding about a missing driver, with the state of NVIDIA's stack.
fn driver_absent(node: &Node<'_>, draft: Draft, broken: Option<&Broken<'_>>) -> Draft {
    let unexplained = DRIVER_ABSENT.contains(&draft.rule.id);
    if let Some(of_stack) = configuration::not_deployed(node, &draft.evidence).filter(|_| unexplained) {
        return of_stack.with_severity(draft.severity);
    }
    if let Some(words) = configuration::driver_is_off(node).filter(|_| unexplained) {
        return draft.with_evidence(words);
    }
    let Some(broken) = broken.filter(|broken| broken.failing_pod.pod.component == Component::Driver) else {
        return draft;
    };
    let explained = broken.explain(node, draft.clone().with_evidence(broken.words.clone()));
    // A finding with a reason keeps its own action.
    if unexplained { explained } else { explained.with_action(draft.action, draft.advice) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::declaration::Rule;

    #[test]
    fn a_runtime_that_waits_for_the_driver_is_no_fault_of_its_own() {
        let of = |id| Draft::on_node(Rule { id, ..rules::BROKEN_TOOLKIT });
        let mut drafts =
            ["driver-not-loaded", "runtime-handler-missing", "cdi-missing", "runtime-restarted"].map(of).to_vec();
        demote_runtime(&mut drafts);
        let faults: Vec<_> =
            drafts.iter().filter(|draft| draft.severity > Severity::Info).map(|draft| draft.rule.id).collect();
        assert_eq!(faults, ["driver-not-loaded", "runtime-restarted"]);
    }
}
