//! `refine`: replaces the action of a finding by the next repair step if a repair did not end the fault, from
//! `data/ladder.tsv`.
//!
//! Xids of a GPU before a boot or a reset are in the past. If the state that they reported still exists, the repair did
//! not end the fault.

use std::sync::LazyLock;

use jiff::SignedDuration;

use crate::evidence;
use crate::input::node::{Gpu, Node};
use crate::input::timeline::{Event, concerns, is_off_bus};
use crate::rule::{Draft, InPlan};
use crate::rules::log::xid_history::PAST;
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use syringe_core::tsv::{rows, word};

/// A row of `data/ladder.tsv`.
struct Step {
    id: &'static str,
    xids: Vec<u32>,
    hours: i64,
    action: ActionCode,
    advice: &'static str,
}

static STEPS: LazyLock<Vec<Step>> =
    LazyLock::new(|| rows(include_str!("../../data/ladder.tsv")).filter_map(step).collect());

fn step(fields: Vec<&'static str>) -> Option<Step> {
    let [id, xids, hours, action, advice] = fields[..] else { return None };
    let xids: Option<Vec<u32>> = xids.split(' ').map(|code| code.parse().ok()).collect();
    Some(Step { id, xids: xids?, hours: hours.parse().ok()?, action: word(action)?, advice })
}

/// Text for the repair after an event.
const BOOT: &str = "The boot since then";
const RESET: &str = "The reset since then";

/// Replaces the action of findings about faults that a repair did not end.
pub(super) fn refine(node: &Node<'_>, drafts: &mut [Draft]) {
    let mut persisting: Vec<&str> = Vec::new();
    for draft in drafts.iter_mut().filter(|draft| draft.severity > Severity::Info && !draft.is_over) {
        let Some(step) = STEPS.iter().find(|step| step.id == draft.rule.id) else { continue };
        let Some(gpu) = node.gpus.iter().find(|gpu| draft.is_on(gpu)) else { continue };
        let Some((event, repair)) = before_repair(node, gpu, step) else { continue };
        let line = format!("before: {}; {}", evidence::event(event), evidence::uncapitalized(repair));
        *draft = draft.clone().with_evidence(format!("{line} did not end the fault"));
        *draft = draft.clone().with_action(step.action, step.advice.replace("{repair}", repair));
        if step.action == ActionCode::DrainAndReboot && draft.severity >= Severity::Critical {
            // A normal reboot did not end the fault.
            draft.rule = draft.rule.in_plan(InPlan::PowerCycle);
        }
        persisting.push(step.id);
    }
    let Some(id) = persisting.first() else { return };
    for history in drafts.iter_mut().filter(|draft| draft.rule.id == PAST.id) {
        history.advice =
            format!("This finding alone needs no action. See {id} for the fault that still exists after the repair.");
    }
}

/// Returns the newest event of a GPU that reported the state, and the repair after it. `None` if the state was reported
/// again after the repair.
fn before_repair<'n>(node: &Node<'n>, gpu: &Gpu, step: &Step) -> Option<(&'n KernelEvent, &'static str)> {
    let announces = |event: &&Event<'_>| {
        let of_step = event.fact.kind == Kind::Xid && event.fact.code.is_some_and(|code| step.xids.contains(&code));
        let is_loss = is_off_bus(event.fact) && step.xids.contains(&79);
        (of_step || is_loss) && concerns(event.fact, gpu)
    };
    let mut all: Vec<&Event<'_>> = node.timeline.events.iter().filter(announces).collect();
    if all.iter().any(|event| !event.repaired) {
        return None;
    }
    all.sort_by_key(|event| event.fact.ordered_at());
    let newest = all.last()?;
    let boot = newest.fact.boot_id.as_deref();
    let is_of_earlier_boot = boot.is_some() && boot != node.report.running_boot();
    let by_reset = newest.history.is_some_and(|why| why.contains("reset"));
    let waited = node.booted().zip(newest.fact.ordered_at()).map(|(booted, last)| booted.duration_since(last));
    if is_of_earlier_boot && waited.is_some_and(|waited| waited > SignedDuration::from_hours(step.hours)) {
        return None;
    }
    let repair = if is_of_earlier_boot { BOOT } else { Some(RESET).filter(|_| by_reset)? };
    let fact = node.timeline.events.iter().map(|event| event.fact).find(|fact| std::ptr::eq(*fact, newest.fact))?;
    Some((fact, repair))
}

#[cfg(test)]
mod tests {
    use super::STEPS;
    use crate::catalogue_of_rules;
    use syringe_core::tsv::rows;

    #[test]
    fn every_row_is_read_and_is_about_a_rule() {
        assert_eq!(STEPS.len(), rows(include_str!("../../data/ladder.tsv")).count(), "a row has an error");
        for step in STEPS.iter() {
            assert!(catalogue_of_rules().iter().any(|rule| rule.id == step.id), "{}", step.id);
            assert!(step.advice.starts_with("{repair} ") && step.advice.ends_with('.'), "{}", step.id);
            assert!(step.xids.iter().all(|code| syringe_core::kernel_log::xid(*code).is_some()), "{}", step.id);
        }
    }
}
