//! `StackLog`: the last log lines of a container of NVIDIA's software. `names_failure`: finds lines about failures.

use std::sync::LazyLock;

use jiff::Timestamp;
use syringe_macros::facts;

use crate::tsv::list;

/// Log lines of one container, without the prefix of the runtime. The lines are untrusted data.
#[facts(omit(Option, detail_lines))]
pub struct StackLog {
    /// UID of the pod.
    pub pod_uid: String,
    /// Name of the container.
    pub container: String,
    /// Name of the newest log file that was read, e.g. `3.log` after the third restart of the container.
    pub file: Option<String>,
    /// Time of the last change of the newest log file.
    pub changed_at: Option<Timestamp>,
    /// The last lines of the log.
    pub lines: Vec<String>,
    /// Earlier lines that report failures, in order.
    pub detail_lines: Vec<String>,
}

/// Words that identify a line about a failure, in lower case.
static FAILURE_WORDS: LazyLock<Vec<&str>> = LazyLock::new(|| list(include_str!("data/failure_words.tsv")).collect());

/// Returns whether a line reports a failure. Such lines are kept even if they are not among the last lines.
pub fn names_failure(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    FAILURE_WORDS.iter().any(|word| line.contains(word))
}
