//! `run`: resets one GPU: reads facts, checks the plan, runs nvidia-smi and verifies the result.
//!
//! Persistence mode is off while the host's `nvidia-smi --gpu-reset` runs. After the first change, the report always
//! contains the current state of the GPU.

use std::time::{Duration, Instant};

use syringe_core::action_rules::reset_plan::{self, ResetConditions, ResetPlan};
use syringe_core::facts::action::{Action, CompletedStep, GpuAfterReset, Obstacle, ResetAction, ResetOutcome};
use syringe_core::probe_command::ResetCommand;
use syringe_core::report::{Report, Sections};
use syringe_core::section_name::SectionName;

use super::nvidia_smi::{DriverRoot, End};
use super::reset_lock::Lock;
use super::test_tree;
use super::verify;
use crate::child_task::SmiCommand;
use crate::collect;
use crate::nvml;
use crate::paths::Paths;
use crate::request::Request;

/// Maximum time for switching persistence mode. Initializing or closing a GPU takes seconds.
const PERSISTENCE_TIME: Duration = Duration::from_secs(60);
/// Maximum time in which the NVML processes of this program must close the GPU after their last response.
const LET_GO_TIME: Duration = Duration::from_secs(5);
/// Maximum time for a GPU to become healthy after a reset: the GPU must register with the fabric again, and its links
/// must come up.
const SETTLE_TIME: Duration = Duration::from_secs(20);
/// Pause between two checks.
const PAUSE: Duration = Duration::from_millis(500);

/// Text for the summary if persistence mode was on before and may be off now.
const NOT_RESTORED: &str = " Persistence mode was on before and may be off now: nvidia-smi -pm 1 restores it.";

/// Sections that the plan needs.
const SECTIONS: [SectionName; 8] = [
    SectionName::Inventory,
    SectionName::Topology,
    SectionName::Ecc,
    SectionName::Processes,
    SectionName::Mig,
    SectionName::Kubelet,
    SectionName::Host,
    SectionName::Xid,
];
/// Sections that the check after the reset needs.
const CHECKED: [SectionName; 4] = [SectionName::Inventory, SectionName::Topology, SectionName::Ecc, SectionName::Xid];

/// Runs the reset request and reports the result. The report contains the plan instead of all facts.
pub(super) fn run(reset_request: &ResetCommand, request: &Request) -> Report {
    let started = Instant::now();
    let facts = facts(request, &SECTIONS);
    let action = reset(reset_request, request, &facts);
    Report {
        sections: Sections::default(),
        duration_ms: crate::document::millis(started.elapsed()),
        action: Some(Action::Reset(Box::new(action))),
        ..facts
    }
}

fn facts(request: &Request, sections: &[SectionName]) -> Report {
    collect::collect_for_reset(&request.of(sections.to_vec()))
}

fn reset(reset_request: &ResetCommand, request: &Request, facts: &Report) -> ResetAction {
    let ResetCommand { gpu, plan: only_plan, cordoned, drain_check, time } = reset_request;
    let conditions = ResetConditions { cordoned: *cordoned, drain_check: *drain_check };
    let mut plan = reset_plan::plan(facts, gpu, conditions);
    let paths = request.files.root.as_deref().map_or_else(Paths::of_this_machine, Paths::below);
    let driver = match DriverRoot::find(&paths, request.files.root.is_some() && !test_tree::changes_root_in_tree()) {
        Ok(driver) => Some(driver),
        Err(obstacle) => {
            plan.blockers.push(obstacle);
            None
        }
    };
    let (true, Some(driver)) = (plan.is_clear(), driver) else { return refused(plan) };
    if *only_plan {
        let summary = format!("GPU {gpu} can be reset now.");
        return ResetAction { plan, summary, ..ResetAction::default() };
    }
    let lock = match Lock::take(&paths.host) {
        Ok(lock) => lock,
        Err(obstacle) => return refused_because(plan, obstacle),
    };
    if !own_processes_have_ended() {
        lock.give_back(false);
        let why = "the NVML process of this program does not close the GPU: the driver hangs";
        return refused_because(plan, Obstacle::new("driver_hangs", why, "Reboot the node."));
    }
    let action = Execution { driver: &driver, request, facts, plan, time: *time, lock: &lock }.run();
    // An nvidia-smi process that did not exit in time keeps the lock.
    lock.give_back(action.steps.iter().any(|step| step.exit_code.is_none()));
    action
}

fn refused(plan: ResetPlan) -> ResetAction {
    let summary = plan.refusal();
    ResetAction { outcome: ResetOutcome::Refused, plan, summary, ..ResetAction::default() }
}

fn refused_because(mut plan: ResetPlan, obstacle: Obstacle) -> ResetAction {
    plan.blockers.push(obstacle);
    plan.steps.clear();
    refused(plan)
}

/// Waits until all NVML processes of this program have exited, because an open GPU cannot be reset.
fn own_processes_have_ended() -> bool {
    let end = Instant::now() + LET_GO_TIME;
    while !nvml::all_ended() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(PAUSE / 10);
    }
    true
}

/// A reset that nothing blocks.
struct Execution<'a> {
    driver: &'a DriverRoot,
    request: &'a Request,
    facts: &'a Report,
    plan: ResetPlan,
    time: Duration,
    lock: &'a Lock,
}

impl Execution<'_> {
    fn run(self) -> ResetAction {
        let gpu = self.plan.gpu.clone();
        let mut steps = Vec::new();
        if self.plan.persistence_mode {
            let (step, end) = self.driver.run(SmiCommand::PersistenceOff, &gpu, PERSISTENCE_TIME, &self.lock.file);
            steps.push(step);
            if end != End::Code(0) {
                return self.not_switched_off(end, steps);
            }
        }
        let (step, end) = self.driver.run(SmiCommand::Reset, &gpu, self.time, &self.lock.file);
        let said = step.message.clone();
        steps.push(step);
        let restored = !self.plan.persistence_mode || self.restore(end, &mut steps);
        let now = self.look(end);
        let outcome = match end {
            End::Code(0) if verify::is_in_order(&now) => ResetOutcome::Reset,
            End::Code(0) => ResetOutcome::ResetNotVerified,
            End::Code(_) | End::NotStarted => ResetOutcome::Failed,
            End::Running => ResetOutcome::TimedOut,
        };
        let mut summary = summary(outcome, &gpu, &now, &said, self.time);
        if !restored {
            summary.push_str(NOT_RESTORED);
        }
        ResetAction { outcome, plan: self.plan, steps, now: Some(now), summary }
    }

    /// Turns persistence mode on again; `false` if that failed. While nvidia-smi is still running for the GPU, a second
    /// nvidia-smi would only wait for it.
    fn restore(&self, last: End, steps: &mut Vec<CompletedStep>) -> bool {
        if last == End::Running {
            return false;
        }
        let (step, end) = self.driver.run(SmiCommand::PersistenceOn, &self.plan.gpu, PERSISTENCE_TIME, &self.lock.file);
        steps.push(step);
        end == End::Code(0)
    }

    /// Returns the result if nvidia-smi failed or hung while it switched persistence mode off. The mode may still have
    /// been switched off.
    fn not_switched_off(self, end: End, mut steps: Vec<CompletedStep>) -> ResetAction {
        let said = steps.last().map(|step| step.message.as_str()).unwrap_or_default();
        let why = match end {
            End::Running => "persistence mode was not switched off in time".to_owned(),
            _ => format!("persistence mode could not be switched off: {said}"),
        };
        let restored = self.restore(end, &mut steps);
        let mut refused =
            refused_because(self.plan, Obstacle::new("persistence_mode", why, "See the output of nvidia-smi."));
        refused.summary.push_str(if restored { " Persistence mode is on, as before." } else { NOT_RESTORED });
        ResetAction { steps, ..refused }
    }

    /// Reads the state of the GPU after the reset, and allows some time for the GPU to become healthy.
    fn look(&self, end: End) -> GpuAfterReset {
        let settle_end = Instant::now() + if end == End::Code(0) { SETTLE_TIME } else { Duration::ZERO };
        loop {
            let after = facts(self.request, &CHECKED);
            let now = verify::judge(self.facts, &after, &self.plan);
            if verify::is_in_order(&now) || Instant::now() > settle_end {
                return now;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

fn summary(outcome: ResetOutcome, gpu: &str, now: &GpuAfterReset, said: &str, time: Duration) -> String {
    let state = match now.answers {
        Some(true) if verify::is_in_order(now) => "the GPU responds and has no problem".to_owned(),
        Some(true) => format!("the GPU responds, but: {}", verify::in_words(now)),
        Some(false) => "NVML no longer lists the GPU: reboot the node".to_owned(),
        None => format!("NVML does not work: {}", now.problems.join("; ")),
    };
    match outcome {
        ResetOutcome::Reset => format!("GPU {gpu} was reset; {state}."),
        ResetOutcome::ResetNotVerified => format!("nvidia-smi reported that GPU {gpu} was reset; {state}."),
        ResetOutcome::Failed => format!("nvidia-smi could not reset GPU {gpu} ({said}); {state}."),
        ResetOutcome::TimedOut => {
            format!(
                "nvidia-smi did not finish within {} s, and continues while the container of the probe exists. GPU \
                    {gpu} now: {state}.",
                time.as_secs()
            )
        }
        ResetOutcome::Planned | ResetOutcome::Refused | ResetOutcome::Simulated => state,
    }
}
