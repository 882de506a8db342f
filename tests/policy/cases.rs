//! The type `Case`: a hostile request from a YAML file in `hostile/`, and functions that build the request.
//!
//! A file contains only the difference from a genuine request of the launcher, so this difference must be the reason for
//! the rejection.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

/// Name of the existing pod to which `update` and subresource requests apply.
#[allow(dead_code, reason = "for the tests with a real cluster")]
pub(crate) const POD: &str = "gpu-syringe-hostilepod";

/// One hostile request.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// Name of the file.
    #[serde(skip)]
    pub(crate) name: String,
    /// What the request tries, in a few words.
    pub(crate) tries: String,
    /// A part of the message of the rejection.
    pub(crate) refused: String,
    /// Whether the user may act (`create actions.gpu-syringe.dev`).
    #[serde(default)]
    #[allow(dead_code, reason = "an administrator has all rights on a real cluster")]
    pub(crate) operator: bool,
    /// Other values of the variables of the policy.
    #[serde(default)]
    pub(crate) values: Value,
    /// Whether an API server drops the field if its feature gate is off. The pod without the field is genuine.
    #[serde(default)]
    #[allow(dead_code, reason = "for the tests with a real cluster")]
    pub(crate) gated: bool,
    /// Whether the API server rejects the request before any policy, because an object does not exist or does not match.
    #[serde(default)]
    #[allow(dead_code, reason = "for the tests with a real cluster")]
    pub(crate) first: bool,
    /// Whether the genuine pod is created with `--runtime-class nvidia`.
    #[serde(default)]
    pub(crate) plain: bool,
    /// The hostile request.
    #[serde(flatten)]
    pub(crate) attempt: Attempt,
}

/// The kind of a hostile request. Changes are JSON merge patches (RFC 7386).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Attempt {
    /// A pod that differs from a genuine one.
    Pod(Value),
    /// A pod whose container differs from a genuine container.
    Container(Value),
    /// A pod with one more container.
    MoreContainers(Value),
    /// An exec with this command in the container `probe`.
    Exec(Vec<String>),
    /// An exec that differs from a genuine one.
    ExecOptions(Value),
    /// A change of an existing genuine pod.
    Update(Value),
    /// A subresource of a genuine pod.
    Subresource(Subresource),
}

/// A request to a subresource.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Subresource {
    pub(crate) name: String,
    /// `UPDATE`, `CONNECT` or `CREATE`.
    pub(crate) operation: String,
    /// A change of the pod, the options of a connection, or the object.
    #[serde(default)]
    pub(crate) object: Value,
}

/// Returns all cases, sorted by file name.
pub(crate) fn all() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/policy/hostile");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        let case: Case = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Case { name: path.file_stem().unwrap().to_string_lossy().into_owned(), ..case }
    };
    files.iter().map(read).collect()
}

/// Applies a JSON merge patch.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        if !patch.is_null() {
            *target = patch.clone();
        }
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in fields {
        match value {
            Value::Null => drop(target.as_object_mut().unwrap().remove(name)),
            value => merge(target.as_object_mut().unwrap().entry(name).or_insert(Value::Null), value),
        }
    }
}

impl Case {
    /// Returns the pod of the request, for requests that contain a pod.
    pub(crate) fn pod(&self, genuine: &Value) -> Option<Value> {
        let mut pod = genuine.clone();
        match &self.attempt {
            Attempt::Pod(change) => merge(&mut pod, change),
            Attempt::Container(change) => merge(&mut pod["spec"]["containers"][0], change),
            Attempt::MoreContainers(more) => pod["spec"]["containers"].as_array_mut().unwrap().push(more.clone()),
            _ => return None,
        }
        Some(pod)
    }

    /// Returns the options of the launcher's exec, with the difference of this case.
    pub(crate) fn exec(&self) -> Option<Value> {
        let mut options = exec(&["node-probe", "all"]);
        match &self.attempt {
            Attempt::Exec(words) => options["command"] = json!(words),
            Attempt::ExecOptions(change) => merge(&mut options, change),
            _ => return None,
        }
        Some(options)
    }
}

/// Returns the options of an exec as the launcher requests it.
pub(crate) fn exec(words: &[&str]) -> Value {
    json!({
        "kind": "PodExecOptions", "apiVersion": "v1", "stdin": true, "stdout": true, "stderr": true,
        "container": "probe", "command": words,
    })
}
