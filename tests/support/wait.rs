//! Waiting with an end: no test hangs, and none sleeps longer than it must.

use std::time::{Duration, Instant};

/// Longest wait for something that must happen: far more than any of it takes, on a loaded machine, too.
pub(crate) const LONGEST: Duration = Duration::from_secs(30);

/// Looks until it sees what it waits for.
pub(crate) async fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    within(LONGEST, what, look).await
}

/// Looks until it sees what it waits for, for `time` at most.
pub(crate) async fn within<T>(time: Duration, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + time;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "not within {time:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
