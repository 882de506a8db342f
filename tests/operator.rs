//! Operator mode over the wire: who may call what, how consent is got in both eras of the protocol, and what is written
//! down. The cluster is the demo cluster; its nodes are facts files, so that an action is judged and done to nothing.
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
