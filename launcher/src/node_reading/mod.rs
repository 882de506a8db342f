//! Modules that read one node (`read_node`), limit its report to a container, turn problems that a node reports into
//! failures, and summarize the probe.

mod container_scope;
pub(crate) mod node_problem;
pub(crate) mod probe_summary;
pub(crate) mod read_node;
