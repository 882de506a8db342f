//! Modules with the elements of a rule: its declaration, its group, the draft of its finding, the ageing of events.

pub(crate) mod aging;
mod declaration;
mod draft;
mod group;

pub use declaration::Rule;
pub(crate) use declaration::*;
pub(crate) use draft::{Draft, have_shared_cause};
pub(crate) use group::{RuleGroup, Unread};
