//! The result of a tool call, with what every one of them must keep to.

use serde_json::Value;

/// The result of a tool call.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Whether the tool failed.
    pub(crate) is_error: bool,
    /// The text block.
    pub(crate) text: String,
    /// `structuredContent`.
    pub(crate) structured: Option<Value>,
}

impl Answer {
    /// Reads a result as it came over the wire.
    pub(crate) fn of(result: &Value) -> Self {
        let blocks = result["content"].as_array().expect("content is a list");
        assert_eq!(blocks.len(), 1, "one block of text: {result}");
        assert_eq!(blocks[0]["type"], "text");
        Self {
            is_error: result["isError"].as_bool().unwrap_or(false),
            text: blocks[0]["text"].as_str().expect("text").to_owned(),
            structured: result.get("structuredContent").cloned(),
        }
    }

    /// The answer of a call that succeeded: the same in both halves.
    pub(crate) fn success(&self) -> &Value {
        assert!(!self.is_error, "the call failed: {}", self.text);
        let structured = self.structured.as_ref().expect("structuredContent");
        let text: Value = serde_json::from_str(&self.text).expect("the text is JSON");
        assert_eq!(&text, structured, "both halves say the same");
        structured
    }

    /// The answer of a probe that succeeded and left nothing behind.
    pub(crate) fn deleted(&self) -> &Value {
        let answer = self.success();
        assert_eq!(answer["probe"]["deleted"], true, "{}", answer["probe"]);
        assert_eq!(answer["probe"].get("left_behind"), None);
        assert_eq!(answer["probe"].get("process_left"), None);
        answer
    }

    /// The text of a call that failed: what, why, and the next step. No structured half, which clients would hold against
    /// the output schema.
    pub(crate) fn error(&self) -> &str {
        assert!(self.is_error, "the call succeeded: {}", self.text);
        assert_eq!(self.structured, None, "an error has no structuredContent");
        assert!(self.text.contains("\nNext step: "), "no next step: {}", self.text);
        &self.text
    }

    /// The text of a call that failed, with all of these words in it.
    pub(crate) fn error_with(&self, words: &[&str]) -> &str {
        let text = self.error();
        for word in words {
            assert!(text.contains(word), "no '{word}' in: {text}");
        }
        text
    }
}
