//! Modules that read many nodes in one call, or the nodes of a job: select them, probe each once, compare them, and
//! truncate the answer.

mod aggregate;
mod node_row;
mod outliers;
mod parallel_reads;
mod read_fleet;
mod read_job;
mod select_nodes;

pub(crate) use parallel_reads::{NodeOutcome, ParallelReads};
pub(crate) use read_fleet::{NodeSelection, read_fleet};
pub(crate) use read_job::read_job;
pub(crate) use select_nodes::{SelectedNodes, select_nodes};
