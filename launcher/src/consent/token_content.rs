//! What a token is bound to: the action, its target, and who may bring the token back.

use serde_json::{Value, json};

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
