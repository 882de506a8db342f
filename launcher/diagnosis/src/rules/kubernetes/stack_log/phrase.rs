//! One entry of the table of phrases.

use syringe_core::classification::{ActionCode, Class};

/// A phrase of the stack's logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Phrase {
    /// Stable id.
    pub(crate) id: &'static str,
    /// Alternatives, in lower case: a line must contain all parts of one of them. The case of the line is ignored.
    pub(crate) any: &'static [&'static [&'static str]],
    /// Why the container fails.
    pub(crate) cause: &'static str,
    /// Class of the cause.
    pub(crate) class: Class,
    /// Kind of the action.
    pub(crate) action: ActionCode,
    /// Text of the action; `{node}` stands for the node's name.
    pub(crate) advice: &'static str,
}

impl Phrase {
    /// Whether the line matches one of the alternatives. The line is in lower case.
    pub(super) fn is_in(&self, lower_case: &str) -> bool {
        self.any.iter().any(|parts| parts.iter().all(|part| lower_case.contains(part)))
    }
}
