//! Checks of all fuzz targets: time, and the texts and size of what is printed. Included with `#[path]` by each crate.

use std::time::{Duration, Instant};

use serde_json::Value;
use syringe_core::text::is_hidden;

/// Time for one input: far more than any needs, with the checks of a fuzzing build and on a busy machine.
const TIME: Duration = Duration::from_secs(5);

/// Runs `body`, which must end in time.
pub(super) fn in_time<T>(body: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = body();
    assert!(began.elapsed() < TIME, "took {:?}", began.elapsed());
    result
}

/// Asserts that every text of a document is clean and has at most `most` characters.
pub(super) fn assert_clean(value: &Value, most: usize) {
    match value {
        Value::String(text) => {
            let hidden = text.chars().find(|character| *character != ' ' && is_hidden(*character));
            assert_eq!(hidden, None, "a hidden character in {text:?}");
            assert!(text.chars().count() <= most, "a text of more than {most} characters: {text:?}");
        }
        Value::Array(list) => list.iter().for_each(|value| assert_clean(value, most)),
        Value::Object(fields) => fields.values().for_each(|value| assert_clean(value, most)),
        _ => {}
    }
}
