//! `OneOrMany`: the answer of a tool that reads one node or many nodes.

use schemars::JsonSchema;
use serde::Serialize;

use crate::answer::fleet::FleetAnswer;
use crate::answer::node::NodeAnswer;
use crate::outcome::{CommandAnswer, Outcome};

/// The answer of a tool that reads one node or many nodes.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// One node, with all details.
    One(Box<NodeAnswer<T>>),
    /// Many nodes, with findings and differences.
    Many(Box<FleetAnswer>),
}

impl<T> CommandAnswer for OneOrMany<T> {
    fn outcome(&self) -> Outcome {
        match self {
            Self::One(answer) => answer.outcome(),
            Self::Many(answer) => answer.outcome(),
        }
    }

    fn names(&self) -> Vec<String> {
        match self {
            Self::One(answer) => answer.names(),
            Self::Many(answer) => answer.names(),
        }
    }
}
