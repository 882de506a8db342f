//! Answers as text for a terminal.

pub(crate) mod fleet_answer;
pub mod layout;
pub(crate) mod node_answer;
pub(crate) mod node_description;
pub mod page;
pub(crate) mod pod_allocation;
pub(crate) mod style;
pub mod table;
