//! Modules of the tests of tool calls that read many nodes: `survey` has the tests.
#![allow(clippy::unwrap_used)]

#[path = "fleet/survey.rs"]
mod survey;
#[path = "allocation/tools.rs"]
mod tools;
