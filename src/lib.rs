//! What the two ends of gpu-syringe agree on.
//!
//! `node-probe` (on the node) prints a [`report::Report`]: [`facts`] and what could not be read. The launcher turns
//! facts into findings with [`diagnosis`]. Everything here is pure: no I/O, no async, no Kubernetes client, no NVML.
//!
//! ```text
//!   hardware ──▶ facts ──▶ Report (one JSON document) ──▶ diagnosis ──▶ findings ──▶ answer
//!                  ▲
//!   facts file ────┘   (a Report that somebody saved is a facts file)
//! ```
#![forbid(unsafe_code)]

pub mod diagnosis;
pub mod explanation;
pub mod facts;
pub mod fold;
mod foreign;
pub mod nvml_codes;
pub mod operator;
pub mod pci;
pub mod report;
#[cfg(feature = "scenarios")]
pub mod scenarios;
pub mod since;
pub mod stack_log;
pub mod text;
mod wire;
pub mod xid;

/// How the name of every probe begins, a pod's or an ephemeral container's; random letters follow.
pub const PROBE_NAME: &str = "gpu-syringe-";
