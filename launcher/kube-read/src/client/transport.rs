//! `client`: creates the client for a configuration: kube's client, or its layers over a socket with `TCP_NODELAY`.
//!
//! The frames of an exec are small, and kube does not disable Nagle's algorithm. So each frame waits about 40 ms for
//! the acknowledgement of the previous frame, three times in a call (kube-rs issue 2056). kube also runs a credential
//! plugin three times for each client, for half a second or more each time; this module runs the plugin once. kube's
//! client is used behind a proxy, and with a plugin that returns a certificate, because only kube knows when the
//! certificate expires.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Either, Full};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::{Client, Config};
use tokio::runtime::Handle;
use tower::util::AndThenLayer;
use tower::{BoxError, ServiceBuilder, service_fn};

use crate::client::api_log::ApiLogLayer;
use crate::client::fresh_pool::FreshPool;
use crate::client::retry_after_header;
use crate::client::server_clock::ServerClock;

/// Creates the client. Runs a credential plugin if there is one, and blocks.
pub fn client(config: Config, clock: &Arc<ServerClock>) -> Result<Client, kube::Error> {
    let own_clock = Arc::clone(clock);
    if config.proxy_url.is_some() {
        return kube_client(config, own_clock);
    }
    let auth = config.auth_layer()?;
    if auth.is_none() && config.auth_info.exec.is_some() {
        return kube_client(config, own_clock);
    }
    // The plugin returned a token, not a certificate. The connector must not run the plugin again.
    let mut without_plugin = config.clone();
    without_plugin.auth_info.exec = None;
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let mut connector = TimeoutConnector::new(without_plugin.rustls_https_connector_with_connector(tcp)?);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    let service = ServiceBuilder::new()
        .layer(ApiLogLayer)
        .layer(config.base_uri_layer())
        .option_layer(auth)
        .layer(config.extra_headers_layer()?)
        .and_then(move |response| read_headers(Arc::clone(&own_clock), response))
        .map_err(BoxError::from)
        .service(FreshPool::new(move || {
            legacy::Client::builder(TokioExecutor::new()).build::<_, Body>(connector.clone())
        }));
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}

/// Creates a `kube::Client` that also passes response headers to `read_headers`. Its connection pool is replaced after
/// a request without a response, except if a new pool would run a credential plugin again.
fn kube_client(config: Config, clock: Arc<ServerClock>) -> Result<Client, kube::Error> {
    let first = one_kube_client(config.clone(), Arc::clone(&clock))?;
    if config.auth_info.exec.is_some() {
        return Ok(first);
    }
    let namespace = config.default_namespace.clone();
    let pool = FreshPool::new(move || {
        // Creating a client starts a task. While the program exits, there is no runtime for this task, and no further
        // request follows.
        let fresh = Handle::try_current().ok().and_then(|_| one_kube_client(config.clone(), Arc::clone(&clock)).ok());
        let client = fresh.unwrap_or_else(|| first.clone());
        service_fn(move |request: Request<Body>| {
            let client = client.clone();
            async move { client.send(request).await }
        })
    });
    Ok(ClientBuilder::new(pool, namespace).build())
}

fn one_kube_client(config: Config, clock: Arc<ServerClock>) -> Result<Client, kube::Error> {
    let builder = ClientBuilder::try_from(config)?;
    let builder = builder.with_layer(&AndThenLayer::new(move |response| read_headers(Arc::clone(&clock), response)));
    Ok(builder.with_layer(&ApiLogLayer).build())
}

/// Reads the headers that kube drops: the `Date` of successful responses, and the `Retry-After` of others.
async fn read_headers<B>(
    clock: Arc<ServerClock>,
    response: Response<B>,
) -> Result<Response<Either<B, Full<Bytes>>>, BoxError>
where
    B: BodyExt<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    if response.status().is_success() {
        clock.observe(response.headers());
    }
    retry_after_header::carry(response).await
}
