//! gpu-syringe: the launcher. Runs beside an AI host or a person, with a kubeconfig; puts a probe on a node, reads the one
//! document that it prints, takes it out again.
//!
//! ```text
//!   args ─▶ settings ─┬─▶ mcp (standard input and output) ─┐
//!                     └─▶ command line ────────────────────┴─▶ tools ─┬─▶ cluster  (answers of the API alone)
//!                                                                     └─▶ syringe  (create, exec, withdraw, sweep)
//! ```

mod answer;
mod args;
pub mod audit;
mod byte_budget;
pub mod call;
pub mod consent;
mod error;
pub mod fleet;
pub mod kubernetes;
pub mod mcp;
pub mod probe;
mod program;
mod quoted;
mod reading;
mod schema;
pub mod settings;
mod text;
pub mod tools;
mod variant_name;

pub use error::Failure;
pub use program::main;
