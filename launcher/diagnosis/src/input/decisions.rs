//! `valid`: the decisions of cloud platforms and repair systems about the node that still apply.
//! `running`, `running_upgrade`: the current repair, maintenance or upgrade of the driver.

use jiff::SignedDuration;

use crate::input::node::Node;
use syringe_core::facts::kubernetes::lifecycle::{Decision, DecisionKind};

/// A decision no longer applies if its announced time is longer ago than this.
const OVER: SignedDuration = SignedDuration::from_hours(24);

/// Maximum duration of an upgrade of the driver, which drains a node and compiles modules.
pub(crate) const UPGRADE: SignedDuration = SignedDuration::from_mins(60);
/// The label in which the GPU Operator reports the state of an upgrade of the driver.
pub(crate) const UPGRADE_STATE: &str = "nvidia.com/gpu-driver-upgrade-state";

/// Returns the decisions that still apply.
pub(crate) fn valid<'a>(node: &Node<'a>) -> impl Iterator<Item = &'a Decision> {
    let now = node.kubernetes.read_at.or(node.now);
    let is_over = move |at| now.zip(at).is_some_and(|(now, at)| now.duration_since(at) > OVER);
    // The platform repairs the node after a condition changed. A boot since then was the repair, or ended the fault.
    let booted = node.booted();
    let is_of_earlier_boot = move |decision: &Decision| {
        let mut conditions = node.kubernetes.gpu_conditions_since.iter();
        let condition = conditions.find(|(name, _)| decision.signal.starts_with(&format!("condition {name} ")));
        condition.zip(booted).is_some_and(|((_, since), booted)| *since < booted)
    };
    // The state of an upgrade that does not continue is a fault, and no reason to wait.
    let is_stuck = move |decision: &Decision| {
        let since = node.kubernetes.labels.unchanged_since.get(UPGRADE_STATE).copied();
        is_upgrade(decision) && now.zip(since).is_some_and(|(now, since)| now.duration_since(since) >= UPGRADE)
    };
    let decisions = node.kubernetes.decisions.iter();
    decisions.filter(move |one| !is_over(one.at) && !is_of_earlier_boot(one) && !is_stuck(one))
}

/// Returns whether the decision is an upgrade of the driver by the GPU Operator.
fn is_upgrade(decision: &Decision) -> bool {
    decision.signal.strip_prefix("label ").is_some_and(|label| label.starts_with(UPGRADE_STATE))
}

/// Returns the upgrade in which the GPU Operator currently replaces the driver of the node.
pub(crate) fn running_upgrade<'a>(node: &Node<'a>) -> Option<&'a Decision> {
    valid(node).find(|decision| is_upgrade(decision))
}

/// Returns the repair or maintenance that another system currently carries out on the node.
pub(crate) fn running<'a>(node: &Node<'a>) -> Option<&'a Decision> {
    valid(node).find(|one| matches!(one.kind, DecisionKind::Repair | DecisionKind::Maintenance))
}
