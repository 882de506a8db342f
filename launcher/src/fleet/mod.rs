//! Many nodes in one call: select the nodes, read each with one probe, compare, aggregate, and fit the answer into a byte budget.

mod aggregate;
mod budget;
mod compare;
mod row;
mod survey;
mod walk;

pub(crate) use survey::{NodeSelection, survey};
