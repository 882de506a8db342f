//! Every answer fits in what hosts pass to a model, whatever the nodes and the cluster contain.
#![allow(clippy::unwrap_used)]

#[path = "answer_size/enlarge.rs"]
mod enlarge;
#[path = "answer_size/property.rs"]
mod property;
#[path = "allocation/tools.rs"]
#[allow(dead_code, reason = "not all of it is used here")]
mod tools;
