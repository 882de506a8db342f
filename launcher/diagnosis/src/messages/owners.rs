//! `about`: describes the owners of the things that an error message names, and the checks for them, from
//! `data/owners.tsv`. `about_on`: does so for a node with a known operating system.
//!
//! A message often names the thing that failed (a socket, a file, an address), but not its owner. The owner is the
//! same, whatever program reports the failure.

use std::sync::LazyLock;

use crate::evidence;
use crate::messages::hints::without_hints;
use syringe_core::text::clean;
use syringe_core::tsv::{alternatives, rows};

/// Maximum number of things in one message.
const MAX_THINGS: usize = 2;
/// Maximum length of a name.
const MAX_NAME: usize = 160;

/// Folder that contains the root file system of a container on the node.
const ROOT: &str = "/rootfs/";

/// Characters that end a word.
const ENDS: [char; 19] =
    [' ', '\t', '\n', '\r', '"', '\'', '`', '(', ')', '[', ']', '{', '}', ',', ';', '=', '<', '>', '\\'];

struct Owner {
    /// Alternatives in lower case. Each alternative is a list of words in their order.
    words: Vec<Vec<&'static str>>,
    /// The thing and its owner. `{it}` is the placeholder for the word from the message.
    what: &'static str,
    /// The check. `{node}` is the placeholder for the name of the node.
    check: &'static str,
    /// Additional checks with a condition: the words that the message and the operating system must contain, or must
    /// not contain (after `!`).
    conditional: Vec<(Vec<Vec<&'static str>>, &'static str)>,
}

static OWNERS: LazyLock<Vec<Owner>> = LazyLock::new(|| {
    rows(include_str!("../data/owners.tsv"))
        .filter_map(|row| {
            let [words, what, check, _source, ref rest @ ..] = row[..] else { return None };
            let cases = rest.iter().flat_map(|cell| cell.split(" || "));
            let conditional: Option<Vec<_>> =
                cases.map(|case| case.split_once(" => ").map(|(words, check)| (alternatives(words), check))).collect();
            Some(Owner { words: alternatives(words), what, check, conditional: conditional? })
        })
        .collect()
});

/// Returns a sentence about the owner of each thing that the texts name, with the check. `{node}` is the placeholder
/// for the name of the node.
pub(crate) fn about<'t>(texts: impl IntoIterator<Item = &'t str>) -> Vec<String> {
    about_on(texts, None)
}

/// Returns the sentences of `about`, for a node with this operating system.
pub(crate) fn about_on<'t>(texts: impl IntoIterator<Item = &'t str>, os: Option<&str>) -> Vec<String> {
    let mut told: Vec<(usize, String, String)> = Vec::new();
    for text in texts {
        let text = &*without_hints(text);
        let lower = text.to_ascii_lowercase();
        // The reason follows the last colon. The words before the colon only name the component that reports the
        // reason.
        let reason = lower.rfind(": ").map_or(0, |at| at + 2);
        let places = OWNERS.iter().enumerate().filter_map(|(rank, owner)| Some((rank, owner, owner.place(&lower)?)));
        let places: Vec<(usize, &Owner, (usize, usize))> = places.collect();
        let of_reason = places.iter().any(|(.., (at, _))| *at >= reason);
        for (rank, owner, (start, end)) in places.into_iter().filter(|(.., (at, _))| *at >= reason || !of_reason) {
            let token = token(text, start);
            // An ordinary word is a name only together with the words next to it.
            let name = if has_form_of_name(&token) { token } else { clean(&text[start..end], MAX_NAME) };
            // A thing has one owner: the first match in the table.
            if told.iter().any(|(known, one, _)| *known == rank || *one == name) {
                continue;
            }
            // The name is not capitalized.
            let what = match owner.what.starts_with("{it}") {
                true => owner.what.replace("{it}", &name),
                false => evidence::capitalized(&owner.what.replace("{it}", &name)),
            };
            let checks = std::iter::once(owner.check).chain(owner.applicable(&lower, os));
            let sentence = format!("{what}. {}", checks.collect::<Vec<_>>().join(" "));
            told.push((rank, name, sentence));
        }
    }
    told.sort_by_key(|(rank, ..)| *rank);
    told.into_iter().map(|(.., sentence)| sentence).take(MAX_THINGS).collect()
}

impl Owner {
    /// Returns the position of the first alternative that a text contains.
    fn place(&self, lower: &str) -> Option<(usize, usize)> {
        self.words.iter().find_map(|words| place(words, lower))
    }

    /// Returns the checks whose conditions the message and the operating system of the node satisfy.
    fn applicable(&self, lower: &str, os: Option<&str>) -> Vec<&'static str> {
        let os = os.unwrap_or_default().to_ascii_lowercase();
        let has = |word: &str| match word.strip_prefix("os:") {
            Some(name) => os.contains(name),
            None => lower.contains(word),
        };
        let holds =
            |words: &Vec<&str>| words.iter().all(|word| word.strip_prefix('!').map_or(has(word), |not| !has(not)));
        self.conditional.iter().filter(|(words, _)| words.iter().any(holds)).map(|(_, check)| *check).collect()
    }
}

/// Returns whether a word can be a name on its own, because it contains a capital letter, a digit or a special
/// character.
fn has_form_of_name(token: &str) -> bool {
    token.chars().any(|one| !one.is_ascii_lowercase())
}

/// Returns the start and the end of the words, if the text contains all of them in their order.
fn place(words: &[&str], text: &str) -> Option<(usize, usize)> {
    let (first, rest) = words.split_first()?;
    let is_thing = |at: &usize| {
        is_start(text, *at) && !is_in_command(text, *at) && (first.starts_with('-') || !is_in_option(text, *at))
    };
    let at = text.match_indices(first).map(|(at, _)| at).find(is_thing)?;
    let mut end = at + first.len();
    for word in rest {
        end += text.get(end..)?.find(word)? + word.len();
    }
    Some((at, end))
}

/// Returns whether a position is inside the name of an option: `--ldconfig=…`.
fn is_in_option(text: &str, at: usize) -> bool {
    let start = text[..at].rfind(ENDS).map_or(0, |place| place + 1);
    text[start..at].starts_with("--")
}

/// Text before the square bracket in which a runtime writes a command line with its arguments.
const COMMANDS: [&str; 4] = ["command: [", "cmd: [", "args: [", "exec: ["];

/// Returns whether a position is inside an argument of a quoted command line. The message is not about each of these
/// arguments.
fn is_in_command(text: &str, at: usize) -> bool {
    let start = COMMANDS.iter().filter_map(|words| text[..at].rfind(words).map(|place| place + words.len())).max();
    start.is_some_and(|start| {
        // The first word is the program that the runtime starts, not an argument.
        let is_argument = text[start..at].contains(' ');
        is_argument
            && !text[start..at].contains(']')
            && text[at..].find(']').is_some_and(|end| at + end + 1 < text.len())
    })
}

/// Returns whether a word can start at a position, because the position is not inside another word.
fn is_start(text: &str, at: usize) -> bool {
    let inside = |character: Option<char>| character.is_some_and(|one| one.is_ascii_alphanumeric());
    !(inside(text[at..].chars().next()) && inside(text[..at].chars().next_back()))
}

/// Returns the word at a position of a text, without punctuation.
fn token(text: &str, at: usize) -> String {
    let start = text[..at].rfind(ENDS).map_or(0, |place| place + 1);
    let rest = &text[at..];
    let end = at + rest.find(ENDS).unwrap_or(rest.len());
    // A container runtime prints the path of a file on the node. The path in the container follows `/rootfs/`.
    let start = text[start..at].rfind(ROOT).map_or(start, |root| start + root + ROOT.len() - 1);
    let start = (start..=at).find(|place| text.is_char_boundary(*place)).unwrap_or(at);
    clean(text[start..end].trim_matches([':', '.', '@']), MAX_NAME)
}

#[cfg(test)]
mod tests {
    use super::{OWNERS, about, about_on};
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
            assert!(owner.conditional.iter().all(|(words, check)| !words.is_empty() && check.ends_with('.')), "{what}");
            assert!(owner.check.ends_with('.') && !what.ends_with('.') && !owner.check.contains("{it}"), "{what}");
        }
    }

    #[test]
    fn a_name_has_the_form_of_a_name() {
        const NO_NOUN: [&str; 7] = ["error", "failed", "failure", "cannot", "could", "unable", "has"];
        for owner in OWNERS.iter().filter(|owner| owner.what.starts_with("{it}")) {
            for words in &owner.words {
                let first = words[0].split(' ').next().unwrap_or_default();
                let is_noun = !NO_NOUN.contains(&first) && (first == "hugging" || !first.ends_with("ing"));
                assert!(is_noun, "{first} is no name: {}", owner.what);
                let message = format!("cannot do it: {}", words.join(" "));
                for sentence in about([message.as_str()]) {
                    assert!(!sentence.starts_with("it ") && !sentence.starts_with("cannot"), "{message}: {sentence}");
                }
            }
        }
        let told = about(["Error watching fields: Host engine is running as non-root"]);
        assert!(told.len() == 1 && told[0].contains("SYS_ADMIN"), "{told:?}");
        let told = about(["Error watching fields DCGM_FI_DEV_X: not supported"]);
        assert!(told[0].starts_with("DCGM_FI_DEV_X is a field of DCGM"), "{told:?}");
    }

    #[test]
    fn a_name_in_a_hint_and_an_option_are_no_things() {
        for owner in OWNERS.iter() {
            for words in &owner.words {
                let name = words.join(" ").replace(": ", " ").replace('[', "");
                let message = format!("it is sad (run with {name}=1 for details)");
                assert_eq!(about([message.as_str()]), Vec::<String>::new(), "{message}");
            }
        }
        assert_eq!(about(["exec failed: tool --ldconfig=/x: it is sad"]), Vec::<String>::new());
    }

    #[test]
    fn an_argument_of_a_quoted_command_line_is_no_thing() {
        for owner in OWNERS.iter() {
            for words in owner.words.iter().filter(|words| words.len() == 1 && !words[0].contains([' ', '[', ']'])) {
                let message =
                    format!("hook: exec command: [/usr/bin/x --load --y=@/z/{0} {0}]\\nx: it is sad", words[0]);
                assert_eq!(about([message.as_str()]), Vec::<String>::new(), "{message}");
            }
        }
        let failed = "exec command: [/usr/bin/x --ldconfig=@/sbin/ldconfig.real]: process /sbin/ldconfig.real failed";
        assert!(about([failed]).join(" ").starts_with("/sbin/ldconfig.real is the program"), "{:?}", about([failed]));
    }

    #[test]
    fn only_the_checks_whose_condition_holds_are_told() {
        let told = |message: &str, os: &str| about_on([message], Some(os)).join(" ");
        let failed = "tool --ldconfig=@/sbin/ldconfig: ldcache error: process /sbin/ldconfig failed with error code: 1";
        let text = told(failed, "CentOS Linux 7");
        assert!(text.starts_with("/sbin/ldconfig is the program") && text.contains("failed itself"), "{text}");
        assert!(!text.contains("Ubuntu") && !text.contains("Correct the path"), "{text}");
        let text = told("ldcache error: process @/sbin/ldconfig failed with error code: 127", "Ubuntu 24.04");
        assert!(
            text.contains("Correct the path") && text.contains("Ubuntu") && !text.contains("failed itself"),
            "{text}"
        );
        assert!(!told("process @/sbin/ldconfig.real failed with error code: 1", "Ubuntu 24.04").contains("Ubuntu"));
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
