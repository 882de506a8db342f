//! `Page`: a text with paragraphs and tables for people. The lines are wrapped when the page is printed.

use syringe_core::unknown::Unknown;

use crate::terminal::command_names::with_commands;
use crate::terminal::layout::{Layout, broken, cleaned};
use crate::terminal::style::{self, Paint, paint};
use crate::terminal::table::Rows;

/// Maximum length of a line of prose on a wide terminal.
const MAX_PROSE: usize = 120;
/// ASCII replacements for the characters in the texts of this program that are not ASCII.
const IN_ASCII: [(char, &str); 8] =
    [('→', "->"), ('…', "..."), ('°', ""), ('≥', ">="), ('≤', "<="), ('×', "x"), ('·', "-"), ('–', "-")];

/// A text with paragraphs and tables.
#[derive(Clone, Debug, Default)]
pub struct Page(Vec<Block>);

#[derive(Clone, Debug)]
enum Block {
    Prose(String),
    /// Third-party text, in which tool names are not replaced.
    Quoted(String),
    /// Lines to copy, which are not wrapped.
    Command(String),
    Table(Rows),
}

impl Page {
    /// Creates a text whose lines are never wrapped.
    pub(crate) fn verbatim(text: String) -> Self {
        Self(vec![Block::Command(text)])
    }

    /// Adds prose. The continuation of a wrapped line keeps the indentation.
    pub(crate) fn push_str(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Block::Prose(prose)) => prose.push_str(text),
            _ => self.0.push(Block::Prose(text.to_owned())),
        }
    }

    /// Adds third-party text. Tool names in the text are not replaced by commands.
    pub(crate) fn push_quoted(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Block::Quoted(quoted)) => quoted.push_str(text),
            _ => self.0.push(Block::Quoted(text.to_owned())),
        }
    }

    /// Adds a command line that a user can copy. The line is never wrapped.
    pub(crate) fn push_command(&mut self, line: &str) {
        self.0.push(Block::Command(format!("  {line}\n")));
    }

    /// Adds a line for a value that could not be read.
    pub(crate) fn push_unknown(&mut self, unknown: &Unknown) {
        self.push_str(&format!("{}  {}: {}\n", paint("UNKNOWN", Paint::Unknown), unknown.section, unknown.why));
    }

    /// Adds a line with the number of entries that were left out: `… and 3 more pods`.
    pub(crate) fn push_omitted(&mut self, omitted: Option<usize>, entries: &str) {
        if let Some(omitted) = omitted {
            self.push_str(&format!("… and {omitted} {entries}\n"));
        }
    }

    /// Adds a table and, if it has rows, an empty line before it.
    pub(crate) fn push_table(&mut self, rows: Rows) {
        if !rows.is_empty() {
            self.push_str("\n");
            self.0.push(Block::Table(rows));
        }
    }

    pub fn print(&self, layout: &Layout) -> String {
        let mut text = String::new();
        for block in &self.0 {
            match block {
                Block::Prose(prose) => text.push_str(&wrapped(&with_commands(&cleaned(prose)), layout.width)),
                Block::Quoted(quoted) => text.push_str(&wrapped(&cleaned(quoted), layout.width)),
                Block::Command(line) => text.push_str(&cleaned(line)),
                Block::Table(rows) => text.push_str(&rows.lines(layout)),
            }
        }
        let text = text.trim_matches('\n');
        let printed = style::without_marks(text, layout.colored);
        if layout.ascii { in_ascii(&printed) } else { printed }
    }
}

impl From<String> for Page {
    fn from(text: String) -> Self {
        Self(vec![Block::Prose(text)])
    }
}

fn wrapped(text: &str, width: Option<usize>) -> String {
    let Some(width) = width else { return text.to_owned() };
    let ends = text.ends_with('\n');
    let lines: Vec<_> =
        text.strip_suffix('\n').unwrap_or(text).split('\n').map(|line| wrapped_line(line, width)).collect();
    lines.join("\n") + if ends { "\n" } else { "" }
}

fn wrapped_line(line: &str, width: usize) -> String {
    let body = line.trim_start_matches(' ');
    let blanks = line.len() - body.len();
    let hanging = " ".repeat(blanks + marker_width(body, blanks == 0));
    let first = " ".repeat(blanks);
    broken(body, width.min(MAX_PROSE), &first, &hanging).join("\n")
}

/// Returns the indentation of the second line of a paragraph: the position of the text after `→`, `1.` or a headline.
fn marker_width(body: &str, is_headline: bool) -> usize {
    let word = body.split(' ').next().unwrap_or_default();
    let is_number = word.strip_suffix('.').is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
    match word {
        "→" => 2,
        "" => 0,
        _ if is_number => word.len() + 1,
        _ if is_headline => 2,
        _ => 0,
    }
}

fn in_ascii(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars() {
        match IN_ASCII.iter().find(|(known, _)| *known == letter) {
            Some((_, ascii)) => plain.push_str(ascii),
            None => plain.push(letter),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::style::{Paint, paint};

    fn page(text: &str) -> Page {
        Page::from(text.to_owned())
    }

    fn at(width: usize) -> Layout {
        Layout { width: Some(width), ..Layout::default() }
    }

    #[test]
    fn a_paragraph_is_indented_as_its_first_line() {
        let text = "  → Cordon the node and drain it\n  1. Cordon the node now\n    evidence of the finding";
        let lines = "  → Cordon the\n    node and\n    drain it\n  1. Cordon the\n     node now\n    evidence of\n    the finding";
        assert_eq!(page(text).print(&at(16)), lines);
        assert_eq!(page(text).print(&Layout::default()), text);
    }

    #[test]
    fn a_command_stays_one_line() {
        let mut text = page("To end it:\n");
        text.push_command("gpu-syringe kill-gpu-process gpu-1 --pid 4711");
        assert_eq!(text.print(&at(20)), "To end it:\n  gpu-syringe kill-gpu-process gpu-1 --pid 4711");
    }

    #[test]
    fn words_are_never_broken() {
        let uuid = "GPU-b8f3a1c2-4d5e-6f70-8192-a3b4c5d6e7f8";
        let text = page(&format!("The process is on {uuid} and stays")).print(&at(30));
        assert!(text.lines().any(|line| line.trim() == uuid), "{text}");
    }

    #[test]
    fn text_of_a_node_cannot_change_the_terminal() {
        let text = page("name \x1b[31mred\x1b[0m \u{202e}x").print(&Layout { colored: true, ..Layout::default() });
        assert!(!text.contains('\x1b') && !text.contains('\u{202e}'), "{text:?}");
    }

    #[test]
    fn a_terminal_without_unicode_gets_ascii() {
        let text = page("  → 45 °C, ≥ 3 …").print(&Layout { ascii: true, ..Layout::default() });
        assert_eq!(text, "  -> 45 C, >= 3 ...");
    }

    #[test]
    fn a_mark_has_no_width() {
        let text = format!("{} {}", paint("NOT DELETED", Paint::Fatal), "x".repeat(8));
        assert_eq!(page(&text).print(&at(20)), "NOT DELETED xxxxxxxx");
    }
}
