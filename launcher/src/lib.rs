//! The launcher of gpu-syringe: runs next to an AI host or a person, with a kubeconfig. Creates a probe on a node, reads the
//! document that it prints, deletes it.
//!
//! Each line imports only from the lines above it:
//!
//! ```text
//!   error, user_dirs              failures; configuration and state directory
//!   text::table                   table primitives
//!   settings                      flags, environment, file → validated settings
//!   audit                         the audit log: line, file, table
//!   consent                       question to the user, tokens
//!   kubernetes                    connection, reads, facts of the API
//!   probe                         pod on a node: create, exec, read, delete
//!   call, reading                 context of one call; node → probe → diagnosis
//!   answer, fleet                 answer about one node, about many
//!   text                          answers → terminal
//!   tools                         one file per tool; registry
//!   mcp, args, cli                front ends
//! ```

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
pub mod probe;
mod quoted;
mod reading;
mod schema;
pub mod settings;
mod text;
pub mod tools;
mod user_dirs;
mod variant_name;

pub use cli::main;
pub use error::Failure;
