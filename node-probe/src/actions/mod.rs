//! What changes something on the node: `kill` and `reset`, each behind `--operator` and only in a container that was started for
//! it. Everything else in this program reads.
//!
//! ```text
//!   request ─▶ run ─┬─ facts file ─▶ replay (judges, does nothing)
//!                   └─ allowed ──┬─▶ kill   pidfd ─ check ─ SIGTERM ─ SIGKILL ─ look again
//!                                └─▶ reset  facts ─ plan ─ driver_tool (the host's nvidia-smi) ─ look again
//! ```
//!
//! Each prints the same one document as any other command; what was done is in its `action`.

#[cfg(target_os = "linux")]
mod allowed;
#[cfg(target_os = "linux")]
mod driver_tool;
#[cfg(target_os = "linux")]
mod gpu_view;
#[cfg(target_os = "linux")]
mod kill;
#[cfg(target_os = "linux")]
mod lock;
#[cfg(target_os = "linux")]
mod once;
mod replay;
mod request;
#[cfg(target_os = "linux")]
mod reset;
#[cfg(target_os = "linux")]
mod stuck_process;
#[cfg(target_os = "linux")]
mod test_tree;
#[cfg(target_os = "linux")]
mod verify;

#[cfg(target_os = "linux")]
use syringe_core::facts::action::Obstacle;
use syringe_core::report::{Problem, Report};

#[cfg(target_os = "linux")]
pub(crate) use driver_tool::replace_process;
pub(crate) use request::{ActionRequest, KillArguments, ResetArguments, Switch};

/// Runs an action, or judges it by a facts file.
pub(crate) fn run(act: &ActionRequest, replay: Option<&Report>) -> Report {
    if !act.operator {
        return refused(
            "operator_mode_off",
            "kill and reset change the node",
            "Add --operator if that is what you want.",
        );
    }
    match (replay, &act.request.files.facts) {
        (Some(facts), _) => replay::replay(facts, act),
        (None, Some(path)) => match crate::replay::load(path) {
            Ok(facts) => replay::replay(&facts, act),
            Err(problem) => Report { error: Some(problem), ..crate::envelope::blank() },
        },
        (None, None) => hardware(act),
    }
}

#[cfg(target_os = "linux")]
fn hardware(act: &ActionRequest) -> Report {
    // The processes and the GPUs are those of this machine, whatever tree is read: only a test may act on one.
    if act.request.files.root.is_some() && std::env::var_os(test_tree::TEST_TREE).is_none() {
        return refused(
            "saved_tree",
            "--root reads a saved tree, and there is nothing to act on in one",
            "Leave it out.",
        );
    }
    // A development program is no part of the probe's image: who can start it there needs no help of it.
    if let Some(Obstacle { code, why, next_step }) = allowed::refusal().filter(|_| !act.request.development) {
        return refused(&code, &why, &next_step);
    }
    let Some(id) = &act.once else { return carry_out(act) };
    if let Err(problem) = once::claim(id) {
        return once::outcome(id).unwrap_or_else(|| Report { error: Some(problem), ..crate::envelope::blank() });
    }
    let report = carry_out(act);
    once::keep(id, &report);
    report
}

#[cfg(target_os = "linux")]
fn carry_out(act: &ActionRequest) -> Report {
    match &act.action {
        request::ActionKind::Kill(order) => kill::run(order, &act.request),
        request::ActionKind::Reset(order) => reset::run(order, &act.request),
    }
}

#[cfg(not(target_os = "linux"))]
fn hardware(_: &ActionRequest) -> Report {
    refused("not_linux", "node-probe acts on Linux nodes", "Replay a saved report with node-probe-dev --facts FILE.")
}

fn refused(code: &str, why: &str, next_step: &str) -> Report {
    let problem =
        Problem { what: "action".into(), why: why.into(), next_step: next_step.into(), gpu: None, code: code.into() };
    Report { error: Some(problem), ..crate::envelope::blank() }
}
