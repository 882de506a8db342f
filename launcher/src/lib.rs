//! The launcher of gpu-syringe as a library: the modules of the command line, the MCP server, the tools and the probes.
//! With a kubeconfig, the launcher creates a probe on a node, reads the document of the probe, and deletes the probe.
//!
//! - `probe`: a pod on a node: create, exec, read, delete
//! - `node_reading`: a node, its probe and the diagnosis of both
//! - `answer`, `fleet`: the answer about one node, and the answer about many nodes
//! - `archives`: saves a cluster in one file, and opens the file; `compare`: the differences between two readings
//! - `incident`: a timeline of events on nodes; `return_report`: the report for the return of a GPU to its vendor
//! - `tools`: one file per tool; `call` has the context of one call
//! - `mcp`, `args`, `cli`, `completion`: front ends
//! - `settings`, `setup`, `doctor`: configuration, the objects that a cluster needs, and checks of both
//! - `policy`: the names of the admission policies, and the values in them
//! - `consent`, `audit`: consent of the user to an action, and the log of what was done
//! - `terminal`: tables and pages of text

mod answer;
mod archives;
mod args;
pub mod audit;
pub mod call;
mod carried;
mod cli;
mod clock;
mod compare;
mod completion;
pub mod consent;
mod doctor;
pub mod fleet;
#[cfg(any(test, fuzzing))]
#[path = "../../fuzz/checks/launcher.rs"]
pub mod fuzzing;
mod incident;
pub mod mcp;
mod node_reading;
mod outcome;
mod output_file;
mod policy;
pub mod probe;
mod return_report;
pub mod settings;
pub mod setup;
pub mod terminal;
pub mod tools;
mod user_dirs;

pub use cli::main;
pub use outcome::{FailOn, Outcome};

/// The definition of the command line. Tests use it to write and check the documents.
#[doc(hidden)]
pub mod command_line {
    pub use crate::args::{command, documented_call};
    pub use crate::settings::all_settings;
    pub use crate::settings::file::is_setting_of_files;
    pub use crate::terminal::command_names::command_of;
}
