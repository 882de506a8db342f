//! `of_worker`: reads the launchers' ephemeral containers in pods from the API server, without the proxy.

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::cluster::Site;

/// Prefix of the names of the launchers' pods and containers.
const PREFIX: &str = "gpu-syringe-";

/// An ephemeral container of a launcher.
pub(crate) struct Container {
    pub(crate) name: String,
    /// Whether the container is running or may still start.
    pub(crate) is_open: bool,
}

/// Returns the launchers' ephemeral containers on the nodes of a worker. A real cluster has no such containers, because
/// no pod in it has a GPU.
pub(crate) async fn of_worker(site: &Site, worker: usize) -> Vec<Container> {
    if !site.is_embedded() {
        return Vec::new();
    }
    let nodes = [true, false].map(|healthy| site.node(worker, healthy));
    let mut found = Vec::new();
    for node in nodes {
        let on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
        let pods = Api::<Pod>::all(site.client.clone()).list(&on_node).await.map(|list| list.items);
        found.extend(pods.unwrap_or_default().iter().flat_map(of_pod));
    }
    found
}

fn of_pod(pod: &Pod) -> Vec<Container> {
    let added = pod.spec.as_ref().and_then(|spec| spec.ephemeral_containers.clone()).unwrap_or_default();
    let statuses =
        pod.status.as_ref().and_then(|status| status.ephemeral_container_statuses.clone()).unwrap_or_default();
    let is_ended = |name: &str| {
        let status = statuses.iter().find(|status| status.name == name);
        status.and_then(|status| status.state.as_ref()).is_some_and(|state| state.terminated.is_some())
    };
    let is_over = pod.metadata.deletion_timestamp.is_some() || pod.name_any().starts_with(PREFIX);
    let ours = added.into_iter().filter(|container| container.name.starts_with(PREFIX));
    ours.map(|container| Container { is_open: !is_over && !is_ended(&container.name), name: container.name }).collect()
}
