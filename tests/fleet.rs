//! Tests of tool calls that read many nodes.
#![allow(clippy::unwrap_used)]

#[path = "fleet/survey.rs"]
mod survey;
#[path = "allocation/tools.rs"]
mod tools;
