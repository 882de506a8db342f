//! `about`: whose the things are that an error message names, and what is checked, from the table `data/owners.tsv`.
//!
//! A message often names the thing that failed (a socket, a file, an address) without its owner. The owner is known, whatever the
//! program that reports it.

use std::sync::LazyLock;

use syringe_core::text::clean;
use syringe_core::tsv::{alternatives, rows};

/// Maximum number of things of one message.
const MAX_THINGS: usize = 2;
/// Maximum length of a name.
const MAX_NAME: usize = 160;

/// Folder in which a container runtime has the root of a container.
const ROOT: &str = "/rootfs/";

struct Owner {
    /// Alternatives, lower case, each with its parts in their order.
    words: Vec<Vec<&'static str>>,
    /// The thing and its owner; `{it}` is the placeholder for the word of the message.
    what: &'static str,
    /// What is checked; `{node}` is the placeholder for the name of the node.
    check: &'static str,
}

static OWNERS: LazyLock<Vec<Owner>> = LazyLock::new(|| {
    rows(include_str!("../data/owners.tsv"))
        .filter_map(|row| {
            let [words, what, check, _source] = row[..] else { return None };
            Some(Owner { words: alternatives(words), what, check })
        })
        .collect()
});

/// Returns a sentence about each thing that the texts name: whose it is, and what to check. `{node}` is the placeholder for the name of
/// the node.
pub(crate) fn about<'t>(texts: impl IntoIterator<Item = &'t str>) -> Vec<String> {
    let mut told: Vec<(usize, String, String)> = Vec::new();
    for text in texts {
        let lower = text.to_ascii_lowercase();
        for (rank, owner) in OWNERS.iter().enumerate() {
            let Some(name) = owner.words.iter().find_map(|words| place(words, &lower)).map(|at| token(text, at)) else {
                continue;
            };
            // A thing has one owner: the first in the table.
            if told.iter().any(|(known, one, _)| *known == rank || *one == name) {
                continue;
            }
            // A name keeps its case.
            let what = match owner.what.starts_with("{it}") {
                true => owner.what.replace("{it}", &name),
                false => capitalized(&owner.what.replace("{it}", &name)),
            };
            let sentence = format!("{what}. {}", owner.check);
            told.push((rank, name, sentence));
        }
    }
    told.sort_by_key(|(rank, ..)| *rank);
    told.into_iter().map(|(.., sentence)| sentence).take(MAX_THINGS).collect()
}

/// Returns where the first of these words is, if the text has all of them in their order.
fn place(words: &[&str], text: &str) -> Option<usize> {
    let (first, rest) = words.split_first()?;
    let at = text.match_indices(first).map(|(at, _)| at).find(|at| is_start(text, *at))?;
    let mut from = at + first.len();
    for word in rest {
        from += text.get(from..)?.find(word)? + word.len();
    }
    Some(at)
}

/// Returns whether a word can begin at a place: not inside another word.
fn is_start(text: &str, at: usize) -> bool {
    let inside = |character: Option<char>| character.is_some_and(|one| one.is_ascii_alphanumeric());
    !(inside(text[at..].chars().next()) && inside(text[..at].chars().next_back()))
}

/// Returns the word of a text at a place, without punctuation around it.
fn token(text: &str, at: usize) -> String {
    let ends = |character: char| character.is_whitespace() || "\"'`()[]{},;=<>\\".contains(character);
    let start = text[..at].rfind(ends).map_or(0, |place| place + 1);
    let rest = &text[at..];
    let end = at + rest.find(ends).unwrap_or(rest.len());
    // A runtime writes the place of a file of the container on the node.
    let start = text[start..at].rfind(ROOT).map_or(start, |root| start + root + ROOT.len() - 1);
    let start = (start..=at).find(|place| text.is_char_boundary(*place)).unwrap_or(at);
    clean(text[start..end].trim_matches([':', '.', '@']), MAX_NAME)
}

fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(characters).collect()
}

#[cfg(test)]
mod tests {
    use super::{OWNERS, about};
    use syringe_core::tsv::rows;

    #[test]
    fn every_row_is_read_and_complete() {
        assert_eq!(OWNERS.len(), rows(include_str!("../data/owners.tsv")).count(), "a row has an error");
        for owner in OWNERS.iter() {
            let what = owner.what;
            assert!(
                owner.words.iter().flatten().all(|word| !word.is_empty() && *word == word.to_ascii_lowercase()),
                "{what}"
            );
            assert!(owner.check.ends_with('.') && !what.ends_with('.') && !owner.check.contains("{it}"), "{what}");
        }
    }

    #[test]
    fn a_thing_of_a_message_has_its_owner() {
        for (message, told) in [
            (
                "failure connecting to '/var/lib/kubelet/pod-resources/kubelet.sock'; err: context deadline exceeded",
                "/var/lib/kubelet/pod-resources/kubelet.sock is the socket at which the kubelet lists",
            ),
            (
                "Get \"https://10.96.0.1:443/api?timeout=32s\": dial tcp 10.96.0.1:443: i/o timeout",
                "the API server of the cluster",
            ),
            ("rootfs/proc/driver/nvidia/params: no such file or directory", "file of the loaded kernel module"),
            ("bash: exec: x-gdrcopy-y: not found", "x-gdrcopy-y belongs to GDRCopy"),
            ("open /run/cdi/x.yaml: permission denied", "/run/cdi/x.yaml is a folder or file of CDI"),
        ] {
            let sentences = about([message]);
            assert!(sentences.iter().any(|sentence| sentence.contains(told)), "{message}: {sentences:?}");
        }
        for message in [
            "the frobnicator is sad",
            "open /data/model.bin: no such file or directory",
            "error: old releases are proofed",
            "",
        ] {
            assert_eq!(about([message]), Vec::<String>::new(), "{message}");
        }
    }
}
