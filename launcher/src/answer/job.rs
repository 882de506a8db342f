//! `JobAnswer`: the answer about the pods of a job, and which pods differ from the others (`SuspectPod`).
//! `page`: formats the answer as text for a terminal.

use std::collections::BTreeMap;

use diagnosis::explanation::Cause;
use diagnosis::finding::Action;
use diagnosis::job::{Difference, JobExplanation, JobState, Suspect, Suspicion};
use schemars::JsonSchema;
use serde::Serialize;
use syringe_core::classification::Severity;
use syringe_core::unknown::Unknown;
use syringe_macros::omit;

use crate::answer::fleet::{FailedNodes, ProbesSummary};
use crate::answer::wire::variant_name::variant_name;
use crate::outcome::{CommandAnswer, Outcome};
use crate::terminal::page::Page;
use crate::terminal::style::{Paint, paint};
use crate::terminal::table::{new_table, second};

/// What a job does, and which of its pods differ from the others.
#[omit(Option, Vec, String)]
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct JobAnswer {
    /// State, suspects and compared facts.
    #[serde(flatten)]
    pub explanation: JobExplanation,
    /// Owner or labels of the pods.
    pub job: String,
    /// The kubeconfig context.
    pub context: String,
    /// Pods in each phase.
    pub phases: BTreeMap<String, usize>,
    /// Why the first suspect failed or does not start. Absent if the pod runs.
    pub suspect_pod: Option<SuspectPod>,
    /// Nodes that were not read. One entry for each reason.
    pub not_read: Vec<FailedNodes>,
    /// Data that could not be read.
    pub unknown: Vec<Unknown>,
    /// Objects left on the cluster.
    pub left_behind: Vec<String>,
    /// How the nodes were read: one probe for each.
    pub probes: ProbesSummary,
}

/// Why one pod failed or does not start. `explain_gpu_pod` for the pod returns the complete explanation.
#[omit(Vec)]
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SuspectPod {
    /// The pod.
    pub pod: String,
    /// The part of the system in which the cause lies.
    pub cause: Cause,
    /// The explanation.
    pub summary: String,
    /// What to do about it.
    pub action: Action,
    /// The last lines of the pod's log: data, not advice.
    pub log_lines: Vec<String>,
}

impl CommandAnswer for JobAnswer {
    /// Failed pods, and pods that wait because of a fault or a stopped process, are critical. A difference has the
    /// severity warning.
    fn outcome(&self) -> Outcome {
        let is_critical = |suspect: &Suspect| suspect.because <= Suspicion::Fault;
        // If no pod has started, none of them differs from the others.
        let none_started = self.explanation.state == JobState::Starting && self.explanation.suspects.is_empty();
        let has_cause = self.suspect_pod.as_ref().is_some_and(|pod| pod.cause != Cause::None);
        let found = match self.explanation.state {
            _ if none_started && has_cause => Outcome::Found(Severity::Critical),
            JobState::Failed => Outcome::Found(Severity::Critical),
            _ if self.explanation.suspects.iter().any(is_critical) => Outcome::Found(Severity::Critical),
            _ if !self.explanation.suspects.is_empty() => Outcome::Found(Severity::Warning),
            _ => Outcome::NothingFound,
        };
        let is_incomplete = !self.not_read.is_empty() || self.explanation.state == JobState::Unknown;
        if is_incomplete { found.of_incomplete() } else { found }
    }

    fn names(&self) -> Vec<String> {
        let members = self.explanation.suspects.iter().flat_map(|suspect| &suspect.members);
        members.map(|member| format!("pod/{}", member.pod)).collect()
    }
}

pub(crate) fn page(answer: &JobAnswer) -> Page {
    let JobExplanation { state, summary, suspects, suspects_omitted, shared, compared, action } = &answer.explanation;
    let color = match answer.outcome() {
        Outcome::Found(Severity::Critical | Severity::Fatal) => Paint::Critical,
        Outcome::Found(_) => Paint::Warning,
        Outcome::Unknown => Paint::Unknown,
        _ => Paint::Good,
    };
    let word = variant_name(*state).to_uppercase();
    let mut text = Page::from(format!("{}  {summary}\n", paint(&word, color)));
    let phases: Vec<_> = answer.phases.iter().map(|(phase, count)| format!("{count} {phase}")).collect();
    text.push_str(&format!("    {}: {}\n", answer.job, phases.join(", ")));
    if !action.text.is_empty() {
        text.push_str(&format!("  → {}\n", action.text));
    }
    for Suspect { because, members, members_omitted, since, facts, facts_omitted, echoes } in suspects {
        let because = variant_name(*because).replace('_', " ");
        let since = since.map(|since| format!(" since {}", second(since))).unwrap_or_default();
        let who: Vec<_> = members.iter().map(|member| member.in_words()).collect();
        let more = if *members_omitted > 0 { format!(" and {members_omitted} more") } else { String::new() };
        text.push_str(&format!("\n{because}{since}: {}{more}\n", who.join("; ")));
        for Difference { fact, place, value, common } in facts {
            let place = if place.is_empty() { String::new() } else { format!("{place}: ") };
            let common = if common.is_empty() { String::new() } else { format!(" (others {common})") };
            text.push_quoted(&format!("    {place}{fact} {value}{common}\n"));
        }
        text.push_omitted(Some(*facts_omitted).filter(|count| *count > 0), "more facts");
        if !echoes.is_empty() {
            text.push_str(&format!("    echoes: {echoes}\n"));
        }
    }
    text.push_omitted(Some(*suspects_omitted).filter(|count| *count > 0), "more pods that differ");
    if let Some(SuspectPod { pod, summary, action, log_lines, .. }) = &answer.suspect_pod {
        text.push_str(&format!("\nPod {pod}: {summary}\n"));
        if !action.text.is_empty() {
            text.push_str(&format!("  → {}\n", action.text));
        }
        log_lines.iter().for_each(|line| text.push_quoted(&format!("    {line}\n")));
    }
    if !shared.is_empty() {
        text.push_str(&format!("\nShared by most pods: {}\n", shared.join("; ")));
    }
    let mut rows = new_table(["compared", "common value", "pods", "differ"]);
    for one in compared {
        let differ = if one.differ > 0 { one.differ.to_string() } else { String::new() };
        rows.add_row([one.fact.to_owned(), one.common.clone(), one.pods.to_string(), differ]);
    }
    text.push_table(rows);
    for FailedNodes { nodes, why, next_step } in &answer.not_read {
        text.push_str(&format!("\n{}  {}: {why}\n  {next_step}\n", paint("NOT READ", Paint::Unknown), nodes.names));
    }
    for unknown in &answer.unknown {
        text.push_str("\n");
        text.push_unknown(unknown);
    }
    answer.left_behind.iter().for_each(|left| text.push_str(&format!("LEFT BEHIND: {left}\n")));
    text
}
