//! What must hold for any input: the bodies of the fuzz targets of this crate (`fuzz/`). The tests run them on the committed
//! inputs.
#![allow(missing_docs, reason = "each function is the body of the target of its name")]

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;

use crate::diagnosis::{KubernetesFacts, Verdict, diagnose};
use crate::report::{Report, Section};
use crate::text::is_hidden;
use crate::xid::event_meaning;
use crate::xid::{EventLog, Options, line_parser, record_parser};

/// Time for one input: far more than any needs, with the checks of a fuzzing build and on a busy machine.
const TIME: Duration = Duration::from_secs(5);
/// Longest text in what is printed: the limit of `Report::from_node`.
const MAX_TEXT: usize = 1000;
/// Distinct events that a log keeps by default.
const MAX_EVENTS: usize = 512;
/// Bytes of one diagnosis without those of the report.
const MAX_DIAGNOSIS: usize = 4 << 20;

/// Runs `body`, which must end in time.
pub fn in_time<T>(body: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = body();
    assert!(began.elapsed() < TIME, "took {:?}", began.elapsed());
    result
}

/// Asserts that every text of a document is clean and has at most `most` characters.
pub fn assert_clean(value: &Value, most: usize) {
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

fn without_texts(value: Value) -> Value {
    match value {
        Value::String(_) => Value::Null,
        Value::Array(list) => list.into_iter().map(without_texts).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, without_texts(value))).collect(),
        other => other,
    }
}

fn now() -> Timestamp {
    Timestamp::from_second(1_795_300_000).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The lines of a kernel log in any spelling.
pub fn kernel_lines(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let log = in_time(|| {
        let mut log = EventLog::new(None, Options { now: Some(now()), ..Options::default() });
        text.split('\n').for_each(|line| log.push_line(line));
        log.finish()
    });
    assert!(log.events.len() <= MAX_EVENTS);
    assert_clean(&serde_json::to_value(&log).expect("a log is JSON"), MAX_TEXT);
    for event in &log.events {
        assert!(event.count > 0, "an event that did not happen: {event:?}");
        assert!(event.first <= event.last, "{event:?}");
        event_meaning::of(event);
    }
    for line in text.split('\n') {
        line_parser::looks_like_gpu_error(line);
        line_parser::parse(line);
        if let Some(record) = record_parser::parse_line(line) {
            record.local_time(now());
            record.plain_text();
        }
    }
}

/// A document that a node printed, and its diagnosis.
pub fn report(data: &[u8]) {
    let Ok(report) = in_time(|| Report::from_node(data)) else { return };
    let value = serde_json::to_value(&report).expect("a report is JSON");
    assert_clean(&value, MAX_TEXT);
    let document = serde_json::to_vec(&report).expect("a report is JSON");
    for cut in [document.len() / 3, document.len() - 1] {
        assert!(Report::from_node(&document[..cut]).is_err(), "a cut document was read");
    }
    let again = Report::from_node(&document).expect("what was written is read");
    // Cleaning is not idempotent: the mark of a secret joins what stood beside it.
    let again = without_texts(serde_json::to_value(&again).expect("a report is JSON"));
    assert_eq!(again, without_texts(value), "what was written is read as something else");
    let kubernetes = KubernetesFacts::default();
    let diagnosis = in_time(|| diagnose(&report, &kubernetes));
    let text = serde_json::to_vec(&diagnosis).expect("a diagnosis is JSON");
    assert!(text.len() <= MAX_DIAGNOSIS + 16 * document.len(), "a diagnosis of {} bytes", text.len());
    if diagnosis.verdict == Verdict::Healthy {
        healthy(report);
    }
}

/// A healthy report without one of the sections that decide is not healthy.
fn healthy(report: Report) {
    assert!(Section::data_of(&report.sections.inventory).is_some_and(|inventory| !inventory.gpus.is_empty()));
    let kubernetes = KubernetesFacts::default();
    for section in diagnose(&report, &kubernetes).judged {
        let mut value = serde_json::to_value(&report).expect("a report is JSON");
        value["sections"].as_object_mut().expect("sections").shift_remove(&section);
        let less = Report::from_node(value.to_string().as_bytes()).expect("a report");
        assert_ne!(diagnose(&less, &kubernetes).verdict, Verdict::Healthy, "healthy without {section}");
    }
}

#[cfg(test)]
#[path = "../fuzz/committed_inputs.rs"]
mod committed_inputs;

#[cfg(test)]
mod tests {
    use super::committed_inputs::run;

    #[test]
    fn kernel_lines_of_the_corpus_keep_the_properties() {
        run("kernel_lines", super::kernel_lines);
    }

    #[test]
    fn reports_of_the_corpus_keep_the_properties() {
        run("report", super::report);
    }
}
