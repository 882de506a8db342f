//! How a rule is written: its declaration, a draft of its finding, evidence, and the age of events.

pub(crate) mod aging;
pub(crate) mod declaration;
pub(crate) mod draft;
pub(crate) mod evidence;
