//! `token_binding`: creates the text to which a token is bound: the action and its target.
//! `redeemer_binding`: adds to this text who may redeem the token (`Redeemer`).

use serde_json::{Value, json};

/// Who may redeem a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Redeemer {
    /// The host redeems the token, together with the answer of its user.
    Host,
    /// The model, as an argument.
    Model,
}

/// Returns the binding of a token. Equal texts mean the same action on the same target.
pub fn token_binding(tool: &str, server: &str, context: &str, node: &str, arguments: &Value) -> String {
    json!([tool, server, context, node, arguments]).to_string()
}

/// Returns the binding for one redeemer, so that the model cannot redeem a token that only the MCP host may redeem.
pub(crate) fn redeemer_binding(redeemer: Redeemer, content: &str) -> String {
    format!("{redeemer:?} {content}")
}
