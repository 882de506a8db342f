//! `ActionAnswer`: the answer of a tool that changes a node (plan, consent, outcome, report).
//! `page`: formats the answer as text for a terminal.

use schemars::JsonSchema;
use serde::Serialize;
use syringe_macros::omit;

use crate::answer::node_page::foot;
use crate::node_reading::probe_summary::ProbeSummary;
use crate::outcome::{CommandAnswer, Outcome};
use crate::terminal::page::Page;

/// The answer of a tool that changes a node. `T` is the report of the node.
#[omit(Option, !action)]
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ActionAnswer<T> {
    /// `awaiting_consent`, `declined`, `refused`, or the outcome of the action. With `awaiting_consent` nothing was done: see
    /// `terminal_command` or `token`.
    #[schemars(extend("x-text" = "own"))]
    pub outcome: String,
    /// Summary in one or two sentences.
    pub summary: String,
    /// The plan in plain words, to be shown to the user.
    #[schemars(extend("x-text" = "whole"))]
    pub plan: String,
    /// Command that the user runs in a terminal to see the plan again and carry it out.
    #[schemars(extend("x-text" = "own"))]
    pub terminal_command: Option<String>,
    /// Token for a second call with the same arguments, after the user agreed to the plan. It is valid once.
    #[schemars(extend("x-text" = "own"))]
    pub token: Option<String>,
    /// How long the token is valid.
    pub token_valid_seconds: Option<u64>,
    /// Who agreed to the plan, and how.
    pub consent: Option<String>,
    /// The report of the node about the action: the state before and after.
    pub action: Option<T>,
    /// The probe that returned the report.
    pub probe: Option<ProbeSummary>,
    /// Whether the action was done.
    #[serde(skip)]
    #[schemars(skip)]
    pub(super) is_done: bool,
}

impl<T> CommandAnswer for ActionAnswer<T> {
    fn outcome(&self) -> Outcome {
        if self.is_done { Outcome::NothingFound } else { Outcome::NotDone }
    }

    fn names(&self) -> Vec<String> {
        self.probe.iter().map(|probe| format!("node/{}", probe.node)).collect()
    }
}

pub(super) fn page<T>(answer: &ActionAnswer<T>) -> Page {
    let ActionAnswer { outcome, summary, plan, terminal_command, consent, probe, .. } = answer;
    let mut text = Page::from(format!("{}  {summary}\n\n{plan}\n", outcome.to_uppercase().replace('_', " ")));
    if let Some(command) = terminal_command {
        text.push_str("\n");
        text.push_command(command);
    }
    if let Some(how) = consent {
        text.push_str(&format!("\nagreed by: {how}\n"));
    }
    if let Some(note) = probe {
        text.push_str(&foot(note));
    }
    text
}
