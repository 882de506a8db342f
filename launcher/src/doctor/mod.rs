//! `gpu-syringe doctor`: what works, what does not, and the command that fixes it.
//!
//! ```text
//!   check, fix                                        one result; the commands
//!   observe                                            all questions to the API server; no pod is created
//!   judge_access, judge_namespace, judge_nodes         answers → checks: no I/O
//!   node                                               one real probe (--node)
//!   report, command                                    text and JSON; arguments, time limit
//! ```
//!
//! A cause is reported once: a check that fails because of another one is skipped and names it.

mod check;
mod command;
mod fix;
mod judge_access;
mod judge_namespace;
mod judge_nodes;
mod node;
mod observe;
mod report;

pub(crate) use command::{DoctorArgs, run};
