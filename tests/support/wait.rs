//! `until`, `within`: poll a condition with a time limit, so that no test hangs or sleeps longer than needed.

use std::time::{Duration, Instant};

/// Maximum waiting time: far longer than any event takes, even on a busy machine.
pub(crate) const LONGEST: Duration = Duration::from_secs(30);

/// Calls `look` until it returns a value.
pub(crate) async fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    within(LONGEST, what, look).await
}

/// Calls `look` until it returns a value, for at most `time`.
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
