//! `quoted_line`: the kernel line in the message of an event of a node.
//! `is_covered`: whether the kernel log covers the time of the event.
//!
//! node-problem-detector and similar monitors copy a line of the kernel into an event of the Node object. Everyone who
//! may create events can write such a message, so the message is no proof: it is only a reason to search for the line.

use jiff::SignedDuration;

use syringe_core::facts::kubernetes::node::PodWarning;
use syringe_core::kernel_log::line::Parsed;
use syringe_core::kernel_log::{line_parser, window};
use syringe_core::report::{Report, Section};

/// A monitor writes its event at most this long after the line.
const DELAY: SignedDuration = SignedDuration::from_mins(2);

/// Returns the kernel line in the message of an event, if there is one.
pub(crate) fn quoted_line(message: &str) -> Option<&str> {
    let from_frame = message.find("NVRM: ").and_then(|at| message.get(at..));
    [Some(message.trim_start()), from_frame]
        .into_iter()
        .flatten()
        .find(|text| matches!(line_parser::parse(text), Some(Parsed::Event(_))))
}

/// Returns whether the kernel log covers the time of an event.
pub(crate) fn is_covered(report: &Report, warning: &PodWarning) -> bool {
    let log = Section::data_of(&report.sections.xid);
    let known = log.zip(warning.last).zip(report.taken_at);
    known.is_some_and(|((log, at), now)| window::covers(&log.coverage, at.saturating_sub(DELAY).unwrap_or(at), at, now))
}
