//! One node, as Kubernetes knows it: whether a probe can go there, and what the rules want to know of it.

use k8s_openapi::api::core::v1::Node;
use kube::{Api, ResourceExt};
use syringe_core::diagnosis::ClusterFacts;
use syringe_core::text::clean;

use crate::error::{Failure, kube_reason};
use crate::kubernetes::Connection;
use crate::kubernetes::client::retry;
use crate::kubernetes::model::gpu_nodes::{gpu_conditions, gpu_count, label_number};
use crate::kubernetes::model::names;
use crate::kubernetes::model::resources::{GPU_RESOURCE, gpu_resources};

/// Reads the node `name`.
pub async fn read(connection: &Connection, name: &str) -> Result<Node, Failure> {
    let what = || format!("Reading node {}", clean(name, names::LONGEST));
    if !names::is_subdomain(name) {
        return Err(Failure::new(
            what(),
            "a node name has lower-case letters, digits, '-' and '.' only",
            "list_gpu_nodes shows the names of the GPU nodes.",
        ));
    }
    let nodes: Api<Node> = Api::all(connection.client.clone());
    match retry::read(|| nodes.get_opt(name)).await {
        Some(Ok(Some(node))) => Ok(node),
        Some(Ok(None)) => Err(Failure::new(
            what(),
            format!("there is no such node in context {} ({})", connection.context, connection.server),
            "list_gpu_nodes shows the names of the GPU nodes.",
        )),
        Some(Err(error)) => Err(unanswered(connection, what(), &error)),
        None => Err(timed_out(connection, what())),
    }
}

/// A failed read of the API, with the server's address and what may help.
pub(crate) fn unanswered(connection: &Connection, what: String, error: &kube::Error) -> Failure {
    let next = match error {
        kube::Error::Api(status) if status.code == 403 => {
            "Your user needs that permission: deploy/rbac.yaml has all that are used.".to_owned()
        }
        kube::Error::Api(status) if status.code == 401 => {
            "Sign in again: the credentials of this context are no longer accepted.".to_owned()
        }
        kube::Error::Api(_) => "Try again; the API server's own message says more.".to_owned(),
        _ => format!("Check that {} can be reached from here (VPN, proxy, firewall).", connection.server),
    };
    Failure::new(what, format!("{}: {}", connection.server, kube_reason(error)), next)
}

/// The API server did not answer.
pub(crate) fn timed_out(connection: &Connection, what: String) -> Failure {
    let Connection { server, .. } = connection;
    Failure::new(
        what,
        format!("{server} did not answer within {:?}", retry::TRY_TIME),
        format!("Check that {server} can be reached from here (VPN, proxy, firewall)."),
    )
}

/// Refuses a node on which a probe cannot run, with the reason.
pub fn must_be_ready(node: &Node) -> Result<(), Failure> {
    let name = node.name_any();
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
    if ready.is_some_and(|condition| condition.status == "True") {
        return Ok(());
    }
    let why = ready.map_or_else(
        || "it reports no Ready condition".to_owned(),
        |condition| {
            let reason = condition.reason.as_deref().unwrap_or("no reason given");
            let message = clean(condition.message.as_deref().unwrap_or_default(), 200);
            let since = condition.last_transition_time.as_ref().map(|time| format!(" since {}", time.0));
            format!("Ready is {}{} ({reason}: {message})", condition.status, since.unwrap_or_default())
        },
    );
    Err(Failure::new(
        format!("Probing node {name}"),
        format!("{why}; its kubelet would not start a pod, so nothing was created"),
        "Bring the node back first (kubelet, network, power); describe_gpu_node shows what Kubernetes still knows of it.",
    ))
}

/// What Kubernetes says about the node, as far as the rules use it.
pub fn cluster_facts(node: &Node) -> ClusterFacts {
    let status = node.status.as_ref();
    let quantities = |read: fn(&k8s_openapi::api::core::v1::NodeStatus) -> Option<_>| status.and_then(read);
    let replicas = label_number(node, "nvidia.com/gpu.replicas").filter(|replicas| *replicas > 1).unwrap_or(1);
    let gpus = |resources: Option<_>| resources.as_ref().and_then(gpu_count).map(|count| count / replicas);
    ClusterFacts {
        node: Some(node.name_any()),
        gpu_capacity: gpus(quantities(|status| status.capacity.clone())),
        gpu_allocatable: gpus(quantities(|status| status.allocatable.clone())),
        gpu_label_count: label_number(node, "nvidia.com/gpu.count"),
        other_gpu_resources: offers_others(node),
        gpu_conditions: gpu_conditions(node),
        // What a node's own object does not tell.
        ..ClusterFacts::default()
    }
}

/// Whether it offers GPUs under other names than those of whole ones.
fn offers_others(node: &Node) -> bool {
    let capacity = node.status.as_ref().and_then(|status| status.capacity.as_ref());
    let resources = capacity.map(gpu_resources).unwrap_or_default();
    resources.iter().any(|(name, count)| *count > 0 && name != GPU_RESOURCE && name != "nvidia.com/gpu.shared")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn gpus_under_another_name_are_told_from_none() {
        let of = |capacity: serde_json::Value| {
            let node = json!({"metadata": {"name": "gpu-1"}, "status": {"capacity": capacity}});
            cluster_facts(&serde_json::from_value(node).expect("a node")).other_gpu_resources
        };
        assert!(of(json!({"nvidia.com/mig-1g.10gb": "7"})) && of(json!({"nvidia.com/GA102GL_A10": "1"})));
        assert!(!of(json!({"nvidia.com/gpu": "8", "cpu": "64"})) && !of(json!({"nvidia.com/mig-1g.10gb": "0"})));
    }
}
