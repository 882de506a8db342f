//! The checks of all fuzz targets: time, and the texts and size of the facts.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;
use syringe_core::text::is_hidden;

/// Time for one input: far more than any needs, with the checks of a fuzzing build and on a busy machine.
const TIME: Duration = Duration::from_secs(5);

/// Runs `body`, which must end in time.
pub(crate) fn in_time<T>(body: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = body();
    assert!(began.elapsed() < TIME, "took {:?}", began.elapsed());
    result
}

/// Asserts that no text in `facts` has a hidden character or is long, and that all of them are not much longer than the input.
pub(crate) fn assert_clean(facts: &impl Serialize, input: usize) {
    let value = serde_json::to_value(facts).expect("facts are JSON");
    assert_texts_clean(&value);
    let length = value.to_string().len();
    assert!(length <= 4096 + 64 * input, "{length} bytes of facts from {input} bytes");
}

fn assert_texts_clean(value: &Value) {
    match value {
        Value::String(text) => {
            let hidden = text.chars().find(|character| *character != ' ' && is_hidden(*character));
            assert!(hidden.is_none() && text.chars().count() <= 1000, "{text:?}");
        }
        Value::Array(list) => list.iter().for_each(assert_texts_clean),
        Value::Object(fields) => fields.values().for_each(assert_texts_clean),
        _ => {}
    }
}
