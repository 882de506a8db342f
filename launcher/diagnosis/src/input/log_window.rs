//! `covered_since`: the start of the period that the kernel log covers. `why_too_short`: why this period is too short.
//!
//! "No Xid" is true for that period only. If a machine has been running for weeks, a log of the last hour does not show
//! that there were no Xids.

use jiff::{SignedDuration, Timestamp};

use crate::evidence;
use crate::input::node::Node;
use syringe_core::facts::kernel_log::Coverage;
use syringe_core::kernel_log::window;

/// After this time, an event of a working GPU has the severity `info`. A log of this length contains all relevant
/// events.
const EVENTS_COUNT: SignedDuration = SignedDuration::from_hours(24);

/// Minimum length of the log if the uptime is not known. In that case only the log was read, and the answer states its
/// period.
const OF_LOG_ALONE: SignedDuration = SignedDuration::from_hours(1);

/// Returns the minimum length of the log: a day, or half of the time since boot if that is shorter.
fn shortest(uptime: Option<i64>) -> SignedDuration {
    uptime.map_or(OF_LOG_ALONE, |uptime| SignedDuration::from_secs(uptime / 2).min(EVENTS_COUNT))
}

/// Returns the start of the period that the log covers without a gap until the time of the report.
pub(crate) fn covered_since(node: &Node<'_>) -> Option<Timestamp> {
    let log = node.kernel_log()?;
    // If a time window was requested, the period does not begin before it.
    window::reach(&log.coverage, node.now?).map(|reach| log.since.map_or(reach, |asked| asked.max(reach)))
}

/// Returns whether the log covers the whole requested window.
fn covers_what_was_asked(node: &Node<'_>) -> bool {
    node.kernel_log().and_then(|log| log.since).zip(covered_since(node)).is_some_and(|(asked, since)| since <= asked)
}

/// Returns why the log is too short for the statement "no Xid". `None` if it is long enough or begins at boot.
pub(crate) fn why_too_short(node: &Node<'_>) -> Option<String> {
    let logs = node.kernel_log()?.coverage.as_slice();
    if let Some(why) = without_times(logs) {
        return Some(why.to_owned());
    }
    let now = node.now?;
    let Some(since) = covered_since(node) else {
        let ended = window::last_before(logs, now)?;
        return Some(format!("the kernel log ends {} before now", evidence::span(now.duration_since(ended))));
    };
    let complete = logs.iter().any(|log| log.complete_since_boot == Some(true));
    let window = now.duration_since(since);
    let uptime = node.host().and_then(|host| host.uptime_seconds).and_then(|uptime| i64::try_from(uptime).ok());
    // The node has just booted, so there are no older records.
    let since_boot = uptime.is_some_and(|uptime| window.as_secs() + 60 >= uptime);
    if complete || since_boot || window >= shortest(uptime) || covers_what_was_asked(node) {
        return None;
    }
    let uptime =
        uptime.map(|uptime| format!(", uptime of the node: {}", evidence::span(SignedDuration::from_secs(uptime))));
    let hole = window::last_before(logs, since).map(|ended| {
        let hole = evidence::span(since.duration_since(ended));
        format!("; there is a gap of {hole} before that, and older records end {}", evidence::time(ended))
    });
    let reach = evidence::span(window);
    Some(format!(
        "the kernel log covers only the last {reach}{}{}",
        uptime.unwrap_or_default(),
        hole.unwrap_or_default()
    ))
}

/// Returns why logs without timestamps do not cover a period. A log that begins at boot (a saved `dmesg`) needs no
/// timestamps.
fn without_times(logs: &[Coverage]) -> Option<&'static str> {
    if logs.is_empty() || logs.iter().any(|log| log.from.is_some()) {
        return None;
    }
    if logs.iter().all(|log| log.records == 0) {
        return Some("the kernel log has no records of the kernel");
    }
    let from_boot = logs.iter().any(|log| log.complete_since_boot == Some(true));
    (!from_boot).then_some("the records of the kernel log have no timestamps")
}
