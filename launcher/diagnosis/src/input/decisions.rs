//! `valid`: decisions of cloud platforms and repair systems about the node that still apply. `running`: the current repair or maintenance.

use jiff::SignedDuration;

use crate::input::node::Node;
use syringe_core::facts::kubernetes::lifecycle::{Decision, DecisionKind};

/// A decision no longer applies if its announced time is longer ago than this.
const OVER: SignedDuration = SignedDuration::from_hours(24);

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
    let decisions = node.kubernetes.decisions.iter();
    decisions.filter(move |decision| !is_over(decision.at) && !is_of_earlier_boot(decision))
}

/// Returns the repair or maintenance that another system currently carries out on the node.
pub(crate) fn running<'a>(node: &Node<'a>) -> Option<&'a Decision> {
    valid(node).find(|one| matches!(one.kind, DecisionKind::Repair | DecisionKind::Maintenance))
}
