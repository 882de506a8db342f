//! The launcher of gpu-syringe: runs next to an AI host or a person, with a kubeconfig. Creates a probe on a node, reads the
//! document that it prints, deletes it.
//!
//! Each line imports only from the lines above it:
//!
//! ```text
//!   error                         failures
//!   user_dirs                     configuration and state directory
//!   byte_budget, untrusted_text, schema, variant_name, text::table
//!                                 size of an answer, marks of untrusted text, JSON schema, names in JSON, table primitives
//!   settings                      flags, environment, file → validated settings
//!   audit                         the audit log: line, file, table
//!   consent                       question to the user, tokens
//!   kubernetes::client            connection, credentials, proxy, retry, pagination, API errors
//!   kubernetes::model             slim objects, DRA, requests, conditions, scheduler filters: no I/O
//!   kubernetes::read              nodes, pods, events, ResourceClaims, node logs
//!   probe                         pod on a node: create, exec, read, delete
//!   call                          context of one call
//!   node_reading                  node → probe → diagnosis
//!   answer, fleet                 answer about one node, about many
//!   text                          answers → terminal
//!   tools                         one file per tool; registry
//!   mcp, args, cli                front ends
//! ```
//!
//! `python3 tests/import_cycles.py` checks that there is no cycle.

mod answer;
mod args;
pub mod audit;
mod byte_budget;
pub mod call;
mod cli;
pub mod consent;
mod error;
pub mod fleet;
pub mod kubernetes;
pub mod mcp;
mod node_reading;
pub mod probe;
mod schema;
pub mod settings;
mod text;
pub mod tools;
mod untrusted_text;
mod user_dirs;
mod variant_name;

pub use cli::main;
pub use error::Failure;
