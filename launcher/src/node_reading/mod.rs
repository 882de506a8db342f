//! Modules that read one node, limit its report to a container, turn problems in its report into failures, and
//! summarize the probe.

mod container_scope;
pub(crate) mod node_problem;
pub(crate) mod probe_summary;
pub(crate) mod read_node;
