//! Consent: an action is done to what somebody saw in a plan and agreed to, and to nothing else.
//!
//! ```text
//!   plan ─▶ Ask ─┬─ a person said yes or no (elicitation, a terminal, --yes) ─▶ act, or not
//!                ├─ the host will ask and call again (InputRequired) ─┐
//!                │                                                    ├─▶ token ─▶ second call with the token ─▶ act
//!                └─ nobody can be asked here ─┬─ --token-to-model ────┘
//!                                             └─▶ the command for the user's own terminal
//! ```
//!
//! A token is bound to what the plan was about and to who may bring it, valid two minutes, and used once, rightly or
//! wrongly. One that goes to the model is no consent of a person: the model can bring it at once.

mod command;
mod terminal;
mod tokens;

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use serde_json::{Value, json};

pub(crate) use command::for_terminal;
pub use terminal::Terminal;
pub use tokens::{Granted, LIFETIME, Tokens};

/// What came of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Somebody agreed; in which way.
    Yes(&'static str),
    /// Somebody refused, or gave no answer.
    No(String),
    /// Nobody can be asked here.
    Nobody,
    /// The question goes out with the answer, and the host calls again.
    Later,
}

/// Somebody who can be asked.
pub trait Ask: Send + Sync {
    /// Asks whether the plan may be carried out.
    fn ask<'a>(&'a self, plan: &'a str) -> BoxFuture<'a, Asked>;
}

/// The command line's `--yes`.
pub struct SaidYes;

impl Ask for SaidYes {
    fn ask<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Asked> {
        Box::pin(async { Asked::Yes("--yes") })
    }
}

/// Whoever cannot ask anybody.
pub struct NobodyToAsk;

impl Ask for NobodyToAsk {
    fn ask<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Asked> {
        Box::pin(async { Asked::Nobody })
    }
}

/// An answer that a host brings from its user, with the token of the question.
#[derive(Clone, Debug)]
pub struct HostAnswer {
    /// The token that went out with the question.
    pub token: String,
    /// Whether the user agreed.
    pub accepted: bool,
}

/// A question that goes out with the answer of a call.
#[derive(Clone, Debug)]
pub struct Pending {
    /// Token that brings the answer back.
    pub token: String,
    /// The plan in plain words.
    pub plan: String,
}

/// How one call gets its consent.
#[derive(Clone)]
pub struct Consent {
    ask: Arc<dyn Ask>,
    tokens: Arc<Tokens>,
    answer: Option<HostAnswer>,
    pending: Arc<Mutex<Option<Pending>>>,
}

impl Consent {
    /// Consent by asking `ask`, with tokens where that leads nowhere.
    pub fn new(ask: Arc<dyn Ask>, tokens: Arc<Tokens>) -> Self {
        Self { ask, tokens, answer: None, pending: Arc::default() }
    }

    /// The same, with what the host's user answered to an earlier question.
    pub fn with_answer(self, answer: Option<HostAnswer>) -> Self {
        Self { answer, ..self }
    }

    /// What the host's user answered, if this call brings it.
    pub fn answer(&self) -> Option<&HostAnswer> {
        self.answer.as_ref()
    }

    /// Asks.
    pub async fn ask(&self, plan: &str) -> Asked {
        self.ask.ask(plan).await
    }

    /// The tokens of this process.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Leaves a question for whoever sends the answer of this call.
    pub fn leave(&self, pending: Pending) {
        *self.pending.lock().unwrap_or_else(PoisonError::into_inner) = Some(pending);
    }

    /// Takes the question that was left.
    pub fn take_pending(&self) -> Option<Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Who brings a token back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bearer {
    /// The host, with its user's answer.
    Host,
    /// The model, as an argument.
    Model,
}

/// What a token is bound to: the same text means the same thing done to the same thing.
pub fn content(tool: &str, server: &str, context: &str, node: &str, arguments: &Value) -> String {
    json!([tool, server, context, node, arguments]).to_string()
}

/// The same for one bearer: what the host was given is no good as an argument.
pub(crate) fn borne(bearer: Bearer, content: &str) -> String {
    format!("{bearer:?} {content}")
}
