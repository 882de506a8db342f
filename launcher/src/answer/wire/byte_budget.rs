//! `size`: computes the size of an answer as JSON. `MAX_ANSWER`, `MAX_SIZE`: the maximum size of an answer over MCP.
//!
//! Some hosts save a result of more than 50,000 characters to a file, and show the model only 2 KB of it. A host counts
//! only what it passes to the model: the JSON of `structuredContent` (Claude Code, Codex, Copilot CLI, VS Code) or the
//! text block (other hosts). The limit in this module applies to the text block. The text block is the larger of the
//! two, because it is a JSON string, in which each quotation mark of the answer takes two characters.

use serde::Serialize;

/// Maximum number of characters of the text block with the answer, including the JSON around the answer.
pub(crate) const MAX_ANSWER: usize = 45_000;
/// Number of characters around the answer in the list of content blocks (`[{"type":"text","text":""}]`), plus a reserve.
const FRAME: usize = 100;
/// Maximum size of an answer, counted by [`size`].
pub(crate) const MAX_SIZE: usize = MAX_ANSWER - FRAME;

/// Returns the length in bytes of a value's JSON after it is escaped as a JSON string. This is at least the number of
/// characters.
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
    use super::size;

    #[test]
    fn the_size_is_the_length_of_the_text_block() {
        let value = serde_json::json!({"a": ["line\nof \"text\"", "back\\slash", 1.5, null], "ü": {}});
        let text_block = serde_json::to_string(&value.to_string()).expect("JSON");
        assert_eq!(size(&value), text_block.len() - 2);
    }
}
