//! What a diagnosis cannot tell, said beside it: the limits of one passive reading.

use super::node::Node;
use super::{claims, coverage, quote};

/// The limits, shortest first.
pub(super) fn of(node: &Node<'_>) -> Vec<String> {
    let mut limits = Vec::new();
    if node.judged().is_empty() {
        return limits;
    }
    limits.push("no test ran on the GPUs (dcgmi diag does that)".to_owned());
    limits.push("one reading: whether a counter grows is not seen".to_owned());
    limits.extend(before_the_log(node));
    let not_offered = claims::of(node).not_offered;
    limits.extend(not_offered.into_iter().map(|fact| format!("{fact}: nothing is claimed of it")));
    limits
}

/// Whether something happened before, nobody can tell: "again" cannot be judged.
fn before_the_log(node: &Node<'_>) -> Option<String> {
    let log = node.kernel_log()?;
    let Some(since) = coverage::since(node) else {
        return Some("when the kernel log begins is not known".to_owned());
    };
    let asked = log.since.is_some_and(|asked| asked >= since);
    let older = match (log.events_before, asked) {
        (0, true) => " (the window that was asked for)".to_owned(),
        (count, true) => format!(
            " (the window that was asked for; {} before it left out)",
            quote::count(usize::try_from(count).unwrap_or(usize::MAX), "event")
        ),
        _ => String::new(),
    };
    Some(format!(
        "nothing of the kernel log before {}{older}: whether something happened before is not told",
        quote::time(since)
    ))
}
