//! Modules of the tests that start the built program as an MCP host or a user does, against a demo cluster: calls and
//! their cleanup, commands, faults, retries, signals, hostile texts.
//!
//! These properties cannot be tested with smaller parts: no call leaves a pod behind, standard output contains only messages
//! of the protocol, and each failure has a cause and a next step.
#![allow(clippy::unwrap_used)]

#[path = "support/bed.rs"]
mod bed;
#[path = "support/mod.rs"]
mod support;

#[path = "wire/cleanup.rs"]
mod cleanup;
#[path = "wire/commands.rs"]
mod commands;
#[cfg(unix)]
#[path = "wire/credentials.rs"]
mod credentials;
#[path = "wire/errors.rs"]
mod errors;
#[path = "wire/hostile.rs"]
mod hostile;
#[path = "wire/late.rs"]
mod late;
#[path = "wire/many.rs"]
mod many;
#[path = "wire/network.rs"]
mod network;
#[path = "wire/protocol.rs"]
mod protocol;
#[path = "wire/retries.rs"]
mod retries;
#[path = "wire/shell.rs"]
mod shell;
#[cfg(unix)]
#[path = "wire/signals.rs"]
mod signals;
#[path = "wire/spec.rs"]
mod spec;
#[cfg(unix)]
#[path = "wire/sweep.rs"]
mod sweep;
#[path = "wire/unreachable.rs"]
mod unreachable;
#[path = "wire/unread_inputs.rs"]
mod unread_inputs;
