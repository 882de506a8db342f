//! `node_name`, `container_name`: the node and container of an `exec` or `log`. `check_reachable`: checks the kubelet.

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::api_error::ApiError;
use crate::cluster_state::ClusterState;
use crate::node_object;

/// Returns the node of a pod.
pub(crate) fn node_name<'a>(pod: &'a Pod, name: &str) -> Result<&'a str, ApiError> {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).filter(|node| !node.is_empty());
    node.ok_or_else(|| ApiError::BadRequest(format!("pod {name} does not have a host assigned")))
}

/// Returns the container of a request: the requested container, or the only container.
pub(crate) fn container_name(pod: &Pod, requested: Option<&str>) -> Result<String, ApiError> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let spec = pod.spec.as_ref();
    let containers: Vec<&str> = spec.iter().flat_map(|spec| &spec.containers).map(|one| one.name.as_str()).collect();
    let ephemeral = spec.and_then(|spec| spec.ephemeral_containers.as_deref()).unwrap_or_default();
    let init = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    let is_other = |name: &str| ephemeral.iter().any(|one| one.name == name) || init.iter().any(|one| one.name == name);
    match (requested, &containers[..]) {
        (Some(requested), all) if all.contains(&requested) || is_other(requested) => Ok(requested.to_owned()),
        (Some(requested), _) => Err(ApiError::BadRequest(format!("container {requested} is not valid for pod {name}"))),
        (None, [only]) => Ok((*only).to_owned()),
        (None, all) => Err(ApiError::BadRequest(format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            all.join(" ")
        ))),
    }
}

/// Checks that the kubelet of a node responds.
pub(crate) fn check_reachable(state: &ClusterState, node: &str) -> Result<(), ApiError> {
    let object = state.get::<Node>(&(String::new(), node.to_owned()));
    // A cluster from an archive needs no kubelet: the archive contains the responses of the kubelet.
    if state.is_saved || object.as_ref().is_some_and(|node| node_object::is_ready(node)) {
        return Ok(());
    }
    let address = object.map(|node| node_object::internal_ip(&node)).unwrap_or_default();
    Err(ApiError::Internal(format!("error dialing backend: dial tcp {address}:10250: i/o timeout")))
}
