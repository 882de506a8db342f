//! `Consent`: the prompt, the tokens, the answer of the host's user, and an open question, for the consent to the
//! action of one call.

use std::sync::{Arc, Mutex, PoisonError};

use super::prompt::{ConsentAnswer, HostAnswer, PendingQuestion, Prompt};
use super::tokens::{TOKEN_LIFETIME, Tokens};

/// The consent of one call.
#[derive(Clone)]
pub struct Consent {
    ask: Arc<dyn Prompt>,
    tokens: Arc<Tokens>,
    answer: Option<HostAnswer>,
    pending: Arc<Mutex<Option<PendingQuestion>>>,
}

impl Consent {
    /// Creates a consent that asks with `ask`, or that uses a token if no user can be asked.
    pub fn new(ask: Arc<dyn Prompt>, tokens: Arc<Tokens>) -> Self {
        Self { ask, tokens, answer: None, pending: Arc::default() }
    }

    /// Adds the answer of the host's user to an earlier question.
    pub fn with_answer(self, answer: Option<HostAnswer>) -> Self {
        Self { answer, ..self }
    }

    /// Returns the answer of the host's user, if this call contains an answer.
    pub fn answer(&self) -> Option<&HostAnswer> {
        self.answer.as_ref()
    }

    /// Asks the user. A yes after the lifetime of a token counts as a no, because the timer of the question stops while
    /// this computer is suspended.
    pub async fn ask(&self, plan: &str) -> ConsentAnswer {
        let asked = self.tokens.now();
        let answer = self.ask.ask(plan).await;
        let is_late = self.tokens.now().saturating_duration_since(asked) > TOKEN_LIFETIME;
        match answer {
            ConsentAnswer::Yes(_) if is_late => {
                ConsentAnswer::No("the question was open for too long, while this computer was suspended".to_owned())
            }
            answer => answer,
        }
    }

    /// Returns the tokens of this process.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Stores a question, which becomes the result of this call.
    pub fn set_pending(&self, pending: PendingQuestion) {
        *self.pending.lock().unwrap_or_else(PoisonError::into_inner) = Some(pending);
    }

    /// Takes the stored question.
    pub fn take_pending(&self) -> Option<PendingQuestion> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::consent::AlwaysYes;

    #[tokio::test]
    async fn an_agreement_after_a_suspend_is_a_no() {
        let answer = async |seconds: u64| {
            let (start, steps) = (Instant::now(), AtomicU64::new(0));
            let clock = move || start + Duration::from_secs(seconds * steps.fetch_add(1, Ordering::Relaxed));
            Consent::new(Arc::new(AlwaysYes), Arc::new(Tokens::with_clock(clock))).ask("plan").await
        };
        assert_eq!(answer(TOKEN_LIFETIME.as_secs()).await, ConsentAnswer::Yes("--yes"));
        assert!(matches!(answer(TOKEN_LIFETIME.as_secs() + 1).await, ConsentAnswer::No(_)));
    }
}
