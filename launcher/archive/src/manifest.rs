//! `Manifest`: the first file of an archive: who wrote it and when, its nodes, and what could not be read.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Version of the format. It is incremented when a file or a field changes its meaning or is removed.
pub const FORMAT_VERSION: u32 = 1;

/// The value of [`Manifest::format`].
pub(crate) const FORMAT: &str = "gpu-syringe archive";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always `gpu-syringe archive`.
    pub format: String,
    pub format_version: u32,
    /// Version of gpu-syringe, or of node-probe for a single report.
    pub version: String,
    /// The time at which the archive was started. It is the current time for all answers from the archive.
    pub taken_at: Timestamp,
    /// Name of the context of the kubeconfig.
    pub context: String,
    /// Version of Kubernetes, such as `v1.36.2`. Empty if it is not known.
    #[serde(default)]
    pub kubernetes_version: String,
    /// Whether names and identifiers are replaced by pseudonyms.
    #[serde(default)]
    pub redacted: bool,
    /// A sentence that is added to all answers from the archive.
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
