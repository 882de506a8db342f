//! `Failure`: the failed step of a call, the reason, and the next step. `Cause`: the reason as a value for the program.
//! `Policy`: a cluster policy that denies a probe. `kube_reason`, `sign_in_reason`: the reason in an error of kube, as
//! text.

use std::fmt;

use kube::client::AuthError;
use serde_json::{Value, json};

use crate::client::api_status::{foreign_response, is_not_a_status};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The step that failed, with the names of the objects.
    pub what: String,
    /// The reason, as text for the user, with the message of the component that failed or rejected the request. The
    /// program itself uses `cause`.
    pub why: String,
    pub next_step: String,
    /// The reason, as a value that the program evaluates.
    pub cause: Cause,
    /// Objects that are or may be left on the cluster.
    pub left_behind: Option<String>,
    /// Whether a probe pod was created for the call and was certainly deleted. The pod's container stops a moment
    /// later.
    pub deleted: bool,
    /// A process of the probe that is still on the node, and how to find this process.
    pub process_left: Option<String>,
    /// The probe method that failed.
    pub via: Option<&'static str>,
    /// Whether `why` quotes text that a node wrote.
    pub quotes_node: bool,
}

/// Causes that the program handles differently.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cause {
    /// Any other cause, such as a busy server, a timeout, a cancelled call, or a fault of the node or the network.
    #[default]
    Other,
    /// Arguments or settings are not valid. No request was sent.
    Usage,
    /// An action was sent to the node before the failure, so the action may have been done.
    ActionSent,
    /// The cluster rejects the request because of credentials, quota or admission plugins, regardless of the probe
    /// method.
    Refused,
    /// A policy of the cluster denies the probe. `next_step` contains what an administrator can change.
    Policy(Policy),
    /// The namespace for the probes does not exist.
    NamespaceMissing,
    /// The user has no permission to create pods.
    CreateForbidden,
    /// An unknown admission plugin denies the pod.
    AdmissionDenied,
    /// A proxy between this machine and the API server rejects websockets.
    WebsocketsRefused,
    /// No exec got a response: a proxy drops websockets, or the node hangs.
    ExecUnanswered,
    /// The user has no permission to exec.
    ExecForbidden,
    /// The user has no permission to read logs.
    LogForbidden,
    /// The node cannot pull the image now: the registry is busy or does not respond, or the reason is not known.
    ImagePull,
    /// The registry does not have the image of the probe, or denies access to it.
    ImageUnavailable,
    /// Pulling the image is not allowed, and the image is not on the node.
    ImageNotOnNode,
    /// node-probe cannot be uploaded to this node: no image can run node-probe, or there is no program for the
    /// architecture.
    Upload,
    /// The archive has the objects of the node, but no report: the node could not be probed when the archive was
    /// written.
    NoReport,
    /// No probe method works (`--via auto`).
    NoMethod { cluster_wide: bool },
}

/// A cluster policy that denies a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The name of the policy in messages, including the kind of the policy.
    pub name: String,
    pub kind: PolicyKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyKind {
    /// A policy of deploy/admission-policy.yaml.
    Shipped,
    /// A policy that denies every privileged pod in the namespace, regardless of image and node.
    EveryPrivilegedPod,
    /// A policy that may depend on the image, the node or the command.
    Unknown,
}

impl Cause {
    /// Returns whether a policy or an administrator's rule refused the request.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Policy(_) | Self::Refused)
    }

    /// Returns whether every node is expected to fail in the same way.
    pub fn is_cluster_wide(&self) -> bool {
        match self {
            Self::Refused
            | Self::NamespaceMissing
            | Self::CreateForbidden
            | Self::AdmissionDenied
            | Self::ExecForbidden
            | Self::ImagePull
            | Self::ImageUnavailable => true,
            Self::NoMethod { cluster_wide } => *cluster_wide,
            Self::Other
            | Self::Usage
            | Self::ActionSent
            | Self::Policy(_)
            | Self::WebsocketsRefused
            | Self::ExecUnanswered
            | Self::LogForbidden
            | Self::ImageNotOnNode
            | Self::Upload
            | Self::NoReport => false,
        }
    }
}

impl Cause {
    /// Returns whether only the probe failed to start. If so, the API server responds, and an answer can contain data
    /// from the API.
    pub fn leaves_kubernetes(&self) -> bool {
        matches!(
            self,
            Self::AdmissionDenied
                | Self::ImagePull
                | Self::ImageUnavailable
                | Self::ImageNotOnNode
                | Self::Upload
                | Self::NoReport
        )
    }
}

impl Failure {
    /// Creates a failure that leaves nothing behind.
    pub fn new(what: impl Into<String>, why: impl fmt::Display, next_step: impl Into<String>) -> Self {
        let why = syringe_core::text::clean(&why.to_string(), 600);
        Self {
            what: what.into(),
            why,
            next_step: next_step.into(),
            cause: Cause::Other,
            left_behind: None,
            deleted: false,
            process_left: None,
            via: None,
            quotes_node: false,
        }
    }

    /// Creates a failure for arguments or settings that are not valid.
    pub fn usage(what: impl Into<String>, why: impl fmt::Display, next_step: impl Into<String>) -> Self {
        Self::new(what, why, next_step).because_of(Cause::Usage)
    }

    pub fn is_usage(&self) -> bool {
        self.cause == Cause::Usage
    }

    /// Returns whether one message can describe both failures.
    pub fn is_like(&self, other: &Self) -> bool {
        (&self.cause, &self.why) == (&other.cause, &other.why)
    }

    /// Returns the failure as JSON, for a caller that requested JSON.
    pub fn to_json(&self) -> Value {
        let Self { what, why, next_step, left_behind, deleted, process_left, .. } = self;
        let has_probe = *deleted || left_behind.is_some() || process_left.is_some();
        json!({
            "error": format!("{what}: {}", why.trim_end_matches('.')),
            "next_step": next_step,
            // `error` can contain messages of nodes, kubelets and registries. The next step is always a text of
            // gpu-syringe.
            "quoted": ["error"],
            // Without a probe, there is nothing to delete.
            "probe": has_probe.then(|| json!({ "deleted": deleted, "left_behind": left_behind, "process_left": process_left })),
        })
    }

    /// Marks the failure as one whose `why` quotes text that a node wrote.
    #[must_use]
    pub fn quoting_the_node(self) -> Self {
        Self { quotes_node: true, ..self }
    }

    #[must_use]
    pub fn with_next_step(self, next_step: &str) -> Self {
        Self { next_step: next_step.to_owned(), ..self }
    }

    /// Sets the objects that could not be deleted.
    #[must_use]
    pub fn leaving(self, left_behind: Option<String>) -> Self {
        Self { left_behind, ..self }
    }

    /// Sets whether the probe pod is deleted.
    #[must_use]
    pub fn deleted(self, deleted: bool) -> Self {
        Self { deleted, ..self }
    }

    #[must_use]
    pub fn because_of(self, cause: Cause) -> Self {
        Self { cause, ..self }
    }

    /// Converts the failure into the failure of an action that was sent to the node and may have been done.
    #[must_use]
    pub fn of_sent_action(self) -> Self {
        let why = format!("{}; the action was sent to the node and may have been done", self.why.trim_end_matches('.'));
        let next_step = "Do not repeat the action before you know the state of the node.".to_owned();
        Self { why, next_step, cause: Cause::ActionSent, ..self }
    }

    /// Adds the state of the node after the action, and advice on how to find out what happened.
    #[must_use]
    pub fn with_state_afterwards(self, node: &str, state: &str) -> Self {
        let why = format!("{}; {state}", self.why.trim_end_matches('.'));
        let next_step = format!(
            "Do not repeat the action before you know what happened. Run diagnose_gpu_node for node {node}, and \
            compare the health, the \
             kernel log and the processes of the GPU with the plan. The audit log (gpu-syringe audit) contains the action. A new call \
             makes a new plan from the state of the node, and asks for consent again."
        );
        Self { why, next_step, ..self }
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

/// Returns why a credential plugin failed. kube's message contains the plugin's environment, arguments and output,
/// which may include a credential.
fn plugin_reason(error: &AuthError, plugin: Option<&str>) -> Option<String> {
    let plugin = plugin.map(|name| format!(" '{name}'")).unwrap_or_default();
    let outcome = match error {
        AuthError::AuthExecRun { out, .. } => format!("failed with {}", out.status),
        AuthError::AuthExecStart(error) => format!("could not be started: {}", error.kind()),
        AuthError::AuthExecParse(_) | AuthError::AuthExec(_) | AuthError::ParseTokenKey(_) => {
            "printed no valid credential".to_owned()
        }
        _ => return None,
    };
    Some(format!("the credential plugin{plugin} {outcome}"))
}

/// Returns the first authentication error in a chain of errors.
fn sign_in_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a AuthError> {
    std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref())
}

/// Returns the message of the API server, or else the chain of causes.
pub fn kube_reason(error: &kube::Error) -> String {
    sign_in_reason(error, None)
}

/// Works like [`kube_reason`], and adds the name of the credential plugin if it is known.
pub fn sign_in_reason(error: &kube::Error, plugin: Option<&str>) -> String {
    if let Some(reason) = sign_in_error(error).and_then(|error| plugin_reason(error, plugin)) {
        return reason;
    }
    if let kube::Error::Api(status) = error {
        if is_not_a_status(status) {
            return foreign_response(status);
        }
        let message = if status.message.is_empty() { &status.reason } else { &status.message };
        return format!("{message} (HTTP {})", status.code);
    }
    let chain = std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |&error| error.source());
    let texts: Vec<String> = chain.map(ToString::to_string).collect();
    let mut reason = String::new();
    for (place, text) in texts.iter().enumerate() {
        // The library's text around the cause has no information for a user.
        let wraps = WRAPPERS.iter().any(|wrapper| text.starts_with(wrapper)) && place + 1 < texts.len();
        if !wraps && !reason.contains(text) {
            reason = if reason.is_empty() { text.clone() } else { format!("{reason}: {text}") };
        }
    }
    reason
}

/// Prefixes of the messages in which the HTTP libraries wrap a cause.
const WRAPPERS: [&str; 6] = [
    "ServiceError: ",
    "HyperError: ",
    "client error (",
    "tcp connect error",
    "error trying to connect",
    "buffered service failed",
];

#[cfg(test)]
mod tests {
    use std::io;

    use super::kube_reason;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Wrapper {
        text: &'static str,
        source: io::Error,
    }

    #[test]
    fn the_reason_has_no_words_of_a_library() {
        let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, "Connection refused (os error 111)");
        for (text, reason) in [
            ("client error (Connect)", "Connection refused (os error 111)"),
            ("tcp connect error", "Connection refused (os error 111)"),
            ("the proxy answered 407", "the proxy answered 407: Connection refused (os error 111)"),
        ] {
            let error = kube::Error::Service(Box::new(Wrapper { text, source: refused() }));
            assert_eq!(kube_reason(&error), reason);
        }
        // If a wrapper has no cause, the wrapper is the only information.
        let alone = kube::Error::Service("client error (Connect)".into());
        assert_eq!(kube_reason(&alone), "client error (Connect)");
    }
}
