//! The HTTP server: accepts on loopback, reads requests, and hands each to the module that serves its resource.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Event, Namespace, Node, Pod};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::answer::{Body, Refusal, json as answer_json};
use super::faults::AnswerFault;
use super::kinds::Kind;
use super::query::Query;
use super::route::Target;
use super::shared::Shared;
use super::{discovery, ephemeral, exec, logs, node_logs, pods, read, reviews, watch};

/// The largest body that is read, as in the real API server.
const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;

/// Accepts connections until the cluster stops.
pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        // An accept fails when the process is out of descriptors; those that close make room.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            continue;
        };
        let task = Arc::clone(&shared);
        shared.spawn(async move { connection(task, stream).await });
    }
}

async fn connection(shared: Arc<Shared>, stream: TcpStream) {
    // Without it, the small frames of an exec wait for the client's acknowledgements.
    let _ = stream.set_nodelay(true);
    let hang_up = CancellationToken::new();
    let service = service_fn(|request| {
        let (shared, hang_up) = (Arc::clone(&shared), hang_up.clone());
        async move { Ok::<_, Infallible>(respond(&shared, request, &hang_up).await) }
    });
    let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::select! {
        // A client that breaks off has nobody to tell.
        _ = serving => {}
        () = hang_up.cancelled() => {}
    }
}

async fn respond(shared: &Arc<Shared>, request: Request<Incoming>, hang_up: &CancellationToken) -> Response<Body> {
    let path = request.uri().path_and_query().map_or("/", |both| both.as_str());
    shared.log(format!("{} {path}", request.method()));
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let target = Target::of(request.method(), request.uri(), &query);
    let fault = shared.faults(|faults| match &target {
        Some(target) => faults.api.take(target.verb, &target.full_resource()),
        None => faults.api.take("get", ""),
    });
    let is_lost = fault == Some(AnswerFault::Lost);
    let refusal = match fault {
        None | Some(AnswerFault::Lost) => None,
        Some(AnswerFault::TooManyRequests(seconds)) => Some(Refusal::TooManyRequests { retry_after_seconds: seconds }),
        Some(AnswerFault::InternalError) => Some(timed_out()),
        Some(AnswerFault::Forbidden(why)) => {
            let name = target.as_ref().and_then(|target| target.name.clone()).unwrap_or_default();
            Some(Refusal::Forbidden { resource: "pods", name, why })
        }
        Some(AnswerFault::Slow(delay)) => {
            tokio::time::sleep(delay).await;
            None
        }
        Some(AnswerFault::Closed) => {
            hang_up.cancel();
            std::future::pending().await
        }
    };
    let served = match (refusal, target) {
        (Some(refusal), _) => Err(refusal),
        (None, Some(target)) => serve(shared, &target, &query, request).await,
        (None, None) => discovery::serve(shared, request.method(), request.uri().path()),
    };
    let served = if is_lost { Err(timed_out()) } else { served };
    served.unwrap_or_else(|refusal| refusal.response())
}

fn timed_out() -> Refusal {
    Refusal::Internal("etcdserver: request timed out".to_owned())
}

/// Serves a request to a resource.
async fn serve(
    shared: &Arc<Shared>,
    target: &Target,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    reviews::authorise(shared, target)?;
    let resource = target.full_resource();
    if resource == "pods/exec" && matches!(target.verb, "get" | "create") {
        return exec::serve(shared, target, query, request);
    }
    let content = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content = content.unwrap_or_default().to_owned();
    match (target.group.as_str(), target.version.as_str(), resource.as_str()) {
        ("", "v1", "pods") => match target.verb {
            "create" => pods::create(shared, target, query, &body(request).await?),
            "patch" => pods::patch(shared, target, &content, &body(request).await?),
            "delete" => pods::delete(shared, target, query, &body(request).await?),
            "deletecollection" => pods::delete_collection(shared, target, query, &body(request).await?),
            _ => readable::<Pod>(shared, target, query),
        },
        ("", "v1", "pods/log") if target.verb == "get" => logs::serve(shared, target, query).await,
        ("", "v1", "pods/ephemeralcontainers") => ephemeral::serve(shared, target, &content, &body(request).await?),
        ("", "v1", "nodes") => readable::<Node>(shared, target, query),
        ("", "v1", "nodes/proxy") if target.verb == "get" => node_logs::serve(shared, target, &request),
        ("", "v1", "events") => readable::<Event>(shared, target, query),
        ("", "v1", "namespaces") => readable::<Namespace>(shared, target, query),
        ("authorization.k8s.io", "v1", "selfsubjectaccessreviews") if target.verb == "create" => {
            reviews::review(shared, &body(request).await?)
        }
        ("resource.k8s.io", "v1", "resourceclaims") if target.verb == "list" => {
            Ok(untyped(shared, target, "ResourceClaimList", |store| &store.claims))
        }
        ("resource.k8s.io", "v1", "resourceslices") if target.verb == "list" => {
            Ok(untyped(shared, target, "ResourceSliceList", |store| &store.slices))
        }
        _ => Err(Refusal::NoSuchPath),
    }
}

fn readable<K: Kind>(shared: &Arc<Shared>, target: &Target, query: &Query) -> Result<Response<Body>, Refusal> {
    match target.verb {
        "get" => read::get::<K>(shared, target),
        "list" => read::list::<K>(shared, target, query),
        "watch" => watch::watch::<K>(shared, target, query),
        _ => Err(Refusal::MethodNotAllowed),
    }
}

/// A list of objects that are kept as they were given.
fn untyped(
    shared: &Shared,
    target: &Target,
    kind: &str,
    all: impl Fn(&super::store::Store) -> &Vec<Value>,
) -> Response<Body> {
    let inside = |value: &&Value| {
        target.namespace.as_ref().is_none_or(|namespace| value["metadata"]["namespace"] == **namespace)
    };
    let (items, version) =
        shared.store(|store| (all(store).iter().filter(inside).cloned().collect::<Vec<_>>(), store.version()));
    let metadata = json!({"resourceVersion": version.to_string()});
    let list = json!({"kind": kind, "apiVersion": "resource.k8s.io/v1", "metadata": metadata, "items": items});
    answer_json(200, &list)
}

async fn body(request: Request<Incoming>) -> Result<Bytes, Refusal> {
    let collected = Limited::new(request.into_body(), MAX_BODY_BYTES).collect().await;
    collected.map(|body| body.to_bytes()).map_err(|error| Refusal::BadRequest(error.to_string()))
}
