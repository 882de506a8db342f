//! `in_time`, `assert_clean`: check the run time, and the length and characters of texts, for all fuzz targets.
//!
//! Each crate includes this file with `#[path]`.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;
use syringe_core::text::is_hidden;

/// Maximum time for one input: far longer than needed, even with the checks of a fuzzing build on a busy machine.
const TIME: Duration = Duration::from_secs(5);
/// Maximum length of a text in the output: the limit of `Report::from_node`.
const MAX_TEXT: usize = 1000;

/// Runs `body`, and fails if it takes longer than [`TIME`].
pub(crate) fn in_time<T>(body: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = body();
    assert!(began.elapsed() < TIME, "took {:?}", began.elapsed());
    result
}

/// Asserts that no text in `facts` is longer than [`MAX_TEXT`] or has a hidden character. Returns the length of `facts`
/// as JSON.
pub(crate) fn assert_clean(facts: &impl Serialize) -> usize {
    let value = serde_json::to_value(facts).expect("facts are JSON");
    assert_texts_clean(&value);
    value.to_string().len()
}

fn assert_texts_clean(value: &Value) {
    match value {
        Value::String(text) => {
            let hidden = text.chars().find(|character| *character != ' ' && is_hidden(*character));
            assert_eq!(hidden, None, "a hidden character in {text:?}");
            assert!(text.chars().count() <= MAX_TEXT, "a text of more than {MAX_TEXT} characters: {text:?}");
        }
        Value::Array(list) => list.iter().for_each(assert_texts_clean),
        Value::Object(fields) => fields.values().for_each(assert_texts_clean),
        _ => {}
    }
}
