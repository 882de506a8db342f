//! `ApiLogLayer`, `ApiLog`: log each request to the API server with its status and duration (`--verbose`).
//! Headers and bodies are never logged, because they contain credentials.

use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use tower::{BoxError, Layer, Service};

/// Log target of these messages.
pub const TARGET: &str = "gpu_syringe::api";

/// A layer that adds [`ApiLog`] to a service.
#[derive(Clone, Copy, Debug)]
pub struct ApiLogLayer;

impl<S> Layer<S> for ApiLogLayer {
    type Service = ApiLog<S>;

    fn layer(&self, inner: S) -> ApiLog<S> {
        ApiLog { inner }
    }
}

/// A service that logs each request to the API server.
#[derive(Clone, Debug)]
pub struct ApiLog<S> {
    inner: S,
}

impl<S, A, B> Service<Request<A>> for ApiLog<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<B>, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let what = format!("{} {}", request.method(), request.uri());
        let began = Instant::now();
        let answer = self.inner.call(request);
        async move {
            let answer = answer.await.map_err(Into::into);
            let ms = began.elapsed().as_millis();
            match &answer {
                Ok(answer) => tracing::debug!(target: TARGET, "{what} {} in {ms} ms", answer.status().as_u16()),
                Err(error) => tracing::debug!(target: TARGET, "{what} failed in {ms} ms: {error}"),
            }
            answer
        }
        .boxed()
    }
}
