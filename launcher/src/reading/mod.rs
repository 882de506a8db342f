//! From a node to its diagnosis: look at the node, probe it, judge.

mod container_scope;
pub(crate) mod read_node;
