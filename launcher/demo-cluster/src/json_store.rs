//! `JsonObject`, `JsonKey`: an object that is stored as JSON, and its key.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Plural name, namespace and name.
pub(crate) type JsonKey = (&'static str, String, String);

/// An object, and the fields that the client applied.
#[derive(Clone, Debug, Default)]
pub(crate) struct JsonObject {
    pub(crate) value: Value,
    pub(crate) applied: BTreeSet<String>,
}

pub(crate) type JsonObjects = BTreeMap<JsonKey, JsonObject>;
