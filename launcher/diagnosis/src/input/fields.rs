//! `of_gpu`, `add`: the facts of a GPU as a flat list of fields (`Fields`), for example
//! `telemetry.power.limit_milliwatts`. `of_schema`: the fields of a type. `text`: formats a value.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use crate::input::node::{Gpu, Node};
use syringe_core::facts::Availability;
use syringe_core::section_name::SectionName;

/// Values by the name of the section and the path inside the entry of the GPU. Fields without a value are absent.
pub(crate) type Fields = BTreeMap<String, Value>;

/// Returns the fields of a GPU from all sections that have an entry for the GPU. Lists are not included. For NVLinks,
/// only their number and their smallest values are included.
pub(crate) fn of_gpu(node: &Node<'_>, gpu: &Gpu) -> Fields {
    let mut fields = Fields::new();
    add(&mut fields, "inventory", node.inventory_of(gpu));
    add(&mut fields, "telemetry", node.telemetry_of(gpu));
    add(&mut fields, "ecc", node.ecc_of(gpu));
    add(&mut fields, "topology", node.topology_of(gpu));
    add(&mut fields, "mig", node.mig_of(gpu));
    let rows = node.ecc_of(gpu).and_then(|ecc| ecc.remapped_rows.as_ref()?.histogram.as_ref());
    if let Some(rows) = rows {
        // The sum is the number of banks, which is the same for all GPUs of a model.
        let sum = [rows.max, rows.high, rows.partial, rows.low, rows.none].map(u64::from).iter().sum::<u64>();
        fields.insert("ecc.remapped_rows.histogram.sum".to_owned(), sum.into());
    }
    let has_unread_links = gpu
        .index
        .is_some_and(|index| node.availability(SectionName::Topology, index, "nvlinks") == Availability::Unread);
    if let Some(topology) = node.topology_of(gpu).filter(|_| !has_unread_links) {
        let links = &topology.nvlinks;
        let count = links.iter().map(|group| group.links.len()).sum::<usize>();
        let mut computed = |name: &str, value: Value| drop(fields.insert(format!("topology.{name}"), value));
        computed("nvlinks.count", count.into());
        let versions: BTreeSet<u32> = links.iter().filter_map(|group| group.version).collect();
        let speeds: BTreeSet<u32> = links.iter().filter_map(|group| group.speed_megabytes_per_second).collect();
        for (name, values) in [("nvlinks.version", versions), ("nvlinks.speed_megabytes_per_second", speeds)] {
            if let Some(least) = values.first() {
                computed(name, (*least).into());
            }
        }
        if !topology.pcie_path.is_empty() {
            computed("pcie_path.length", topology.pcie_path.len().into());
        }
        for (at, hop) in topology.pcie_path.iter().take(2).enumerate() {
            add(&mut fields, &format!("topology.pcie_path.{at}"), Some(hop));
        }
    }
    fields
}

/// Adds the values of an entry under the path. Lists are not included.
pub(crate) fn add(fields: &mut Fields, path: &str, entry: Option<&impl Serialize>) {
    let value = entry.map(serde_json::to_value);
    debug_assert!(!matches!(value, Some(Err(_))), "{path}: {value:?}");
    if let Some(Ok(value)) = value {
        add_value(fields, path.to_owned(), value);
    }
}

fn add_value(fields: &mut Fields, path: String, value: Value) {
    match value {
        Value::Object(members) => {
            members.into_iter().for_each(|(name, value)| add_value(fields, format!("{path}.{name}"), value));
        }
        Value::Array(_) | Value::Null => {}
        value => drop(fields.insert(path, value)),
    }
}

/// Formats the value of a field for readers. The unit comes from the name of the field.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => crate::evidence::data(text),
        value => value.to_string(),
    }
}

/// Returns the paths of all fields of a type that have a single value. Lists and maps are not included.
pub(crate) fn of_schema<T: schemars::JsonSchema>() -> Vec<String> {
    let schema = schemars::SchemaGenerator::new(schemars::generate::SchemaSettings::default().with(|settings| {
        settings.inline_subschemas = true;
    }))
    .into_root_schema_for::<T>();
    let mut paths = Vec::new();
    add_paths(&mut paths, "", schema.as_value());
    paths
}

fn add_paths(paths: &mut Vec<String>, path: &str, schema: &Value) {
    // In a schema, an optional object is one of two alternatives (`anyOf`).
    let alternatives = schema.get("anyOf").and_then(Value::as_array).into_iter().flatten();
    alternatives.for_each(|one| add_paths(paths, path, one));
    let properties = schema.get("properties").and_then(Value::as_object);
    match properties {
        Some(properties) => {
            for (name, schema) in properties {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                add_paths(paths, &path, schema);
            }
        }
        None => {
            let kinds = schema.get("type").map(Value::to_string).unwrap_or_default();
            let is_value = ["integer", "number", "string", "boolean"].iter().any(|kind| kinds.contains(kind));
            if is_value && !path.is_empty() {
                paths.push(path.to_owned());
            }
        }
    }
}
