//! A client for a configuration: kube's own, or the same layers over a socket that sends small messages at once.
//!
//! The frames of an exec are small, and kube leaves Nagle's algorithm on: each then waits for the acknowledgement of the one
//! before, some 40 ms, three times a call (kube-rs issue 2056). It also runs a credential plugin three times a client, half
//! a second or more each; here once. Not so behind a proxy, where kube makes the connection, and with a plugin that gives a
//! certificate: when that ends, kube alone can tell.

use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::{Client, Config};
use tower::{BoxError, ServiceBuilder};

/// Makes the client. A credential plugin runs inside this, and blocks.
pub(crate) fn client(config: Config) -> Result<Client, kube::Error> {
    if config.proxy_url.is_some() {
        return Client::try_from(config);
    }
    let auth = config.auth_layer()?;
    if auth.is_none() && config.auth_info.exec.is_some() {
        return Client::try_from(config);
    }
    // The plugin gave a token, so no certificate: the connector, which would run it for one, need not know it.
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
        .layer(config.base_uri_layer())
        .option_layer(auth)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(legacy::Client::builder(TokioExecutor::new()).build::<_, Body>(connector));
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}
