//! `pods/exec`: the checks of API server and kubelet, then the websocket upgrade. [`session`] is what follows.
//!
//! The API server asks for a host, not for a phase: an exec works as soon as the container runs, before the API knows it.

mod session;

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::sync::CancellationToken;

use self::session::{Session, Verdict, Wanted};
use super::answer::{Body, Refusal, full};
use super::faults::ExecFault;
use super::fixture::ExecRefusals;
use super::kubelet::{self, NotRunning};
use super::programs::Invocation;
use super::query::Query;
use super::read;
use super::route::Target;
use super::shared::Shared;

/// The subprotocols, best first. Only the first lets a client end stdin and go on reading.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

/// Serves an exec: answers the request, and leaves a task behind that speaks on the upgraded connection.
pub(super) fn serve(
    shared: &Arc<Shared>,
    target: &Target,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let pod = read::find::<Pod>(shared, target)?;
    let name = read::key(target).1;
    let node = node(&pod, &name)?.to_owned();
    let container = container(&pod, query.get("container"))?;
    let wanted = wanted(query)?;
    let argv = query.all("command");
    if argv.is_empty() {
        return Err(Refusal::BadRequest("you must specify at least one command for the container".to_owned()));
    }
    let (protocol, accept) = handshake(request.headers(), shared.half_close)?;
    if !kubelet::reachable(shared, &node) {
        return Err(unreachable(shared, &node));
    }
    let place = shared.runtime.find(&pod, &container);
    let fault = if place.is_ok() { shared.faults(|faults| faults.take_exec(&node)) } else { None };
    match &fault {
        Some(ExecFault::Forbidden) => {
            let why = "exec is not allowed in this namespace".to_owned();
            return Err(Refusal::Forbidden { resource: "pods", name, why });
        }
        Some(ExecFault::UpgradeRefused(code)) => {
            return Err(Refusal::Plain { code: *code, text: "the proxy does not pass upgrades on\n".to_owned() });
        }
        _ => {}
    }
    let verdict = match place {
        Ok(ended) => start(shared, &pod, &container, node, argv, ended, fault),
        Err(why) if shared.exec_refusals == ExecRefusals::OnStatusChannel => {
            Verdict::Refused(format!("unable to upgrade connection: {}", refusal_text(why, &container)))
        }
        Err(NotRunning::PodUnknown) => {
            return Err(Refusal::Plain { code: 404, text: refusal_text(NotRunning::PodUnknown, &container) });
        }
        Err(why) => return Err(Refusal::Plain { code: 500, text: refusal_text(why, &container) }),
    };
    let upgrade = hyper::upgrade::on(request);
    let session = Session { wanted, half_close: protocol == PROTOCOLS[0], verdict };
    shared.spawn(async move {
        // A client that left before the upgrade has nobody to tell.
        let Ok(upgraded) = upgrade.await else { return };
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        session.run(socket).await;
    });
    Ok(switching(protocol, accept))
}

/// What the kubelet says of a container that is not there.
fn refusal_text(why: NotRunning, container: &str) -> String {
    match why {
        NotRunning::PodUnknown => "pod does not exist".to_owned(),
        NotRunning::ContainerNotFound => format!("container not found (\"{container}\")"),
    }
}

fn start(
    shared: &Shared,
    pod: &Pod,
    container: &str,
    node: String,
    argv: Vec<String>,
    ended: CancellationToken,
    fault: Option<ExecFault>,
) -> Verdict {
    let Some(host) = shared.host(&node) else {
        return Verdict::Refused(refusal_text(NotRunning::ContainerNotFound, container));
    };
    let facts = Arc::clone(&host.facts);
    let files = shared.runtime.files(pod, container);
    let invocation = Invocation { argv, image: image(pod, container), node, facts, files };
    Verdict::Started { programs: Arc::clone(&shared.programs), invocation, ended, fault }
}

fn image(pod: &Pod, container: &str) -> String {
    let Some(spec) = &pod.spec else { return String::new() };
    let own = spec.containers.iter().map(|one| (&one.name, &one.image));
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|one| (&one.name, &one.image));
    let found = own.chain(ephemeral).find(|(name, _)| *name == container);
    found.and_then(|(_, image)| image.clone()).unwrap_or_default()
}

/// The node that a pod is on.
pub(super) fn node<'a>(pod: &'a Pod, name: &str) -> Result<&'a str, Refusal> {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).filter(|node| !node.is_empty());
    node.ok_or_else(|| Refusal::BadRequest(format!("pod {name} does not have a host assigned")))
}

/// The container that a request is about: the named one, or the only one.
pub(super) fn container(pod: &Pod, asked: Option<&str>) -> Result<String, Refusal> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let spec = pod.spec.as_ref();
    let own: Vec<&str> = spec.iter().flat_map(|spec| &spec.containers).map(|one| one.name.as_str()).collect();
    let ephemeral = spec.and_then(|spec| spec.ephemeral_containers.as_deref()).unwrap_or_default();
    match (asked, &own[..]) {
        (Some(asked), own) if own.contains(&asked) || ephemeral.iter().any(|one| one.name == asked) => {
            Ok(asked.to_owned())
        }
        (Some(asked), _) => Err(Refusal::BadRequest(format!("container {asked} is not valid for pod {name}"))),
        (None, [only]) => Ok((*only).to_owned()),
        (None, all) => Err(Refusal::BadRequest(format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            all.join(" ")
        ))),
    }
}

/// What the API server says of a node that it cannot reach.
pub(super) fn unreachable(shared: &Shared, node: &str) -> Refusal {
    let address = kubelet::host_ip(shared, node);
    Refusal::Internal(format!("error dialing backend: dial tcp {address}:10250: i/o timeout"))
}

fn wanted(query: &Query) -> Result<Wanted, Refusal> {
    let wanted = Wanted { stdin: query.flag("stdin"), stdout: query.flag("stdout"), stderr: query.flag("stderr") };
    if !wanted.stdin && !wanted.stdout && !wanted.stderr {
        return Err(Refusal::BadRequest("you must specify at least 1 of stdin, stdout, stderr".to_owned()));
    }
    if query.flag("tty") && wanted.stderr {
        return Err(Refusal::BadRequest("tty and stderr cannot both be true".to_owned()));
    }
    Ok(wanted)
}

/// Reads the client's half of the websocket handshake: the subprotocol to speak, and the key to accept.
fn handshake(headers: &HeaderMap, half_close: bool) -> Result<(&'static str, String), Refusal> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let key = headers.get(header::SEC_WEBSOCKET_KEY);
    let upgrades = text(header::UPGRADE).eq_ignore_ascii_case("websocket");
    let Some(key) = key.filter(|_| upgrades) else {
        return Err(Refusal::BadRequest("Upgrade request required".to_owned()));
    };
    let offered = text(header::SEC_WEBSOCKET_PROTOCOL);
    let speaks = |protocol: &&str| offered.split(',').any(|one| one.trim() == *protocol);
    let protocol = PROTOCOLS.into_iter().skip(usize::from(!half_close)).find(speaks);
    let protocol = protocol.ok_or_else(|| {
        Refusal::BadRequest(format!("unable to upgrade: no common subprotocol: server has {PROTOCOLS:?}"))
    })?;
    Ok((protocol, derive_accept_key(key.as_bytes())))
}

fn switching(protocol: &'static str, accept: String) -> Response<Body> {
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
