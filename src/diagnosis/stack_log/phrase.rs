//! One entry of the table.

use crate::diagnosis::finding::{ActionCode, Class};

/// A phrase of the stack's logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phrase {
    /// Stable id.
    pub id: &'static str,
    /// Wordings, in lower case: a line must contain all parts of one of them. Case does not matter in the line.
    pub any: &'static [&'static [&'static str]],
    /// Why the container fails.
    pub cause: &'static str,
    /// Whose fault it is.
    pub class: Class,
    /// What to do.
    pub action: ActionCode,
    /// The same in words; `{node}` stands for the node's name.
    pub advice: &'static str,
}

impl Phrase {
    /// Whether the line has one of its wordings. The line is in lower case.
    pub(super) fn is_in(&self, lower_case: &str) -> bool {
        self.any.iter().any(|parts| parts.iter().all(|part| lower_case.contains(part)))
    }
}
