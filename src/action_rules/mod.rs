//! Modules of rules for actions on a node: which processes must not be killed, and whether and how a GPU can be reset.
//! The modules about the reset: its conditions, what it requires, the GPUs that NVLink connects, and its plan.
//!
//! The functions are pure. They run on the node right before the action.

mod nvlink_group;
pub mod protected;
mod reset_conditions;
pub mod reset_needs;
pub mod reset_plan;
mod reset_rules;
