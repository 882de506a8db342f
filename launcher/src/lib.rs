//! The launcher of gpu-syringe: runs next to an AI host or a person, with a kubeconfig. Creates a probe on a node, reads the
//! document that it prints, deletes it.
//!
//! Each line imports only from the lines above it:
//!
//! ```text
//!   error                         failures
//!   exit_status, command_names    what a command's exit status says; names of the commands
//!   clock                         time that goes on during a suspend
//!   carried                       the node-probe programs inside this one
//!   user_dirs                     configuration and state directory
//!   byte_budget, fit_answer, untrusted_text, schema, variant_name, text::{layout, page, style, table}
//!                                 size of an answer, marks of untrusted text, JSON schema, names in JSON, table primitives
//!   settings                      flags, environment, file → validated settings
//!   audit                         the audit log: line, file, table
//!   consent                       question to the user, tokens
//!   kubernetes::client            connection, credentials, proxy, retry, lists, pagination, API errors
//!   kubernetes::model             API objects, slim objects, DRA, requests, conditions, scheduler filters: no I/O
//!   kubernetes::read              nodes, pods, events, ResourceClaims, node logs
//!   probe                         pod on a node: create, exec, read, delete
//!   setup                         objects that a cluster needs for probes
//!   doctor                        checks of everything that a probe needs
//!   call                          context of one call
//!   node_reading                  node → probe → diagnosis
//!   answer, fleet                 answer about one node, about many
//!   text                          answers → terminal
//!   tools                         one file per tool; registry
//!   completion                    names of nodes and contexts for shells
//!   mcp, args, cli                front ends
//! ```
//!
//! `python3 tests/import_cycles.py` checks that there is no cycle.

mod answer;
mod args;
pub mod audit;
mod byte_budget;
pub mod call;
mod carried;
mod cli;
mod clock;
mod command_names;
mod completion;
pub mod consent;
mod doctor;
mod exit_status;
mod fit_answer;
pub mod fleet;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod mcp;
mod node_reading;
pub mod probe;
mod schema;
pub mod settings;
pub mod setup;
pub mod text;
pub mod tools;
mod untrusted_text;
mod user_dirs;
mod variant_name;

pub use cli::main;
pub use exit_status::{FailOn, Outcome};

/// The definition of the command line, from which tests write and check the documents.
#[doc(hidden)]
pub mod command_line {
    pub use crate::args::{command, documented_call};
    pub use crate::settings::all_settings;
    pub use crate::settings::file::is_setting_of_files;
}
