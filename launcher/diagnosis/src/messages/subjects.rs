//! `is_about`: whether a message is about the same subject as a finding, from a table of words.

use std::sync::LazyLock;

use syringe_core::tsv::{alternatives, rows};

/// Alternatives. Each is a list of words that a message must contain.
type Alternatives = Vec<Vec<&'static str>>;

/// Ids of findings, each with the words of messages about the same subject.
static SUBJECTS: LazyLock<Vec<(&str, Alternatives)>> = LazyLock::new(|| {
    let rows = rows(include_str!("../data/subjects.tsv"));
    rows.filter_map(|row| Some((*row.first()?, alternatives(row.get(1)?)))).collect()
});

/// Returns whether a message is about the same subject as the finding with this id.
pub(crate) fn is_about(message: &str, finding: &str) -> bool {
    let lower = message.to_ascii_lowercase();
    let says = |words: &Vec<&str>| words.iter().all(|word| lower.contains(word));
    SUBJECTS.iter().any(|(id, any)| *id == finding && any.iter().any(says))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_about_the_finding_of_its_subject_only() {
        let message = "failed to find runtime handler nvidia from runtime list map[crun runc]";
        let about: Vec<&str> = SUBJECTS.iter().map(|(id, _)| *id).filter(|id| is_about(message, id)).collect();
        assert_eq!(about, ["runtime-handler-missing"]);
        assert!(SUBJECTS.iter().all(|(id, _)| !is_about("the frobnicator is sad", id)));
    }

    #[test]
    fn each_finding_of_the_table_exists() {
        for (id, _) in SUBJECTS.iter() {
            assert!(crate::rules::catalogue_of_rules().iter().any(|rule| rule.id == *id), "{id}");
        }
    }
}
