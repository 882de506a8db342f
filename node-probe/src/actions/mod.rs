//! `run`: runs an action that changes the node (`kill` or `reset`), or checks the action against a facts file.
//! `ActionRequest`: the action, and how the node is read.
//!
//! The actions need `--operator`, and a container that was started for actions.
//!
//! ```text
//!   request ─▶ run ─┬─ facts file ─▶ replay (checks only)
//!                   └─ allowed ──┬─▶ kill   pidfd ─ check ─ SIGTERM ─ SIGKILL ─ check again
//!                                └─▶ reset  facts ─ plan ─ nvidia_smi (the host's program) ─ check again
//! ```
//!
//! Each action prints the same document as the other commands, with the result in `action`.

#[cfg(target_os = "linux")]
mod allowed;
#[cfg(target_os = "linux")]
mod gpu_facts;
#[cfg(target_os = "linux")]
mod idempotency;
#[cfg(target_os = "linux")]
mod kill;
#[cfg(target_os = "linux")]
mod nvidia_smi;
mod replay;
#[cfg(target_os = "linux")]
mod reset;
#[cfg(target_os = "linux")]
pub(crate) mod reset_lock;
#[cfg(target_os = "linux")]
mod stuck_process_text;
#[cfg(target_os = "linux")]
mod test_tree;
#[cfg(target_os = "linux")]
mod verify;

#[cfg(target_os = "linux")]
use syringe_core::facts::action::Obstacle;
use syringe_core::probe_command::ActionCommand;
#[cfg(target_os = "linux")]
use syringe_core::probe_command::NodeAction;
use syringe_core::report::{Problem, Report};

#[cfg(target_os = "linux")]
pub(crate) use nvidia_smi::replace_process;

use crate::request::Request;

/// An action, and the request for reading the node.
#[derive(Debug)]
pub(crate) struct ActionRequest {
    /// Whether `--operator` was given.
    pub(crate) operator: bool,
    pub(crate) command: ActionCommand,
    /// Where the facts come from, and how long reading may take.
    pub(crate) request: Request,
}

/// Runs an action, or checks it against a facts file.
pub(crate) fn run(act: &ActionRequest, replay: Option<&Report>) -> Report {
    if !act.operator {
        return refused("operator_mode_off", "kill and reset change the node", "Add --operator to allow this.");
    }
    match (replay, &act.request.files.facts) {
        (Some(facts), _) => replay::replay(facts, act),
        (None, Some(path)) => match crate::replay::load(path) {
            Ok(facts) => replay::replay(&facts, act),
            Err(problem) => Report { error: Some(problem), ..crate::document::blank() },
        },
        (None, None) => hardware(act),
    }
}

#[cfg(target_os = "linux")]
fn hardware(act: &ActionRequest) -> Report {
    // Even with a saved tree, the processes and GPUs belong to this machine, so only a test may act with a saved tree.
    if act.request.files.root.is_some() && std::env::var_os(test_tree::TEST_TREE).is_none() {
        return refused(
            "saved_tree",
            "--root reads a saved tree, which has no processes and GPUs to act on",
            "Remove --root.",
        );
    }
    // The development program skips this check, because it is not in the image of the probe.
    if let Some(Obstacle { code, why, next_step }) = allowed::refusal().filter(|_| !act.request.development) {
        return refused(&code, &why, &next_step);
    }
    let Some(id) = &act.command.once else { return carry_out(act) };
    if let Err(problem) = idempotency::claim(id) {
        return idempotency::outcome(id).unwrap_or_else(|| Report { error: Some(problem), ..crate::document::blank() });
    }
    let report = carry_out(act);
    idempotency::keep(id, &report);
    report
}

#[cfg(target_os = "linux")]
fn carry_out(act: &ActionRequest) -> Report {
    match &act.command.action {
        NodeAction::Kill(command) => kill::run(command, &act.request),
        NodeAction::Reset(command) => reset::run(command, &act.request),
    }
}

#[cfg(not(target_os = "linux"))]
fn hardware(_: &ActionRequest) -> Report {
    refused("not_linux", "node-probe acts on Linux nodes", "Replay a saved report with node-probe-dev --facts FILE.")
}

fn refused(code: &str, why: &str, next_step: &str) -> Report {
    let problem =
        Problem { what: "action".into(), why: why.into(), next_step: next_step.into(), gpu: None, code: code.into() };
    Report { error: Some(problem), ..crate::document::blank() }
}
