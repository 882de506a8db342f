//! Modules of the tests of archives: `gpu-syringe save`, `--from`, `compare`, `incident`, `return-report`, raw files,
//! and what is refused.
#![cfg(feature = "demo")]
#![allow(clippy::unwrap_used)]

#[path = "support/bed.rs"]
mod bed;
#[path = "archives/compare.rs"]
mod compare;
#[path = "archives/incident.rs"]
mod incident;
#[path = "snapshots/pods.rs"]
mod pods;
#[path = "archives/raw_files.rs"]
mod raw_files;
#[path = "archives/refused.rs"]
mod refused;
#[path = "archives/return_report.rs"]
mod return_report;
#[path = "archives/same_answers.rs"]
mod same_answers;
#[path = "support/mod.rs"]
mod support;
