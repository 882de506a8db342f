//! `read`: reads the ComputeDomain of a node. Only a node with the label of such a domain needs this request.

use std::time::Duration;

use syringe_core::facts::kubernetes::compute_domain::ComputeDomain;
use tokio::time::timeout;

use crate::client::connection::Connection;
use crate::objects::compute_domains;
use crate::reads::node_lifecycle::{Found, list};

/// The path of the list, in the only version of the API.
const PATH: &str = "/apis/resource.nvidia.com/v1beta1/computedomains";
/// Maximum number of pages of the list.
const MAX_PAGES: usize = 8;

/// Returns the domain of the node with this name, or the reason why it could not be read. `uid`: the value of the
/// node's label.
pub(crate) async fn read(
    connection: &Connection,
    node: &str,
    uid: Option<&str>,
    time: Duration,
) -> Result<Option<ComputeDomain>, String> {
    let Some(uid) = uid else { return Ok(None) };
    let is_own = |object: &serde_json::Value| compute_domains::is_of_node(object, uid, node);
    match timeout(time, list(connection, PATH, is_own, MAX_PAGES)).await {
        Ok(Found::Some(objects)) => {
            let exact = objects.iter().find(|object| object["metadata"]["uid"] == uid);
            Ok(exact.or(objects.first()).map(compute_domains::facts))
        }
        // The label stays on nodes after the driver and its kinds are removed.
        Ok(Found::Absent) => Ok(None),
        Ok(Found::NotRead(why)) => Err(format!("Listing ComputeDomains: {why}")),
        Err(_) => Err(format!("Listing ComputeDomains: no answer within {time:?}")),
    }
}
