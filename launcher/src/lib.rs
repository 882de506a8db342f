//! The launcher of gpu-syringe: runs next to an AI host or a person, with a kubeconfig. Creates a probe on a node, reads the
//! document that it prints, deletes it.
//!
//! Each line imports only from the lines above it:
//!
//! ```text
//!   clock, carried, user_dirs      time during a suspend; the node-probe programs inside this one; directories of the user
//!   byte_budget, fit_answer, untrusted_text, schema, variant_name
//!                                  the JSON of an answer: size, marks of untrusted text, schema
//!   terminal                       tables and pages of text
//!   settings                       flags, environment, file → validated settings
//!   audit, consent                 audit log; question to the user, tokens
//!   probe                          pod on a node: create, exec, read, delete
//!   setup, doctor                  objects that a cluster needs for probes; checks of everything that a probe needs
//!   call, node_reading             context of one call; node → probe → diagnosis
//!   answer, fleet                  answers about one node and about many, and their pages
//!   tools                          one file per tool; registry
//!   completion, mcp, args, cli     front ends; `cli::exit_status` and `cli::command_names` are also used below
//! ```

mod answer;
mod args;
pub mod audit;
mod byte_budget;
pub mod call;
mod carried;
mod cli;
mod clock;
mod completion;
pub mod consent;
mod doctor;
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
pub mod terminal;
pub mod tools;
mod untrusted_text;
mod user_dirs;
mod variant_name;

pub use cli::exit_status::{FailOn, Outcome};
pub use cli::main;

/// The definition of the command line, from which tests write and check the documents.
#[doc(hidden)]
pub mod command_line {
    pub use crate::args::{command, documented_call};
    pub use crate::cli::command_names::command_of;
    pub use crate::settings::all_settings;
    pub use crate::settings::file::is_setting_of_files;
}
