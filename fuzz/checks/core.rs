//! The body of the fuzz target `kernel_lines`: properties of the kernel log parsers of `syringe-core` for any input.
//!
//! The tests of the crate run the body on the committed inputs.

use jiff::Timestamp;

use crate::kernel_log::{EventLog, Options, event_meaning, line_parser, record_parser};
use common::{assert_clean, in_time};

#[path = "common.rs"]
mod common;

/// Number of distinct events that a log keeps by default.
const MAX_EVENTS: usize = 512;

fn now() -> Timestamp {
    Timestamp::from_second(1_795_300_000).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Fuzz target `kernel_lines`. `data` contains the lines of a kernel log in any format.
pub fn kernel_lines(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let log = in_time(|| {
        let mut log = EventLog::new(None, Options { now: Some(now()), ..Options::default() });
        text.split('\n').for_each(|line| log.push_line(line));
        log.finish()
    });
    assert!(log.events.len() <= MAX_EVENTS);
    assert_clean(&log);
    for event in &log.events {
        assert!(event.count > 0, "an event has the count 0: {event:?}");
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

#[cfg(test)]
#[path = "../committed_inputs.rs"]
mod committed_inputs;

#[cfg(test)]
mod tests {
    #[test]
    fn kernel_lines_of_the_corpus_keep_the_properties() {
        super::committed_inputs::run("kernel_lines", super::kernel_lines);
    }
}
