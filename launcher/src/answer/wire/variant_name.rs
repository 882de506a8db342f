//! The name of an enum variant in JSON, so that tables and JSON use the same names.

use serde::Serialize;

/// The serialized name of a variant without data: `fatal`, `off_bus`.
pub(crate) fn variant_name(value: impl Serialize) -> String {
    let json = serde_json::to_value(value).ok();
    json.and_then(|json| Some(json.as_str()?.to_owned())).unwrap_or_default()
}
