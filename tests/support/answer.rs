//! The type `Answer`: the result of a tool call, with checks that apply to every result.

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
    /// Parses a result from the JSON of the protocol.
    pub(crate) fn of(result: &Value) -> Self {
        let blocks = result["content"].as_array().expect("content is a list");
        assert_eq!(blocks.len(), 1, "the content must be one block of text: {result}");
        assert_eq!(blocks[0]["type"], "text");
        Self {
            is_error: result["isError"].as_bool().unwrap_or(false),
            text: blocks[0]["text"].as_str().expect("text").to_owned(),
            structured: result.get("structuredContent").cloned(),
        }
    }

    /// Returns the answer to a successful call. The text block and the structured content must be equal.
    pub(crate) fn success(&self) -> &Value {
        assert!(!self.is_error, "the call failed: {}", self.text);
        let structured = self.structured.as_ref().expect("structuredContent");
        let text: Value = serde_json::from_str(&self.text).expect("the text is JSON");
        assert_eq!(&text, structured, "text block and structured content must be equal");
        structured
    }

    /// Returns the answer to a successful call that left nothing behind.
    pub(crate) fn deleted(&self) -> &Value {
        let answer = self.success();
        assert_eq!(answer["probe"]["deleted"], true, "{}", answer["probe"]);
        assert_eq!(answer["probe"].get("left_behind"), None);
        assert_eq!(answer["probe"].get("process_left"), None);
        answer
    }

    /// Returns the text of a failed call: what failed, the reason and the next step. There must be no structured content,
    /// because clients would validate it with the output schema.
    pub(crate) fn error(&self) -> &str {
        assert!(self.is_error, "the call succeeded: {}", self.text);
        assert_eq!(self.structured, None, "an error has no structuredContent");
        assert!(self.text.contains("\nNext step: "), "no next step: {}", self.text);
        &self.text
    }

    /// Returns the text of a failed call, which must contain all of these words.
    pub(crate) fn error_with(&self, words: &[&str]) -> &str {
        let text = self.error();
        for word in words {
            assert!(text.contains(word), "no '{word}' in: {text}");
        }
        text
    }
}
