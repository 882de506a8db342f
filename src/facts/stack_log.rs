//! The end of the log of one container of NVIDIA's software for Kubernetes. Source: the kubelet's folder `/var/log/pods`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Lines of one container, without the prefix of the runtime. Untrusted data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct StackLog {
    /// UID of the pod.
    pub pod_uid: String,
    /// Name of the container.
    pub container: String,
    /// The newest file that was read: `3.log` is the log after the container's third restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// When that file was last written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<Timestamp>,
    /// The last lines.
    pub lines: Vec<String>,
    /// Earlier lines about a failure, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub detail_lines: Vec<String>,
}

/// Words of a line about a failure, in lower case.
const FAILURE_WORDS: &[&str] = &[
    "error",
    "fail",
    "fatal",
    "panic",
    "cannot",
    "could not",
    "unable",
    "denied",
    "refused",
    "not found",
    "no such",
    "timed out",
    "too many",
    "incompatible",
    "in use",
    "no devices",
    "no space",
    "must be",
    "did not",
    "requires",
    "rejected",
    "invalid",
];

/// Returns whether a line is about a failure. Such lines are kept even if they are not among the last ones.
pub fn names_failure(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    FAILURE_WORDS.iter().any(|word| line.contains(word))
}
