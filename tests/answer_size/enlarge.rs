//! `enlarged`: the facts of a node with eight times the GPUs, processes and kernel lines.
//! `lengthened`: the facts of a node with long texts.

use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde_json::{Value, json};
use syringe_core::report::Report;

/// Number of copies of each GPU of a scenario.
const COPIES: u64 = 8;
/// The text that is appended to other texts. It contains quotation marks, because JSON needs two characters for each of
/// them.
const PADDING: &str = " \"padding\" é";
/// Fields with texts of tenants or drivers.
const TEXTS: [&str; 7] = ["command", "message", "name", "user", "user_name", "status_message", "why"];

static PCI: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b(0000)?0000:([0-9a-f]{2}:[0-9a-f]{2})").unwrap());
static UUID: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b(GPU|MIG)-([0-9a-f])").unwrap());

/// Returns the facts with eight copies of each GPU. Each copy has the faults of the original.
pub(crate) fn enlarged(facts: &Value) -> Option<Report> {
    let mut facts = facts.clone();
    let sections = facts.get_mut("sections")?.as_object_mut()?;
    for data in sections.values_mut().filter_map(|section| section.get_mut("data")) {
        for (name, list) in data.as_object_mut()? {
            if name == "matrix" {
                tile(list);
            } else {
                repeat(list);
            }
        }
    }
    if let Some(lines) = facts.get_mut("kernel_log") {
        repeat(lines);
    }
    lengthen(&mut facts, "");
    serde_json::from_value(facts).ok()
}

/// Returns the facts with long texts, but without more GPUs.
pub(crate) fn lengthened(facts: &Value) -> Option<Report> {
    let mut facts = facts.clone();
    lengthen(&mut facts, "");
    serde_json::from_value(facts).ok()
}

/// Appends copies of the entries that are about a GPU or a process.
fn repeat(list: &mut Value) {
    let Some(list) = list.as_array_mut() else { return };
    let originals = list.clone();
    for copy in 1..COPIES {
        list.extend(originals.iter().filter_map(|entry| {
            let mut other = entry.clone();
            shift(&mut other, "", copy);
            (other != *entry).then_some(other)
        }));
    }
}

fn tile(matrix: &mut Value) {
    let Some(rows) = matrix.as_array() else { return };
    let count = rows.len() * COPIES as usize;
    let cell = |row: usize, column: usize| if row == column { json!("X") } else { rows[0][rows.len() - 1].clone() };
    let row = |row: usize| (0..count).map(|column| cell(row, column)).collect::<Vec<_>>();
    *matrix = (0..count).map(row).collect();
}

/// Changes the identity of the GPU and of the process in an entry.
fn shift(value: &mut Value, name: &str, copy: u64) {
    match value {
        Value::String(text) => {
            let pci = PCI.replace_all(text, |found: &Captures<'_>| {
                let wide = if found.get(1).is_some() { "0000" } else { "" };
                format!("{wide}{copy:04x}:{}", &found[2])
            });
            let shifted = UUID.replace_all(&pci, |found: &Captures<'_>| {
                let digit = u64::from_str_radix(&found[2], 16).unwrap();
                format!("{}-{:x}", &found[1], (digit + copy) % 16)
            });
            *text = shifted.into_owned();
        }
        Value::Number(number) => {
            let step = match name {
                "index" | "gpu" | "gpu_index" => 8,
                "pid" => 100_000,
                _ => return,
            };
            if let Some(number) = number.as_u64() {
                *value = json!(number + copy * step);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|entry| shift(entry, name, copy)),
        Value::Object(fields) => fields.iter_mut().for_each(|(name, value)| shift(value, name, copy)),
        _ => {}
    }
}

fn lengthen(value: &mut Value, name: &str) {
    match value {
        Value::String(text) if TEXTS.contains(&name) => text.push_str(&PADDING.repeat(40)),
        Value::Array(list) => list.iter_mut().for_each(|entry| lengthen(entry, name)),
        Value::Object(fields) => fields.iter_mut().for_each(|(name, value)| lengthen(value, name)),
        _ => {}
    }
}
