//! `Injector`: applies the planned faults. The server and the kubelets call it for each request, pod start and exec.
//! `faults_disabled.rs` replaces this module in builds without the feature `test-support`.

use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use http::{HeaderValue, Response, header};
use http_body_util::{BodyExt, Collected, StreamBody};
use hyper::body::Frame;
use k8s_openapi::api::core::v1::Node;
use tokio_util::sync::CancellationToken;

use super::exec::ExecInjection;
use super::plan::Faults;
use super::pod_start::StartInjection;
use super::request::{AnswerFault, ProtobufRefusal};
use crate::api_error::ApiError;
use crate::negotiation::Accepted;
use crate::node_object;
use crate::request_info::RequestInfo;
use crate::response::{Body, plain_text};
use crate::store::Store;

/// The faults that have not happened yet.
#[derive(Default)]
pub(crate) struct Injector(Mutex<Faults>);

impl Injector {
    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the faults, and the `Ready` conditions that depend on them.
    pub(crate) fn edit(&self, store: &mut Store, edit: impl FnOnce(&mut Faults)) {
        let mut faults = self.faults();
        edit(&mut faults);
        // Only conditions that contradict the faults are changed, because a test may have changed a condition itself.
        let changed: Vec<_> = store
            .nodes
            .all()
            .filter_map(|node| {
                let name = node.metadata.name.as_deref()?;
                let is_reporting = !faults.is_not_ready(name);
                (node_object::is_unknown(node) == is_reporting).then(|| (name.to_owned(), is_reporting))
            })
            .collect();
        for (name, is_reporting) in changed {
            let set = |node: &mut Node| node_object::set_ready(node, is_reporting);
            store.edit(&(String::new(), name), set);
        }
    }

    /// Serves a request, or applies its fault: an error, a delay, or a closed connection.
    pub(crate) async fn intercept(
        &self,
        request: Option<&RequestInfo>,
        hang_up: &CancellationToken,
        stop: &CancellationToken,
        serving: impl Future<Output = Result<Response<Body>, ApiError>> + Send + 'static,
    ) -> Result<Response<Body>, ApiError> {
        let (verb, resource) =
            request.map_or(("get", String::new()), |request| (request.verb, request.full_resource()));
        let timed_out = || ApiError::Internal("etcdserver: request timed out".to_owned());
        let fault = self.faults().api.take(verb, &resource);
        match fault {
            None => serving.await,
            Some(AnswerFault::TooManyRequests(retry_after_seconds)) => {
                Err(ApiError::TooManyRequests { retry_after_seconds })
            }
            Some(AnswerFault::PlainText { code, retry_after }) => {
                let mut answer = plain_text(code, "the request did not reach the API server\n");
                if let Some(seconds) = retry_after {
                    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
                }
                Ok(answer)
            }
            Some(AnswerFault::InternalError) => Err(timed_out()),
            Some(AnswerFault::Forbidden(reason)) => {
                let name = request.and_then(|request| request.name.clone()).unwrap_or_default();
                Err(ApiError::AdmissionDenied { resource: "pods", name, reason })
            }
            Some(AnswerFault::Slow(delay)) => {
                tokio::time::sleep(delay).await;
                serving.await
            }
            Some(AnswerFault::Closed) => {
                hang_up.cancel();
                std::future::pending().await
            }
            Some(AnswerFault::ServedAndClosed) => {
                let _ = serving.await;
                hang_up.cancel();
                std::future::pending().await
            }
            Some(AnswerFault::CutBody) => {
                let (parts, body) = serving.await?.into_parts();
                Ok(Response::from_parts(parts, cut(body, hang_up.clone()).await))
            }
            Some(AnswerFault::Lost) => serving.await.and_then(|_| Err(timed_out())),
            Some(AnswerFault::Late(delay)) => {
                let stop = stop.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        _ = async { tokio::time::sleep(delay).await; serving.await } => {}
                    }
                });
                std::future::pending().await
            }
            Some(AnswerFault::Conflict) => Err(ApiError::Conflict {
                resource: "resourcequotas",
                name: "quota".to_owned(),
                reason: "the object has been modified; please apply your changes to the latest version and try again"
                    .to_owned(),
            }),
        }
    }

    /// Returns the accepted formats that reach the server, or the error if protobuf is rejected.
    pub(crate) fn accepted(&self, accepted: Accepted) -> Result<Accepted, ApiError> {
        match self.faults().api.protobuf_refusal {
            Some(ProtobufRefusal::NotAcceptable) if accepted.protobuf => {
                Err(ApiError::PlainText { code: 406, text: "Not Acceptable\n".to_owned() })
            }
            Some(ProtobufRefusal::JsonInstead) => Ok(accepted.without_protobuf()),
            _ => Ok(accepted),
        }
    }

    /// Returns the time by which the clock of the API server is behind the clock of this machine.
    pub(crate) fn clock_behind(&self) -> Duration {
        self.faults().api.clock_behind
    }

    /// Returns the Pod Security level that every namespace enforces.
    pub(crate) fn pod_security_level(&self) -> Option<String> {
        self.faults().api.pod_security.then(|| "baseline".to_owned())
    }

    /// Returns whether the next `continue` token is too old.
    pub(crate) fn take_continue_expiry(&self) -> bool {
        let left = &mut self.faults().api.expired_continues;
        let is_expired = *left > 0;
        *left = left.saturating_sub(1);
        is_expired
    }

    /// Returns the fault of a pod that is starting on this node.
    pub(crate) fn start(&self, node: &str) -> StartInjection {
        StartInjection(self.faults().take_start(node))
    }

    /// Returns the fault of an exec on this node.
    pub(crate) fn exec(&self, node: &str) -> ExecInjection {
        ExecInjection(self.faults().take_exec(node))
    }

    /// Completes when the main process of a container on this node must be killed. Never completes if there is no such
    /// fault.
    pub(crate) async fn main_process_killed(&self, node: &str) {
        let killed = self.faults().take_main_process_killed(node);
        match killed {
            Some(after) => tokio::time::sleep(after).await,
            None => std::future::pending().await,
        }
    }
}

/// Sends the first half of a body, then closes the connection.
async fn cut(body: Body, hang_up: CancellationToken) -> Body {
    let bytes = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
    let half = Frame::data(bytes.slice(..bytes.len() / 2));
    let close = async move {
        // The first half must be sent before the connection is closed.
        tokio::time::sleep(Duration::from_millis(50)).await;
        hang_up.cancel();
        std::future::pending().await
    };
    let frames = stream::once(async { Ok::<_, Infallible>(half) }).chain(stream::once(close));
    StreamBody::new(frames).boxed_unsync()
}
