//! A finding before it gets the names of GPU and node: a rule applied to a GPU or the node, with evidence. Drafts with
//! the same content about several GPUs are merged first.

use jiff::Timestamp;

use crate::finding::{Action, Finding, Scope};
use crate::input::node::{Gpu, Recovered};
use crate::rule::declaration::Rule;
use crate::rule::evidence;
use syringe_core::classification::{ActionCode, Class, Severity};
use syringe_core::facts::kernel_log::KernelEvent;
use syringe_core::pci::PciAddress;

/// Findings of one rule about this many GPUs are merged. Fewer findings are easy to read.
const MERGE_FROM: usize = 3;

/// Maximum number of evidence lines of a finding. The others are counted.
const MAX_EVIDENCE: usize = 10;

/// A finding without its names.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Draft {
    pub(crate) rule: Rule,
    pub(crate) severity: Severity,
    pub(crate) scope: Scope,
    pub(crate) evidence: Vec<String>,
    pub(crate) action: ActionCode,
    /// Time of the newest kernel event in the evidence.
    pub(crate) when: Option<Timestamp>,
    /// Type of the device at the PCI address of the scope.
    pub(crate) noun: &'static str,
    /// The text of the action, with the placeholders `{gpu}` and `{node}`.
    pub(crate) advice: String,
}

/// A finding with the data for the summary.
pub(crate) struct Concluded {
    pub(crate) finding: Finding,
    /// Names of the GPUs; empty for the node.
    pub(crate) place: String,
    pub(crate) when: Option<Timestamp>,
}

impl Draft {
    /// Applies a rule to the node as a whole.
    pub(crate) fn on_node(rule: Rule) -> Self {
        Self {
            rule,
            severity: rule.severity,
            scope: Scope::default(),
            evidence: Vec::new(),
            action: rule.action,
            when: None,
            noun: "GPU",
            advice: rule.advice.to_owned(),
        }
    }

    /// Applies a rule to one GPU.
    pub(crate) fn on_gpu(rule: Rule, gpu: &Gpu) -> Self {
        let scope = Scope { gpu: gpu.index, uuid: gpu.uuid.clone(), pci: gpu.pci.clone(), ..Scope::default() };
        Self { scope, ..Self::on_node(rule) }
    }

    /// Adds a fact.
    pub(crate) fn with_evidence(mut self, evidence: impl Into<String>) -> Self {
        let evidence = evidence.into();
        if !evidence.is_empty() && !self.evidence.contains(&evidence) {
            self.evidence.push(evidence);
        }
        self
    }

    /// Adds several facts.
    pub(crate) fn with_all_evidence(self, evidence: impl IntoIterator<Item = String>) -> Self {
        evidence.into_iter().fold(self, Self::with_evidence)
    }

    /// Adds a kernel event.
    pub(crate) fn with_event(mut self, event: &KernelEvent) -> Self {
        self.when = self.when.max(event.last);
        self.with_evidence(evidence::event(event))
    }

    /// Adds several kernel events.
    pub(crate) fn with_events<'a>(self, events: impl IntoIterator<Item = &'a KernelEvent>) -> Self {
        events.into_iter().fold(self, Self::with_event)
    }

    /// Adds only the time of a kernel event, which is quoted elsewhere.
    pub(crate) fn with_time_of(self, event: &KernelEvent) -> Self {
        Self { when: self.when.max(event.last), ..self }
    }

    /// Sets the severity. It cannot exceed the severity of the rule.
    pub(crate) fn with_severity(self, severity: Severity) -> Self {
        Self { severity: severity.min(self.rule.severity), ..self }
    }

    /// Lowers the severity if the GPU works again. The title does not change.
    pub(crate) fn unless_recovered(self, recovered: Option<Recovered>) -> Self {
        let Some(recovered) = recovered else { return self };
        let severity = if recovered == Recovered::Recently { Severity::Warning } else { Severity::Info };
        self.with_severity(severity)
            .with_evidence("NVML can read the GPU, and there is no uncorrected error since the driver was loaded")
            .with_action(
                ActionCode::Watch,
                "No action now: {gpu} of {node} works again. Watch it; earlier events are in the kernel log.",
            )
    }

    /// Replaces the action of the rule.
    pub(crate) fn with_action(self, action: ActionCode, advice: impl Into<String>) -> Self {
        Self { action, advice: advice.into(), ..self }
    }

    /// Returns whether the draft is about this GPU.
    pub(crate) fn is_on(&self, gpu: &Gpu) -> bool {
        let Scope { gpu: index, pci, .. } = &self.scope;
        (pci.is_some() && *pci == gpu.pci) || (index.is_some() && *index == gpu.index)
    }

    fn merges_with(&self, other: &Self) -> bool {
        self.rule.id == other.rule.id
            && self.severity == other.severity
            && self.action == other.action
            && self.advice == other.advice
            && self.scope.pid.is_none()
            && other.scope.pid.is_none()
            && self.names_gpu()
            && other.names_gpu()
    }

    fn names_gpu(&self) -> bool {
        self.scope.gpu.is_some() || self.scope.pci.is_some()
    }
}

/// Turns drafts into findings: merged, with names, worst first.
pub(crate) fn into_findings(drafts: Vec<Draft>, node: &str) -> Vec<Concluded> {
    let mut groups: Vec<(Draft, Vec<Draft>)> = Vec::new();
    for draft in drafts {
        match groups.iter_mut().find(|(first, _)| first.merges_with(&draft)) {
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
    concluded.sort_by(|left, right| order(&left.finding).cmp(&order(&right.finding)));
    concluded
}

/// Worst first, hardware before configuration, then by id and scope.
fn order(finding: &Finding) -> impl Ord + '_ {
    let Finding { id, severity, class, scope, evidence, .. } = finding;
    let whose = match class {
        Class::Hardware => 0,
        Class::Fabric | Class::Power | Class::Thermal => 1,
        Class::Driver => 2,
        Class::Application => 3,
    };
    (std::cmp::Reverse(*severity), whose, id, scope, evidence)
}

type Label = (Option<u32>, String);

fn label(draft: &Draft) -> Label {
    (draft.scope.gpu, evidence::place(&draft.scope, draft.noun))
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
    let place = evidence::gpus(&group.iter().map(|draft| label(draft)).collect::<Vec<_>>());
    // The same evidence about several GPUs becomes one line.
    let mut lines: Vec<(&str, Vec<Label>)> = Vec::new();
    for draft in &group {
        for evidence in &draft.evidence {
            match lines.iter_mut().find(|(text, _)| text == evidence) {
                Some((_, gpus)) => gpus.push(label(draft)),
                None => lines.push((evidence, vec![label(draft)])),
            }
        }
    }
    let evidence = capped(lines.into_iter().map(|(text, gpus)| format!("{}: {text}", evidence::gpus(&gpus))).collect());
    let when = group.iter().filter_map(|draft| draft.when).max();
    let addresses = group.iter().filter_map(|draft| draft.scope.pci.clone()).collect();
    named(Draft { scope: Scope::default(), when, ..first }, evidence, (place, addresses), node)
}

fn named(draft: Draft, evidence: Vec<String>, (place, addresses): (String, Vec<PciAddress>), node: &str) -> Concluded {
    let text = draft.advice.replace("{gpu}", &place).replace("{node}", node);
    let finding = Finding {
        id: draft.rule.id.to_owned(),
        severity: draft.severity,
        class: draft.rule.class,
        scope: Scope { node: (node != crate::input::node::UNKNOWN_NODE_NAME).then(|| node.to_owned()), ..draft.scope },
        addresses,
        title: draft.rule.title.to_owned(),
        evidence,
        action: Action { code: draft.action, text },
        reference: draft.rule.reference.map(str::to_owned),
    };
    Concluded { finding, place, when: draft.when }
}

fn capped(mut evidence: Vec<String>) -> Vec<String> {
    if evidence.len() > MAX_EVIDENCE {
        let more = evidence.len() - (MAX_EVIDENCE - 1);
        evidence.truncate(MAX_EVIDENCE - 1);
        evidence.push(format!("and {more} more"));
    }
    evidence
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::node::UNKNOWN_NODE_NAME;

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
        assert_eq!(into_findings(drafts()[..2].to_vec(), UNKNOWN_NODE_NAME).len(), 2, "two lines read well");
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
