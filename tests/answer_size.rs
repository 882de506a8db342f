//! Modules of the tests that limit the length of answers, because MCP hosts do not pass very long answers to a model.
#![allow(clippy::unwrap_used)]

#[path = "answer_size/enlarge.rs"]
mod enlarge;
#[path = "answer_size/property.rs"]
mod property;
#[path = "allocation/tools.rs"]
#[allow(dead_code, reason = "this test uses only a part of the module")]
mod tools;
