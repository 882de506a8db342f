//! `Phrase`, `PHRASES`: the table of known phrases in the logs of NVIDIA's stack, from `data/stack_phrases.tsv`.

use std::sync::LazyLock;

use crate::messages::shapes;
use crate::rules::kubernetes::stack_log::counter_facts::{CounterFact, NeededFact};
use syringe_core::classification::{ActionCode, Class};
use syringe_core::facts::kubernetes::node::Component;
use syringe_core::tsv::{alternatives, rows, word};

/// A known phrase in the logs of NVIDIA's stack.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Phrase {
    pub(crate) id: &'static str,
    /// Alternatives in lower case. A line must contain all parts of one alternative.
    pub(crate) any: Vec<Vec<&'static str>>,
    pub(crate) class: Class,
    pub(crate) action: ActionCode,
    /// The reason why the container fails, as far as the message contains it.
    pub(crate) cause: &'static str,
    /// The usual reason, if the message itself does not contain the reason.
    pub(super) often: Option<&'static str>,
    /// Whether the action repairs only the usual reason.
    pub(super) is_usual: bool,
    /// Text of the action. `{node}` is the placeholder for the node's name.
    pub(crate) advice: &'static str,
    /// Facts that contradict the cause.
    pub(super) unless: Vec<CounterFact>,
    /// Facts that must be true for the usual reason.
    pub(super) needs: Vec<NeededFact>,
    /// The components in whose logs the phrase has this cause. Empty for all components.
    of: Vec<Component>,
}

/// The phrases, causes before symptoms.
pub(crate) static PHRASES: LazyLock<Vec<Phrase>> =
    LazyLock::new(|| rows(include_str!("../../../data/stack_phrases.tsv")).filter_map(phrase).collect());

fn phrase(fields: Vec<&'static str>) -> Option<Phrase> {
    let (&[id, words, class, action, cause, advice], rest) = fields.split_first_chunk()?;
    let names = |at: usize| rest.get(at).copied().unwrap_or_default().split_whitespace();
    let unless = names(0).map(word).collect::<Option<_>>()?;
    let of = names(1).map(word).collect::<Option<_>>()?;
    let needs = names(2).map(word).collect::<Option<_>>()?;
    let (cause, often) = cause.split_once("; often: ").map_or((cause, None), |(cause, often)| (cause, Some(often)));
    let (advice, is_usual) = advice.strip_prefix("often: ").map_or((advice, often.is_some()), |advice| (advice, true));
    let (any, class, action) = (alternatives(words), word(class)?, word(action)?);
    Some(Phrase { id, any, class, action, cause, often, is_usual, advice, unless, needs, of })
}

impl Phrase {
    /// Returns a component in whose log the phrase has this cause.
    #[cfg(test)]
    pub(super) fn example_of(&self) -> Component {
        self.of.first().copied().unwrap_or_default()
    }

    /// Returns whether the phrase has this cause in the log of a component.
    pub(super) fn is_of(&self, component: Component) -> bool {
        self.of.is_empty() || self.of.contains(&component)
    }

    /// Returns the error inside a line that is more specific than the phrase: the text after the phrase and a colon.
    pub(super) fn inner_error<'l>(&self, line: &'l str) -> Option<&'l str> {
        shapes::inner_error(line.get(self.end_in(&line.to_ascii_lowercase())?..)?)
    }

    /// Returns the end of the phrase in a lower-case line, if the line matches one of the alternatives.
    pub(super) fn end_in(&self, lower_case: &str) -> Option<usize> {
        let end = |part: &&str| lower_case.rfind(*part).map(|at| at + part.len());
        let ends = self.any.iter().filter_map(|parts| parts.iter().map(end).collect::<Option<Vec<_>>>());
        ends.filter_map(|ends| ends.into_iter().max()).max()
    }
}
