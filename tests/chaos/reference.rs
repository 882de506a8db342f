//! The type `Reference`: the answers of each tool without faults, with which other answers are compared.
//! `arguments`: the arguments of a call.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::actions::{self, KILL};
use super::plan::{ASKING, PROBING, Step};
use super::session::{Reply, Session};

/// The method that reads inside a pod of another owner. This method can read less than the others.
const INSIDE: &str = "ephemeral";
/// Fields of an answer that show how the node was read, not what was found.
const HOW: [&str; 2] = ["probe", "context"];

/// How often a call of a real node is sent before its error is the expected answer.
const ATTEMPTS: usize = 3;

/// The answers without faults.
#[derive(Debug, Default)]
pub(crate) struct Reference {
    /// Answers by method (whether the probe reads inside a pod), tool and state of the node (healthy or not).
    answers: BTreeMap<(bool, &'static str, bool), Value>,
    /// Whether whole answers are compared. On a real node they are not, because values change from second to second.
    whole: bool,
}

impl Reference {
    /// Creates a reference without answers.
    pub(crate) fn new(whole: bool) -> Self {
        Self { answers: BTreeMap::new(), whole }
    }

    /// Calls every tool twice. Values that differ between the two answers are not compared later.
    pub(crate) async fn ask(&mut self, session: &mut Session, node: impl Fn(bool) -> String) {
        let is_inside = session.via == INSIDE;
        for round in 0..2 {
            let pairs: Vec<_> =
                [true, false].into_iter().flat_map(|healthy| tools().map(move |tool| (healthy, tool))).collect();
            // A real node starts one pod at a time, so that its own speed is not the reason of an error.
            for group in pairs.chunks(if self.whole { pairs.len() } else { 1 }) {
                let mut calls = Vec::new();
                for (healthy, tool) in group {
                    calls.push((*healthy, *tool, session.call(tool, &arguments(tool, &node(*healthy)))));
                }
                for (healthy, tool, id) in calls {
                    let result = self.result(session, id, tool, &node(healthy)).await;
                    let answer = comparable(&result["structuredContent"], &node(healthy));
                    match self.answers.get_mut(&(is_inside, tool, healthy)) {
                        Some(first) => mask_differences(first, &answer),
                        None => drop(self.answers.insert((is_inside, tool, healthy), answer)),
                    }
                }
            }
            if round == 0 {
                // Wait so that ages in seconds differ.
                tokio::time::sleep(Duration::from_millis(1_100)).await;
            }
        }
    }

    /// Returns the result of a call without faults. An error is the expected answer only if the node itself said it:
    /// a real node without GPUs has no inventory. Another error (a time limit, a connection) is that of a busy machine.
    async fn result(&self, session: &mut Session, mut id: u64, tool: &'static str, node: &str) -> Value {
        for _ in 0..ATTEMPTS {
            let reply = session.reply(id, Instant::now() + Duration::from_secs(120)).await;
            let Reply::Result(result) = reply else { panic!("{tool} without faults: {reply:?}") };
            let failed = result["isError"] == true;
            assert!(!self.whole || !failed, "{tool} without faults: {result}");
            let text = result["content"][0]["text"].as_str().unwrap_or_default();
            if !failed || text.contains("the node said: ") {
                return result;
            }
            id = session.call(tool, &arguments(tool, node));
        }
        panic!("{tool} without faults: no answer of the node in {ATTEMPTS} attempts: the machine is too busy")
    }

    /// Returns the reason why an answer is wrong. An answer that reports itself as incomplete is not wrong.
    /// `disturbed`: the kubelet was stopped during the call, so the answer may report a fault of the kubelet.
    pub(crate) fn wrong(&self, step: &Step, node: &str, answer: &Value, disturbed: bool) -> Option<String> {
        if step.tool == KILL {
            return actions::wrong(step, answer);
        }
        let expected = &self.answers[&(step.via == INSIDE, step.tool, step.healthy)];
        if expected.is_null() {
            return Some("there is an answer, but without faults there was an error".to_owned());
        }
        if step.tool == "list_gpu_nodes" {
            // The kubelets of other workers may be stopped, so only the number of nodes is compared.
            let count = |answer: &Value| answer["nodes"].as_array().map(Vec::len);
            let differs = count(expected) != count(answer) && !is_incomplete(answer);
            return differs.then(|| format!("{:?} nodes, not {:?}", count(answer), count(expected)));
        }
        let mut found = comparable(answer, node);
        mask(&mut found, expected);
        if &found == expected {
            return None;
        }
        let verdict = |value: &Value| value["verdict"].as_str().unwrap_or_default().to_owned();
        if verdict(&found) == "healthy" && verdict(expected) != "healthy" {
            let admitted = ["unknown", "not_checked", "api"].map(|field| answer[field].to_string()).join(" ");
            return Some(format!("the verdict is healthy, not {}; the answer: {admitted:.1000}", verdict(expected)));
        }
        if disturbed || (!self.whole && verdict(&found) == verdict(expected)) {
            return None;
        }
        let admits = verdict(&found) == "unknown" || is_incomplete(answer);
        (!admits).then(|| format!("differs: {}", difference(expected, &found, "")))
    }
}

/// Returns whether an answer reports that something could not be read.
fn is_incomplete(answer: &Value) -> bool {
    ["unknown", "not_checked", "not_read", "problems", "failed", "errors", "notes", "note", "limits"].iter().any(
        |field| match &answer[*field] {
            Value::Array(list) => !list.is_empty(),
            Value::Object(fields) => !fields.is_empty(),
            Value::String(text) => !text.is_empty(),
            _ => false,
        },
    )
}

fn tools() -> impl Iterator<Item = &'static str> {
    PROBING.into_iter().chain(ASKING)
}

/// Returns the arguments of a call.
pub(crate) fn arguments(tool: &str, node: &str) -> Value {
    match tool {
        "list_gpu_nodes" => serde_json::json!({}),
        _ => serde_json::json!({"node_name": node}),
    }
}

fn comparable(answer: &Value, node: &str) -> Value {
    let mut answer = answer.clone();
    if let Some(fields) = answer.as_object_mut() {
        for how in HOW {
            fields.shift_remove(how);
        }
        // These entries belong to `probe`, which is not compared.
        if let Some(Value::Array(quoted)) = fields.get_mut("quoted") {
            quoted.retain(|field| field != "note" && field != "left_behind");
        }
    }
    replace(&mut answer, node);
    answer
}

/// Replaces the name of the node, which differs between workers.
fn replace(value: &mut Value, node: &str) {
    match value {
        Value::String(text) => *text = text.replace(node, "NODE"),
        Value::Array(list) => list.iter_mut().for_each(|value| replace(value, node)),
        Value::Object(fields) => fields.values_mut().for_each(|value| replace(value, node)),
        _ => {}
    }
}

/// Sets values that differ to null.
fn mask_differences(one: &mut Value, other: &Value) {
    match (one, other) {
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            one.iter_mut().zip(other).for_each(|(one, other)| mask_differences(one, other));
        }
        (Value::Object(one), Value::Object(other)) => {
            for (name, value) in one {
                mask_differences(value, other.get(name).unwrap_or(&Value::Null));
            }
        }
        (one, other) if one != other => *one = Value::Null,
        _ => {}
    }
}

/// Sets a value to null if the value at the same path in `pattern` is null.
fn mask(value: &mut Value, pattern: &Value) {
    match (value, pattern) {
        (value, Value::Null) => *value = Value::Null,
        (Value::Array(list), Value::Array(pattern)) => {
            list.iter_mut().zip(pattern).for_each(|(value, pattern)| mask(value, pattern));
        }
        (Value::Object(fields), Value::Object(pattern)) => {
            for (name, value) in fields {
                if let Some(pattern) = pattern.get(name) {
                    mask(value, pattern);
                }
            }
        }
        _ => {}
    }
}

/// Returns the first difference, with its path.
fn difference(expected: &Value, found: &Value, path: &str) -> String {
    match (expected, found) {
        (Value::Object(one), Value::Object(other)) => {
            let names = one.keys().chain(other.keys().filter(|name| !one.contains_key(*name)));
            for name in names {
                let (one, other) = (one.get(name).unwrap_or(&Value::Null), other.get(name).unwrap_or(&Value::Null));
                if one != other {
                    return difference(one, other, &format!("{path}/{name}"));
                }
            }
            String::new()
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            let at = one.iter().zip(other).position(|(one, other)| one != other).unwrap_or_default();
            difference(&one[at], &other[at], &format!("{path}/{at}"))
        }
        _ => {
            let short = |value: &Value| value.to_string().chars().take(300).collect::<String>();
            format!("{path}: expected {}, found {}", short(expected), short(found))
        }
    }
}
