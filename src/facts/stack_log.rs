//! `StackLog`: the last log lines of one container of NVIDIA's software. Source: the kubelet's `/var/log/pods`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Log lines of one container, without the prefix of the runtime. The lines are untrusted data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct StackLog {
    /// UID of the pod.
    pub pod_uid: String,
    /// Name of the container.
    pub container: String,
    /// Name of the newest log file that was read, e.g. `3.log` after the third restart of the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Time of the last change of that file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<Timestamp>,
    /// The last lines of the log.
    pub lines: Vec<String>,
    /// Earlier lines about failures, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub detail_lines: Vec<String>,
}

/// Words that identify a line about a failure, in lower case.
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

/// Returns whether a line is about a failure. Such lines are kept even if they are not among the last lines.
pub fn names_failure(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    FAILURE_WORDS.iter().any(|word| line.contains(word))
}
