//! `fit`: truncates every answer to the size that hosts show to a model.
//!
//! The largest list loses its last entries until the answer fits. Lists are sorted, worst entry first. A list in order
//! of time loses its oldest entries. Lists of GPUs are sorted by severity before they are truncated. `<list>_omitted`
//! counts the entries that are left out, and `truncated` names the lists.

use std::cmp::Reverse;

use serde_json::{Map, Value, json};

use crate::answer::wire::byte_budget::{MAX_SIZE, size};
use crate::answer::wire::shape::{AnswerShape, Text};

/// The field with the names of the shortened lists and texts.
pub(crate) const TRUNCATED: &str = "truncated";
/// Lengths to which texts are shortened, one after the other, if lists with one entry are still too large.
const TEXT_LENGTHS: [usize; 4] = [2000, 1000, 500, 200];
/// The share of its entries that a list loses in one step. A step removes at least one entry.
const SHARE: usize = 16;
/// The larger share, for an answer of more than twice the maximum size.
const LARGE_SHARE: usize = 2;

/// Truncates lists, then texts, until the answer fits.
pub(crate) fn fit(answer: &mut Value, shape: &AnswerShape) {
    let mut cut = Vec::new();
    loop {
        let total = total(answer, &cut);
        if total <= MAX_SIZE {
            break;
        }
        let Some(Found { path, .. }) = largest(answer, shape, &mut Vec::new()) else { break };
        if !cut.contains(&path) {
            sort_worst_first(answer, &path);
            cut.push(path.clone());
        }
        shorten(answer, shape, &path, if total > 2 * MAX_SIZE { LARGE_SHARE } else { SHARE });
    }
    for most in TEXT_LENGTHS {
        if total(answer, &cut) > MAX_SIZE {
            shorten_texts(answer, shape, most);
        }
    }
    if let (Value::Object(fields), false) = (answer, cut.is_empty()) {
        fields.insert(TRUNCATED.to_owned(), names(&cut).into());
    }
}

/// Returns the size of the answer, including the list of what was truncated.
fn total(answer: &Value, cut: &[Vec<Step>]) -> usize {
    size(answer) + size(&names(cut)) + TRUNCATED.len() + 6
}

/// A step from a value to a value inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    Index(usize),
}

/// Returns the paths without indices, each path once: `findings`, `telemetry.gpus`.
fn names(cut: &[Vec<Step>]) -> Vec<String> {
    let name = |path: &Vec<Step>| {
        let fields = path.iter().filter_map(|step| match step {
            Step::Field(name) => Some(name.as_str()),
            Step::Index(_) => None,
        });
        fields.collect::<Vec<_>>().join(".")
    };
    let mut names: Vec<_> = cut.iter().map(name).collect();
    names.sort();
    names.dedup();
    names
}

struct Found {
    path: Vec<Step>,
    size: usize,
}

/// Finds the largest list or map with more than one entry. A list within another list is found only if the outer list
/// has one entry.
fn largest(value: &Value, shape: &AnswerShape, path: &mut Vec<Step>) -> Option<Found> {
    let can_be_cut = match value {
        Value::Array(list) => list.len() > 1,
        Value::Object(map) => shape.is_map() && map.len() > 1,
        _ => false,
    };
    if can_be_cut {
        return Some(Found { path: path.clone(), size: size(value) });
    }
    let mut found: Option<Found> = None;
    let mut descend = |step: Step, inner: &Value, shape: &AnswerShape| {
        path.push(step);
        let inner = largest(inner, shape, path);
        path.pop();
        if let Some(inner) = inner
            && found.as_ref().is_none_or(|found| inner.size > found.size)
        {
            found = Some(inner);
        }
    };
    match value {
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(index, entry)| descend(Step::Index(index), entry, shape.entry()));
        }
        Value::Object(fields) => {
            for (name, inner) in fields.iter().filter(|(name, _)| !is_part_of_another(fields, name)) {
                descend(Step::Field(name.clone()), inner, shape.field_or_entry(name));
            }
        }
        _ => {}
    }
    found
}

/// Returns whether the field is truncated together with another field: the matrix of a topology has rows and columns
/// for its `gpus`.
fn is_part_of_another(fields: &Map<String, Value>, name: &str) -> bool {
    name == "matrix" && fields.get("gpus").and_then(Value::as_array).is_some_and(|gpus| gpus.len() > 1)
}

fn parent<'a>(answer: &'a mut Value, path: &[Step]) -> Option<(&'a mut Value, Step)> {
    let (last, before) = path.split_last()?;
    let mut value = answer;
    for step in before {
        value = match step {
            Step::Field(name) => value.get_mut(name)?,
            Step::Index(index) => value.get_mut(index)?,
        };
    }
    Some((value, last.clone()))
}

/// Removes a share of the entries, and adds their number to the field `<list>_omitted`. If the type of the answer has a
/// list for the keys of removed entries, adds the keys to this list.
fn shorten(answer: &mut Value, shape: &AnswerShape, path: &[Step], share: usize) {
    let Some((parent, step)) = parent(answer, path) else { return };
    let list = match &step {
        Step::Field(name) => parent.get_mut(name),
        Step::Index(index) => parent.get_mut(index),
    };
    let mut removed = 1;
    let mut key = None;
    match list {
        Some(Value::Array(list)) => {
            removed = (list.len() / share).max(1);
            if is_oldest_first(list) {
                list.drain(..removed).for_each(drop);
            } else {
                list.truncate(list.len() - removed);
            }
        }
        Some(Value::Object(map)) => key = remove_largest(map),
        _ => return,
    }
    let (Value::Object(fields), Step::Field(name)) = (parent, step) else { return };
    if name == "gpus" {
        cut_matrix(fields);
    }
    let counter = format!("{name}_omitted");
    let lists_keys = shape_of_parent(shape, path).field(&counter).is_some_and(AnswerShape::is_list);
    let omitted = fields.entry(counter).or_insert_with(|| if lists_keys { json!([]) } else { json!(0) });
    match omitted {
        Value::Array(names) => names.extend(key.map(Value::String)),
        counter => *counter = json!(counter.as_u64().unwrap_or(0) + removed as u64),
    }
}

fn shape_of_parent<'a>(shape: &'a AnswerShape, path: &[Step]) -> &'a AnswerShape {
    let before = path.split_last().map_or(path, |(_, before)| before);
    before.iter().fold(shape, |shape, step| match step {
        Step::Field(name) => shape.field_or_entry(name),
        Step::Index(_) => shape.entry(),
    })
}

/// Removes the largest entry of a map, and returns its key.
fn remove_largest(map: &mut Map<String, Value>) -> Option<String> {
    let (key, _) = map.iter().max_by_key(|(name, value)| size(name) + size(value))?;
    let key = key.clone();
    map.retain(|name, _| *name != key);
    Some(key)
}

/// Returns whether the first entry is older than the last entry.
fn is_oldest_first(list: &[Value]) -> bool {
    let time = |entry: Option<&Value>| {
        let entry = entry?;
        ["last", "time"].iter().find_map(|name| entry.get(name)?.as_str()).map(str::to_owned)
    };
    time(list.first()).zip(time(list.last())).is_some_and(|(first, last)| first < last)
}

/// Keeps the rows and columns of the remaining GPUs in the matrix.
fn cut_matrix(topology: &mut Map<String, Value>) {
    let left = topology.get("gpus").and_then(Value::as_array).map_or(0, Vec::len);
    if let Some(Value::Array(rows)) = topology.get_mut("matrix") {
        rows.truncate(left);
        rows.iter_mut().filter_map(Value::as_array_mut).for_each(|row| row.truncate(left));
    }
}

/// Sorts a list of GPUs. GPUs with the worst findings or the lowest score come first. Other lists are already sorted.
fn sort_worst_first(answer: &mut Value, path: &[Step]) {
    let findings = ["findings", "node_findings"].iter().find_map(|name| answer.get(name)?.as_array()).cloned();
    let findings = findings.unwrap_or_default();
    let Some((Value::Object(fields), Step::Field(name))) = parent(answer, path) else { return };
    if !matches!(name.as_str(), "gpus" | "affected_gpus") {
        return;
    }
    let Some(gpus) = fields.get_mut(&name).and_then(Value::as_array_mut) else { return };
    let mut order: Vec<usize> = (0..gpus.len()).collect();
    order.sort_by_key(|at| {
        let gpu = &gpus[*at];
        let worst = findings.iter().filter(|finding| is_about(&finding["scope"], gpu)).map(severity).max();
        (Reverse(worst), gpu["score"].as_u64())
    });
    let sorted = order.iter().map(|at| gpus[*at].clone()).collect();
    *gpus = sorted;
    if let Some(Value::Array(rows)) = fields.get_mut("matrix") {
        let reordered = |list: &[Value]| order.iter().filter_map(|at| list.get(*at).cloned()).collect::<Vec<_>>();
        *rows = reordered(rows);
        rows.iter_mut().filter_map(Value::as_array_mut).for_each(|row| *row = reordered(row));
    }
}

fn is_about(scope: &Value, gpu: &Value) -> bool {
    [("gpu", "index"), ("uuid", "uuid"), ("pci", "pci_address")]
        .iter()
        .any(|(of_scope, of_gpu)| !scope[of_scope].is_null() && scope[of_scope] == gpu[of_gpu])
}

fn severity(finding: &Value) -> usize {
    let words = ["info", "warning", "critical", "fatal"];
    words.iter().position(|word| finding["severity"] == *word).unwrap_or_default()
}

/// Shortens the third-party texts that are longer than `most` characters.
fn shorten_texts(value: &mut Value, shape: &AnswerShape, most: usize) {
    match value {
        Value::String(text) if shape.text() == Text::Others => {
            if let Some((at, _)) = text.char_indices().nth(most) {
                let omitted = text[at..].chars().count();
                text.truncate(at);
                text.push_str(&format!(" … ({omitted} more characters)"));
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|entry| shorten_texts(entry, shape.entry(), most)),
        Value::Object(fields) => {
            fields.iter_mut().for_each(|(name, value)| shorten_texts(value, shape.field_or_entry(name), most));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(gpu: usize, severity: &str) -> Value {
        json!({"id": "x", "severity": severity, "scope": {"gpu": gpu}})
    }

    #[test]
    fn an_answer_that_fits_stays_as_it_is() {
        let mut answer = json!({"findings": [finding(1, "fatal")], "gpus": [{"index": 0}, {"index": 1}]});
        let before = answer.clone();
        fit(&mut answer, &AnswerShape::default());
        assert_eq!(answer, before);
    }

    #[test]
    fn the_worst_gpus_stay_with_their_part_of_the_matrix() {
        let gpus: Vec<_> = (0..100).map(|index| json!({"index": index, "text": "x".repeat(900)})).collect();
        let row = |row: usize| (0..100).map(|column| json!(format!("{row}-{column}"))).collect::<Vec<_>>();
        let matrix: Vec<_> = (0..100).map(row).collect();
        let mut answer = json!({
            "findings": [finding(97, "fatal"), finding(42, "warning")], "topology": {"gpus": gpus, "matrix": matrix}
        });
        fit(&mut answer, &AnswerShape::default());
        assert!(size(&answer) <= MAX_SIZE);
        assert_eq!(answer[TRUNCATED], json!(["topology.gpus"]));
        let topology = &answer["topology"];
        let left = topology["gpus"].as_array().expect("gpus");
        assert_eq!(left.len() as u64 + topology["gpus_omitted"].as_u64().expect("a count"), 100);
        assert_eq!((&left[0]["index"], &left[1]["index"], &left[2]["index"]), (&json!(97), &json!(42), &json!(0)));
        assert_eq!(topology["matrix"][0][1], "97-42");
        let rows = topology["matrix"].as_array().expect("rows");
        assert!(rows.len() == left.len() && rows.iter().all(|row| row.as_array().map(Vec::len) == Some(left.len())));
    }

    #[test]
    fn the_newest_entries_of_a_log_stay_and_small_lists_too() {
        let event = |minute: usize| json!({"last": format!("2026-11-21T02:{minute:02}:00Z"), "raw": "x".repeat(2000)});
        let mut answer = json!({
            "events": (0..60).map(event).collect::<Vec<_>>(), "events_omitted": 5,
            "findings": (0..20).map(|gpu| finding(gpu, "warning")).collect::<Vec<_>>(),
        });
        fit(&mut answer, &AnswerShape::default());
        let events = answer["events"].as_array().expect("events");
        assert_eq!(events.last().map(|event| &event["last"]), Some(&json!("2026-11-21T02:59:00Z")));
        assert_eq!(answer["events_omitted"], 5 + 60 - events.len());
        assert_eq!(answer["findings"].as_array().map(Vec::len), Some(20));
    }

    #[test]
    fn a_single_text_that_does_not_fit_is_shortened_and_says_so() {
        let mut answer =
            json!({"summary": "é".repeat(60_000), "labels": {"a": "b"}, "findings": [["y".repeat(60_000)]]});
        fit(&mut answer, &AnswerShape::default());
        assert!(size(&answer) <= MAX_SIZE);
        assert!(answer["summary"].as_str().is_some_and(|text| text.ends_with("more characters)")), "{answer}");
    }
}
