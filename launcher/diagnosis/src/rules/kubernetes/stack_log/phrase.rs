//! One entry of the table of phrases.

use syringe_core::classification::{ActionCode, Class};

/// A phrase of the stack's logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Phrase {
    /// Stable id.
    pub(crate) id: &'static str,
    /// Alternatives, in lower case: a line must contain all parts of one of them. The case of the line is ignored.
    pub(crate) any: &'static [&'static [&'static str]],
    pub(crate) cause: &'static str,
    pub(crate) class: Class,
    pub(crate) action: ActionCode,
    /// Text of the action; `{node}` stands for the node's name.
    pub(crate) advice: &'static str,
}

impl Phrase {
    /// Returns whether the line matches one of the alternatives. The line is in lower case.
    pub(super) fn is_in(&self, lower_case: &str) -> bool {
        self.any.iter().any(|parts| parts.iter().all(|part| lower_case.contains(part)))
    }
}
