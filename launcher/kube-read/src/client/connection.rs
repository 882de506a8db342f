//! A connection to one cluster.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kube::Client;

use crate::client::server_clock::ServerClock;

/// Minimum remaining validity of a client certificate at the start of a call.
const MIN_VALIDITY: SignedDuration = SignedDuration::from_mins(15);
/// Separates the address of the API server from the address of its proxy.
pub const PROXY_NOTE_START: &str = " (through the proxy ";
/// Name of the connection with the service account of a pod.
pub const IN_CLUSTER: &str = "in-cluster";

/// A client of one cluster.
#[derive(Clone)]
pub struct Connection {
    /// Name of the context.
    pub context: String,
    /// Address of the API server for messages, with its proxy if there is one.
    pub server: String,
    /// Name of the user in the kubeconfig.
    pub user: Option<String>,
    pub client: Client,
    /// The time of the API server.
    pub clock: Arc<ServerClock>,
}

impl Connection {
    /// Address of the API server alone.
    pub fn address(&self) -> &str {
        self.server.split(PROXY_NOTE_START).next().unwrap_or_default()
    }

    /// Whether it can be used for another call: a client certificate of a plugin may expire.
    pub fn is_valid(&self) -> bool {
        self.client.valid_until().is_none_or(|end| end.duration_since(Timestamp::now()) > MIN_VALIDITY)
    }
}
