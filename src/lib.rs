//! The core crate of gpu-syringe, which `node-probe` and the launcher share: facts, reports, kernel log, action rules.
//!
//! `node-probe` on the node prints a [`report::Report`] with the [`facts`] and a list of missing values. The crate
//! `diagnosis` turns the facts into findings; this crate contains no diagnosis rules. This crate does no I/O and has no
//! async code, no Kubernetes client and no NVML.
//!
//! ```text
//!   hardware ──▶ facts ──▶ Report (one JSON document) ──▶ launcher
//!                  ▲
//!   facts file ────┘   (a saved Report)
//! ```
//!
//! Each module imports only from the modules above it in this table:
//!
//! | module | content |
//! |---|---|
//! | [`text`], [`pci`], [`nvml_codes`], [`since`] | text cleaning, PCI addresses, NVML codes, times as users type them |
//! | [`classification`] | severity, class and action of kernel events and findings |
//! | [`section_name`], [`probe_command`] | the names of the sections of a report, the commands of `node-probe` |
//! | [`facts`] | the data that is read from a node, one file for each section |
//! | `json_reader`, [`common_values`], `sanitize` | the JSON document: reading, common values, cleaning |
//! | [`document_size`] | the maximum size of the document, and the sizes of its sections |
//! | [`raw_file`] | unparsed files of a node for people |
//! | [`report`] | the document that `node-probe` prints: sections, their status and problems |
//! | [`gpu_names`] | the UUIDs, minor number and index of one GPU, compared with allocations |
//! | [`kernel_log`] | kernel log lines: parsers, events, catalogue |
//! | [`action_rules`] | the conditions for a kill or a reset: protected processes, the plan of a reset |
#![forbid(unsafe_code)]

pub mod action_rules;
pub mod classification;
pub mod common_values;
pub mod document_size;
pub mod facts;
#[cfg(any(test, fuzzing))]
#[path = "../fuzz/checks/core.rs"]
pub mod fuzzing;
// Lets `fuzz/checks` import this crate under the same name as other crates do.
#[cfg(any(test, fuzzing))]
extern crate self as syringe_core;
pub mod gpu_names;
pub mod json_reader;
pub mod kernel_log;
pub mod nvml_codes;
pub mod pci;
pub mod probe_command;
pub mod raw_file;
pub mod report;
mod sanitize;
#[cfg(feature = "scenarios")]
pub mod scenarios;
pub mod section_name;
pub mod since;
pub mod text;
pub mod tsv;
pub mod unknown;

/// Prefix of the name of every probe pod and ephemeral container. Random letters follow.
pub const PROBE_NAME_PREFIX: &str = "gpu-syringe-";
