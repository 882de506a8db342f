//! `FailureBackoff`: skips a node for a minute after it failed twice in a row.
//! Otherwise, with ten broken nodes, every call would wait for ten deadlines.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Number of failures in a row after which a node is skipped.
const MAX_FAILURES: u32 = 2;
/// Time for which a node is skipped.
const PAUSE: Duration = Duration::from_secs(60);

/// Failures by API server and node.
#[derive(Debug, Default)]
pub struct FailureBackoff(Mutex<HashMap<(String, String), NodeFailures>>);

#[derive(Debug)]
struct NodeFailures {
    count: u32,
    last: Instant,
    why: String,
}

impl FailureBackoff {
    /// Returns the reason to skip `node` at `now`, or `None` if the node may be read.
    pub(crate) fn skip_reason(&self, server: &str, node: &str, now: Instant) -> Option<String> {
        let known = self.lock();
        let failures = known.get(&(server.to_owned(), node.to_owned()))?;
        let ago = now.saturating_duration_since(failures.last);
        let paused = failures.count >= MAX_FAILURES && ago < PAUSE;
        paused.then(|| format!("failed {} times in a row: {}", failures.count, failures.why))
    }

    /// Records the result for `node`.
    pub(crate) fn record_result(&self, server: &str, node: &str, failed: Option<&str>) {
        let key = (server.to_owned(), node.to_owned());
        let mut known = self.lock();
        match failed {
            None => drop(known.remove(&key)),
            Some(why) => {
                let failures = known.entry(key).or_insert_with(|| NodeFailures {
                    count: 0,
                    last: Instant::now(),
                    why: String::new(),
                });
                failures.count += 1;
                failures.last = Instant::now();
                why.clone_into(&mut failures.why);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), NodeFailures>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::{FailureBackoff, PAUSE};

    #[test]
    fn two_failures_in_a_row_skip_a_node_for_a_minute() {
        let failure_backoff = FailureBackoff::default();
        let reason = |node, later| failure_backoff.skip_reason("s", node, Instant::now() + later);
        let (now, soon) = (std::time::Duration::ZERO, PAUSE + PAUSE / 2);
        failure_backoff.record_result("s", "a", Some("hung"));
        assert_eq!(reason("a", now), None);
        failure_backoff.record_result("s", "a", Some("hung"));
        assert_eq!(reason("a", now).as_deref(), Some("failed 2 times in a row: hung"));
        assert_eq!((reason("b", now), failure_backoff.skip_reason("t", "a", Instant::now())), (None, None));
        assert_eq!(reason("a", soon), None);
        failure_backoff.record_result("s", "a", Some("hung"));
        assert!(reason("a", now).is_some(), "the third failure in a row pauses the node again");
        failure_backoff.record_result("s", "a", None);
        failure_backoff.record_result("s", "a", Some("hung"));
        assert_eq!(reason("a", now), None, "a success in between resets the count");
    }
}
