//! `into_findings`: turns drafts into findings (`Concluded`). It merges drafts of one rule, and fills in the names of
//! GPU and node.

use jiff::Timestamp;

use crate::evidence;
use crate::evidence::Label;
use crate::finding::{Action, Finding, Scope};
use crate::rule::{About, Draft, InPlan};
use syringe_core::classification::Class;
use syringe_core::pci::PciAddress;

/// Minimum number of GPUs for which the findings of one rule are merged. Fewer findings are easy to read separately.
const MERGE_FROM: usize = 3;

/// Maximum number of evidence lines of a finding. Further lines are counted, but not listed.
const MAX_EVIDENCE: usize = 10;

/// A finding with the data for the summary.
pub(crate) struct Concluded {
    pub(crate) finding: Finding,
    /// [`Rule::depth`](crate::rule::Rule::depth) of its rule.
    depth: u8,
    /// [`Rule::about`](crate::rule::Rule::about) of its rule.
    pub(crate) about: About,
    /// Names of the GPUs; empty if the finding is about the node.
    pub(crate) place: String,
    pub(crate) when: Option<Timestamp>,
}

/// Returns the findings, worst first.
pub(crate) fn into_findings(drafts: Vec<Draft>, node: &str) -> Vec<Concluded> {
    let mut groups: Vec<(Draft, Vec<Draft>)> = Vec::new();
    for draft in drafts {
        match groups.iter_mut().find(|(first, _)| can_merge(first, &draft)) {
            Some((_, others)) => others.push(draft),
            None => groups.push((draft, Vec::new())),
        }
    }
    let mut concluded: Vec<Concluded> = Vec::new();
    for (first, others) in groups {
        if others.len() + 1 < MERGE_FROM {
            concluded.extend(std::iter::once(first).chain(others).map(|draft| single(draft, node)));
        } else {
            concluded.push(merged(first, others, node));
        }
    }
    concluded.sort_by(|left, right| order(left).cmp(&order(right)));
    concluded
}

/// Returns the sort key of a finding: worst first, causes before effects, hardware before configuration, then by id
/// and scope.
fn order(concluded: &Concluded) -> impl Ord + '_ {
    let Finding { id, severity, class, scope, evidence, .. } = &concluded.finding;
    let class_order = match class {
        Class::Hardware => 0,
        Class::Fabric | Class::Power | Class::Thermal => 1,
        Class::Driver => 2,
        Class::Application => 3,
    };
    (std::cmp::Reverse(*severity), concluded.depth, class_order, id, scope, evidence)
}

fn single(draft: Draft, node: &str) -> Concluded {
    let place = if draft.names_gpu() { evidence::place(&draft.scope, draft.noun) } else { String::new() };
    let evidence = capped(draft.evidence.clone());
    let addresses = draft.scope.pci.iter().cloned().collect();
    named(draft, evidence, (place, addresses), node)
}

fn merged(first: Draft, others: Vec<Draft>, node: &str) -> Concluded {
    let mut group: Vec<&Draft> = std::iter::once(&first).chain(&others).collect();
    group.sort_by(|left, right| left.scope.cmp(&right.scope));
    let place = evidence::gpus(&group.iter().map(|draft| draft.label()).collect::<Vec<_>>());
    // Evidence lines that several GPUs have in common become one line.
    let mut lines: Vec<(&str, Vec<Label>)> = Vec::new();
    for draft in &group {
        for evidence in &draft.evidence {
            match lines.iter_mut().find(|(text, _)| text == evidence) {
                Some((_, gpus)) => gpus.push(draft.label()),
                None => lines.push((evidence, vec![draft.label()])),
            }
        }
    }
    let evidence = capped(lines.into_iter().map(|(text, gpus)| format!("{}: {text}", evidence::gpus(&gpus))).collect());
    let when = group.iter().filter_map(|draft| draft.when).max();
    let addresses = group.iter().filter_map(|draft| draft.scope.pci.clone()).collect();
    named(Draft { scope: Scope::default(), when, ..first }, evidence, (place, addresses), node)
}

fn named(draft: Draft, evidence: Vec<String>, (place, addresses): (String, Vec<PciAddress>), node: &str) -> Concluded {
    let text: Vec<&str> = draft.texts().collect();
    let text = evidence::about(&text.join(" "), &place).replace("{node}", node);
    let title = if draft.is_over { format!("Earlier: {}", draft.rule.title) } else { draft.rule.title.to_owned() };
    let finding = Finding {
        id: draft.rule.id.to_owned(),
        severity: draft.severity,
        class: draft.rule.class,
        scope: Scope { node: (node != crate::input::node::UNKNOWN_NODE_NAME).then(|| node.to_owned()), ..draft.scope },
        addresses,
        work_continues: draft.rule.in_plan == InPlan::WorkContinues,
        title,
        reason: draft.reason,
        evidence,
        action: Action { code: draft.action, text },
        reference: draft.rule.reference.map(str::to_owned),
        dcgm: draft.rule.dcgm().map(str::to_owned),
    };
    Concluded { finding, depth: draft.rule.depth, about: draft.rule.about, place, when: draft.when }
}

fn capped(evidence: Vec<String>) -> Vec<String> {
    let most = if evidence.len() > MAX_EVIDENCE { MAX_EVIDENCE - 1 } else { MAX_EVIDENCE };
    evidence::lines(evidence, most)
}

fn can_merge(left: &Draft, right: &Draft) -> bool {
    left.rule.id == right.rule.id
        && left.severity == right.severity
        && left.is_over == right.is_over
        && left.action == right.action
        && left.advice == right.advice
        && left.reason == right.reason
        && left.further == right.further
        && left.step_after == right.step_after
        && left.scope.pid.is_none()
        && right.scope.pid.is_none()
        && left.names_gpu()
        && right.names_gpu()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::node::Gpu;
    use crate::input::node::UNKNOWN_NODE_NAME;
    use crate::rule::{InPlan, Rule};
    use syringe_core::classification::{ActionCode, Severity};

    const RULE: Rule = Rule {
        id: "a-rule",
        title: "A rule",
        severity: Severity::Warning,
        class: Class::Driver,
        action: ActionCode::Watch,
        advice: "Watch {gpu} of {node}.",
        reference: None,
        meaning: "",
        reads: "",
        about: About::Gpus,
        in_plan: InPlan::None,
        fault: None,
        depth: 0,
    };

    fn gpu(index: u32) -> Gpu {
        Gpu { index: Some(index), ..Gpu::default() }
    }

    #[test]
    fn the_same_finding_about_three_gpus_is_merged() {
        let drafts = || [0, 1, 2, 5].map(|index| Draft::on_gpu(RULE, &gpu(index)).with_evidence("off"));
        let findings = into_findings(drafts().to_vec(), "gpu-1");
        let [only] = findings.as_slice() else { panic!("{} findings", findings.len()) };
        assert_eq!(only.finding.evidence, ["GPUs 0-2, 5: off"]);
        assert_eq!(only.finding.action.text, "Watch GPUs 0-2, 5 of gpu-1.");
        assert_eq!((only.finding.scope.gpu, only.finding.scope.node.as_deref()), (None, Some("gpu-1")));
        assert_eq!(into_findings(drafts()[..2].to_vec(), UNKNOWN_NODE_NAME).len(), 2, "two findings are not merged");
    }

    #[test]
    fn a_finding_never_exceeds_the_severity_of_its_rule_and_keeps_ten_lines() {
        let draft = (0..12).fold(Draft::on_node(RULE).with_severity(Severity::Fatal), |draft, line| {
            draft.with_evidence(line.to_string())
        });
        let findings = into_findings(vec![draft], UNKNOWN_NODE_NAME);
        let finding = &findings.first().expect("a finding").finding;
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!((finding.evidence.len(), finding.evidence.last()), (10, Some(&"and 3 more".into())));
        assert_eq!(finding.scope.node, None);
    }
}
