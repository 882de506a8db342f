//! One line of the audit log: the format of the file.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a line is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A node was read.
    #[default]
    Probe,
    /// An action is about to be done. Written before its pod exists.
    ActionStarted,
    /// An action was done, or tried.
    ActionEnded,
    /// An action was asked for, and somebody said no.
    ActionDeclined,
    /// An action was asked for with a consent that is not good.
    ActionRefused,
}

/// One line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Line {
    /// When it was written.
    pub time: Option<Timestamp>,
    /// What it is about.
    pub event: Event,
    /// Kubeconfig context.
    pub context: String,
    /// Address of the API server.
    pub server: String,
    /// User of the kubeconfig.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Node.
    pub node: String,
    /// Tool on whose behalf.
    pub tool: String,
    /// Its arguments; of a probe the words after `node-probe`.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub arguments: Value,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod; absent before it exists, and where none was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// UID of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// What was to be done, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Who agreed, and how: `user (elicitation)`, `token`, `--yes`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consent: Option<String>,
    /// What became of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Whether the pod is gone for certain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removed: Option<bool>,
    /// How long it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
}
