//! `Draft`: a rule applied to a GPU or the node, with evidence, action and times, before it becomes a finding.
//! `have_shared_cause`: whether drafts about different GPUs probably have one cause.

use jiff::{SignedDuration, Timestamp};

use crate::evidence;
use crate::evidence::Label;
use crate::finding::Scope;
use crate::input::node::Gpu;
use crate::input::recovery::Recovery;
use crate::rule::{About, InPlan, Rule};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind};

/// A finding before the names of the GPU and the node are added, and before it is merged.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Draft {
    pub(crate) rule: Rule,
    pub(crate) severity: Severity,
    pub(crate) scope: Scope,
    pub(crate) evidence: Vec<String>,
    /// Kinds and codes of the kernel events that the finding is about.
    pub(crate) events: Vec<(KernelEventKind, Option<u32>)>,
    pub(crate) action: ActionCode,
    /// Time of the oldest kernel event in the evidence.
    pub(crate) since: Option<Timestamp>,
    /// Time of the newest kernel event in the evidence.
    pub(crate) when: Option<Timestamp>,
    /// Type of the device at the PCI address of the scope.
    pub(crate) noun: &'static str,
    /// The text of the action, with the placeholders `{gpu}` and `{node}`.
    pub(crate) advice: String,
    /// Whether the evidence shows that the fault is over. The title then says so.
    pub(crate) is_over: bool,
    /// Whether the action can wait until running work has finished, because the GPU responds.
    pub(crate) can_wait: bool,
    /// Whether the facts show a cause outside the GPU. The GPU is then not returned.
    pub(crate) is_outside: bool,
    /// The condition for the return of the GPU to the vendor, if the action is to return it.
    pub(crate) return_if: Option<&'static str>,
    /// The reason of the fault: the message of the failed component.
    pub(crate) reason: Option<String>,
    /// Actions that `action` does not include, with their texts.
    pub(crate) further: Vec<(ActionCode, String)>,
    /// A step before the reset or reboot of a plan: without the step, the reset or reboot does not repair the fault, or
    /// applies an unwanted change.
    pub(crate) step_before: Option<String>,
    /// A step after the reset of a plan: without the step, the GPU stays unusable for pods.
    pub(crate) step_after: Option<String>,
}

impl Draft {
    /// Applies a rule to the node as a whole.
    pub(crate) fn on_node(rule: Rule) -> Self {
        Self {
            rule,
            severity: rule.severity,
            scope: Scope::default(),
            evidence: Vec::new(),
            events: Vec::new(),
            action: rule.action,
            since: None,
            when: None,
            noun: "GPU",
            advice: rule.advice.to_owned(),
            is_over: false,
            can_wait: false,
            is_outside: false,
            return_if: None,
            reason: None,
            further: Vec::new(),
            step_before: None,
            step_after: None,
        }
    }

    /// Applies a rule to one GPU.
    pub(crate) fn on_gpu(rule: Rule, gpu: &Gpu) -> Self {
        let scope = Scope { gpu: gpu.index, uuid: gpu.uuid.clone(), pci: gpu.pci.clone(), ..Scope::default() };
        Self { scope, ..Self::on_node(rule) }
    }

    pub(crate) fn with_evidence(mut self, evidence: impl Into<String>) -> Self {
        let evidence = evidence.into();
        if !evidence.is_empty() && !self.evidence.contains(&evidence) {
            self.evidence.push(evidence);
        }
        self
    }

    pub(crate) fn with_all_evidence(self, evidence: impl IntoIterator<Item = String>) -> Self {
        evidence.into_iter().fold(self, Self::with_evidence)
    }

    pub(crate) fn with_event(self, event: &KernelEvent) -> Self {
        self.with_time_of(event).with_evidence(evidence::event(event))
    }

    pub(crate) fn with_events<'a>(self, events: impl IntoIterator<Item = &'a KernelEvent>) -> Self {
        events.into_iter().fold(self, Self::with_event)
    }

    /// Adds only the time of a kernel event, because the event itself is quoted elsewhere.
    pub(crate) fn with_time_of(self, event: &KernelEvent) -> Self {
        let first = event.first.or(event.last);
        let since = self.since.into_iter().chain(first).min();
        let mut events = self.events;
        events.push((event.kind, event.code));
        Self { since, when: self.when.max(event.ordered_at()), events, ..self }
    }

    /// Sets the severity. It cannot exceed the severity of the rule.
    pub(crate) fn with_severity(self, severity: Severity) -> Self {
        Self { severity: severity.min(self.rule.severity), ..self }
    }

    /// Lowers the severity if the GPU works again, or if it responds and no fact shows that the fault is over.
    /// `uptime_known`: whether it is certain that the node has not booted since the events.
    pub(crate) fn unless_recovered(self, recovery: Recovery, uptime_known: bool) -> Self {
        match recovery {
            Recovery::Current => self,
            Recovery::Shown(recovered) => {
                let severity = if recovered.long_ago { Severity::Info } else { Severity::Warning };
                Self { is_over: true, ..self }.with_severity(severity).with_evidence(recovered.shown_by).with_action(
                    ActionCode::Watch,
                    "No action now: {gpu} of {node} works again. Watch it; earlier events are in the kernel log.",
                )
            }
            Recovery::Unproven { recent, why } => {
                let most = if recent { Severity::Critical } else { Severity::Warning };
                let severity = self.severity.min(most);
                let advice = self.unless_cured(uptime_known);
                let action = self.action;
                let can_wait = self.rule.in_plan != InPlan::ResultsSuspect;
                Self { can_wait, ..self }.with_severity(severity).with_evidence(why).with_action(action, advice)
            }
        }
    }

    /// Returns the action for a fault that may already be repaired: first check whether it is.
    fn unless_cured(&self, uptime_known: bool) -> String {
        let repair = match self.action {
            ActionCode::UpdateSoftware => "the versions or settings of {gpu} on {node} were changed",
            ActionCode::DrainAndReboot => "{node} was rebooted",
            _ => "{gpu} of {node} was reset",
        };
        let when = match self.rule.in_plan {
            InPlan::ResultsSuspect => "before its work continues",
            _ => "when its jobs have ended",
        };
        if self.action == ActionCode::DrainAndReboot && uptime_known {
            return format!(
                "{{node}} was not rebooted since then. {}: {}",
                evidence::capitalized(when),
                evidence::uncapitalized(&self.advice)
            );
        }
        format!(
            "Find out whether {repair} since then; if so, no action is needed. Otherwise, {when}: {}",
            evidence::uncapitalized(&self.advice)
        )
    }

    /// Returns whether the text asks for a support case in every case, not only if the fault comes back.
    pub(crate) fn asks_for_support(&self) -> bool {
        let advice = self.advice.to_lowercase();
        advice.contains("open a support case") && !advice.contains("support case if")
    }

    /// Replaces the action of the rule, because the facts lead to another conclusion. To add a second action for the
    /// same fault, use [`Self::joined_with`].
    pub(crate) fn with_action(self, action: ActionCode, advice: impl Into<String>) -> Self {
        Self { action, advice: advice.into(), ..self }
    }

    pub(crate) fn with_step_before(self, step: impl Into<String>) -> Self {
        Self { step_before: Some(step.into()), ..self }
    }

    /// Adds an action. If one action includes the other, only the first remains. Otherwise both remain.
    pub(crate) fn joined_with(mut self, action: ActionCode, advice: impl Into<String>) -> Self {
        if self.actions().any(|known| known.includes(action)) {
            return self;
        }
        self.further.retain(|(known, _)| !action.includes(*known));
        if action.includes(self.action) {
            return self.with_action(action, advice);
        }
        self.further.push((action, advice.into()));
        self
    }

    /// If the fault has already repeated, replaces the condition that it repeats by the number of times.
    pub(crate) fn unless_repeated(mut self, events: &[&KernelEvent]) -> Self {
        let repeated = events.iter().filter(|event| has_repeated(event));
        let Some(times) = repeated.map(|event| event.count.max(2)).max() else { return self };
        let instead = format!("it has failed {times} times already, so ");
        for condition in REPEATS {
            let (start, instead_at_start) = (evidence::capitalized(condition), evidence::capitalized(&instead));
            self.advice = self.advice.replace(condition, &instead).replace(&start, &instead_at_start);
        }
        self
    }

    /// Returns the texts of all actions of the draft.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        let further = self.further.iter().map(|(_, advice)| advice.as_str());
        std::iter::once(self.advice.as_str()).chain(further).chain(self.step_after.as_deref())
    }

    /// Replaces the advice to return the GPU, because the cause is outside the GPU.
    pub(crate) fn without_return(mut self, instead: &str) -> Self {
        let kept: Vec<&str> = self
            .advice
            .split_inclusive(". ")
            .filter(|sentence| !sentence.contains("(RMA)") && !sentence.starts_with("If it happens again"))
            .collect();
        self.advice = format!("{} {instead}", kept.concat().trim_end());
        self.is_outside = true;
        self
    }

    /// Returns all actions of the draft.
    pub(crate) fn actions(&self) -> impl Iterator<Item = ActionCode> {
        std::iter::once(self.action).chain(self.further.iter().map(|(action, _)| *action))
    }

    /// Returns whether this finding is a fault of the GPU with at least this severity. That pods cannot get the GPU is no
    /// fault of the GPU.
    pub(crate) fn is_fault_of(&self, gpu: &Gpu, least: Severity) -> bool {
        self.severity >= least && self.rule.about != About::Unavailable && self.is_on(gpu)
    }

    /// Returns whether the draft is about this GPU.
    pub(crate) fn is_on(&self, gpu: &Gpu) -> bool {
        let Scope { gpu: index, pci, .. } = &self.scope;
        (pci.is_some() && *pci == gpu.pci) || (index.is_some() && *index == gpu.index)
    }

    /// Returns the index of the draft's GPU, and the name of the GPU or node.
    pub(crate) fn label(&self) -> Label {
        (self.scope.gpu, evidence::place(&self.scope, self.noun))
    }

    /// Returns whether the draft is about one GPU.
    pub(crate) fn names_gpu(&self) -> bool {
        self.scope.gpu.is_some() || self.scope.pci.is_some()
    }
}

/// Conditions in the tables for a fault that repeats without a repair in between.
const REPEATS: [&str; 4] =
    ["if the same link fails again, ", "if the error repeats, ", "if it repeats, ", "if it happens again, "];

/// Log lines of one fault are written within this time.
const ONE_FAULT: SignedDuration = SignedDuration::from_mins(10);

fn has_repeated(event: &KernelEvent) -> bool {
    let times = event.first.zip(event.last);
    event.count > 1 && times.is_some_and(|(first, last)| last.duration_since(first) >= ONE_FAULT)
}

/// If at least this number of GPUs have the same fault, a shared cause is more likely than separate faults.
const SEVERAL: usize = 3;

/// Faults within this time are one event. The log lines of a fault of a riser or a PCIe switch are written within a
/// second.
const SAME_MOMENT: SignedDuration = SignedDuration::from_secs(10);

/// Returns whether these drafts about different GPUs probably have one cause: there are several GPUs, or two GPUs at
/// the same moment.
pub(crate) fn have_shared_cause(drafts: &[&Draft]) -> bool {
    let times: Vec<Timestamp> = drafts.iter().filter_map(|draft| draft.since).collect();
    let apart = times.iter().max().zip(times.iter().min()).map(|(last, first)| last.duration_since(*first));
    // If no time is known, the GPUs were lost at or before the boot.
    let at_once = apart.is_none_or(|apart| apart <= SAME_MOMENT) && (times.is_empty() || times.len() == drafts.len());
    drafts.len() >= SEVERAL || (drafts.len() == 2 && at_once)
}
