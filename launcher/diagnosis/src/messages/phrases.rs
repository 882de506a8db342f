//! `known`: finds the row of `data/phrases.tsv` that matches a message. `Phrase`: the row, with its meaning and action.
//! `Part`: the component whose messages a row matches. `only_looks`, `as_usual`, `lowercased`: classify or change the
//! text of an action.
//!
//! If no row of its part matches a message, the cause of the message is not known. The explanation then names the part
//! and quotes the message.

use std::sync::LazyLock;

use serde::Deserialize;
use syringe_core::classification::ActionCode;
use syringe_core::tsv::{alternatives, rows, unescaped, word};

use crate::explanation::types::Cause;
use crate::messages::{cuda_errors, shapes};

/// Maximum length of a name from a message.
const MAX_NAME: usize = 120;

/// The part of the system whose messages a row matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    /// Messages of the scheduler about a pod without a node.
    Scheduler,
    /// Messages of the API server to the controller of a pod.
    Controller,
    /// Messages of the kubelet or the container runtime about an image.
    Image,
    /// Messages of the kubelet about the configuration of a container.
    Config,
    /// Messages of the kubelet, the container runtime and hooks about a container or sandbox that cannot be created.
    Start,
    /// Messages of the kubelet and the attach controller about a volume.
    Volume,
    /// Messages of the kubelet and of device plugins about a pod that the kubelet did not admit.
    Admission,
    /// Messages of the kubelet about a pod that it evicted.
    Eviction,
    /// Messages of the program in a container: its termination message, or its log.
    Program,
}

/// A known message: the words that identify it, its meaning, and the action.
pub(crate) struct Phrase {
    part: Part,
    /// Alternatives: lower-case words that a message must contain in this order. Words after `!` must not be in the
    /// message.
    words: Vec<Vec<&'static str>>,
    pub(crate) cause: Cause,
    pub(crate) code: ActionCode,
    /// The meaning. `{it}` is the placeholder for the name from the message.
    pub(crate) what: &'static str,
    /// The usual reason, if the message itself does not contain the reason.
    pub(crate) often: Option<&'static str>,
    /// Whether the action repairs only the usual reason.
    is_usual: bool,
    /// Whether the message only reports that something failed before, or elsewhere.
    pub(crate) is_consequence: bool,
    /// Text of the action. `{node}` is the placeholder for the node's name.
    pub(crate) action: &'static str,
    names: Option<Names>,
    /// Prefixes of the ids of findings about the node that give the reason for the message.
    pub(crate) findings: Vec<&'static str>,
    #[cfg(test)]
    source: &'static str,
    #[cfg(test)]
    pub(crate) examples: Vec<&'static str>,
}

/// Position of a name in a message: after these words, up to one of these characters.
struct Names {
    after: String,
    until: Vec<char>,
    /// Replacement if the message contains no name.
    otherwise: &'static str,
}

const TABLE: &str = include_str!("../data/phrases.tsv");

static PHRASES: LazyLock<Vec<Phrase>> = LazyLock::new(|| rows(TABLE).filter_map(phrase).collect());

fn phrase(fields: Vec<&'static str>) -> Option<Phrase> {
    let [part, words, cause, code, what, action, after, until, otherwise, findings, _source, _examples] = fields[..]
    else {
        return None;
    };
    let (what, often) = what.split_once(OFTEN).map_or((what, None), |(what, often)| (what, Some(often)));
    let (action, is_consequence) =
        action.strip_prefix("consequence: ").map_or((action, false), |action| (action, true));
    let (action, is_usual) = action.strip_prefix("often: ").map_or((action, often.is_some()), |action| (action, true));
    let names = Names { after: unescaped(after), until: unescaped(until).chars().collect(), otherwise };
    Some(Phrase {
        part: word(part)?,
        words: alternatives(words),
        cause: word(cause)?,
        code: word(code)?,
        what,
        often,
        is_usual,
        is_consequence,
        action,
        names: Some(names).filter(|names| !names.after.is_empty()),
        findings: findings.split_whitespace().collect(),
        #[cfg(test)]
        source: _source,
        #[cfg(test)]
        examples: _examples.split(" || ").collect(),
    })
}

/// Text between the meaning of a message and its usual reason.
const OFTEN: &str = "; often: ";

/// Returns the rows of a part.
#[cfg(test)]
pub(crate) fn rows_of(part: Part) -> impl Iterator<Item = &'static Phrase> {
    PHRASES.iter().filter(move |phrase| phrase.part == part)
}

/// Returns the first phrase of a part that matches the message. A phrase about a consequence is returned only if no
/// other phrase matches.
pub(crate) fn known(part: Part, message: &str) -> Option<&'static Phrase> {
    let mut message = shapes::without_note(message).to_ascii_lowercase();
    if part == Part::Program {
        let named = cuda_errors::names(&message);
        message.push_str(&named);
    }
    let is_match = |phrase: &&Phrase| phrase.part == part && phrase.words.iter().any(|words| matches(words, &message));
    let mut found = PHRASES.iter().filter(is_match).peekable();
    let first = found.peek().copied();
    found.find(|phrase| !phrase.is_consequence).or(first)
}

/// Returns whether findings with this id can give the reason for the message of a pod. Such a finding is critical while
/// the pod cannot run.
pub fn explains_pods(id: &str) -> bool {
    PHRASES.iter().flat_map(|phrase| &phrase.findings).any(|start| id.starts_with(start))
}

/// The action for a message that contains a more specific error than the matched words.
pub(crate) const RESOLVE: &str = "Resolve the error that the message names.";

/// Verbs at the start of actions that only look for the reason and change nothing.
const LOOKING: [&str; 9] = ["Check", "Read", "Find", "Compare", "Look", "See", "The ", "Run diagnose", "Wait"];

/// Returns whether an action only looks for the reason, or begins with the advice to do so.
pub(crate) fn only_looks(action: &str) -> bool {
    action.is_empty() || action.starts_with("Resolve") || LOOKING.iter().any(|start| action.starts_with(start))
}

/// Marks an action as the usual action, for a message that contains a more specific error than the matched words.
pub(crate) fn as_usual(action: &str) -> String {
    if LOOKING.iter().any(|start| action.starts_with(start)) {
        format!("{RESOLVE} {action}")
    } else {
        format!("{RESOLVE} Often this helps: {}", lowercased(action))
    }
}

/// Returns the text with a lower-case first letter, unless it begins with a name.
pub(crate) fn lowercased(text: &str) -> String {
    let mut characters = text.chars();
    match (characters.next(), text.chars().nth(1)) {
        (Some(first), Some(second)) if second.is_lowercase() => first.to_lowercase().chain(characters).collect(),
        _ => text.to_owned(),
    }
}

/// Returns whether a message contains all words in their order, and none of the words after `!`.
fn matches(words: &[&str], message: &str) -> bool {
    let mut rest = message;
    words.iter().all(|word| match word.strip_prefix('!') {
        Some(excluded) => !message.contains(excluded),
        None => rest.split_once(word).is_some_and(|(_, after)| {
            rest = after;
            true
        }),
    })
}

impl Phrase {
    /// Returns the meaning of a message.
    pub(crate) fn meaning(&self, message: &str) -> String {
        let Some(names) = &self.names else { return self.what.to_owned() };
        self.what.replace("{it}", &names.find(message).unwrap_or_else(|| names.otherwise.to_owned()))
    }

    /// Returns the error inside the message that is more specific than the words of the phrase: the text after these
    /// words and a colon. The phrase then only names the component that reports the error.
    pub(crate) fn inner_error<'m>(&self, message: &'m str) -> Option<&'m str> {
        let message = shapes::without_note(message);
        let lower = message.to_ascii_lowercase();
        let words = self.words.iter().find(|words| matches(words, &lower))?;
        let mut end = 0;
        for word in words.iter().filter(|word| !word.starts_with('!')) {
            end += lower.get(end..)?.find(*word)? + word.len();
        }
        shapes::inner_error(message.get(end..)?)
    }

    /// Returns whether the action is only the usual action for this message, because the message contains a more
    /// specific error.
    pub(crate) fn is_usual_for(&self, message: &str) -> bool {
        self.is_usual || self.inner_error(message).is_some()
    }

    /// Returns the action for a message whose reason no fact shows: the action for the content of the message, or else
    /// the usual action, marked as such.
    pub(crate) fn advice_for(&self, message: &str, node: &str) -> String {
        let action = self.advice(node);
        match self.often {
            Some(often) => format!("{RESOLVE} Often: {often}; then {}", lowercased(&action)),
            None if self.is_usual_for(message) => as_usual(&action),
            None => action,
        }
    }

    /// Returns the action for this node.
    pub(crate) fn advice(&self, node: &str) -> String {
        self.action.replace("{node}", node)
    }

    /// Returns whether the cause is in the pod.
    pub(crate) fn is_of_application(&self) -> bool {
        self.cause == Cause::Application
    }

    /// Returns whether the cause is in the node.
    pub(crate) fn is_of_node(&self) -> bool {
        self.cause == Cause::Node
    }

    /// Returns whether the node causes the message: the kubelet wrote it, or the program needs nothing else. Most messages
    /// of programs can also have a cause in the image or in the settings of the pod, or are refuted by NVML.
    pub(crate) fn is_of_node_alone(&self) -> bool {
        const OF_PROGRAMS: [&str; 4] = [
            "failed to initialize nvml: unknown error",
            "system not yet initialized",
            "mps client failed to connect",
            "device doesn't have valid grid license",
        ];
        let is_named = || OF_PROGRAMS.iter().any(|words| self.starts_with(words));
        self.cause == Cause::Node && (self.part != Part::Program || is_named())
    }

    /// Returns whether the image needs a newer CUDA version.
    pub(crate) fn needs_newer_cuda(&self) -> bool {
        self.starts_with("unsatisfied condition: cuda")
    }

    /// Returns the CDI device that was not found, if the phrase is about a missing CDI device.
    pub(crate) fn unresolved_cdi_device(&self, message: &str) -> Option<String> {
        self.names.as_ref().filter(|_| self.starts_with("unresolvable cdi devices"))?.find(message)
    }

    /// Returns whether the phrase is about a device that NVIDIA's hook does not find.
    pub(crate) fn is_about_unknown_device(&self) -> bool {
        self.starts_with("device error:") && self.what.contains("does not have now")
    }

    /// Returns whether the phrase is about a CDI device of a DRA driver (kind `k8s.` and the driver's name). A boot
    /// removes the specifications of such devices.
    pub(crate) fn is_lost_at_boot(&self) -> bool {
        self.starts_with("unresolvable cdi devices k8s.")
    }

    /// Returns whether the phrase states that the driver is absent now, or that its versions differ now.
    pub(crate) fn is_about_present_driver(&self) -> bool {
        const STATEMENTS: [&str; 5] = [
            "driver/library version mismatch",
            "nvml error: driver not loaded",
            "nvml: driver/library version mismatch",
            "nvml: driver not loaded",
            "driver rpc error",
        ];
        STATEMENTS.iter().any(|words| self.starts_with(words))
    }

    /// Returns whether the phrase states that another rank did not respond.
    pub(crate) fn is_about_other_ranks(&self) -> bool {
        self.cause == Cause::Unknown && self.what.contains("rank")
    }

    /// Returns whether the phrase states that a connection to another rank failed.
    pub(crate) fn is_about_connections(&self) -> bool {
        self.is_about_other_ranks() && self.what.contains("connect")
    }

    /// Returns whether the phrase only states that a program finds no GPU. A CUDA error before it gives the reason.
    pub(crate) fn finds_no_gpu(&self) -> bool {
        self.what.contains("finds no GPU")
    }

    /// Returns whether the phrase states that the program uses more or fewer GPUs than it has.
    pub(crate) fn is_about_number_of_gpus(&self) -> bool {
        self.what.contains("another number of GPUs")
    }

    /// Returns whether the phrase states that the driver is too old for the CUDA version of a program.
    pub(crate) fn is_about_old_driver(&self) -> bool {
        self.starts_with("cuda driver version is insufficient")
    }

    /// Returns whether the phrase states that a GPU had too little free memory.
    pub(crate) fn is_about_gpu_memory(&self) -> bool {
        self.starts_with("cuda out of memory")
            || self.starts_with("on startup is less than desired")
            || self.starts_with("the memory capacity is unbalanced")
    }

    /// Returns whether the phrase states that a container lacks a program of the driver.
    pub(crate) fn is_about_missing_driver_files(&self) -> bool {
        self.starts_with("exec: \"nvidia-smi")
    }

    /// Returns whether the phrase is about a GPU or a driver that NVIDIA's runtime may not have added to a container.
    pub(crate) fn is_about_injection(&self) -> bool {
        self.cause == Cause::Node && self.findings.iter().any(|start| start.starts_with("runtime-"))
    }

    fn starts_with(&self, first: &str) -> bool {
        self.words.iter().any(|words| words.first().is_some_and(|word| word.starts_with(first)))
    }
}

impl Names {
    fn find(&self, message: &str) -> Option<String> {
        // Converting ASCII letters to lower case does not change byte offsets.
        let at = message.to_ascii_lowercase().find(&self.after)? + self.after.len();
        let rest = &message[at..];
        let name = &rest[..rest.find(self.until.as_slice()).unwrap_or(rest.len())];
        let name = name.strip_suffix(shapes::UNKNOWN).unwrap_or(name).trim_matches([' ', ':', ',', '"']);
        (!name.is_empty()).then(|| syringe_core::text::clean(name, MAX_NAME))
    }
}

#[cfg(test)]
mod tests {
    use syringe_core::tsv::rows;

    use super::{PHRASES, Part, RESOLVE, TABLE, known, matches};
    use crate::rules::catalogue_of_rules;

    #[test]
    fn every_row_is_read_and_complete() {
        assert_eq!(PHRASES.len(), rows(TABLE).count(), "a row has an error");
        for phrase in PHRASES.iter() {
            let what = phrase.what;
            assert!(phrase.words.iter().flatten().all(|word| *word == word.to_ascii_lowercase()), "{what}");
            assert!(phrase.words.iter().all(|words| !words[0].starts_with('!')), "{what}");
            assert_eq!(what.contains("{it}"), phrase.names.is_some(), "{what}");
            let after = phrase.names.iter().all(|names| names.after == names.after.to_ascii_lowercase());
            assert!(after && phrase.source.starts_with("https://") && phrase.action.ends_with(['.', '?']), "{what}");
        }
    }

    #[test]
    fn each_finding_that_can_give_the_reason_exists() {
        let of_stack = rows(include_str!("../data/stack_phrases.tsv")).map(|fields| fields[0]);
        let ids: Vec<&str> = catalogue_of_rules().iter().map(|rule| rule.id).chain(of_stack).collect();
        for start in PHRASES.iter().flat_map(|phrase| &phrase.findings) {
            assert!(ids.iter().any(|id| id.starts_with(start)), "no finding begins with {start}");
        }
    }

    #[test]
    fn a_row_about_a_consequence_hides_no_other_row() {
        let of_program = || PHRASES.iter().filter(|phrase| phrase.part == Part::Program);
        for consequence in of_program().filter(|phrase| phrase.is_consequence) {
            for other in of_program().filter(|phrase| !phrase.is_consequence) {
                for (after, before) in consequence.examples.iter().zip(&other.examples) {
                    let excluded = |word: &&str| {
                        word.strip_prefix('!').is_some_and(|word| after.to_ascii_lowercase().contains(word))
                    };
                    let found = known(Part::Program, &format!("{before}\n{after}"));
                    let is_excluded = other.words.iter().flatten().any(excluded);
                    assert!(is_excluded || found.is_some_and(|row| !row.is_consequence), "{before}\n{after}");
                }
            }
        }
    }

    #[test]
    fn each_pattern_matches_its_example_and_no_other_rows_example() {
        for phrase in PHRASES.iter() {
            assert_eq!(phrase.words.len(), phrase.examples.len(), "one example for each alternative: {}", phrase.what);
            for (words, example) in phrase.words.iter().zip(&phrase.examples) {
                let message = example.to_ascii_lowercase();
                assert!(matches(words, &message), "{words:?} does not match {example}");
                for other in PHRASES.iter().filter(|other| other.part == phrase.part && !std::ptr::eq(*other, phrase)) {
                    let too_much = other.words.iter().find(|words| matches(words, &message));
                    assert_eq!(too_much, None, "also matches {example}");
                }
            }
        }
    }

    #[test]
    fn an_error_inside_a_message_comes_before_what_is_usual_for_its_words() {
        let parts = [Part::Start, Part::Image, Part::Config, Part::Volume];
        let mut tried = 0;
        for phrase in PHRASES.iter().filter(|phrase| parts.contains(&phrase.part)) {
            for example in &phrase.examples {
                let message =
                    format!("{example}: acme helper failed: reading /opt/acme/y.conf: the frobnicator is sad");
                if !known(phrase.part, &message).is_some_and(|found| std::ptr::eq(found, phrase)) {
                    continue;
                }
                tried += 1;
                let inner = phrase.inner_error(&message).unwrap_or_default();
                assert!(inner.contains("the frobnicator is sad"), "{message}: {inner}");
                assert!(phrase.advice_for(&message, "gpu-1").starts_with(RESOLVE), "{message}");
            }
        }
        assert!(tried > 100, "{tried}");
    }

    #[test]
    fn a_usual_reason_is_told_as_usual() {
        let usual: Vec<_> = PHRASES.iter().filter(|phrase| phrase.often.is_some()).collect();
        assert!(!usual.is_empty());
        for phrase in usual {
            let (what, often) = (phrase.what, phrase.often.unwrap_or_default());
            assert!(!phrase.meaning(phrase.examples[0]).contains(often), "{what}");
            assert!(phrase.advice_for(phrase.examples[0], "gpu-1").contains(&format!("Often: {often}")), "{what}");
        }
    }

    #[test]
    fn similar_messages_of_other_causes_are_not_matched() {
        for (part, message) in [
            // `nvidia_peermem` is not needed for the GPU.
            (Part::Start, "modprobe: ERROR: could not insert 'nvidia_peermem': Invalid argument"),
            (Part::Image, "Back-off pulling image \"train:1\""),
            (Part::Config, "something not found"),
            (Part::Program, "error: the process was terminated"),
            (Part::Program, "out of memory"),
            (Part::Program, "could not load the driver of the database"),
            (Part::Eviction, "The node was drained"),
        ] {
            assert!(known(part, message).is_none(), "{message}");
        }
        // A missing hook must not be treated as a missing command of the image.
        let hook = "error running createContainer hook #0: fork/exec /usr/bin/x-hook: no such file or directory";
        assert!(known(Part::Start, hook).is_some_and(|phrase| phrase.what.contains("hook")));
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
            let meaning = known(Part::Start, message).map(|phrase| phrase.meaning(message)).unwrap_or_default();
            assert!(meaning.contains(named), "{message}: {meaning}");
        }
        let without = known(Part::Start, "no runtime for it is configured").map(|phrase| phrase.meaning("no runtime"));
        assert_eq!(without.as_deref(), Some("the container runtime of its node has no handler for its RuntimeClass"));
    }
}
