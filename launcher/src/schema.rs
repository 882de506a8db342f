//! JSON Schemas of tool definitions: complete, and small.

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

use crate::{fit_answer, untrusted_text};

/// Schema of a tool's arguments.
pub(crate) fn input<T: JsonSchema>() -> Value {
    let mut schema = SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator()
        .into_root_schema_for::<T>();
    for noise in ["$schema", "title", "description"] {
        schema.remove(noise);
    }
    RecursiveTransform(drop_null_alternative).transform(&mut schema);
    schema.into()
}

/// Schema of a tool's answer, without descriptions (the names contain the units).
pub(crate) fn output<T: JsonSchema>() -> Value {
    let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut schema = generator.into_root_schema_for::<T>();
    for noise in ["$schema", "title"] {
        schema.remove(noise);
    }
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for list in [untrusted_text::QUOTED, fit_answer::TRUNCATED] {
            properties.insert(list.into(), json!({ "type": "array", "items": { "type": "string" } }));
        }
    }
    // An answer of two shapes is still an object. MCP requires the type at the root.
    schema.insert("type".into(), "object".into());
    RecursiveTransform(drop_prose).transform(&mut schema);
    schema.into()
}

/// An optional argument needs no `null` in its type.
fn drop_null_alternative(schema: &mut Schema) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|word| word != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".into(), only);
        }
    }
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
}

fn drop_prose(schema: &mut Schema) {
    schema.remove("description");
    schema.remove("format");
    schema.remove("default");
}
