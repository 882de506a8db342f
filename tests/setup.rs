//! `gpu-syringe setup`: the files of `deploy/` and the table of permissions are generated from it, and what it applies to a cluster
//! is what it removes.
//!
//! `INSTA_UPDATE=always cargo test -p gpu-syringe --test setup generated` writes the generated files.

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
