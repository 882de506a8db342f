//! Modules of the tests that no answer, for any node or cluster, is longer than what MCP hosts pass to a model.
#![allow(clippy::unwrap_used)]

#[path = "answer_size/enlarge.rs"]
mod enlarge;
#[path = "answer_size/property.rs"]
mod property;
#[path = "allocation/tools.rs"]
#[allow(dead_code, reason = "this test uses only a part of the module")]
mod tools;
