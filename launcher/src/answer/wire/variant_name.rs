//! `variant_name`: the name of an enum variant in JSON. Tables use the same names as JSON.

use serde::Serialize;

/// Returns the serialized name of a variant without data: `fatal`, `off_bus`.
pub(crate) fn variant_name(value: impl Serialize) -> String {
    let json = serde_json::to_value(value).ok();
    json.and_then(|json| Some(json.as_str()?.to_owned())).unwrap_or_default()
}
