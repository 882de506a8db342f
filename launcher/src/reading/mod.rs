//! From a node to its diagnosis: read the node object, probe the node, judge.

mod container_scope;
pub(crate) mod probe_note;
pub(crate) mod read_node;
