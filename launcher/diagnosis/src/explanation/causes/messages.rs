//! The meaning of messages of the scheduler, of registries and of controllers, from `data/messages.tsv`.

use std::sync::LazyLock;

use serde::Deserialize;
use syringe_core::tsv::{alternatives, rows, word};

use crate::explanation::types::Cause;

/// The component that wrote a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    Scheduler,
    Image,
    Controller,
}

/// The meaning of a message.
pub(crate) struct Meaning {
    part: Part,
    words: Vec<Vec<&'static str>>,
    pub(crate) cause: Cause,
    pub(crate) what: &'static str,
    /// Text of the action; `{node}` is the placeholder for the node's name.
    pub(crate) action: &'static str,
}

static TABLE: LazyLock<Vec<Meaning>> =
    LazyLock::new(|| rows(include_str!("../../data/messages.tsv")).filter_map(meaning).collect());

fn meaning(fields: Vec<&'static str>) -> Option<Meaning> {
    let [part, words, cause, what, action] = fields[..] else { return None };
    Some(Meaning { part: word(part)?, words: alternatives(words), cause: word(cause)?, what, action })
}

/// Returns the meaning of the first row that matches.
pub(crate) fn known(part: Part, message: &str) -> Option<&'static Meaning> {
    let message = message.to_ascii_lowercase();
    let matches = |words: &Vec<&str>| words.iter().all(|word| message.contains(word));
    TABLE.iter().find(|meaning| meaning.part == part && meaning.words.iter().any(matches))
}

#[cfg(test)]
mod tests {
    use syringe_core::tsv::rows;

    use super::{Part, TABLE, known};

    #[test]
    fn every_row_is_read() {
        assert_eq!(TABLE.len(), rows(include_str!("../../data/messages.tsv")).count());
    }

    #[test]
    fn errors_of_the_registry_are_distinguished() {
        for (message, what) in [
            (
                "Back-off pulling image \"127.0.0.1:1/cuda:12.8\": ErrImagePull: failed to resolve image: failed to do request: \
                 Head \"https://127.0.0.1:1/v2/cuda/manifests/12.8\": dial tcp 127.0.0.1:1: connect: connection \
                 refused",
                "cannot reach the registry",
            ),
            (
                "failed to resolve reference \"nvcr.io/nvidia/driver:570-rocky8.10\": nvcr.io/nvidia/driver:570-rocky8.10: not \
                 found",
                "no such image",
            ),
            ("pull access denied, repository does not exist or may require authorization", "credentials"),
            ("429 Too Many Requests - toomanyrequests: You have reached your pull rate limit", "rate limit"),
        ] {
            assert!(known(Part::Image, message).is_some_and(|pull| pull.what.contains(what)), "{message}");
        }
        assert!(known(Part::Image, "Back-off pulling image \"train:1\"").is_none());
    }
}
