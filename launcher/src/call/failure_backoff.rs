//! Nodes that failed of late: one that failed twice in a row is left alone for a minute, so that ten broken nodes do not
//! cost every call ten deadlines.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row after which a node is left alone.
const MOST_FAILURES: u32 = 2;
/// For how long.
const PAUSE: Duration = Duration::from_secs(60);

/// Failures by API server and node.
#[derive(Debug, Default)]
pub struct Setbacks(Mutex<HashMap<(String, String), Setback>>);

#[derive(Debug)]
struct Setback {
    failures: u32,
    last: Instant,
    why: String,
}

impl Setbacks {
    /// Why `node` should be left alone at `now`, if it should.
    pub(crate) fn reason(&self, server: &str, node: &str, now: Instant) -> Option<String> {
        let known = self.lock();
        let setback = known.get(&(server.to_owned(), node.to_owned()))?;
        let ago = now.saturating_duration_since(setback.last);
        let paused = setback.failures >= MOST_FAILURES && ago < PAUSE;
        paused.then(|| format!("failed {} times in a row: {}", setback.failures, setback.why))
    }

    /// Remembers what became of `node`.
    pub(crate) fn note(&self, server: &str, node: &str, failed: Option<&str>) {
        let key = (server.to_owned(), node.to_owned());
        let mut known = self.lock();
        match failed {
            None => drop(known.remove(&key)),
            Some(why) => {
                let setback = known.entry(key).or_insert_with(|| Setback {
                    failures: 0,
                    last: Instant::now(),
                    why: String::new(),
                });
                setback.failures += 1;
                setback.last = Instant::now();
                why.clone_into(&mut setback.why);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), Setback>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::{PAUSE, Setbacks};

    #[test]
    fn two_failures_in_a_row_cost_a_minute() {
        let setbacks = Setbacks::default();
        let reason = |node, later| setbacks.reason("s", node, Instant::now() + later);
        let (now, soon) = (std::time::Duration::ZERO, PAUSE + PAUSE / 2);
        setbacks.note("s", "a", Some("hung"));
        assert_eq!(reason("a", now), None);
        setbacks.note("s", "a", Some("hung"));
        assert_eq!(reason("a", now).as_deref(), Some("failed 2 times in a row: hung"));
        assert_eq!((reason("b", now), setbacks.reason("t", "a", Instant::now())), (None, None));
        assert_eq!(reason("a", soon), None);
        setbacks.note("s", "a", Some("hung"));
        assert!(reason("a", now).is_some(), "the third in a row pauses again at once");
        setbacks.note("s", "a", None);
        setbacks.note("s", "a", Some("hung"));
        assert_eq!(reason("a", now), None, "a success in between begins anew");
    }
}
