//! The table of messages when a container cannot be created, `data/start_phrases.tsv`.

use std::sync::LazyLock;

use syringe_core::classification::ActionCode;
use syringe_core::tsv::{parts, rows, unescaped, word};

use crate::explanation::types::Cause;

/// Message of the toolkit if an image requires a newer CUDA version.
pub(crate) const NEEDS_NEWER_CUDA: &str = "unsatisfied condition: cuda";

/// Message about a CDI device of a claim. DRA drivers build the kind from `k8s.` and the driver's name.
pub(crate) const CLAIM_WITHOUT_CDI: &str = "unresolvable cdi devices k8s.";

/// Message about a CDI device that does not exist.
pub(crate) const UNRESOLVED_CDI: &str = "unresolvable cdi devices";

/// Maximum length of a name from a message.
const MAX_NAME: usize = 120;

/// A phrase: the words that identify a message, its meaning, and the action.
pub(crate) struct Phrase {
    /// Lower-case words that the message must all contain.
    pub(crate) words: Vec<&'static str>,
    pub(crate) cause: Cause,
    /// Meaning; `{it}` is the placeholder for the name in the message.
    what: &'static str,
    names: Option<Names>,
    pub(crate) code: ActionCode,
    /// Text of the action; `{node}` is the placeholder for the node's name.
    pub(crate) action: &'static str,
    /// Prefixes of the ids of findings about the node that give the reason.
    pub(crate) findings: Vec<&'static str>,
}

/// Position of a name in a message: after these words, up to one of these characters.
struct Names {
    after: String,
    until: Vec<char>,
    /// Replacement if the message has no name.
    otherwise: &'static str,
}

static PHRASES: LazyLock<Vec<Phrase>> =
    LazyLock::new(|| rows(include_str!("../../data/start_phrases.tsv")).filter_map(phrase).collect());

fn phrase(fields: Vec<&'static str>) -> Option<Phrase> {
    let [words, cause, code, what, action, after, until, otherwise, findings] = fields[..] else { return None };
    let names = Names { after: unescaped(after), until: unescaped(until).chars().collect(), otherwise };
    let (words, findings) = (parts(words), findings.split_whitespace().collect());
    let names = Some(names).filter(|names| !names.after.is_empty());
    Some(Phrase { words, cause: word(cause)?, what, names, code: word(code)?, action, findings })
}

/// Returns the first phrase that matches.
pub(crate) fn known(message: &str) -> Option<&'static Phrase> {
    let message = message.to_ascii_lowercase();
    PHRASES.iter().find(|phrase| phrase.words.iter().all(|word| message.contains(word)))
}

impl Phrase {
    /// Returns the meaning of a message.
    pub(crate) fn meaning(&self, message: &str) -> String {
        let Some(names) = &self.names else { return self.what.to_owned() };
        self.what.replace("{it}", &names.find(message).unwrap_or_else(|| names.otherwise.to_owned()))
    }

    /// Returns the CDI device that was not found, if the phrase is about that.
    pub(crate) fn unresolved_cdi_device(&self, message: &str) -> Option<String> {
        self.names.as_ref().filter(|_| self.words.contains(&UNRESOLVED_CDI))?.find(message)
    }

    /// Returns whether the phrase is about files that a boot removes.
    pub(crate) fn is_lost_at_boot(&self) -> bool {
        self.words.contains(&CLAIM_WITHOUT_CDI)
    }
}

impl Names {
    fn find(&self, message: &str) -> Option<String> {
        // Converting ASCII letters to lower case keeps all byte offsets.
        let at = message.to_ascii_lowercase().find(&self.after)? + self.after.len();
        let rest = &message[at..];
        let name = rest[..rest.find(self.until.as_slice()).unwrap_or(rest.len())].trim_matches([' ', ':', ',', '"']);
        (!name.is_empty()).then(|| syringe_core::text::clean(name, MAX_NAME))
    }
}

#[cfg(test)]
mod tests {
    use syringe_core::tsv::rows;

    use super::{PHRASES, known};

    #[test]
    fn every_phrase_is_in_lower_case_and_matches_itself() {
        assert_eq!(PHRASES.len(), rows(include_str!("../../data/start_phrases.tsv")).count(), "a row has an error");
        for phrase in PHRASES.iter() {
            assert!(phrase.words.iter().all(|word| *word == word.to_ascii_lowercase()), "{:?}", phrase.words);
            let found = known(&phrase.words.join(" … ").to_uppercase()).expect("itself");
            assert!(std::ptr::eq(found, phrase), "{:?} is hidden by {:?}", phrase.words, found.words);
            assert_eq!(phrase.what.contains("{it}"), phrase.names.is_some(), "{}", phrase.what);
            let names = phrase.names.iter().map(|names| &names.after);
            assert!(names.into_iter().all(|after| *after == after.to_ascii_lowercase()), "{}", phrase.what);
        }
    }

    #[test]
    fn the_meaning_contains_the_name_from_the_message() {
        for (message, named) in [
            ("failed to get sandbox runtime: no runtime for \"nvidia-cdi\" is configured", "no handler nvidia-cdi"),
            ("failed to find runtime handler nvidia from runtime list map[crun:0x1 runc:0x2]", "no handler nvidia"),
            ("RuntimeHandler \"nvidia\" not supported", "no handler nvidia"),
            (
                "failed to inject CDI devices: unresolvable CDI devices management.nvidia.com/gpu=GPU-e78e68c0: unknown",
                "of the requested name: management.nvidia.com/gpu=GPU-e78e68c0",
            ),
            (
                "CDI device injection failed: unresolvable CDI devices k8s.gpu.nvidia.com/claim=0b7a-gpu-0",
                "not on its node: k8s.gpu.nvidia.com/claim=0b7a-gpu-0",
            ),
            (
                "prepare dynamic resources: DRA driver gpu.nvidia.com is not registered",
                "DRA driver gpu.nvidia.com has not",
            ),
            (
                "requested device channel-0 is already allocated to different claim 4914da61-1a20-42b3-bf26-981025df4289",
                "another claim, 4914da61-1a20-42b3-bf26-981025df4289",
            ),
            ("unsatisfied condition: brand=tesla", "does not meet: brand=tesla"),
            ("nvidia-container-cli: device error: GPU-5f1c: unknown device: unknown", "have now: GPU-5f1c"),
        ] {
            let meaning = known(message).map(|phrase| phrase.meaning(message)).unwrap_or_default();
            assert!(meaning.contains(named), "{message}: {meaning}");
        }
        let without = known("no runtime for it is configured").map(|phrase| phrase.meaning("no runtime"));
        assert_eq!(without.as_deref(), Some("the container runtime of its node has no handler for its RuntimeClass"));
    }
}
