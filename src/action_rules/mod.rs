//! Rules for the two actions on a node, kill and reset: which processes must not be killed, and what blocks a reset.
//!
//! Pure functions that run on the node right before the action.

mod nvlink_group;
pub mod protected;
mod reset_conditions;
pub mod reset_plan;
mod reset_rules;
