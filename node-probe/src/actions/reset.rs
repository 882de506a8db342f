//! Resets one GPU: facts, plan, persistence mode off, the host's `nvidia-smi --gpu-reset`, persistence mode on, a look at
//! what that changed. Whatever happens after the first change, the answer says in which state the GPU is now.

use std::time::{Duration, Instant};

use syringe_core::facts::action::{Action, GpuNow, Obstacle, ResetAction, ResetOutcome, StepDone};
use syringe_core::operator::reset_plan::{self, Conditions, ResetPlan};
use syringe_core::report::{Report, Sections};

use super::driver_tool::{DriverRoot, End};
use super::lock::Lock;
use super::request::ResetRequest;
use super::test_tree;
use super::verify;
use crate::collect;
use crate::nvml;
use crate::paths::Paths;
use crate::request::Request;
use crate::section::SectionName;
use crate::task::Job;

/// Time to switch persistence mode. Waking or closing a GPU takes seconds.
const PERSISTENCE_TIME: Duration = Duration::from_secs(60);
/// How long our own NVML may take to let go of the GPU after its last answer.
const LET_GO_TIME: Duration = Duration::from_secs(5);
/// How long a GPU may take to be in order again after a reset: the fabric registers anew, links train.
const SETTLE_TIME: Duration = Duration::from_secs(20);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// What is said where persistence mode was on and is not known to be so again.
const NOT_RESTORED: &str = " Persistence mode was on before and may be off now: nvidia-smi -pm 1 restores it.";

/// What a plan is made of.
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
/// What the check afterwards needs.
const CHECKED: [SectionName; 4] = [SectionName::Inventory, SectionName::Topology, SectionName::Ecc, SectionName::Xid];

/// Runs the order and reports it. The facts that the plan was made of stay out: the plan names what counts.
pub(super) fn run(order: &ResetRequest, request: &Request) -> Report {
    let started = Instant::now();
    let facts = facts(request, &SECTIONS);
    let action = reset(order, request, &facts);
    Report {
        sections: Sections::default(),
        duration_ms: crate::envelope::millis(started.elapsed()),
        action: Some(Action::Reset(Box::new(action))),
        ..facts
    }
}

fn facts(request: &Request, sections: &[SectionName]) -> Report {
    collect::collect(&request.of(sections.to_vec()))
}

fn reset(order: &ResetRequest, request: &Request, facts: &Report) -> ResetAction {
    let ResetRequest { gpu, plan: only_plan, cordoned, drain_check, time } = order;
    let conditions = Conditions { cordoned: *cordoned, drain_check: *drain_check };
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
    if !we_let_go() {
        lock.give_back(false);
        let why = "this program's own NVML does not let go of the GPU: the driver hangs";
        return refused_because(plan, Obstacle::new("driver_hangs", why, "Reboot the node."));
    }
    let action = Execution { driver: &driver, request, facts, plan, time: *time, lock: &lock }.run();
    // An nvidia-smi that did not end in time holds it on.
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

/// A GPU that is open, also to us, cannot be reset: every process of ours that asked NVML must have ended.
fn we_let_go() -> bool {
    let end = Instant::now() + LET_GO_TIME;
    while !nvml::all_ended() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(PAUSE / 10);
    }
    true
}

/// A reset that nothing is in the way of.
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
            let (step, end) = self.driver.run(Job::PersistenceOff, &gpu, PERSISTENCE_TIME, &self.lock.file);
            steps.push(step);
            if end != End::Code(0) {
                return self.not_switched_off(end, steps);
            }
        }
        let (step, end) = self.driver.run(Job::Reset, &gpu, self.time, &self.lock.file);
        let said = step.said.clone();
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

    /// Persistence mode on again; `false`: it is not. While an nvidia-smi still works on the GPU, a second one would only
    /// stand in line behind it.
    fn restore(&self, last: End, steps: &mut Vec<StepDone>) -> bool {
        if last == End::Running {
            return false;
        }
        let (step, end) = self.driver.run(Job::PersistenceOn, &self.plan.gpu, PERSISTENCE_TIME, &self.lock.file);
        steps.push(step);
        end == End::Code(0)
    }

    /// nvidia-smi failed or hung over persistence mode. It may have been switched off all the same.
    fn not_switched_off(self, end: End, mut steps: Vec<StepDone>) -> ResetAction {
        let said = steps.last().map(|step| step.said.as_str()).unwrap_or_default();
        let why = match end {
            End::Running => "persistence mode was not switched off in time".to_owned(),
            _ => format!("persistence mode could not be switched off: {said}"),
        };
        let restored = self.restore(end, &mut steps);
        let mut refused =
            refused_because(self.plan, Obstacle::new("persistence_mode", why, "See what nvidia-smi said."));
        refused.summary.push_str(if restored { " Persistence mode is on, as before." } else { NOT_RESTORED });
        ResetAction { steps, ..refused }
    }

    /// The GPU afterwards; one that was reset is given a moment to be in order.
    fn look(&self, end: End) -> GpuNow {
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

fn summary(outcome: ResetOutcome, gpu: &str, now: &GpuNow, said: &str, time: Duration) -> String {
    let state = match now.answers {
        Some(true) if verify::is_in_order(now) => "it answers and nothing is wrong with it".to_owned(),
        Some(true) => format!("it answers, but: {}", verify::in_words(now)),
        Some(false) => "NVML does not have it any more: the node needs a reboot".to_owned(),
        None => format!("NVML does not work now: {}", now.troubles.join("; ")),
    };
    match outcome {
        ResetOutcome::Reset => format!("GPU {gpu} was reset; {state}."),
        ResetOutcome::ResetNotVerified => format!("nvidia-smi reported that GPU {gpu} was reset; {state}."),
        ResetOutcome::Failed => format!("nvidia-smi could not reset GPU {gpu} ({said}); {state}."),
        ResetOutcome::TimedOut => {
            format!(
                "nvidia-smi did not end within {} s. It goes on while this probe's container exists, and is cut off with \
                 it; GPU {gpu} at this moment: {state}.",
                time.as_secs()
            )
        }
        ResetOutcome::Planned | ResetOutcome::Refused | ResetOutcome::Simulated => state,
    }
}
