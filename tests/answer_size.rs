//! Modules of tests that check that no answer, for any node or cluster, is too long for MCP hosts to pass to a model.
#![allow(clippy::unwrap_used)]

#[path = "answer_size/enlarge.rs"]
mod enlarge;
#[path = "answer_size/property.rs"]
mod property;
#[path = "allocation/tools.rs"]
#[allow(dead_code, reason = "this test uses only a part of the module")]
mod tools;
