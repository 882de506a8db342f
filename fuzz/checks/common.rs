//! Checks of all fuzz targets: time, and the texts of what is printed. Included with `#[path]` by each crate.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;
use syringe_core::text::is_hidden;

/// Time for one input: far more than any needs, with the checks of a fuzzing build and on a busy machine.
const TIME: Duration = Duration::from_secs(5);
/// Longest text in what is printed: the limit of `Report::from_node`.
const MAX_TEXT: usize = 1000;

/// Runs `body`, which must end in time.
pub(crate) fn in_time<T>(body: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = body();
    assert!(began.elapsed() < TIME, "took {:?}", began.elapsed());
    result
}

/// Asserts that no text in `facts` is long or has a hidden character. Returns the length of `facts` as JSON.
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
