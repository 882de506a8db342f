//! Modules of the answers about a node, many nodes, a job and an Xid code: their data, their JSON (size, schema, marks
//! for untrusted text) and their text for a terminal.

pub(crate) mod fleet;
pub(crate) mod fleet_page;
pub(crate) mod job;
pub(crate) mod node;
pub(crate) mod node_description;
pub(crate) mod node_description_page;
pub(crate) mod node_name_ranges;
pub(crate) mod node_page;
pub(crate) mod one_or_many;
pub(crate) mod pod_tables;
pub(crate) mod wire;
pub(crate) mod xid_meaning;
