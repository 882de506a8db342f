//! Retries of reads: a request that a busy or restarting API server rejects is repeated within the time of one read. A server
//! that cannot be reached fails at once.
//!
//! kube's `RetryPolicy` is not used. It is a layer of the client: it also repeats the creation of a pod, has no limit for one
//! try or for all of them, waits for as long as a `Retry-After` says, and repeats neither 500, 502 nor a closed connection.

use std::time::Duration;

use kube::core::Status;
use tokio::time::{sleep, timeout};

/// Time for one read of the API, with all its tries.
const READ_TIME: Duration = Duration::from_secs(8);
/// Time for one try, for servers that do not answer.
pub(crate) const TRY_TIME: Duration = Duration::from_secs(5);
/// Pause if the server does not send `Retry-After`.
const PAUSE: Duration = Duration::from_millis(200);
/// Maximum pause for a `Retry-After`.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(5);
/// Maximum number of tries.
const MAX_TRIES: u32 = 4;

/// Reads, with retries. `None` when there was no answer in time.
pub(crate) async fn read<T, Answer>(ask: impl Fn() -> Answer) -> Option<kube::Result<T>>
where
    Answer: Future<Output = kube::Result<T>>,
{
    let asking = async {
        let mut tries = 1;
        loop {
            match timeout(TRY_TIME, ask()).await.ok()? {
                Err(error) if tries < MAX_TRIES => match retry_pause(&error) {
                    Some(pause) => sleep(pause).await,
                    None => return Some(Err(error)),
                },
                answer => return Some(answer),
            }
            tries += 1;
        }
    };
    timeout(READ_TIME, asking).await.ok().flatten()
}

/// Pause before the next try; `None` for an error that is not retried.
fn retry_pause(error: &kube::Error) -> Option<Duration> {
    match error {
        kube::Error::Api(status) => is_retryable(status).then(|| retry_after(status)),
        // An open connection was closed: the API server restarts, or an idle connection timed out.
        kube::Error::HyperError(_) | kube::Error::Service(_) if !is_unreachable(error) => Some(PAUSE),
        _ => None,
    }
}

/// Too many requests, or a server that is starting or stopping.
pub(crate) fn is_retryable(status: &Status) -> bool {
    matches!(status.code, 429 | 500 | 502 | 503 | 504)
}

/// The `Retry-After` of the server, within limits.
pub(crate) fn retry_after(status: &Status) -> Duration {
    let asked = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    Duration::from_secs(asked.into()).clamp(PAUSE, MAX_RETRY_AFTER)
}

/// Whether the connection failed: a wrong address or a closed port stays so for seconds.
fn is_unreachable(error: &kube::Error) -> bool {
    let reason = crate::error::kube_reason(error);
    !reason.contains("connection closed") && !reason.contains("reset") && !reason.contains("broken pipe")
}
