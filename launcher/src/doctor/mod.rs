//! `gpu-syringe doctor`: what works, what does not, and the command that fixes it.
//!
//! ```text
//!   check, fix                                        one result; the commands
//!   observe                                            all requests to the API server; no pod is created
//!   access_checks, namespace_checks, node_checks         answers → checks: no I/O
//!   node                                               one real probe (--node)
//!   report, command                                    text and JSON; arguments, time limit
//! ```
//!
//! A cause is reported once: a check that fails because of another one is skipped and names it.

mod access_checks;
mod check;
mod command;
mod fix;
mod namespace_checks;
mod node;
mod node_checks;
mod observe;
mod report;

pub(crate) use command::{DoctorArgs, run};
