//! Many nodes in one call.
#![allow(clippy::unwrap_used)]

#[path = "fleet/survey.rs"]
mod survey;
#[path = "allocation/tools.rs"]
mod tools;
