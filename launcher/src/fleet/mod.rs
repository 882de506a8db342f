//! Many nodes in one call: select, read each with one probe, compare, aggregate, fit into a byte budget.

mod aggregate;
mod budget;
mod compare;
mod row;
mod survey;
mod walk;

pub(crate) use survey::{NodeSelection, survey};
