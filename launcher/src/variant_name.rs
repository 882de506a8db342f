//! One word for one thing: what a table says is what the JSON says.

use serde::Serialize;

/// The word by which a value without data goes into an answer: `fatal`, `off_bus`.
pub(crate) fn word(value: impl Serialize) -> String {
    let json = serde_json::to_value(value).ok();
    json.and_then(|json| Some(json.as_str()?.to_owned())).unwrap_or_default()
}
