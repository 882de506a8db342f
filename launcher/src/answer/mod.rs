//! The shapes of answers: about one node, about many nodes.

pub(crate) mod fleet;
pub(crate) mod node;
pub(crate) mod node_names;
