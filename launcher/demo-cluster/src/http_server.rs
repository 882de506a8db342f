//! `accept`: the HTTP server, which accepts connections, checks access, and calls the module of the requested resource.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::fmt::rfc2822::DateTimePrinter;
use k8s_openapi::api::core::v1::{Event, Namespace, Node, Pod};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::api_error::ApiError;
use crate::cluster_state::ClusterState;
use crate::negotiation::{self, Accepted};
use crate::query::Query;
use crate::request_info::RequestInfo;
use crate::response::{self, Body};
use crate::store::{Store, Stored};
use crate::{
    authorization, discovery, ephemeral_containers, exec, get_and_list, json_objects, node_logs, pod_logs, pods,
    probe_policy, request_body, watch,
};

/// Accepts connections until the cluster stops.
pub(crate) async fn accept(state: Arc<ClusterState>, listener: TcpListener) {
    loop {
        // Accepting a connection fails if the process has no free file descriptors. Closed connections may release some
        // after a short wait.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            continue;
        };
        let task = Arc::clone(&state);
        state.spawn(async move { connection(task, stream).await });
    }
}

async fn connection(state: Arc<ClusterState>, stream: TcpStream) {
    // Without this socket option (`TCP_NODELAY`), the small frames of an exec wait for acknowledgements from the
    // client.
    let _ = stream.set_nodelay(true);
    let hang_up = CancellationToken::new();
    let service = service_fn(|request| {
        let (state, hang_up) = (Arc::clone(&state), hang_up.clone());
        async move { Ok::<_, Infallible>(respond(&state, request, &hang_up).await) }
    });
    let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::select! {
        // If the client disconnects, an error cannot be reported to anyone.
        _ = serving => {}
        () = hang_up.cancelled() => {}
    }
}

async fn respond(state: &Arc<ClusterState>, request: Request<Incoming>, hang_up: &CancellationToken) -> Response<Body> {
    if let Err(error) = state.authenticator.check(request.headers()) {
        return error.response();
    }
    #[cfg(feature = "test-support")]
    state.log(format!("{} {}", request.method(), request.uri().path_and_query().map_or("/", |path| path.as_str())));
    #[cfg(feature = "test-support")]
    let _in_service = state.in_service.count();
    let accepted = match state.injector.accepted(Accepted::of(request.headers())) {
        Ok(accepted) => accepted,
        Err(refusal) => return refusal.response(),
    };
    let request = match request_body::read(request).await {
        Ok(request) => request,
        Err(error) => return error.response(),
    };
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let info = RequestInfo::of(request.method(), request.uri(), &query);
    // A watch is always a stream of JSON, and an exec returns no document.
    let is_document =
        info.as_ref().is_some_and(|info| matches!(info.verb, "get" | "list") && info.subresource.is_none());
    let (own, of_own) = (Arc::clone(state), info.clone());
    let serving = async move {
        let served = match &of_own {
            Some(info) => serve(&own, info, &query, request).await,
            None => discovery::serve(&own, request.method(), request.uri().path()),
        }?;
        Ok(if is_document { negotiation::negotiate(served, accepted).await } else { served })
    };
    let mut response = match state.injector.intercept(info.as_ref(), hang_up, &state.stop, serving).await {
        Ok(response) => response,
        Err(error) if is_document => negotiation::negotiate(error.response(), accepted).await,
        Err(error) => error.response(),
    };
    set_date(state, &mut response);
    response
}

/// Sets the `Date` of a response if the clock of the cluster differs. Otherwise, the HTTP library sets the date.
fn set_date(state: &ClusterState, response: &mut Response<Body>) {
    let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&state.now());
    if let (false, Ok(date)) = (state.clock_behind().is_zero(), date.map(|date| HeaderValue::from_str(&date))) {
        response.headers_mut().extend(date.ok().map(|date| (header::DATE, date)));
    }
}

/// Serves a request to a resource.
async fn serve(
    state: &Arc<ClusterState>,
    info: &RequestInfo,
    query: &Query,
    request: Request<Bytes>,
) -> Result<Response<Body>, ApiError> {
    authorization::authorize(state, info)?;
    let resource = info.full_resource();
    probe_policy::check_connection(state, info, query)?;
    if resource == "pods/exec" && matches!(info.verb, "get" | "create") {
        return exec::serve(state, info, query, request);
    }
    let content = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content = content.unwrap_or_default().to_owned();
    if let Some(served) = json_objects::serve(state, info, query, &content, request.body()) {
        return served;
    }
    match (info.group.as_str(), info.version.as_str(), resource.as_str()) {
        ("", "v1", "pods") => match info.verb {
            "create" => pods::create(state, info, query, request.body()),
            "patch" => pods::patch(state, info, &content, request.body()),
            "delete" => pods::delete(state, info, query, request.body()),
            "deletecollection" => pods::delete_collection(state, info, query, request.body()),
            _ => serve_read::<Pod>(state, info, query),
        },
        ("", "v1", "pods/log") if info.verb == "get" => pod_logs::serve(state, info, query).await,
        ("", "v1", "pods/attach") => {
            let name = info.name.clone().unwrap_or_default();
            get_and_list::find::<Pod>(state, info)?;
            Err(ApiError::BadRequest(format!("attach to {name} is not served by this cluster")))
        }
        ("", "v1", "pods/ephemeralcontainers") => ephemeral_containers::serve(state, info, &content, request.body()),
        ("", "v1", "nodes") => serve_read::<Node>(state, info, query),
        ("", "v1", "nodes/proxy") if info.verb == "get" => node_logs::serve(state, info, &request),
        ("", "v1", "events") => serve_read::<Event>(state, info, query),
        ("", "v1", "namespaces") => serve_read::<Namespace>(state, info, query),
        ("authorization.k8s.io", "v1", "selfsubjectaccessreviews") if info.verb == "create" => {
            authorization::review(state, request.body())
        }
        ("authentication.k8s.io", "v1", "selfsubjectreviews") if info.verb == "create" => {
            let status = json!({"userInfo": {"username": state.user, "groups": ["system:authenticated"]}});
            Ok(response::json(
                201,
                &json!({"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1", "status": status}),
            ))
        }
        ("resource.k8s.io", "v1", "resourceclaims") if info.verb == "list" => {
            Ok(list_json(state, info, "ResourceClaimList", |store| &store.claims))
        }
        ("resource.k8s.io", "v1", "resourceslices") if info.verb == "list" => {
            Ok(list_json(state, info, "ResourceSliceList", |store| &store.slices))
        }
        _ => Err(ApiError::NoSuchPath),
    }
}

fn serve_read<K: Stored>(
    state: &Arc<ClusterState>,
    info: &RequestInfo,
    query: &Query,
) -> Result<Response<Body>, ApiError> {
    match info.verb {
        "get" => get_and_list::get::<K>(state, info),
        "list" => get_and_list::list::<K>(state, info, query),
        "watch" => watch::watch::<K>(state, info, query),
        _ => Err(ApiError::MethodNotAllowed),
    }
}

/// Returns a list of objects that are stored as JSON.
fn list_json(
    state: &ClusterState,
    info: &RequestInfo,
    kind: &str,
    all: impl Fn(&Store) -> &Vec<Value>,
) -> Response<Body> {
    let is_in_namespace =
        |value: &&Value| info.namespace.as_ref().is_none_or(|namespace| value["metadata"]["namespace"] == **namespace);
    let (items, version) =
        state.store(|store| (all(store).iter().filter(is_in_namespace).cloned().collect::<Vec<_>>(), store.version()));
    let metadata = json!({"resourceVersion": version.to_string()});
    let list = json!({"kind": kind, "apiVersion": "resource.k8s.io/v1", "metadata": metadata, "items": items});
    response::json(200, &list)
}
