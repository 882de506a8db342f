//! Modules that conclude from all findings: merged findings, plans, health, stages, summary, contradictions, faults
//! that are ruled out, and facts that are unknown or not checked.

pub(crate) mod availability;
pub(crate) mod contradictions;
pub(crate) mod health;
pub(crate) mod merge;
pub(crate) mod not_checked;
#[cfg(test)]
mod not_checked_tests;
pub(crate) mod one_fault;
pub(crate) mod plan;
#[cfg(test)]
mod plan_tests;
pub(crate) mod ruled_out;
pub(crate) mod stack_stages;
pub(crate) mod summary;
pub(crate) mod unknown;
