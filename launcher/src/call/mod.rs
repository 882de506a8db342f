//! One call of a tool.

mod call_context;
mod failure_backoff;

pub use call_context::CallContext;
pub use failure_backoff::FailureBackoff;
