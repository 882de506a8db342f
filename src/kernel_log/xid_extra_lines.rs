//! `XidExtraLines`: lines before or after an Xid line that belong to the message of this Xid.

use crate::facts::kernel_log::KernelEventKind;

use crate::kernel_log::event_group::EventGroup;
use crate::kernel_log::line_parser;
use crate::kernel_log::line_time::LineTime;
use crate::kernel_log::sources::Source;

/// Maximum number of minutes with lines that belong to an Xid. The lines of further minutes count as not recognized.
const MAX_PARTS: usize = 256;

/// One minute, in microseconds.
const MINUTE: u64 = 60_000_000;

/// Lines of one minute that belong to the message of an Xid, if the log contains this Xid.
#[derive(Debug)]
struct XidExtraLine {
    source: usize,
    boot: usize,
    order: Option<i64>,
    text: String,
    lines: u64,
}

/// All lines of the logs that belong to the message of an Xid.
#[derive(Debug, Default)]
pub(super) struct XidExtraLines(Vec<XidExtraLine>);

impl XidExtraLines {
    /// Adds a line. Returns `false` if there are too many lines.
    pub(super) fn add(&mut self, text: &str, source: usize, boot: usize, moment: LineTime) -> bool {
        let order = moment.order();
        let near = |part: &&mut XidExtraLine| {
            let together = part.order.zip(order).is_none_or(|(one, other)| one.abs_diff(other) < MINUTE);
            together && (part.source, part.boot) == (source, boot)
        };
        if let Some(part) = self.0.last_mut().filter(near) {
            part.lines += 1;
            // Prefer a text with an error as the sample.
            if line_parser::speaks_of_error(text) && !line_parser::speaks_of_error(&part.text) {
                part.text = text.to_owned();
            }
            return true;
        }
        if self.0.len() >= MAX_PARTS {
            return false;
        }
        self.0.push(XidExtraLine { source, boot, order, text: text.to_owned(), lines: 1 });
        true
    }

    /// Moves the lines of one boot to another boot. If `to` is the running boot, the times of the lines are removed,
    /// because their clock was wrong.
    pub(super) fn move_boot(&mut self, from: usize, to: usize) {
        for part in self.0.iter_mut().filter(|part| part.boot == from) {
            (part.boot, part.order) = (to, part.order.filter(|_| to != 0));
        }
    }

    /// Counts lines as not recognized if the log does not contain their Xid.
    pub(super) fn finish(self, groups: &[EventGroup], sources: &mut [Source]) {
        for part in self.0 {
            let is_logged = |group: &EventGroup| {
                group.key.kind == KernelEventKind::Xid && group.key.boot == part.boot && group.is_near(part.order)
            };
            if !groups.iter().any(is_logged)
                && let Some(source) = sources.get_mut(part.source)
            {
                source.count_unread_lines(&part.text, part.lines);
            }
        }
    }
}
