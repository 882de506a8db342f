//! `FreshPool`: a service that replaces its connection pool after a request without a response.
//!
//! A network change (VPN, sleep) drops connections silently. The pool keeps these connections, and each request on
//! such a connection waits for its timeout. After the first request that timed out, the next request gets a new
//! connection.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tower::Service;

/// A service with a connection pool, and a function that creates another one.
pub(super) struct FreshPool<S> {
    make: Arc<dyn Fn() -> S + Send + Sync>,
    current: Arc<Mutex<Pool<S>>>,
}

struct Pool<S> {
    service: S,
    /// Number of replacements. Requests that were sent at the same time compare this number, so that they replace the
    /// pool only once.
    number: u64,
}

impl<S> Clone for FreshPool<S> {
    fn clone(&self) -> Self {
        Self { make: self.make.clone(), current: self.current.clone() }
    }
}

impl<S: Clone> FreshPool<S> {
    /// Creates a service with `make`. `make` runs again when a request gets no response.
    pub(super) fn new(make: impl Fn() -> S + Send + Sync + 'static) -> Self {
        let current = Pool { service: make(), number: 0 };
        Self { make: Arc::new(make), current: Arc::new(Mutex::new(current)) }
    }

    fn replace(&self, number: u64) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.number == number {
            *current = Pool { service: (self.make)(), number: number + 1 };
        }
    }
}

/// Replaces the pool if this value is dropped before the request gets a response: after a timeout or a cancelled call.
/// The cost is one new connection.
struct Unanswered<S: Clone> {
    pool: FreshPool<S>,
    number: u64,
    answered: bool,
}

impl<S: Clone> Drop for Unanswered<S> {
    fn drop(&mut self) {
        if !self.answered {
            self.pool.replace(self.number);
        }
    }
}

impl<S, R> Service<R> for FreshPool<S>
where
    S: Service<R> + Clone + Send + 'static,
    S::Future: Send + 'static,
    R: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).service.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let (mut service, number) = {
            let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
            (current.service.clone(), current.number)
        };
        let unanswered = Unanswered { pool: self.clone(), number, answered: false };
        // The call is made outside the async block, so that the block holds no reference to the service.
        let asked = service.call(request);
        Box::pin(async move {
            let mut unanswered = unanswered;
            let answer = asked.await;
            unanswered.answered = true;
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use tower::service_fn;

    use super::*;

    /// Returns a service whose first pool never responds. Each response is the number of pools that were created until
    /// then.
    fn first_is_dead() -> FreshPool<impl Service<(), Response = u32, Error = Infallible, Future: Send> + Clone + Send> {
        let made = Arc::new(AtomicU32::new(0));
        FreshPool::new(move || {
            let number = made.fetch_add(1, Ordering::Relaxed) + 1;
            service_fn(move |()| async move {
                if number == 1 {
                    std::future::pending::<()>().await;
                }
                Ok::<_, Infallible>(number)
            })
        })
    }

    #[tokio::test]
    async fn a_request_without_an_answer_replaces_the_pool_once() {
        let mut pool = first_is_dead();
        let short = Duration::from_millis(20);
        let (one, other) = (pool.call(()), pool.call(()));
        let (one, other) = tokio::join!(tokio::time::timeout(short, one), tokio::time::timeout(short, other));
        assert!(one.is_err() && other.is_err());
        assert_eq!((pool.call(()).await, pool.call(()).await), (Ok(2), Ok(2)));
    }
}
