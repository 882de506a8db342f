//! The hostile requests: one YAML file each in `hostile/`. A file says what it tries and how it differs from what the
//! launcher sends, so that nothing but the difference can be what is refused.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

/// Name of the pod that `update` and the subresources are about.
#[allow(dead_code, reason = "for the tests with a real cluster")]
pub(crate) const POD: &str = "gpu-syringe-hostilepod";

/// One hostile request.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// The file's name.
    #[serde(skip)]
    pub(crate) name: String,
    /// What it tries, in a few words.
    pub(crate) tries: String,
    /// A part of the message that refuses it.
    pub(crate) refused: String,
    /// Whether the user may act (`create actions.gpu-syringe.dev`).
    #[serde(default)]
    #[allow(dead_code, reason = "an administrator may everything on a real cluster")]
    pub(crate) operator: bool,
    /// What differs in the parameter's data.
    #[serde(default)]
    pub(crate) parameter: Value,
    /// The field is dropped by an API server on which its feature gate is off: what is left is a genuine pod.
    #[serde(default)]
    #[allow(dead_code, reason = "for the tests with a real cluster")]
    pub(crate) gated: bool,
    /// The API server itself refuses it before it asks a policy: what is named does not exist, or does not fit the rest.
    #[serde(default)]
    #[allow(dead_code, reason = "for the tests with a real cluster")]
    pub(crate) first: bool,
    /// Sent with `--runtime-class nvidia`.
    #[serde(default)]
    pub(crate) plain: bool,
    /// What is tried.
    #[serde(flatten)]
    pub(crate) attempt: Attempt,
}

/// What is tried. Changes are JSON merge patches (RFC 7386).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Attempt {
    /// A pod that differs from a genuine one.
    Pod(Value),
    /// A pod whose container differs from a genuine one's.
    Container(Value),
    /// A pod with one more container.
    MoreContainers(Value),
    /// An exec with these words in the container named probe.
    Exec(Vec<String>),
    /// An exec that differs from a genuine one.
    ExecOptions(Value),
    /// A change of a genuine pod that exists.
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
    /// A change of the pod, or the options of a connection, or the object.
    #[serde(default)]
    pub(crate) object: Value,
}

/// Every case, in the order of the files' names.
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
    /// The pod that is sent, for the attempts that send one.
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

    /// The options of an exec, as the launcher asks for it, with what differs.
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

/// An exec as the launcher asks for it.
pub(crate) fn exec(words: &[&str]) -> Value {
    json!({
        "kind": "PodExecOptions", "apiVersion": "v1", "stdin": true, "stdout": true, "stderr": true,
        "container": "probe", "command": words,
    })
}
