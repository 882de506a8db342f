//! `AuditLine`: one line of the audit log about an event (`AuditEvent`), which defines the format of the file.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use syringe_macros::omit;

/// The event that a line records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditEvent {
    /// A probe read a node.
    #[default]
    Probe,
    /// An action starts. This line is written before the pod of the action exists.
    ActionStarted,
    /// An action finished or failed.
    ActionEnded,
    /// A person declined the action.
    ActionDeclined,
    /// The consent was not valid.
    ActionRefused,
    /// The state of nodes was saved into an archive.
    Saved,
    /// A leftover object was deleted or could not be deleted. The object is from an earlier launcher, or appeared
    /// after the launcher had stopped waiting for its creation.
    Sweep,
}

#[omit(Option, !time)]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditLine {
    /// Time at which the line was written.
    pub time: Option<Timestamp>,
    pub event: AuditEvent,
    pub context: String,
    /// Address of the API server.
    pub server: String,
    /// User of the kubeconfig.
    pub user: Option<String>,
    pub node: String,
    /// Tool for which the probe ran.
    pub tool: String,
    /// Arguments of the tool. For a probe, the arguments of `node-probe`.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub arguments: Value,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod. Absent before the pod is created, and if no pod was created.
    pub pod: Option<String>,
    /// Name of the ephemeral container in this pod. Absent for a probe pod.
    pub container: Option<String>,
    /// The probe method that created the pod.
    pub via: Option<String>,
    /// The image that ran.
    pub image: Option<String>,
    /// UID of the pod.
    pub pod_uid: Option<String>,
    /// The plan that was shown.
    pub plan: Option<String>,
    /// Who consented, and how: `user (elicitation)`, `token`, `--yes`, …
    pub consent: Option<String>,
    pub outcome: Option<String>,
    /// Whether the object of the pod is certainly deleted.
    #[serde(alias = "removed")]
    pub deleted: Option<bool>,
    /// Duration of the probe or the action.
    pub duration_ms: Option<u64>,
}
