//! Objects that are stored as JSON.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Plural name, namespace and name.
pub(crate) type JsonKey = (&'static str, String, String);

/// An object, and which of its fields the client applied.
#[derive(Clone, Debug, Default)]
pub(crate) struct JsonObject {
    pub(crate) value: Value,
    pub(crate) applied: BTreeSet<String>,
}

pub(crate) type JsonObjects = BTreeMap<JsonKey, JsonObject>;
