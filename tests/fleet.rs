//! Modules of the tests of tool calls that read many nodes. The tests are in `survey`.
#![allow(clippy::unwrap_used)]

#[path = "fleet/survey.rs"]
mod survey;
#[path = "allocation/tools.rs"]
mod tools;
