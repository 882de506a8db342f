//! The answers: about one node, about many nodes, the description of a node.

pub(crate) mod fleet;
pub(crate) mod node;
pub(crate) mod node_description;
pub(crate) mod node_name_ranges;
pub(crate) mod one_or_many;
