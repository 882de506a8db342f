//! `Connection`: the client of one cluster, with its context, user, API server address and clock.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kube::Client;

use crate::client::server_clock::ServerClock;

/// Minimum remaining validity of a client certificate at the start of a call.
const MIN_VALIDITY: SignedDuration = SignedDuration::from_mins(15);
/// Start of the note after the address of the API server. The note contains the address of the proxy.
pub const PROXY_NOTE_START: &str = " (through the proxy ";
/// Context name of a connection that uses the service account of the pod.
pub const IN_CLUSTER: &str = "in-cluster";

/// The client of one cluster.
#[derive(Clone)]
pub struct Connection {
    /// Name of the context.
    pub context: String,
    /// Address of the API server for messages, including its proxy if there is one.
    pub server: String,
    /// Name of the user in the kubeconfig.
    pub user: Option<String>,
    pub client: Client,
    /// The clock of the API server.
    pub clock: Arc<ServerClock>,
}

impl Connection {
    /// Returns the address of the API server without the proxy.
    pub fn address(&self) -> &str {
        self.server.split(PROXY_NOTE_START).next().unwrap_or_default()
    }

    /// Returns the time of the API server, or of this machine before the first response.
    pub fn now(&self) -> Timestamp {
        self.clock.now().unwrap_or_else(Timestamp::now)
    }

    /// Returns whether the connection can be used for another call. A client certificate from a plugin may expire.
    pub fn is_valid(&self) -> bool {
        self.client.valid_until().is_none_or(|end| end.duration_since(Timestamp::now()) > MIN_VALIDITY)
    }
}
