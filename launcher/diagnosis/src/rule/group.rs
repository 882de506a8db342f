//! `RuleGroup`: the rules about one subject, with the functions that apply them, refine the findings and list unread
//! facts (`Unread`).

use crate::input::node::Node;
use crate::rule::Draft;
use crate::rule::Rule;
use syringe_core::unknown::Unknown;

/// A group of rules. Each file in `rules/` contains one group, and the `mod.rs` of its folder lists it.
pub(crate) struct RuleGroup {
    pub(crate) rules: &'static [Rule],
    pub(crate) check: fn(&Node<'_>) -> Vec<Draft>,
    /// Runs after the checks of all groups: joins findings, or replaces findings that another finding explains.
    pub(crate) refine: fn(&Node<'_>, &mut Vec<Draft>),
    /// Returns the facts that the group needs and that were not read, in addition to the problems of the sections.
    pub(crate) unread: fn(&Node<'_>) -> Vec<Unread>,
}

/// A fact that was not read.
pub(crate) struct Unread {
    pub(crate) fact: Unknown,
    /// True if the node cannot be called healthy without the fact.
    pub(crate) decides: bool,
}

impl RuleGroup {
    pub(crate) const fn new(rules: &'static [Rule], check: fn(&Node<'_>) -> Vec<Draft>) -> Self {
        Self { rules, check, refine: |_, _| {}, unread: |_| Vec::new() }
    }

    pub(crate) const fn with_refine(self, refine: fn(&Node<'_>, &mut Vec<Draft>)) -> Self {
        Self { refine, ..self }
    }

    pub(crate) const fn with_unread(self, unread: fn(&Node<'_>) -> Vec<Unread>) -> Self {
        Self { unread, ..self }
    }
}
