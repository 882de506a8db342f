//! Functions that find parts of a plan from the drafts: `urgency`, `rma` and `return_step` (return to the vendor),
//! `results` (whether results are valid), `stuck` (processes that no signal can kill), `if_pod_deleted`,
//! `needs_cooling_before`.

use crate::conclusion::plan::{SHOWN, urgent, wants, wants_reset};
use crate::evidence;
use crate::finding::{Rma, Urgency};
use crate::input::node::{Gpu, Node};
use crate::input::processes::{is_service, uses};
use crate::rule::{Draft, InPlan};
use syringe_core::classification::{ActionCode, Class, Severity};

/// Returns how urgent the actions of a draft are.
pub(super) fn urgency(draft: &Draft) -> Urgency {
    let continues = matches!(draft.rule.in_plan, InPlan::OtherWorkContinues | InPlan::WorkContinues);
    let after_the_drain = match draft.action {
        ActionCode::CheckCabling => true,
        ActionCode::UpdateSoftware => !wants_reset(draft),
        _ => false,
    };
    match draft.severity {
        Severity::Info => Urgency::NextMaintenance,
        // If the work continues, it uses wrong data.
        _ if draft.rule.in_plan == InPlan::ResultsSuspect => Urgency::Now,
        _ if draft.can_wait => Urgency::WhenJobsEnd,
        Severity::Warning => Urgency::NextMaintenance,
        Severity::Critical if continues || after_the_drain => Urgency::WhenJobsEnd,
        Severity::Critical | Severity::Fatal => Urgency::Now,
    }
}

/// Returns whether the draft asks only for a check of the cooling, which does not interrupt work.
pub(super) fn only_cools(draft: &Draft) -> bool {
    draft.actions().all(|action| action == ActionCode::CheckCooling)
}

/// Returns the urgency of the actions that interrupt work. If there is no such action, returns the urgency of the
/// cooling check.
pub(super) fn work_urgency<'a>(drafts: impl Iterator<Item = &'a Draft>) -> Urgency {
    // An action that interrupts work takes precedence over a check of the cooling.
    drafts.map(|draft| (!only_cools(draft), urgency(draft))).max().unwrap_or_default().1
}

/// Returns whether the cooling must be checked now, although the rest of the plan can wait.
pub(super) fn needs_cooling_before<'a>(mut drafts: impl Iterator<Item = &'a Draft>, rest: Urgency) -> bool {
    rest < Urgency::Now && drafts.any(|draft| only_cools(draft) && urgency(draft) == Urgency::Now)
}

pub(super) fn rma<'a>(drafts: impl Iterator<Item = &'a Draft>) -> Rma {
    let of = |draft: &Draft| match draft.rule.class {
        _ if draft.is_outside => Rma::No,
        _ if draft.return_if.is_some() => Rma::IfDiagnosticFails,
        _ if wants(draft, ActionCode::ContactVendor) => Rma::Yes,
        // The advice about a repair with spare memory states that no RMA is needed.
        _ if draft.advice.contains("No RMA") => Rma::No,
        Class::Hardware if draft.severity >= Severity::Critical => Rma::IfRepeated,
        _ => Rma::No,
    };
    drafts.map(of).max().unwrap_or_default()
}

/// Returns the step of a plan in which the GPUs of these drafts are returned to the vendor.
pub(super) fn return_step<'a>(drafts: impl Iterator<Item = &'a Draft>, gpus: &str) -> String {
    let returns: Vec<&Draft> = drafts.filter(|draft| wants(draft, ActionCode::ContactVendor)).collect();
    let condition = if returns.iter().all(|draft| draft.return_if.is_some()) { returns.first() } else { None };
    match condition.and_then(|draft| draft.return_if) {
        Some(condition) => format!("Run the NVIDIA field diagnostic on {gpus}; return it (RMA) {condition}."),
        None => format!("Run the NVIDIA field diagnostic on {gpus} and return it (RMA)."),
    }
}

/// Returns the ids of the processes that no signal can kill, from the drafts that `of` selects.
pub(super) fn stuck(drafts: &[Draft], of: impl Fn(&Draft) -> bool) -> Vec<String> {
    let unkillable = |draft: &&Draft| draft.rule.in_plan == InPlan::UnkillableProcess && of(draft);
    urgent(drafts).filter(unkillable).filter_map(|draft| draft.scope.pid).map(|pid| pid.to_string()).collect()
}

/// Returns what happens if a pod on the plan's GPUs is deleted before the plan is carried out.
pub(super) fn if_pod_deleted(stuck: &[String], urgency: Urgency) -> String {
    match (stuck, urgency) {
        ([_, ..], _) => {
            let pids = evidence::some(stuck, SHOWN);
            format!(
                "The pod of pid {pids} stays in Terminating: no signal ends the process. Only a power cycle ends it."
            )
        }
        ([], Urgency::Now) => {
            "The next pod on {node} can get the same GPU and fail, too: cordon {node} before you delete a pod."
                .to_owned()
        }
        ([], _) => String::new(),
    }
}

/// Returns which results of the work on a GPU can be trusted. Empty if the errors do not concern results.
pub(super) fn results(node: &Node<'_>, gpu: &Gpu, drafts: &[Draft]) -> String {
    let of_gpu = |effect| urgent(drafts).find(|draft| draft.rule.in_plan == effect && draft.is_on(gpu));
    if let Some(draft) = of_gpu(InPlan::ResultsSuspect) {
        let since = draft.since.map(|since| format!(" from {} on", evidence::time(since))).unwrap_or_default();
        let users = users(node, gpu);
        let users = if users.is_empty() { String::new() } else { format!(" ({})", evidence::some(&users, SHOWN)) };
        return format!(
            "Do not use what programs on {{gpu}}{users} computed{since}; use a checkpoint from before. Programs on other GPUs \
             are affected only if they received data from these programs."
        );
    }
    match of_gpu(InPlan::OtherWorkContinues) {
        Some(_) => {
            "Only the program that used the bad memory lost its work; other results are not affected.".to_owned()
        }
        None => String::new(),
    }
}

/// Returns the programs that are running on a GPU: `pid 7 'python3' of ml/train-0`.
fn users(node: &Node<'_>, gpu: &Gpu) -> Vec<String> {
    let all = node.processes().into_iter().flat_map(|section| &section.processes);
    let on_gpu = all.filter(|process| uses(process, gpu) && !is_service(process));
    let named = on_gpu.map(|process| {
        let pod = process.pod_uid.as_deref().and_then(|uid| node.pod_name(uid));
        let pod = pod.map(|pod| format!(" of {pod}")).unwrap_or_default();
        format!("{}{pod}", evidence::process(process))
    });
    named.collect()
}
