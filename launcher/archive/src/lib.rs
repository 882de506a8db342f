//! `Archive`: the reports of nodes and the objects of Kubernetes in one file, which `--from` uses in place of a
//! cluster. `SavedNode`, `ContainerLog`: parts of the content. `KINDS`: the kinds of objects. `redact`: replaces names
//! in an archive.
//!
//! An archive is a gzip-compressed tar file (ustar). `docs/archive.md` documents the format:
//!
//! ```text
//!   manifest.json                 first: version, time, context, nodes, what could not be read
//!   nodes/FOLDER/report.json      the document that node-probe printed
//!   nodes/FOLDER/kernel.log       the kernel log, one record in each line
//!   nodes/FOLDER/files.json       files of the driver and configuration spaces of PCI devices
//!   kubernetes/KIND.json          the objects of one kind (see [`KINDS`]), as a JSON list
//!   logs.json                     the ends of logs of containers
//! ```
//!
//! The reader keeps everything in memory and writes nothing. Anyone can write an archive, so the reader accepts only
//! plain files with these names, within the limits of `read`.
//!
//! Modules: `manifest`: the first file. `read`, `write`: reading and writing an archive. `redact`: stable pseudonyms in
//! place of names and identifiers. `redact_config_space`: removal of serial numbers from configuration spaces.

#[cfg(any(test, fuzzing))]
#[path = "../../../fuzz/checks/saved_archive.rs"]
pub mod fuzzing;
mod manifest;
mod read;
mod redact;
mod redact_config_space;
mod write;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use syringe_core::raw_file::RawFile;

pub use self::manifest::{FORMAT_VERSION, Manifest, NodeEntry};
pub use self::read::ArchiveError;
pub use self::redact::redact;

/// The kinds of objects in an archive, by their plural names.
pub const KINDS: [&str; 10] = [
    "nodes",
    "pods",
    "events",
    "daemonsets",
    "leases",
    "nodeclaims",
    "machines",
    "resourceclaims",
    "resourceslices",
    "computedomains",
];

/// The content of an archive.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Archive {
    pub manifest: Manifest,
    /// The nodes that were read, by name.
    pub nodes: BTreeMap<String, SavedNode>,
    /// JSON lists of objects, by kind. A kind that is absent was not saved.
    pub objects: BTreeMap<String, Vec<u8>>,
    pub logs: Vec<ContainerLog>,
}

/// The data of one node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SavedNode {
    /// The JSON document that node-probe printed.
    pub report: Vec<u8>,
    /// The kernel log. Empty if the log was not saved, or if the reader did not ask for it.
    pub kernel_log: Vec<u8>,
    /// Files of the driver and configuration spaces. Empty for the same reasons as the kernel log.
    pub files: Vec<RawFile>,
}

/// The end of the log of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerLog {
    pub namespace: String,
    pub pod: String,
    pub container: String,
    pub text: String,
}
