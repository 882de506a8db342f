//! `pair`: finds two versions in an error message that do not match (`Pair`), for example of a library and a module.

use syringe_core::text::clean;

/// Phrases, in lower case, of messages about versions that do not match.
const MISMATCH: [&str; 16] = [
    "mismatch",
    "not match",
    "n't match",
    "but found",
    ", found",
    "requires",
    "required",
    "older than",
    "newer than",
    "too old",
    "compatible with",
    "incompatible",
    "expected",
    "but this",
    "was compiled with",
    "differ",
];
/// Beginnings of two lines. The first line contains the required version, and the second line the present version.
const NEEDED: [&str; 4] = ["was built by", "was built with", "was compiled with", "compiled using"];
const PRESENT: [&str; 3] = ["you are using", "you are running", "is running"];
/// Maximum number of lines between the two lines.
const APART: usize = 2;
/// Maximum length of a quoted line.
const MAX_LINE: usize = 120;

/// Two versions in a message that do not match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    /// Both versions: `12.1.0 and 11.3.0`.
    pub(crate) versions: String,
    /// The lines that contain the versions.
    pub(crate) quotes: Vec<String>,
}

impl Pair {
    /// Returns a text with the versions.
    pub(crate) fn in_words(&self) -> String {
        let quotes: Vec<String> = self.quotes.iter().map(|line| format!("\"{line}\"")).collect();
        format!("two versions in the message do not match: {} ({})", self.versions, quotes.join(", "))
    }
}

/// Returns the last two versions that these lines report as a mismatch.
pub(crate) fn pair<'l>(lines: impl IntoIterator<Item = &'l str>) -> Option<Pair> {
    let lines: Vec<&str> = lines.into_iter().map(str::trim).collect();
    let has = |line: &str, words: &[&str]| {
        let lower = line.to_ascii_lowercase();
        words.iter().any(|word| lower.contains(word))
    };
    (0..lines.len()).rev().find_map(|at| {
        let line = lines[at];
        let found = versions(line);
        if has(line, &PRESENT)
            && let Some(present) = found.last()
        {
            let before = &lines[at.saturating_sub(APART)..at];
            let needed = before.iter().rev().find(|other| has(other, &NEEDED))?;
            let version = *versions(needed).last()?;
            return (version != *present).then(|| made(version, present, &[needed, line]));
        }
        let (first, last) = (found.first()?, found.last()?);
        (has(line, &MISMATCH) && first != last).then(|| made(first, last, &[line]))
    })
}

fn made(first: &str, last: &str, quotes: &[&str]) -> Pair {
    let quotes = quotes.iter().map(|line| clean(line, MAX_LINE)).collect();
    Pair { versions: format!("{first} and {last}"), quotes }
}

/// Returns the versions in a line: numbers with dots. An address has four numbers, but a version of Kubernetes or CUDA
/// has at most three.
fn versions(line: &str) -> Vec<&str> {
    let parts = line.split(|character: char| !(character.is_ascii_alphanumeric() || character == '.'));
    let parts = parts.map(|part| part.trim_matches('.').trim_start_matches(['v', 'V']));
    parts.filter(|part| is_version(part)).collect()
}

fn is_version(part: &str) -> bool {
    let numbers: Vec<&str> = part.split('.').collect();
    let all_digits =
        numbers.iter().all(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()));
    all_digits && matches!(numbers.len(), 2 | 3)
}

#[cfg(test)]
mod tests {
    use super::pair;

    #[test]
    fn two_versions_that_do_not_fit_are_found() {
        for (lines, versions) in [
            (
                vec![
                    "The kernel was built by:  gcc-13 (Debian 13.2.0-4) 13.2.0",
                    "You are using:  cc (Debian 12.2.0) 12.2.0",
                ],
                "13.2.0 and 12.2.0",
            ),
            (
                vec![
                    "API mismatch: the client has the version 550.54.15, but this kernel module has the version 535.129.03.",
                ],
                "550.54.15 and 535.129.03",
            ),
            (
                vec!["feature requires GPU driver version >= 570.158.01, but found 570.86.15"],
                "570.158.01 and 570.86.15",
            ),
        ] {
            let found = pair(lines.iter().copied()).unwrap_or_else(|| panic!("no versions in {lines:?}"));
            assert_eq!(found.versions, versions, "{lines:?}");
        }
    }

    #[test]
    fn other_numbers_are_no_versions() {
        for lines in [
            vec!["dial tcp 10.96.0.1:443: expected 10.96.0.2"],
            vec!["loss 0.31, accuracy 0.92"],
            vec!["requires version 1.2.3"],
            vec!["You are using:  cc (Debian 12.2.0) 12.2.0"],
            vec!["The kernel was built by: gcc 12.2.0", "You are using: cc 12.2.0"],
        ] {
            assert_eq!(pair(lines.iter().copied()), None, "{lines:?}");
        }
    }
}
