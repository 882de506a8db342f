//! The failure of a call: what failed, why, and the next step.

use std::fmt;

use kube::client::AuthError;
use serde_json::{Value, json};

/// A failed call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What failed, with the names of the objects.
    pub what: String,
    /// The cause, with the message of the component that failed or refused.
    pub why: String,
    /// What to do next.
    pub next_step: String,
    /// What is or may be left on the cluster.
    pub left_behind: Option<String>,
    /// Whether a probe pod was created for the call and its object is certainly deleted. Its container ends a moment later.
    pub deleted: bool,
    /// A process of the probe that is known to stay on the node, and how to find it.
    pub process_left: Option<String>,
    /// Whether an action was sent to the node, so that it may have been done.
    pub may_have_acted: bool,
    /// Why this probe method does not work here, if that is the cause.
    pub obstacle: Option<RejectionReason>,
    /// The probe method that failed.
    pub via: Option<&'static str>,
    /// Which nodes are expected to fail in the same way.
    pub scope: Scope,
    /// Whether the arguments or the settings are not valid, so that nothing was tried.
    pub is_usage: bool,
}

/// Why a probe method does not work on a cluster or node. What is busy, late or cancelled is none of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RejectionReason {
    /// This policy of the cluster denies the probe. `next_step` says what an administrator can change.
    Policy(String),
    /// The namespace of the probes does not exist.
    Namespace,
    /// The user may not create the pod.
    CreateForbidden,
    /// A proxy between here and the API server refuses websockets.
    Websockets,
    /// No exec was answered: by a proxy that drops websockets, or by a node that hangs.
    ExecUnanswered,
    /// The user may not exec.
    ExecForbidden,
    /// The user may not read logs.
    LogForbidden,
    /// The node does not have the image of the probe, and cannot pull it.
    Image,
    /// node-probe cannot be uploaded to this node: no image to run it in, or no program for its architecture.
    Upload,
    /// No method is left (`--via auto`).
    NoMethod,
}

/// Which nodes a failure is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// This node, as far as is known.
    Node,
    /// Every node: a permission, the namespace or the image is missing.
    Cluster,
}

impl Failure {
    /// A failure that leaves nothing behind.
    pub fn new(what: impl Into<String>, why: impl fmt::Display, next_step: impl Into<String>) -> Self {
        let why = syringe_core::text::clean(&why.to_string(), 600);
        Self {
            what: what.into(),
            why,
            next_step: next_step.into(),
            left_behind: None,
            deleted: false,
            process_left: None,
            may_have_acted: false,
            obstacle: None,
            via: None,
            scope: Scope::Node,
            is_usage: false,
        }
    }

    /// A failure of arguments or settings that are not valid.
    pub fn usage(what: impl Into<String>, why: impl fmt::Display, next_step: impl Into<String>) -> Self {
        Self { is_usage: true, ..Self::new(what, why, next_step) }
    }

    /// The failure as JSON, for a program that asked for JSON.
    pub fn to_json(&self) -> Value {
        let Self { what, why, next_step, left_behind, deleted, process_left, .. } = self;
        json!({
            "error": format!("{what}: {}", why.trim_end_matches('.')),
            "next_step": next_step,
            "probe": { "deleted": deleted, "left_behind": left_behind, "process_left": process_left },
        })
    }

    /// The same, with another next step.
    pub fn with_next_step(self, next_step: &str) -> Self {
        Self { next_step: next_step.to_owned(), ..self }
    }

    /// The same, with what could not be removed.
    pub fn leaving(mut self, left_behind: Option<String>) -> Self {
        self.left_behind = left_behind;
        self
    }

    /// The same, with whether the probe is deleted.
    pub fn deleted(mut self, deleted: bool) -> Self {
        self.deleted = deleted;
        self
    }

    /// The same, with an obstacle that another probe method may avoid.
    pub fn because_of(mut self, obstacle: RejectionReason) -> Self {
        self.obstacle = Some(obstacle);
        self
    }

    /// The same for an action that was sent to its node: it may have been done.
    pub fn of_sent_action(self) -> Self {
        let why = format!("{}; the action was sent to the node and may have been done", self.why.trim_end_matches('.'));
        let next_step = "Do not repeat it before you know the state of the node.".to_owned();
        Self { why, next_step, may_have_acted: true, ..self }
    }

    /// The same, with what the node said after the action, and how to find out what happened.
    pub fn with_state_afterwards(self, node: &str, state: &str) -> Self {
        let why = format!("{}; {state}", self.why.trim_end_matches('.'));
        let next_step = format!(
            "Do not repeat it before you know what happened: run diagnose_gpu_node for node {node} and compare the health, the \
             kernel log and the processes of the GPU with the plan. The audit log (gpu-syringe audit) has the action. A new call \
             makes a new plan from the state of the node, and asks for consent again."
        );
        Self { why, next_step, ..self }
    }

    /// The same for a failure that every node would have.
    pub fn cluster_wide(mut self) -> Self {
        self.scope = Scope::Cluster;
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, why, next_step, left_behind, deleted, process_left, .. } = self;
        let why = why.trim_end_matches('.');
        write!(formatter, "{what}: {why}.\nNext step: {next_step}")?;
        match left_behind {
            Some(left) => write!(formatter, "\nLeft behind: {left}")?,
            None if *deleted => write!(formatter, "\nThe probe pod was deleted.")?,
            None => {}
        }
        process_left.as_ref().map_or(Ok(()), |left| write!(formatter, "\nStill on the node: {left}"))
    }
}

impl std::error::Error for Failure {}

/// How the reason of a failed credential plugin begins.
pub const PLUGIN: &str = "the credential plugin";

/// The reason of a failed credential plugin. kube's message has its environment, arguments and output, which may contain a
/// credential.
fn plugin_reason(error: &AuthError) -> Option<String> {
    match error {
        AuthError::AuthExecRun { out, .. } => Some(format!("{PLUGIN} failed with {}", out.status)),
        AuthError::AuthExecStart(error) => Some(format!("{PLUGIN} could not be started: {}", error.kind())),
        AuthError::AuthExecParse(_) | AuthError::AuthExec(_) | AuthError::ParseTokenKey(_) => {
            Some(format!("{PLUGIN} printed no valid credential"))
        }
        _ => None,
    }
}

/// The first authentication error of a chain.
fn sign_in_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a AuthError> {
    std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref())
}

/// The message of the API server, or else the chain of causes.
pub fn kube_reason(error: &kube::Error) -> String {
    if let Some(reason) = sign_in_error(error).and_then(plugin_reason) {
        return reason;
    }
    if let kube::Error::Api(status) = error {
        let message = if status.message.is_empty() { &status.reason } else { &status.message };
        return format!("{message} (HTTP {})", status.code);
    }
    let mut reason = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        let text = next.to_string();
        if !reason.contains(&text) {
            reason = format!("{reason}: {text}");
        }
        cause = next.source();
    }
    reason
}
