//! `Manifest`, `NodeEntry`: the first file of an archive: its version and time, its nodes, and what could not be read.
//! `is_context`, `is_version`, `is_kubernetes_version`: check the texts of this file. `FORMAT_VERSION`: the version of
//! the format.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};

/// Version of the format. It is incremented when a file or a field changes its meaning or is removed.
pub const FORMAT_VERSION: u32 = 1;

/// The value of [`Manifest::format`].
pub(crate) const FORMAT: &str = "gpu-syringe archive";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The value of [`FORMAT`].
    pub format: String,
    pub format_version: u32,
    /// Version of gpu-syringe, or of node-probe for a single report.
    pub version: String,
    /// The time at which the archive was started. It is the current time for all answers from the archive.
    pub taken_at: Timestamp,
    /// Name of the kubeconfig context. Characters that are not allowed here are written as `_`.
    #[serde(serialize_with = "as_context")]
    pub context: String,
    /// Version of Kubernetes, such as `v1.36.2`. Empty if it is not known.
    #[serde(default, serialize_with = "as_kubernetes_version")]
    pub kubernetes_version: String,
    /// Whether names and identifiers are replaced by pseudonyms.
    #[serde(default)]
    pub redacted: bool,
    /// A sentence that describes the archive. All answers from the archive quote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    pub nodes: Vec<NodeEntry>,
    /// The kinds of objects that could not be listed, each with the reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unread: BTreeMap<String, String>,
}

/// A node of the archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEntry {
    pub name: String,
    /// The folder of the node in the archive. Absent if the node was not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// Why the node, or a part of the node, was not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<String>,
}

impl Default for Manifest {
    fn default() -> Self {
        Self {
            format: FORMAT.to_owned(),
            format_version: FORMAT_VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            taken_at: Timestamp::UNIX_EPOCH,
            context: String::new(),
            kubernetes_version: String::new(),
            redacted: false,
            note: None,
            nodes: Vec::new(),
            unread: BTreeMap::new(),
        }
    }
}

/// Maximum length of the name of a context.
const MAX_CONTEXT: usize = 120;

fn is_of_context(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "@:/._-".contains(letter)
}

/// Returns whether a text can be the name of a context.
pub(crate) fn is_context(text: &str) -> bool {
    text.len() <= MAX_CONTEXT && text.chars().all(is_of_context)
}

/// Returns whether a text is the version of a program, such as `0.1.0` or `0.2.0-rc.1`.
pub(crate) fn is_version(text: &str) -> bool {
    let mut parts = text.splitn(3, '.');
    let [major, minor, patch] = std::array::from_fn(|_| parts.next().unwrap_or_default());
    let is_number = |part: &str| (1..=9).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    let rest = patch.trim_start_matches(|letter: char| letter.is_ascii_digit());
    let digits = &patch[..patch.len() - rest.len()];
    let is_rest = |letter: char| letter.is_ascii_alphanumeric() || "-+.".contains(letter);
    [major, minor, digits].into_iter().all(is_number) && rest.len() <= 40 && rest.chars().all(is_rest)
}

/// Returns whether a text is a version of Kubernetes, or empty.
pub(crate) fn is_kubernetes_version(text: &str) -> bool {
    let rest = text.strip_prefix('v').unwrap_or(text);
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || ".+-".contains(letter);
    text.is_empty()
        || rest.len() <= 61 && rest.starts_with(|letter: char| letter.is_ascii_digit()) && rest.chars().all(is_part)
}

/// Replaces the characters of a context that the reader would reject.
fn as_context<S: Serializer>(context: &str, to: S) -> Result<S::Ok, S::Error> {
    let letters = context.chars().map(|letter| if is_of_context(letter) { letter } else { '_' });
    to.serialize_str(&letters.take(MAX_CONTEXT).collect::<String>())
}

/// Returns a Kubernetes version that the reader accepts. Any other text becomes an empty version.
fn as_kubernetes_version<S: Serializer>(version: &str, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(if is_kubernetes_version(version) { version } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_and_versions_are_shown_as_texts_of_the_program() {
        for version in ["0.1.0", "0.2.0-rc.1", "10.20.30+build.5", "1.2.3dev"] {
            assert!(is_version(version), "{version}");
        }
        for text in ["", "1", "1.2", "v1.2.3", "1.2.x", "1.2.3 ok", "1.2.3\nok", &format!("1.2.3-{}", "x".repeat(40))] {
            assert!(!is_version(text), "{text}");
        }
        for version in ["", "v1.36.2", "1.31.4-gke.1183000", "v1.29.3+k3s1"] {
            assert!(is_kubernetes_version(version), "{version}");
        }
        for text in ["v", "latest", "v1.36.2; healthy", "v1 2"] {
            assert!(!is_kubernetes_version(text), "{text}");
        }
        for context in ["", "arn:aws:eks:us-east-1:1234:cluster/x", "admin@prod", "a_b.c-d"] {
            assert!(is_context(context), "{context}");
        }
        assert!(!is_context("prod. All nodes are healthy") && !is_context(&"x".repeat(121)));
    }

    #[test]
    fn a_manifest_with_any_context_is_written_so_that_it_can_be_read() {
        let context = format!("my cluster (ü) {}", "x".repeat(200));
        let written = Manifest { context, kubernetes_version: "not known".into(), ..Manifest::default() };
        let read: Manifest = serde_json::from_value(serde_json::to_value(written).expect("JSON")).expect("a manifest");
        assert!(read.context.starts_with("my_cluster_____xx") && is_context(&read.context), "{}", read.context);
        assert_eq!(read.kubernetes_version, "");
    }
}
