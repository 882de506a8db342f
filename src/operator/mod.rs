//! What operator mode may do to a node, as pure rules: whom it may end, what must be out of the way before a reset.
//!
//! The rules run on the node, right before the action, and in the launcher's tests. They never act.

mod conditions;
mod nvlink_group;
pub mod protected;
pub mod reset_plan;
mod reset_rules;
