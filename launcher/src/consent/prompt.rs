//! `Prompt`: the trait that asks a person for consent to a plan. `AlwaysYes` (`--yes`), `NoPrompt`: prompts without a
//! person. `ConsentAnswer`, `HostAnswer`, `PendingQuestion`: the answers, and a question that the host asks.

use futures_util::future::BoxFuture;

/// The result of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsentAnswer {
    /// A person agreed. The text describes how, for example by `--yes`.
    Yes(&'static str),
    /// A person declined or did not answer, for this reason.
    No(String),
    /// No person can be asked.
    Nobody,
    /// The question is sent as the result of the call. The host asks the user and calls again.
    Deferred,
}

/// A way to ask the user.
pub trait Prompt: Send + Sync {
    /// Asks whether the plan may be carried out.
    fn ask<'a>(&'a self, plan: &'a str) -> BoxFuture<'a, ConsentAnswer>;
}

/// The prompt for `--yes`, which agrees to every plan.
pub struct AlwaysYes;

impl Prompt for AlwaysYes {
    fn ask<'a>(&'a self, _: &'a str) -> BoxFuture<'a, ConsentAnswer> {
        Box::pin(async { ConsentAnswer::Yes("--yes") })
    }
}

/// The prompt for hosts that cannot ask their user.
pub struct NoPrompt;

impl Prompt for NoPrompt {
    fn ask<'a>(&'a self, _: &'a str) -> BoxFuture<'a, ConsentAnswer> {
        Box::pin(async { ConsentAnswer::Nobody })
    }
}

/// The answer of the host's user, with the token of the question.
#[derive(Clone, Debug)]
pub struct HostAnswer {
    /// The token that was sent with the question.
    pub token: String,
    /// Whether the user agreed.
    pub accepted: bool,
}

/// A question to the user, which is part of the result of a tool call.
#[derive(Clone, Debug)]
pub struct PendingQuestion {
    /// Token that the host sends back with the user's answer.
    pub token: String,
    /// The plan in plain words.
    pub plan: String,
}
