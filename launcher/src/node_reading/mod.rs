//! Modules that read a node: the node object, the probe, and the diagnosis.

mod container_scope;
pub(crate) mod node_problem;
pub(crate) mod probe_summary;
pub(crate) mod read_node;
