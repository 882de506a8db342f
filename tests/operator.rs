//! Modules of the tests of operator mode over MCP and on the command line: permissions, consent, audit log.
//!
//! The nodes of the demo cluster are facts files: actions are checked as on a real node, but change nothing.
#![allow(clippy::unwrap_used)]

#[path = "operator/audit.rs"]
mod audit;
#[cfg(feature = "demo")]
#[path = "operator/command.rs"]
mod command;
#[path = "operator/eras.rs"]
mod eras;
#[path = "operator/lost.rs"]
mod lost;
#[path = "operator/modes.rs"]
mod modes;
#[path = "operator/support.rs"]
mod support;
#[path = "operator/tokens.rs"]
mod tokens;
