//! Asks a person for consent to a plan: the ways to ask, and the answers.

use futures_util::future::BoxFuture;

/// The result of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsentAnswer {
    /// A person agreed, in this way.
    Yes(&'static str),
    /// A person declined or did not answer, for this reason.
    No(String),
    /// No person can be asked.
    Nobody,
    /// The question is sent as the answer of the call, and the host calls again.
    Deferred,
}

/// A way to ask the user.
pub trait Prompt: Send + Sync {
    /// Asks whether the plan may be carried out.
    fn ask<'a>(&'a self, plan: &'a str) -> BoxFuture<'a, ConsentAnswer>;
}

/// The command line's `--yes`.
pub struct AlwaysYes;

impl Prompt for AlwaysYes {
    fn ask<'a>(&'a self, _: &'a str) -> BoxFuture<'a, ConsentAnswer> {
        Box::pin(async { ConsentAnswer::Yes("--yes") })
    }
}

/// For hosts that cannot ask their user.
pub struct NoPrompt;

impl Prompt for NoPrompt {
    fn ask<'a>(&'a self, _: &'a str) -> BoxFuture<'a, ConsentAnswer> {
        Box::pin(async { ConsentAnswer::Nobody })
    }
}

/// The answer of the host's user, with the token of the question.
#[derive(Clone, Debug)]
pub struct HostAnswer {
    /// The token that went out with the question.
    pub token: String,
    /// Whether the user agreed.
    pub accepted: bool,
}

/// A question that goes out with the answer of a call.
#[derive(Clone, Debug)]
pub struct PendingQuestion {
    /// Token that brings the answer back.
    pub token: String,
    /// The plan in plain words.
    pub plan: String,
}
