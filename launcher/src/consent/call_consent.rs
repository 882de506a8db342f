//! The consent of one call: how to ask for it, and the tokens and answers that belong to it.

use std::sync::{Arc, Mutex, PoisonError};

use super::prompt::{ConsentAnswer, HostAnswer, PendingQuestion, Prompt};
use super::tokens::Tokens;

/// How one call gets its consent.
#[derive(Clone)]
pub struct Consent {
    ask: Arc<dyn Prompt>,
    tokens: Arc<Tokens>,
    answer: Option<HostAnswer>,
    pending: Arc<Mutex<Option<PendingQuestion>>>,
}

impl Consent {
    /// Consent by asking `ask`, or by a token if nobody can be asked.
    pub fn new(ask: Arc<dyn Prompt>, tokens: Arc<Tokens>) -> Self {
        Self { ask, tokens, answer: None, pending: Arc::default() }
    }

    /// The same, with the answer of the host's user to an earlier question.
    pub fn with_answer(self, answer: Option<HostAnswer>) -> Self {
        Self { answer, ..self }
    }

    /// The answer of the host's user, if this call has one.
    pub fn answer(&self) -> Option<&HostAnswer> {
        self.answer.as_ref()
    }

    /// Asks.
    pub async fn ask(&self, plan: &str) -> ConsentAnswer {
        self.ask.ask(plan).await
    }

    /// The tokens of this process.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Stores a question, which is sent as the answer of this call.
    pub fn set_pending(&self, pending: PendingQuestion) {
        *self.pending.lock().unwrap_or_else(PoisonError::into_inner) = Some(pending);
    }

    /// Takes the stored question.
    pub fn take_pending(&self) -> Option<PendingQuestion> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
