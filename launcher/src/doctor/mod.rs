//! Modules of `gpu-syringe doctor`, which checks what works, and prints the command that fixes each problem.
//!
//! ```text
//!   check, fix                                        one result; the commands
//!   observe                                            all requests to the API server; no pod is created
//!   access_checks, namespace_checks, node_checks         answers → checks: no I/O
//!   node                                               one real probe (--node)
//!   report, command                                    text and JSON; arguments, time limit
//! ```
//!
//! A cause is reported once. A check that depends on a failed check is skipped, and its evidence names the failed check.

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
