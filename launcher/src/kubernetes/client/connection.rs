//! A connection to one cluster.

use jiff::{SignedDuration, Timestamp};
use kube::Client;

/// Time that is left to a certificate with which a call is begun.
const MAX_CALL: SignedDuration = SignedDuration::from_mins(15);
/// What stands between an API server's address and that of the proxy before it.
pub(super) const THROUGH: &str = " (through the proxy ";
/// Name of the connection that a pod's service account gives.
pub(crate) const IN_CLUSTER: &str = "in-cluster";

/// A client of one cluster.
#[derive(Clone)]
pub struct Connection {
    /// Name of the context.
    pub context: String,
    /// Address of the API server, for messages; with the proxy before it, where there is one.
    pub server: String,
    /// User of the kubeconfig, as it is named there.
    pub user: Option<String>,
    /// The client.
    pub client: Client,
}

impl Connection {
    /// Address of the API server alone.
    pub(crate) fn address(&self) -> &str {
        self.server.split(THROUGH).next().unwrap_or_default()
    }

    /// Whether it can serve another call: a plugin may have given a client certificate that ends.
    pub(super) fn is_valid(&self) -> bool {
        self.client.valid_until().is_none_or(|end| end.duration_since(Timestamp::now()) > MAX_CALL)
    }
}
