//! `json_of`, `finish`: clean the untrusted texts of an answer, and add the list `quoted` of all fields with
//! third-party text.
//!
//! Most texts are already cleaned where they are read. This module cleans all texts, because some names and labels are
//! checked only by the API server. [`AnswerShape`] defines which texts are our own.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use syringe_core::text::clean_keeping_lines;

use crate::answer::wire::shape::{AnswerShape, Text, schema_of};

/// The field that lists the fields with third-party text.
pub(crate) const QUOTED: &str = "quoted";

/// Returns an answer as JSON, with clean texts and the list `quoted`.
pub(crate) fn json_of<T: Serialize + JsonSchema>(answer: &T) -> Value {
    let mut json = json!(answer);
    finish(&mut json, &AnswerShape::from_schema(&schema_of::<T>()));
    json
}

/// Cleans the texts of an answer, and adds the list `quoted` of the fields with third-party text.
pub(crate) fn finish(answer: &mut Value, shape: &AnswerShape) {
    let mut quoted = BTreeSet::new();
    walk(answer, shape, "", &mut quoted);
    if let Value::Object(answer) = answer {
        answer.insert(QUOTED.to_owned(), json!(quoted));
    }
}

fn walk(value: &mut Value, shape: &AnswerShape, name: &str, quoted: &mut BTreeSet<String>) {
    match value {
        Value::String(text) if shape.text() != Text::Own => {
            quoted.insert(name.to_owned());
            *text = clean_keeping_lines(text);
        }
        Value::Array(list) => list.iter_mut().for_each(|entry| walk(entry, shape.entry(), name, quoted)),
        Value::Object(fields) => {
            for (mut field, mut value) in std::mem::take(fields) {
                match shape.field(&field) {
                    Some(shape) => walk(&mut value, shape, &field, quoted),
                    None => {
                        // The keys of a map are third-party text, unless the map is marked as our own.
                        if shape.text() != Text::Own {
                            field = clean_keeping_lines(&field);
                            quoted.insert(name.to_owned());
                        }
                        walk(&mut value, shape.entry(), name, quoted);
                    }
                }
                fields.insert(field, value);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use schemars::JsonSchema;
    use serde::Serialize;
    use syringe_core::classification::Severity;

    use super::*;
    use crate::answer::wire::shape::schema_of;

    #[derive(Serialize, JsonSchema)]
    struct Answer {
        verdict: Severity,
        findings: Vec<Finding>,
        labels: BTreeMap<String, u32>,
        #[schemars(extend("x-text" = "own"))]
        verdicts: BTreeMap<String, u32>,
        plan: String,
        #[schemars(extend("x-text" = "own"))]
        terminal_command: Option<&'static str>,
        detail: Value,
    }

    #[derive(Serialize, JsonSchema)]
    struct Finding {
        #[schemars(extend("x-text" = "own"))]
        id: &'static str,
        evidence: Vec<&'static str>,
    }

    #[test]
    fn fields_with_text_of_others_are_named_once_and_hidden_characters_are_removed() {
        let finding = |id, evidence| Finding { id, evidence: vec![evidence] };
        let answer = Answer {
            verdict: Severity::Warning,
            findings: vec![finding("x", "a\u{202e}b"), finding("y", "--token abc")],
            labels: BTreeMap::from([("verdict\u{202e}x".to_owned(), 1)]),
            verdicts: BTreeMap::from([("fatal".to_owned(), 1)]),
            plan: "one\ntwo".to_owned(),
            terminal_command: Some("gpu-syringe --token-to-model x"),
            detail: json!({"terminal_command": "c\u{202e}d"}),
        };
        let mut json = serde_json::to_value(&answer).expect("JSON");
        finish(&mut json, &AnswerShape::from_schema(&schema_of::<Answer>()));
        assert_eq!(json[QUOTED], json!(["detail", "evidence", "labels", "plan"]));
        assert_eq!(json["findings"][0]["evidence"][0], "a b");
        assert_eq!(json["findings"][1]["evidence"][0], "--token [redacted]");
        assert_eq!(json["labels"], json!({"verdict x": 1}));
        assert_eq!(json["detail"]["terminal_command"], "c d");
        assert_eq!(
            (&json["plan"], &json["terminal_command"]),
            (&json!("one\ntwo"), &json!("gpu-syringe --token-to-model x"))
        );
    }
}
