//! One call of a tool.

mod context;
mod failure_backoff;

pub use context::Call;
pub use failure_backoff::FailureBackoff;
