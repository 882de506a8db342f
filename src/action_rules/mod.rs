//! Modules of rules for actions on a node: protected processes, and the conditions, needs and plan of a GPU reset.
//!
//! The functions are pure. They run on the node right before the action.

mod nvlink_group;
pub mod protected;
mod reset_conditions;
pub mod reset_needs;
pub mod reset_plan;
mod reset_rules;
