//! `Decisions`: what platforms and repair systems have decided about the node, without what is over.

use jiff::SignedDuration;

use crate::input::node::Node;
use syringe_core::facts::kubernetes::lifecycle::{Decision, DecisionKind};

/// An announced time that is longer ago than this is over.
const OVER: SignedDuration = SignedDuration::from_hours(24);

/// Returns the decisions that are not over.
pub(crate) fn valid<'a>(node: &Node<'a>) -> impl Iterator<Item = &'a Decision> {
    let now = node.kubernetes.read_at.or(node.now);
    let is_over = move |at| now.zip(at).is_some_and(|(now, at)| now.duration_since(at) > OVER);
    node.kubernetes.decisions.iter().filter(move |decision| !is_over(decision.at))
}

/// Returns the repair or maintenance of the node that another system carries out now.
pub(crate) fn running<'a>(node: &Node<'a>) -> Option<&'a Decision> {
    valid(node).find(|one| matches!(one.kind, DecisionKind::Repair | DecisionKind::Maintenance))
}
