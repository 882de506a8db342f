//! A text that was seen before: what it means, and when which log showed it.
//!
//! With this a storm is counted without parsing, and a line that stands in two logs counts once.

use std::rc::Rc;

use super::event_group::Variant;
use super::moment::Moment;

/// Two logs stamp the same line at most this far apart (microseconds).
pub(super) const SAME_LINE: i64 = 2_000_000;

/// Stretches of time remembered of one text; the last one grows when there are more.
const MAX_SPANS: usize = 64;

/// A stretch of time in which one source showed one text.
#[derive(Debug)]
struct Span {
    from: i64,
    to: i64,
    source: usize,
}

/// A text that was seen before, and what it means.
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
    /// A text that was seen for the first time.
    pub(super) fn new(group: usize, variant: Rc<Variant>) -> Self {
        Self { group, variant, spans: Vec::new() }
    }

    /// Whether another source showed this text at that time.
    pub(super) fn is_in_another_log(&self, source: usize, moment: Moment) -> bool {
        let Some(time) = moment.order() else { return false };
        self.spans.iter().any(|span| span.source != source && span.is_near(time))
    }

    /// Remembers that `source` showed this text at that time.
    pub(super) fn note(&mut self, source: usize, moment: Moment) {
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
