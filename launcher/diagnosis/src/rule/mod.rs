//! How a rule is written: its declaration, its group, the draft of its finding, and the age of events.

pub(crate) mod aging;
pub(crate) mod declaration;
pub(crate) mod draft;
pub(crate) mod group;
