//! `serve`: serves `pods/exec` with the checks of API server and kubelet and the websocket upgrade.
//!
//! The API server does not check the phase of the pod: an exec works as soon as the container is running, even before
//! the API shows this state.
//!
//! ```text
//!   channels (frames of a websocket) ─▶ session (one exec) ─▶ this module (the request)
//! ```

mod channels;
mod session;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_util::sync::CancellationToken;

use self::session::{Session, Start, StreamOptions};
use crate::api_error::ApiError;
use crate::cluster_state::ClusterState;
use crate::container_runtime::ExecTargetError;
use crate::faults::ExecInjection;
use crate::fixture::ExecRefusals;
use crate::get_and_list;
use crate::kubelet_connection;
use crate::programs::Invocation;
use crate::query::Query;
use crate::request_info::RequestInfo;
use crate::response::{Body, full};

/// The subprotocols, best first. A client can close standard input only with the first subprotocol.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

/// Size of the buffer for reads. The buffer is filled with zeros before each read, and the library's default is 128
/// KiB.
const READ_BUFFER_BYTES: usize = 16 << 10;

/// Serves an exec: responds to the request, and starts a task for the upgraded connection.
pub(super) fn serve(
    state: &Arc<ClusterState>,
    info: &RequestInfo,
    query: &Query,
    request: Request<Bytes>,
) -> Result<Response<Body>, ApiError> {
    let pod = get_and_list::find::<Pod>(state, info)?;
    let name = get_and_list::key(info).1;
    let node = kubelet_connection::node_name(&pod, &name)?.to_owned();
    let container = kubelet_connection::container_name(&pod, query.get("container"))?;
    let options = stream_options(query)?;
    let argv = query.all("command");
    if argv.is_empty() {
        return Err(ApiError::BadRequest("you must specify at least one command for the container".to_owned()));
    }
    let (protocol, accept) = handshake(request.headers(), state.half_close)?;
    kubelet_connection::check_reachable(state, &node)?;
    let running = state.runtime.running(&pod, &container);
    let start = match running {
        Ok(ended) => {
            let injection = state.injector.exec(&node);
            if let Some(error) = injection.refusal(&name) {
                return Err(error);
            }
            start(state, &pod, &container, node, argv, ended, injection)
        }
        Err(error) if state.exec_refusals == ExecRefusals::OnStatusChannel => {
            Start::Failed(format!("unable to upgrade connection: {}", error_text(error, &container)))
        }
        Err(error @ ExecTargetError::PodUnknown) => {
            return Err(ApiError::PlainText { code: 404, text: error_text(error, &container) });
        }
        Err(error) => return Err(ApiError::PlainText { code: 500, text: error_text(error, &container) }),
    };
    let upgrade = hyper::upgrade::on(request);
    let session = Session { options, half_close: protocol == PROTOCOLS[0], start };
    state.spawn(async move {
        // The client may disconnect before the upgrade.
        let Ok(upgraded) = upgrade.await else { return };
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
        session.run(socket).await;
    });
    Ok(switching_protocols(protocol, accept))
}

/// Returns the message of the kubelet about a container that is not running.
fn error_text(error: ExecTargetError, container: &str) -> String {
    match error {
        ExecTargetError::PodUnknown => "pod does not exist".to_owned(),
        ExecTargetError::ContainerNotFound => format!("container not found (\"{container}\")"),
    }
}

fn start(
    state: &ClusterState,
    pod: &Pod,
    container: &str,
    node: String,
    argv: Vec<String>,
    ended: CancellationToken,
    injection: ExecInjection,
) -> Start {
    let Some(host) = state.host(&node) else {
        return Start::Failed(error_text(ExecTargetError::ContainerNotFound, container));
    };
    let facts = host.facts.clone();
    let files = state.runtime.files(pod, container);
    let invocation = Invocation { argv, image: image(pod, container), node, facts, files };
    Start::Process { programs: Arc::clone(&state.programs), invocation, ended, injection }
}

fn image(pod: &Pod, container: &str) -> String {
    let Some(spec) = &pod.spec else { return String::new() };
    let containers = spec.containers.iter().map(|one| (&one.name, &one.image));
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|one| (&one.name, &one.image));
    let found = containers.chain(ephemeral).find(|(name, _)| *name == container);
    found.and_then(|(_, image)| image.clone()).unwrap_or_default()
}

fn stream_options(query: &Query) -> Result<StreamOptions, ApiError> {
    let options =
        StreamOptions { stdin: query.flag("stdin"), stdout: query.flag("stdout"), stderr: query.flag("stderr") };
    if !options.stdin && !options.stdout && !options.stderr {
        return Err(ApiError::BadRequest("you must specify at least 1 of stdin, stdout, stderr".to_owned()));
    }
    if query.flag("tty") && options.stderr {
        return Err(ApiError::BadRequest("tty and stderr cannot both be true".to_owned()));
    }
    Ok(options)
}

/// Checks the websocket handshake of the client. Returns the subprotocol and the accept key.
fn handshake(headers: &HeaderMap, half_close: bool) -> Result<(&'static str, String), ApiError> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let key = headers.get(header::SEC_WEBSOCKET_KEY);
    let upgrades = text(header::UPGRADE).eq_ignore_ascii_case("websocket");
    let Some(key) = key.filter(|_| upgrades) else {
        return Err(ApiError::BadRequest("Upgrade request required".to_owned()));
    };
    let offered = text(header::SEC_WEBSOCKET_PROTOCOL);
    let is_offered = |protocol: &&str| offered.split(',').any(|one| one.trim() == *protocol);
    let protocol = PROTOCOLS.into_iter().skip(usize::from(!half_close)).find(is_offered);
    let protocol = protocol.ok_or_else(|| {
        ApiError::BadRequest(format!("unable to upgrade: no common subprotocol: server has {PROTOCOLS:?}"))
    })?;
    Ok((protocol, derive_accept_key(key.as_bytes())))
}

fn switching_protocols(protocol: &'static str, accept: String) -> Response<Body> {
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    // Base64 is always a valid header value.
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}
