//! Modules for the context of one tool call, and for the nodes that are skipped after failures.

mod call_context;
mod failure_backoff;

pub use call_context::{CallContext, EarlierState};
pub use failure_backoff::FailureBackoff;
