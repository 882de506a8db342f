//! A validated action.

use syringe_core::probe_command::ActionCommand;

use crate::request::Request;

/// An action, and how the node is read for it.
#[derive(Debug)]
pub(crate) struct ActionRequest {
    /// Whether `--operator` was given.
    pub(crate) operator: bool,
    pub(crate) command: ActionCommand,
    /// The source of the facts, and the time limit of the read.
    pub(crate) request: Request,
}
