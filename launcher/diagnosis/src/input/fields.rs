//! The facts of one GPU as a flat list of fields: `telemetry.power.limit_milliwatts`.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::input::node::{Gpu, Node};

/// Values by the name of the section and the path inside the entry of the GPU. Fields without a value are absent.
pub(crate) type Fields = BTreeMap<String, Value>;

/// Returns the fields of a GPU in all sections that have an entry of it. Lists and tables with names as keys are not included:
/// they have no fixed fields.
pub(crate) fn of_gpu(node: &Node<'_>, gpu: &Gpu) -> Fields {
    let mut fields = Fields::new();
    add(&mut fields, "inventory", node.inventory_of(gpu));
    add(&mut fields, "telemetry", node.telemetry_of(gpu));
    add(&mut fields, "ecc", node.ecc_of(gpu));
    add(&mut fields, "topology", node.topology_of(gpu));
    add(&mut fields, "mig", node.mig_of(gpu));
    fields
}

fn add(fields: &mut Fields, section: &str, entry: Option<&impl Serialize>) {
    if let Some(Ok(value)) = entry.map(serde_json::to_value) {
        flatten(fields, section.to_owned(), value);
    }
}

/// Adds a value and the values below it.
pub(crate) fn flatten(fields: &mut Fields, path: String, value: Value) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                flatten(fields, format!("{path}.{name}"), value);
            }
        }
        Value::Null | Value::Array(_) => {}
        value => drop(fields.insert(path, value)),
    }
}

/// Writes a value of a field for people, with the unit of the field's name.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => crate::evidence::data(text),
        value => value.to_string(),
    }
}
