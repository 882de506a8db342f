//! Modules of the crate `diagnosis`: from the facts of a GPU node to findings, plans and explanations of pods. No I/O.
//!
//! Each rule avoids two errors: an alarm about healthy hardware, and a healthy verdict although facts were not read.
//! Therefore each finding quotes its evidence, and values that could not be read are listed as unknown, never as
//! healthy.
//!
//! ```text
//!   Report ──▶ input (every GPU once, timeline) ──▶ rules ──▶ drafts ──▶ conclusion ──▶ Diagnosis
//!                                                                        plan, health, summary, unknown, not checked
//!   PodFacts, Report, Diagnosis ──▶ explanation ──▶ Explanation
//! ```
//!
//! `healthy` requires every section, and every fact that the summary needs to rule out faults. A report with fewer
//! sections gets at most `no_fault_found`, and its summary names the sections that were checked.
//!
//! | folder | content | may use |
//! |---|---|---|
//! | `chain.rs` | which fault of several pods or nodes came first, and its echoes | `evidence` |
//! | `evidence.rs` | formats facts for findings | |
//! | `input/` | the facts, prepared for the rules | `evidence` |
//! | `messages/` | reads error messages: known messages, and the general shapes of error texts | |
//! | `rule/` | the parts of a rule: declaration, group, draft of a finding, age of events | `evidence`, `input/` |
//! | `rules/` | the rules, one folder for each subject | `evidence`, `input/`, `messages/`, `rule/`, its own folder |
//! | `conclusion/` | merged findings, plan, health, stages, summary, unknown, not checked | `evidence`, `input/`, `rule/` |
//! | [`explanation`] | explains why a pod failed, hangs or waits | all |
//! | [`fabric`] | the first fault of an NVLink fabric of several nodes | `chain`, `evidence` |
//! | [`job`] | compares the pods of a job, and names the pod that differs | all |
#![forbid(unsafe_code)]

mod chain;
mod conclusion;
mod diagnose;
mod evidence;
pub mod explanation;
pub mod fabric;
pub mod finding;
#[cfg(any(test, fuzzing))]
#[path = "../../../fuzz/checks/diagnosis.rs"]
pub mod fuzzing;
pub mod health;
mod input;
pub mod job;
mod messages;
mod rule;
mod rules;
pub mod stack_stage;

pub use diagnose::{diagnose, first_failing_pod};
pub use evidence::event_name;
pub use finding::{Action, Diagnosis, Finding, Plan, Scope, Verdict};
pub use input::processes::{Stuck, stuck};
pub use messages::phrases::explains_pods;
pub use rule::Rule;
pub use rules::catalogue_of_rules;
pub use rules::kubernetes::named_logs::{logs_to_read, named_in};
pub use stack_stage::{StackStage, Stage, StageState};
