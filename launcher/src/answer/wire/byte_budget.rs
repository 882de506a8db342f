//! `size`: computes the size of an answer as JSON. `truncate`: truncates a list to a maximum size.
//!
//! A widely used host moves a result above 50,000 characters to a file and shows the model only 2 KB of it. Hosts count
//! what they pass to the model, which is one copy of the answer: the JSON of `structuredContent` (Claude Code, Codex,
//! Copilot CLI, VS Code) or the text block (other hosts). The limit here applies to the larger form of a copy: the text
//! block as JSON, in which each quotation mark of the answer takes two characters.

use serde::Serialize;

/// Maximum number of characters of a copy of an answer, including its frame.
pub(crate) const MAX_ANSWER: usize = 45_000;
/// Number of characters around the answer in the list of content blocks (`[{"type":"text","text":""}]`), plus a reserve.
const FRAME: usize = 100;
/// Maximum size of an answer, counted by [`size`].
pub(crate) const MAX_SIZE: usize = MAX_ANSWER - FRAME;
/// Maximum size of the lists that a tool truncates itself. The rest is for the other fields of the answer.
pub(crate) const MAX_LISTS: usize = 38_000;

/// Truncates `list` to the entries whose JSON takes at most `most` bytes together. Returns how many were removed.
pub(crate) fn truncate<T: Serialize>(list: &mut Vec<T>, most: usize) -> usize {
    let mut left = most;
    let fitting = list.iter().take_while(|entry| match left.checked_sub(size(entry) + 1) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    });
    let kept = fitting.count();
    let omitted = list.len() - kept;
    list.truncate(kept);
    omitted
}

/// Returns the length of a value's JSON within a JSON string, in bytes: at least its number of characters.
pub(crate) fn size(value: &impl Serialize) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let escaped = bytes.iter().filter(|byte| matches!(byte, b'"' | b'\\')).count();
            self.0 += bytes.len() + escaped;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Writing to a counter cannot fail. A value that cannot be serialized fails when the answer is serialized.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

#[cfg(test)]
mod tests {
    use super::{size, truncate};

    #[test]
    fn entries_that_fit_stay_and_the_others_are_counted() {
        let mut list = vec!["aaaa"; 10];
        assert_eq!(size(&list[0]), 8);
        assert_eq!(truncate(&mut list, 27), 7);
        assert_eq!(list.len(), 3);
    }

    #[test]
    fn the_size_is_the_length_of_the_text_block() {
        let value = serde_json::json!({"a": ["line\nof \"text\"", "back\\slash", 1.5, null], "ü": {}});
        let text_block = serde_json::to_string(&value.to_string()).expect("JSON");
        assert_eq!(size(&value), text_block.len() - 2);
    }
}
