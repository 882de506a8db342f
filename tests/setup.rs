//! Modules of the tests of `gpu-syringe setup`: generated files, permissions, `--apply`, `--uninstall`, and faults.
//!
//! `INSTA_UPDATE=always cargo test -p gpu-syringe --test setup generated` writes the files of `deploy/` and the table.

#![allow(clippy::unwrap_used)]

#[path = "setup/apply.rs"]
mod apply;
#[path = "support/bed.rs"]
mod bed;
#[path = "setup/files.rs"]
mod files;
#[path = "setup/refused.rs"]
mod refused;
#[path = "support/mod.rs"]
mod support;
