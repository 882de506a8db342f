//! Many nodes in one call: select the nodes, read each with one probe, compare, aggregate, and fit the answer into a byte budget.

mod aggregate;
mod node_row;
mod outliers;
mod parallel_reads;
mod read_fleet;
mod truncate_answer;

pub(crate) use read_fleet::{NodeSelection, read_fleet};
