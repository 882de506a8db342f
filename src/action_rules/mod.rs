//! Pure rules of operator mode: which processes must not be killed, and what blocks a reset.
//!
//! The rules run on the node, right before the action. They only decide; they do not act.

mod nvlink_group;
pub mod protected;
mod reset_conditions;
pub mod reset_plan;
mod reset_rules;
