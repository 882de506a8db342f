//! `Tokens`: issues and redeems random tokens, each bound to one action (`OpenToken`), in the memory of this process
//! only. `TOKEN_LIFETIME`: how long a token is valid.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lifetime of a token: long enough to read the plan, and too short for the node to change much.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(120);
/// Maximum number of open tokens. If there are more, the oldest token is dropped.
const MAX_TOKENS: usize = 64;
/// Length of a token in bytes: long enough that a token cannot be guessed.
const BYTES: usize = 16;

type Clock = Box<dyn Fn() -> Instant + Send + Sync>;

pub struct Tokens {
    clock: Clock,
    open: Mutex<HashMap<String, OpenToken>>,
}

/// An open token: its binding, the plan that was shown, and its expiry.
#[derive(Clone, Debug)]
pub struct OpenToken {
    content: String,
    /// The plan that was shown, in plain words.
    pub plan: String,
    until: Instant,
}

impl Default for Tokens {
    fn default() -> Self {
        Self::with_clock(crate::clock::now)
    }
}

impl Tokens {
    /// Creates tokens with another clock, for tests.
    pub fn with_clock(clock: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        Self { clock: Box::new(clock), open: Mutex::default() }
    }

    /// Returns the current time, with which the expiry of tokens is compared.
    pub(super) fn now(&self) -> Instant {
        (self.clock)()
    }

    /// Creates a token for `content`, with the plan that was shown.
    ///
    /// # Errors
    /// Returns a text with the reason if this system has no random numbers.
    pub fn issue(&self, content: String, plan: &str) -> Result<String, String> {
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes).map_err(|error| format!("the system has no random numbers: {error}"))?;
        let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let now = (self.clock)();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, granted| granted.until > now);
        if open.len() >= MAX_TOKENS
            && let Some(oldest) = open.iter().min_by_key(|(_, granted)| granted.until).map(|(token, _)| token.clone())
        {
            open.remove(&oldest);
        }
        open.insert(token.clone(), OpenToken { content, plan: plan.to_owned(), until: now + TOKEN_LIFETIME });
        Ok(token)
    }

    /// Redeems a token. The token is invalid afterwards, even if the content did not match.
    ///
    /// # Errors
    /// Returns a text with the reason why the token is not valid.
    pub fn redeem(&self, token: &str, content: &str) -> Result<OpenToken, String> {
        let now = (self.clock)();
        let granted = self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(token);
        match granted {
            None => Err("the token is unknown: it was used before, expired, or is from another process".to_owned()),
            Some(granted) if granted.until <= now => {
                Err(format!("the token has expired: it was valid for {} s", TOKEN_LIFETIME.as_secs()))
            }
            Some(granted) if granted.content != content => {
                Err("the token is for other content: another tool, node or argument".to_owned())
            }
            Some(granted) => Ok(granted),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Creates tokens with a clock that the test controls.
    fn tokens() -> (Tokens, Arc<AtomicU64>) {
        let (start, seconds) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let hand = seconds.clone();
        (Tokens::with_clock(move || start + Duration::from_secs(hand.load(Ordering::Relaxed))), seconds)
    }

    #[test]
    fn a_token_is_valid_once() {
        let (tokens, _) = tokens();
        let token = tokens.issue("kill 7".into(), "the plan").expect("randomness");
        assert_eq!(token.len(), 2 * BYTES);
        assert_eq!(tokens.redeem(&token, "kill 7").expect("good").plan, "the plan");
        assert!(tokens.redeem(&token, "kill 7").is_err());
    }

    #[test]
    fn a_token_for_other_content_is_refused_and_dropped() {
        let (tokens, _) = tokens();
        let token = tokens.issue("kill 7".into(), "").expect("randomness");
        assert!(tokens.redeem(&token, "kill 8").expect_err("other").contains("other content"));
        assert!(tokens.redeem(&token, "kill 7").is_err(), "a wrong attempt also uses up the token");
    }

    #[test]
    fn a_token_is_valid_for_two_minutes() {
        let (tokens, seconds) = tokens();
        let first = tokens.issue("a".into(), "").expect("randomness");
        let second = tokens.issue("a".into(), "").expect("randomness");
        seconds.store(119, Ordering::Relaxed);
        assert!(tokens.redeem(&first, "a").is_ok());
        seconds.store(120, Ordering::Relaxed);
        assert!(tokens.redeem(&second, "a").expect_err("late").contains("expired"));
    }

    #[test]
    fn the_number_of_open_tokens_is_bounded() {
        let (tokens, _) = tokens();
        let all: Vec<String> =
            (0..MAX_TOKENS + 10).map(|_| tokens.issue("a".into(), "").expect("randomness")).collect();
        assert_eq!(tokens.open.lock().expect("ours").len(), MAX_TOKENS);
        assert!(tokens.redeem(all.last().expect("some"), "a").is_ok());
    }
}
