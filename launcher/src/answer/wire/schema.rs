//! `input`, `output`: create small JSON Schemas of the arguments and the answer of a tool.

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use crate::answer::wire::shape::{alternatives, resolve};
use crate::answer::wire::{fit_answer, untrusted_text};

/// Fields of most answers. The server's instructions explain them once.
const EXPLAINED_ONCE: [&str; 13] = [
    "context",
    "coverage",
    "findings",
    "checked",
    "partly_checked",
    "kubernetes",
    "node",
    "not_checked",
    "not_requested",
    "plan",
    "probe",
    "summary",
    "unknown",
];

/// Returns the schema of a tool's arguments.
pub(crate) fn input<T: JsonSchema>() -> Value {
    let mut schema = SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator()
        .into_root_schema_for::<T>();
    for noise in ["$schema", "title", "description"] {
        schema.remove(noise);
    }
    RecursiveTransform(reduce).transform(&mut schema);
    schema.into()
}

/// Returns the schema of a tool's answer: its fields, with their types and descriptions. A host sends the schema to the
/// model with every request, so the fields inside a field are left out. Every answer still matches the schema.
pub(crate) fn output(schema: &Value) -> Value {
    let none = Map::new();
    let definitions = schema["$defs"].as_object().unwrap_or(&none);
    // An answer has one shape or two alternative shapes. The schema has all fields, and requires the common fields.
    let shapes = alternatives(schema)
        .map_or_else(|| vec![schema], |all| all.iter().map(|one| resolve(one, definitions)).collect());
    let mut properties = Map::new();
    for (name, field) in shapes.iter().filter_map(|shape| shape["properties"].as_object()).flatten() {
        properties.entry(name).or_insert_with(|| outline(name, field, definitions));
    }
    for list in [untrusted_text::QUOTED, fit_answer::TRUNCATED] {
        properties.insert(list.into(), json!({ "type": "array" }));
    }
    let requires = |shape: &Value, name: &Value| shape["required"].as_array().is_some_and(|names| names.contains(name));
    let required: Vec<_> = properties
        .keys()
        .map(|name| json!(name))
        .filter(|name| shapes.iter().all(|shape| requires(shape, name)))
        .collect();
    json!({ "type": "object", "properties": properties, "required": required })
}

/// Returns the type and the description of a field, without the fields inside it.
fn outline(name: &str, field: &Value, definitions: &Map<String, Value>) -> Value {
    let mut outline = Map::new();
    let described = field["description"].as_str().or_else(|| resolve(field, definitions)["description"].as_str());
    if let Some(described) = described.filter(|_| !EXPLAINED_ONCE.contains(&name) && !name.ends_with("_omitted")) {
        outline.insert("description".into(), first_clause(described).into());
    }
    let (mut types, mut words) = (Vec::new(), Vec::new());
    collect_types(field, definitions, &mut types, &mut words);
    // A field without a value is absent.
    types.retain(|one| one != "null");
    match types.as_slice() {
        // The field can have any value.
        [] => {}
        // The enum values imply the type.
        [only] if only == "string" && !words.is_empty() => drop(outline.insert("enum".into(), words.into())),
        [only] => drop(outline.insert("type".into(), only.clone())),
        several => drop(outline.insert("type".into(), several.into())),
    }
    outline.into()
}

/// Collects the types that a field may have, and the values of an enum.
fn collect_types(field: &Value, definitions: &Map<String, Value>, types: &mut Vec<Value>, words: &mut Vec<Value>) {
    let field = resolve(field, definitions);
    if let Some(all) = alternatives(field) {
        all.iter().for_each(|one| collect_types(one, definitions, types, words));
        return;
    }
    words.extend(field["enum"].as_array().into_iter().flatten().cloned());
    words.extend(field.get("const").cloned());
    let named = match &field["type"] {
        Value::Array(several) => several.clone(),
        Value::Null => Vec::new(),
        one => vec![one.clone()],
    };
    for one in named {
        if !types.contains(&one) {
            types.push(one);
        }
    }
}

/// Returns the beginning of a description, up to the end of its first sentence, a semicolon or a colon.
fn first_clause(text: &str) -> String {
    let paragraph = text.split("\n\n").next().unwrap_or(text).replace('\n', " ");
    let end = [". ", "; ", ": "].iter().filter_map(|mark| paragraph.find(mark)).min().unwrap_or(paragraph.len());
    paragraph[..end].trim_end_matches('.').to_owned()
}

/// Removes what a caller does not need: `null` as a type or default of an optional argument, and the integer format.
fn reduce(schema: &mut Schema) {
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
    // The format is the size of an integer in this program. The limits of an argument are in `minimum` and `maximum`.
    schema.remove("format");
}
