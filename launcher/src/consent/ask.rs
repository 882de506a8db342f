//! Whom a plan is shown to, and what they answered.

use futures_util::future::BoxFuture;

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
