//! The type `Proxy`: an HTTP proxy between the launcher and the API server that causes faults of single requests.
//!
//! Only the proxy has the credentials of the cluster; the launcher has none.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderValue, Request, Response, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::client::ConfigExt;
use secrecy::ExposeSecret;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;

use super::fault::{Fault, Place, Rule};

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A running proxy.
pub(crate) struct Proxy {
    state: Arc<State>,
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

struct State {
    cluster: kube::Config,
    rules: Mutex<Vec<Rule>>,
    /// The faults and their requests, for the report.
    done: Mutex<Vec<String>>,
}

impl Proxy {
    /// Starts a proxy in front of the cluster of this configuration.
    pub(crate) async fn start(cluster: kube::Config) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State { cluster, rules: Mutex::default(), done: Mutex::default() });
        let task = tokio::spawn(accept(state.clone(), listener));
        Self { state, address, task }
    }

    /// Returns a kubeconfig for the launcher.
    pub(crate) fn kubeconfig(&self) -> String {
        let server = format!("http://{}", self.address);
        serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "chaos",
            "clusters": [{"name": "chaos", "cluster": {"server": server}}],
            "users": [{"name": "chaos", "user": {}}],
            "contexts": [{"name": "chaos", "context": {"cluster": "chaos", "user": "chaos"}}],
        })
        .to_string()
    }

    /// Replaces the rules.
    pub(crate) fn set(&self, rules: Vec<Rule>) {
        *self.state.rules.lock().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// Returns the faults since the last call.
    pub(crate) fn take_done(&self) -> Vec<String> {
        std::mem::take(&mut *self.state.done.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(state: Arc<State>, listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(state.clone(), stream));
    }
}

async fn serve(state: Arc<State>, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let upstream: Arc<tokio::sync::Mutex<Option<SendRequest<Incoming>>>> = Arc::default();
    let service = service_fn(|request| {
        let (state, upstream) = (state.clone(), upstream.clone());
        async move { respond(&state, &mut *upstream.lock().await, request).await }
    });
    // An error means that a fault closed the connection.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

/// Responds to a request. An error closes the connection.
async fn respond(
    state: &State,
    upstream: &mut Option<SendRequest<Incoming>>,
    request: Request<Incoming>,
) -> io::Result<Response<Body>> {
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    let place = Place::of(&path);
    let fault = {
        let mut rules = state.rules.lock().unwrap_or_else(PoisonError::into_inner);
        rules.iter_mut().find_map(|rule| rule.take(&method, place))
    };
    if let Some(fault) = fault {
        state.done.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{method} {place:?}: {fault:?}"));
    }
    match fault {
        Some(Fault::Busy(code, seconds)) => {
            let mut answer = text(code, "text/plain; charset=utf-8", "Too many requests, please try again later.\n");
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            Ok(answer)
        }
        Some(Fault::Status(code, reason)) => {
            let status = serde_json::json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
                "message": format!("{reason}: made by the chaos proxy"),
            });
            Ok(text(code, "application/json", &status.to_string()))
        }
        Some(Fault::Page(code)) => Ok(text(code, "text/html", "<html><body><h1>Not here</h1>nginx</body></html>\n")),
        Some(Fault::Closed) => Err(io::Error::other("closed")),
        Some(Fault::Blackhole) => std::future::pending().await,
        Some(Fault::Late(time)) => {
            tokio::time::sleep(time).await;
            pass_on(state, upstream, request, usize::MAX, false).await
        }
        Some(Fault::Lost) => {
            let answer = pass_on(state, upstream, request, usize::MAX, false).await?;
            drop(answer.into_body().collect().await);
            Err(io::Error::other("lost"))
        }
        Some(Fault::Cut(bytes)) => pass_on(state, upstream, request, bytes, false).await,
        Some(Fault::Stalled(bytes)) => pass_on(state, upstream, request, bytes, true).await,
        Some(Fault::Slow(time)) => {
            let answer = pass_on(state, upstream, request, usize::MAX, false).await;
            tokio::time::sleep(time).await;
            answer
        }
        None => pass_on(state, upstream, request, usize::MAX, false).await,
    }
}

fn text(code: u16, kind: &'static str, text: &str) -> Response<Body> {
    let body = Full::new(Bytes::from(text.to_owned())).map_err(|never: Infallible| match never {}).boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = http::StatusCode::from_u16(code).expect("a code");
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// Passes a request on. After `most` bytes of the response, the connection is closed or nothing more is sent.
async fn pass_on(
    state: &State,
    upstream: &mut Option<SendRequest<Incoming>>,
    mut request: Request<Incoming>,
    most: usize,
    stall: bool,
) -> io::Result<Response<Body>> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    *request.uri_mut() = path.parse().map_err(io::Error::other)?;
    let authority = state.cluster.cluster_url.authority().map_or("localhost", |authority| authority.as_str());
    let host = HeaderValue::from_str(authority).map_err(io::Error::other)?;
    request.headers_mut().insert(header::HOST, host);
    if let Some(token) = &state.cluster.auth_info.token {
        let bearer = format!("Bearer {}", token.expose_secret());
        let bearer = HeaderValue::from_str(&bearer).map_err(io::Error::other)?;
        request.headers_mut().insert(header::AUTHORIZATION, bearer);
    }
    if upstream.as_ref().is_none_or(SendRequest::is_closed) {
        *upstream = Some(connect(&state.cluster).await?);
    }
    let Some(sender) = upstream else { return Err(io::Error::other("no connection")) };
    let below = hyper::upgrade::on(&mut request);
    sender.ready().await.map_err(io::Error::other)?;
    let mut answer = sender.send_request(request).await.map_err(io::Error::other)?;
    if answer.status() == http::StatusCode::SWITCHING_PROTOCOLS {
        let above = hyper::upgrade::on(&mut answer);
        tokio::spawn(async move {
            if let (Ok(below), Ok(above)) = tokio::join!(below, above) {
                pipe(TokioIo::new(below), TokioIo::new(above), most, stall).await;
            }
        });
        return Ok(answer.map(|_| Full::default().map_err(|never: Infallible| match never {}).boxed_unsync()));
    }
    if most == usize::MAX {
        return Ok(answer.map(|body| body.map_err(io::Error::other).boxed_unsync()));
    }
    Ok(answer.map(|body| limited(body, most, stall)))
}

/// Returns a body that contains the first `most` bytes of this body, and then fails or stalls.
fn limited(body: Incoming, most: usize, stall: bool) -> Body {
    let end = futures_util::stream::once(async move {
        if stall {
            std::future::pending::<()>().await;
        }
        Err(io::Error::other("cut"))
    });
    let mut left = most;
    let begin = BodyStream::new(body).filter_map(move |frame| {
        let data = frame.ok().and_then(|frame| frame.into_data().ok()).unwrap_or_default();
        let part = data.slice(..data.len().min(left));
        left -= part.len();
        std::future::ready((!part.is_empty()).then(|| Ok(Frame::data(part))))
    });
    StreamBody::new(begin.chain(end)).boxed_unsync()
}

async fn connect(cluster: &kube::Config) -> io::Result<SendRequest<Incoming>> {
    let connector = cluster.rustls_https_connector().map_err(io::Error::other)?;
    let stream = connector.oneshot(cluster.cluster_url.clone()).await.map_err(io::Error::other)?;
    let (sender, connection) = handshake(stream).await.map_err(io::Error::other)?;
    tokio::spawn(connection.with_upgrades());
    Ok(sender)
}

/// Passes bytes on in both directions, but at most `most` bytes from the API server.
async fn pipe<B, A>(below: B, above: A, most: usize, stall: bool)
where
    B: AsyncRead + AsyncWrite + Unpin,
    A: AsyncRead + AsyncWrite + Unpin,
{
    let ((mut read_below, mut write_below), (mut read_above, mut write_above)) =
        (tokio::io::split(below), tokio::io::split(above));
    let down = async {
        let (mut left, mut buffer) = (most, vec![0; 16 * 1024]);
        while let Ok(length @ 1..) = read_above.read(&mut buffer).await {
            let part = length.min(left);
            left -= part;
            if write_below.write_all(&buffer[..part]).await.is_err() || write_below.flush().await.is_err() {
                return;
            }
            if left == 0 && stall {
                std::future::pending::<()>().await;
            }
            if left == 0 {
                return;
            }
        }
    };
    tokio::select! {
        () = down => {}
        _ = tokio::io::copy(&mut read_below, &mut write_above) => {}
    }
}
