//! The answer of a tool that reads one node, or many.

use schemars::JsonSchema;
use serde::Serialize;

use crate::answer::fleet::FleetAnswer;
use crate::answer::node::NodeAnswer;

/// The answer of a tool that reads one node, or all of them.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// One node, with all details.
    One(Box<NodeAnswer<T>>),
    /// Many nodes, with findings and differences.
    Many(Box<FleetAnswer>),
}
