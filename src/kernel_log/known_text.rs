//! `KnownText`: a text that occurred before in the logs, with its event and its times in each log.
//!
//! With known texts, a storm is counted without parsing, and a line that is in two logs is counted only once.

use std::rc::Rc;

use crate::kernel_log::event_group::Variant;
use crate::kernel_log::line_time::LineTime;

/// Maximum difference between the times of the same line in two logs, in microseconds.
pub(super) const SAME_LINE: i64 = 2_000_000;

/// Maximum number of time spans of one text. If there are more, the last span is extended.
const MAX_SPANS: usize = 64;

/// A time span in which a text occurred in one log.
#[derive(Debug)]
struct Span {
    from: i64,
    to: i64,
    source: usize,
}

/// A text that occurred before, with its event.
#[derive(Debug)]
pub(super) struct KnownText {
    pub(super) group: usize,
    pub(super) variant: Rc<Variant>,
    spans: Vec<Span>,
}

impl Span {
    fn is_near(&self, time: i64) -> bool {
        self.from.saturating_sub(SAME_LINE) <= time && time <= self.to.saturating_add(SAME_LINE)
    }
}

impl KnownText {
    /// Creates the entry of a new text.
    pub(super) fn new(group: usize, variant: Rc<Variant>) -> Self {
        Self { group, variant, spans: Vec::new() }
    }

    /// Returns whether the text occurred in another log at the same time.
    pub(super) fn is_in_another_log(&self, source: usize, moment: LineTime) -> bool {
        let Some(time) = moment.order() else { return false };
        self.spans.iter().any(|span| span.source != source && span.is_near(time))
    }

    /// Records that the text occurred in `source` at this time.
    pub(super) fn note(&mut self, source: usize, moment: LineTime) {
        let Some(time) = moment.order() else { return };
        let full = self.spans.len() >= MAX_SPANS;
        match self.spans.last_mut() {
            Some(span) if span.source == source && (full || span.is_near(time)) => {
                span.from = span.from.min(time);
                span.to = span.to.max(time);
            }
            _ if full => {}
            _ => self.spans.push(Span { from: time, to: time, source }),
        }
    }
}
