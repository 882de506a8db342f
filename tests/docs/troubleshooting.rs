//! Tests that the messages in `docs/troubleshooting.md` are in the source of the program.

use std::path::Path;

use crate::markdown::{page, root};

/// Minimum length of a part of a message between two `…`: shorter parts would match other messages.
const SHORTEST: usize = 8;

/// Returns the source files of both programs and of the core: path, and text without line breaks inside of string literals.
pub(crate) fn source() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for folder in ["launcher", "node-probe/src", "src"] {
        collect(&root().join(folder), &mut files);
    }
    files
}

fn collect(folder: &Path, into: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push((path.display().to_string(), joined(&std::fs::read_to_string(&path).unwrap())));
        }
    }
}

/// Joins lines of string literals that are continued with a backslash, and removes the backslashes of escaped quotes.
fn joined(text: &str) -> String {
    let lines = regex::Regex::new(r"\\\n\s*").unwrap();
    lines.replace_all(text, "").replace("\\\"", "\"")
}

/// Returns whether a file contains the parts of a message in their order, with at most 300 characters between two
/// parts.
fn contains(text: &str, message: &str) -> bool {
    let parts: Vec<_> = message.split('…').map(str::trim).filter(|part| !part.is_empty()).map(regex::escape).collect();
    regex::RegexBuilder::new(&parts.join(r"(?s:.{0,300}?)")).build().unwrap().is_match(text)
}

#[test]
fn every_message_is_in_the_source() {
    let source = source();
    let page = page("docs/troubleshooting.md");
    let mut wrong = Vec::new();
    for message in &page.quoted {
        let longest = message.text.split('…').map(|part| part.trim().len()).max().unwrap_or_default();
        if longest < SHORTEST || !source.iter().any(|(_, text)| contains(text, &message.text)) {
            wrong.push(format!("{}:{}: {}", page.path, message.line, message.text));
        }
    }
    assert!(page.quoted.len() >= 30, "{} messages", page.quoted.len());
    assert!(wrong.is_empty(), "not in the source:\n{}", wrong.join("\n"));
}

#[test]
fn a_message_is_found_across_the_lines_of_a_literal() {
    let text = joined("\"one two \\\n        three {name} \\\"four\\\"\"");
    assert!(contains(&text, "two three … \"four\"") && !contains(&text, "three two") && !contains(&text, "one four"));
}
