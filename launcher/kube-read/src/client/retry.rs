//! `read`, `read_while_bytes_come`: repeat a read that a busy or restarting API server rejects, within a time limit.
//! They fail at once if the server cannot be reached. `is_retryable`, `is_busy`, `is_closed`, `is_not_sent`: classify
//! errors.
//!
//! A read that fails with 429 is repeated until the time limit. After another error, a read is repeated a few times.
//!
//! kube's `RetryPolicy` is not used, because it is a layer of the client and also repeats the creation of a pod. It
//! has no time limit for one attempt or for all attempts, waits for any `Retry-After`, and does not repeat after 500,
//! 502 or a closed connection.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::time::Duration;

use hyper_util::client::legacy;
use kube::core::Status;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// Time limit for one read of the API, with all its attempts.
pub const READ_TIME: Duration = Duration::from_secs(9);
/// Time limit for one list, with all its attempts.
const LONG_READ_TIME: Duration = Duration::from_secs(40);
/// Time limit for one attempt, for servers that do not respond.
pub const TRY_TIME: Duration = Duration::from_secs(5);
/// Maximum number of attempts without a response. A network change may have dropped the connection of the first
/// attempt. The next attempt gets a new connection.
const MAX_UNANSWERED: u32 = 2;
/// Pause if the server does not send `Retry-After`.
const PAUSE: Duration = Duration::from_millis(200);
/// Maximum pause for a `Retry-After`.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(5);
/// Maximum number of attempts, not counting those that fail with 429.
const MAX_TRIES: u32 = 4;

/// Reads with retries. Returns `None` if there was no response in time.
pub async fn read<T, Answer>(request: impl Fn() -> Answer) -> Option<kube::Result<T>>
where
    Answer: Future<Output = kube::Result<T>>,
{
    read_within(TRY_TIME, READ_TIME, request).await
}

/// Reads a response that may take a long time, such as a large list on a slow connection. `request` must return when no
/// more bytes arrive.
pub async fn read_while_bytes_come<T, Answer>(request: impl Fn() -> Answer) -> Option<kube::Result<T>>
where
    Answer: Future<Output = kube::Result<T>>,
{
    read_within(LONG_READ_TIME, LONG_READ_TIME, request).await
}

async fn read_within<T, Answer>(
    try_time: Duration,
    read_time: Duration,
    request: impl Fn() -> Answer,
) -> Option<kube::Result<T>>
where
    Answer: Future<Output = kube::Result<T>>,
{
    let end = Instant::now() + read_time;
    let trying = async {
        let mut tries = 1;
        let mut unanswered = 0;
        loop {
            let Ok(answer) = timeout(try_time, request()).await else {
                unanswered += 1;
                if unanswered == MAX_UNANSWERED {
                    return None;
                }
                continue;
            };
            match answer {
                Err(error) => match retry_pause(&error) {
                    Some(pause) if is_busy(&error) || tries < MAX_TRIES => {
                        // If no time is left for another attempt, this error is returned, because it is more specific
                        // than a timeout.
                        if Instant::now() + pause >= end {
                            return Some(Err(error));
                        }
                        tries += u32::from(!is_busy(&error));
                        sleep(pause).await;
                    }
                    _ => return Some(Err(error)),
                },
                answer => return Some(answer),
            }
        }
    };
    timeout_at(end, trying).await.ok().flatten()
}

/// Returns the pause before the next attempt, or `None` for an error that is not retried.
pub fn retry_pause(error: &kube::Error) -> Option<Duration> {
    match error {
        kube::Error::Api(status) => is_retryable(status).then(|| retry_after(status)),
        // An open connection was closed: the API server is restarting, or an idle connection timed out.
        error => is_closed(error).then_some(PAUSE),
    }
}

/// Returns whether the error reports too many requests, or a server that is starting or stopping.
pub fn is_retryable(status: &Status) -> bool {
    matches!(status.code, 429 | 500 | 502 | 503 | 504)
}

/// Returns the `Retry-After` of the server, within limits.
pub fn retry_after(status: &Status) -> Duration {
    let requested = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    Duration::from_secs(requested.into()).clamp(PAUSE, MAX_RETRY_AFTER)
}

/// Returns whether the server limits the number of requests.
pub fn is_busy(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 429)
}

/// Returns whether an open connection was closed before the response was complete. False if a connection cannot be
/// opened, because a wrong address or a closed port does not change within seconds.
pub fn is_closed(error: &kube::Error) -> bool {
    /// Phrases in the messages of hyper errors that have no `ErrorKind`.
    const PHRASES: [&str; 3] = ["connection closed", "reset", "broken pipe"];
    const KINDS: [ErrorKind; 4] =
        [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted, ErrorKind::BrokenPipe];
    if !matches!(error, kube::Error::HyperError(_) | kube::Error::Service(_)) {
        return false;
    }
    let chain = std::iter::successors(Some(error as &(dyn Error + 'static)), |&error| error.source());
    // rustls reports an unexpected end of file if a connection is closed without close_notify or during the handshake.
    let mut kinds = chain.filter_map(|error| error.downcast_ref::<io::Error>()).map(io::Error::kind);
    let reason = crate::failure::kube_reason(error);
    kinds.any(|kind| KINDS.contains(&kind)) || PHRASES.iter().any(|phrase| reason.contains(phrase))
}

/// Returns whether the connection could not be opened. In this case, no request was sent.
pub fn is_not_sent(error: &kube::Error) -> bool {
    let mut chain = std::iter::successors(Some(error as &(dyn Error + 'static)), |&error| error.source());
    chain.any(|error| error.downcast_ref::<legacy::Error>().is_some_and(legacy::Error::is_connect))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: ErrorKind, message: &'static str) -> kube::Error {
        kube::Error::Service(Box::new(io::Error::new(kind, message)))
    }

    #[test]
    fn a_closed_connection_is_retried_and_one_that_cannot_be_opened_is_not() {
        let closed = [
            error(ErrorKind::UnexpectedEof, "peer closed connection without sending TLS close_notify"),
            error(ErrorKind::UnexpectedEof, "tls handshake eof"),
            error(ErrorKind::ConnectionReset, "Connection reset by peer (os error 104)"),
            error(ErrorKind::BrokenPipe, "Broken pipe (os error 32)"),
            kube::Error::Service("connection closed before message completed".into()),
        ];
        for error in closed {
            assert_eq!(retry_pause(&error), Some(PAUSE), "{error:?}");
        }
        let unreachable = [
            error(ErrorKind::ConnectionRefused, "Connection refused (os error 111)"),
            error(ErrorKind::TimedOut, "deadline has elapsed"),
            error(ErrorKind::InvalidData, "invalid peer certificate: UnknownIssuer"),
        ];
        for error in unreachable {
            assert_eq!(retry_pause(&error), None, "{error:?}");
        }
    }
}
