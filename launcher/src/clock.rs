//! `now`: the time including suspends, from the wall clock. `suspended_beyond`: completes if a suspend exceeds a limit.
//!
//! On Linux and macOS, `Instant` and every timer of tokio stop during a suspend, but pods continue to run and tokens
//! continue to age. Two limits must include the suspend: a consent must not be valid for too long, and a call that was
//! suspended beyond its deadline must report this. Both limits are compared with the wall clock. If the wall clock is
//! set forward, consents and calls end early, which is safe.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

/// Minimum difference between the clocks that counts as a suspend or as a changed clock.
const MIN_SUSPEND: Duration = Duration::from_secs(5);
/// Interval at which the clocks are compared.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Returns the current time. Unlike `Instant::now`, this time also counts the periods in which the computer was suspended
/// (since the first call).
pub(crate) fn now() -> Instant {
    static START: LazyLock<(Instant, SystemTime)> = LazyLock::new(|| (Instant::now(), SystemTime::now()));
    let (monotonic, wall) = *START;
    monotonic + monotonic.elapsed().max(wall.elapsed().unwrap_or_default())
}

/// Completes when `limit` has passed on the wall clock but not on the monotonic clock: the computer was suspended.
/// Returns the length of the suspend.
pub(crate) async fn suspended_beyond(limit: Duration) -> Duration {
    suspended_beyond_by(limit, SystemTime::now).await
}

async fn suspended_beyond_by(limit: Duration, wall_clock: impl Fn() -> SystemTime) -> Duration {
    let (wall, monotonic) = (wall_clock(), Instant::now());
    loop {
        tokio::time::sleep(CHECK_EVERY.min(limit)).await;
        let passed = wall_clock().duration_since(wall).unwrap_or_default();
        let suspended = passed.saturating_sub(monotonic.elapsed());
        if suspended >= MIN_SUSPEND && passed >= limit {
            return suspended;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_suspend_ends_what_it_outlasts_and_nothing_else() {
        let (start, seconds) = (SystemTime::now(), AtomicU64::new(0));
        let clock = || start + Duration::from_secs(seconds.load(Ordering::Relaxed));
        let step = Duration::from_millis(5);
        let short = tokio::time::timeout(10 * step, suspended_beyond_by(step, clock)).await;
        assert!(short.is_err(), "no suspend");
        let waiting = suspended_beyond_by(Duration::from_secs(60), clock);
        seconds.store(50, Ordering::Relaxed);
        assert!(tokio::time::timeout(10 * step, waiting).await.is_err(), "50 of 60 s");
        let waiting = suspended_beyond_by(Duration::from_millis(20), || {
            start + Duration::from_secs(100 * seconds.fetch_add(1, Ordering::Relaxed))
        });
        assert!(waiting.await >= Duration::from_secs(99));
    }
}
