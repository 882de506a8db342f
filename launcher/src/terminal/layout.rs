//! `Layout`: the width, characters and colours of printed text. `cleaned`, `broken`: clean a text and wrap a line.

use syringe_core::text::clean_keeping_lines;
use textwrap::{Options, WordSeparator, WordSplitter};

use crate::terminal::style;

/// Layout of a printed page.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layout {
    /// Columns of the terminal. `None`: nothing is wrapped or left out.
    pub width: Option<usize>,
    /// Whether to show all columns of a table, however wide it becomes.
    pub all_columns: bool,
    /// Whether to use ASCII only.
    pub ascii: bool,
    /// Whether to use escape sequences for colours.
    pub colored: bool,
}

/// Cleans a text. Text of a node or tenant must not change the terminal.
pub(super) fn cleaned(text: &str) -> String {
    style::map_plain(text, clean_keeping_lines)
}

/// Wraps a text between words, never inside a word.
pub(super) fn broken(text: &str, width: usize, first: &str, hanging: &str) -> Vec<String> {
    let options = Options::new(width)
        .initial_indent(first)
        .subsequent_indent(hanging)
        .break_words(false)
        .word_splitter(WordSplitter::NoHyphenation)
        .word_separator(WordSeparator::AsciiSpace);
    textwrap::wrap(text, options).into_iter().map(|line| line.trim_end().to_owned()).collect()
}
