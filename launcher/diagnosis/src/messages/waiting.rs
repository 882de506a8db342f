//! `known`: finds the `Row` of `data/waiting.tsv` (with its `Kind`) that matches a text about a pod that waits for a
//! node. `of_autoscalers`: the rows about messages of autoscalers.

use std::sync::LazyLock;

use serde::Deserialize;
use syringe_core::tsv::{rows, word};

/// The kind of text that a row matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// A message of an autoscaler about a group of nodes that fits the pod.
    Autoscaler,
    /// A message of an autoscaler: no group of nodes fits the pod.
    NoGroup,
    /// The name of a scheduling gate.
    Gate,
    /// A message about a stage of the scheduler, a queue, or software that shares GPUs. The scheduling framework of
    /// Kubernetes writes `running STAGE plugin "NAME"` and `at plugin NAME`. From the stage Permit on, it has chosen a
    /// node.
    Stage,
    /// The key of a taint on nodes that cannot take pods now. A toleration is not the solution.
    Taint,
}

/// A row: words in lower case, the meaning and the advice.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) kind: Kind,
    words: Vec<&'static str>,
    pub(crate) what: &'static str,
    pub(crate) advice: &'static str,
}

static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let row = |fields: Vec<&'static str>| {
        let [kind, words, what, advice] = fields[..] else { return None };
        Some(Row { kind: word(kind)?, words: words.split(" | ").collect(), what, advice })
    };
    rows(include_str!("../data/waiting.tsv")).filter_map(row).collect()
});

impl Row {
    /// Returns the last position of a word of the row in a lower-case text.
    pub(crate) fn position_in(&self, text: &str) -> Option<usize> {
        self.words.iter().filter_map(|word| text.rfind(word)).max()
    }
}

/// Returns the first row of a kind that matches a text.
pub(crate) fn known(kind: Kind, text: &str) -> Option<&'static Row> {
    let text = text.to_ascii_lowercase();
    ROWS.iter().find(|row| row.kind == kind && row.position_in(&text).is_some())
}

/// Returns the rows about messages of autoscalers, the most specific first.
pub(crate) fn of_autoscalers() -> impl Iterator<Item = &'static Row> {
    ROWS.iter().filter(|row| matches!(row.kind, Kind::Autoscaler | Kind::NoGroup))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_read_and_has_lower_case_words() {
        assert_eq!(ROWS.len(), rows(include_str!("../data/waiting.tsv")).count());
        for row in ROWS.iter() {
            assert!(row.words.iter().all(|word| !word.is_empty() && *word == word.to_ascii_lowercase()), "{row:?}");
        }
    }

    #[test]
    fn each_word_of_a_taint_finds_its_row() {
        for row in ROWS.iter().filter(|row| row.kind == Kind::Taint) {
            for word in &row.words {
                assert_eq!(known(Kind::Taint, &format!("example.com/{word}")).map(|found| found.what), Some(row.what));
            }
        }
    }
}
