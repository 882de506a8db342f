//! Answers as text for a terminal.

pub(crate) mod fleet_answer;
pub(crate) mod node_answer;
