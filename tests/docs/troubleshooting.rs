//! `docs/troubleshooting.md` explains messages that the program prints.

use std::path::Path;

use crate::markdown::{page, root};

/// The shortest part of a message between two `…` that tells it from others.
const SHORTEST: usize = 8;

/// The source files of both programs and of the core with their rules: path, and text without breaks inside of string literals.
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

/// Joins the lines of a string literal that goes on after a backslash, and removes escapes of quotes.
fn joined(text: &str) -> String {
    let lines = regex::Regex::new(r"\\\n\s*").unwrap();
    lines.replace_all(text, "").replace("\\\"", "\"")
}

/// Whether the parts of a message follow each other in a file, near each other.
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
