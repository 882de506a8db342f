//! Reads many nodes in one call: selects them, probes each once, compares them, and truncates the answer.

mod aggregate;
mod node_row;
mod outliers;
mod parallel_reads;
mod read_fleet;
mod truncate_answer;

pub(crate) use read_fleet::{NodeSelection, read_fleet};
