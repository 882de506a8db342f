//! `candidates`: lists the GPU nodes for a Pending pod (`Candidates`), with the reasons against each node.
//! `not_offered`: why no node has the resource that the pod requests.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use syringe_core::facts::kubernetes::daemon_set::{DaemonSetFacts, DaemonSetRole};
use syringe_core::facts::kubernetes::linked_pod::LinkedPod;
use syringe_core::facts::kubernetes::node::{Component, NvidiaPod};
use syringe_core::facts::kubernetes::pod::{BoundDevice, CapacityShortage, GpuHolder};
use syringe_core::text::clean_keeping_end;

use crate::Failure;
use crate::client::connection::Connection;
use crate::objects::daemon_sets::{self, DaemonSet};
use crate::objects::gpu_resource_names::is_gpu_resource;
use crate::objects::node_labels::is_gpu_node;
use crate::objects::pod_requests::NodeRequests;
use crate::objects::scheduler_filters::{Candidate, RejectionReason, candidate, requested};
use crate::objects::scheduling_joins;
use crate::reads::existing_pods::ExistingPods;
use crate::reads::{daemon_sets as daemon_set_list, events, linked_pods, nodes, pods};

/// The GPU nodes of the cluster for a Pending pod.
pub struct Candidates {
    /// Every GPU node, sorted by the number of reasons against the node (fewest first).
    pub nodes: Vec<Candidate>,
    /// The pods that hold GPUs and are related to the pod, or are being deleted.
    pub holders: Vec<GpuHolder>,
    /// The devices that the pod names, with their nodes.
    pub bound_devices: Vec<BoundDevice>,
}

/// Reads the GPU nodes of the cluster and the pods on them.
pub async fn candidates(
    connection: &Connection,
    pod: &Pod,
    scheduler_message: Option<&str>,
) -> Result<Candidates, Failure> {
    let (_, nodes) = nodes::collect(connection, None, is_gpu_node, |node| node).await?;
    let names = nodes.iter().map(ResourceExt::name_any).collect();
    let held = pods::requests_on(connection, &names).await?;
    let wanted = requested(pod);
    let mut candidates: Vec<_> = nodes
        .iter()
        .map(|node| {
            let name = node.name_any();
            let nobody = NodeRequests::default();
            candidate(pod, node, &wanted, held.get(&name).unwrap_or(&nobody), scheduler_message)
        })
        .collect();
    candidates
        .sort_by(|one, other| (one.reasons_against.len(), &one.node).cmp(&(other.reasons_against.len(), &other.node)));
    let holders = scheduling_joins::gpu_holders(pod, &held, connection.now());
    let bound_devices = scheduling_joins::bound_devices(pod, &nodes, &candidates);
    Ok(Candidates { nodes: candidates, holders, bound_devices })
}

/// Maximum number of nodes that are listed, and maximum number of nodes whose pods are read.
const NAMED: usize = 3;
const NODES_READ: usize = 2;
/// Parts of resource names that many resources have in common.
const COMMON: [&str; 9] = ["com", "nvidia", "gpu", "amazonaws", "vpc", "shared", "devices", "intel", "mellanox"];

/// Returns the shortage if no node of the cluster has a device plugin resource that the pod requests, with the changes
/// that would provide the resource. `None` if a node has it, or if this could not be read.
pub async fn not_offered(
    connection: &Connection,
    pod: &Pod,
    candidates: &[Candidate],
    scheduler_message: Option<&str>,
    time: Duration,
) -> Option<(CapacityShortage, Vec<LinkedPod>)> {
    let wanted = requested(pod);
    let insufficient =
        |name: &&String| scheduler_message.is_none_or(|message| message.contains(&format!("Insufficient {name}")));
    let resource = wanted.keys().filter(|name| name.contains('/')).find(insufficient)?;
    let of_gpus = is_gpu_resource(resource);
    let has_it = |candidate: &Candidate| candidate.free.get(resource).is_some_and(|amount| amount.allocatable > 0);
    let offers_others = of_gpus && candidates.iter().any(|candidate| !candidate.offers.is_empty());
    if offers_others || candidates.iter().any(has_it) {
        return None;
    }
    // A node without any sign of GPUs may have GPUs that no software has found yet.
    let (count, mut nodes) = nodes::collect(connection, None, |_| true, |node| node).await.ok()?;
    let nobody = NodeRequests::default();
    let judged = |node: &Node| candidate(pod, node, &wanted, &nobody, None);
    if nodes.iter().any(|node| has_it(&judged(node))) {
        return None;
    }
    // A taint does not matter: on a node with GPUs, the missing resource comes before the taint.
    let is_taint = |reason: &RejectionReason| matches!(reason, RejectionReason::Taint(_));
    let is_open = |node: &Node| judged(node).rejections.iter().all(|reason| is_gpu_node(node) && is_taint(reason));
    nodes.retain(is_open);
    // Only nodes that the pod selects, or that look like GPU nodes, are read.
    let selector = pod.spec.as_ref().and_then(|spec| spec.node_selector.as_ref());
    if selector.is_none_or(|selector| selector.is_empty()) && nodes.iter().any(is_gpu_node) {
        nodes.retain(is_gpu_node);
    }
    let read = nodes.iter().take(NODES_READ).map(|node| providers_on(connection, node, resource, time));
    let read = futures_util::future::join_all(read).await;
    // Nodes on which no pod offers the resource.
    let without: Vec<&Node> =
        nodes.iter().zip(&read).filter(|(_, (pods, _))| pods.is_empty()).map(|(node, _)| node).collect();
    let (pods, linked): (Vec<_>, Vec<_>) = read.iter().cloned().unzip();
    let pods: Vec<String> = pods.into_iter().flatten().collect();
    let linked = linked.into_iter().flatten().collect();
    let sets = daemon_set_list::list(connection, time).await.ok().filter(|_| of_gpus);
    let sets = sets.as_deref().map(|sets| plugins_on(sets, without.first().copied()));
    let names: Vec<String> = nodes.iter().take(NAMED).map(ResourceExt::name_any).collect();
    let few = names.len() == nodes.len();
    let of_nodes = if names.is_empty() || !few { String::new() } else { format!(" on {}", names.join(", ")) };
    let example = names.first().map(|name| format!(" (diagnose_gpu_node for {name})")).unwrap_or_default();
    // A DaemonSet with a pod on another node may be meant for this one.
    let missing = sets.iter().flatten().filter(|set| set.contains(" has no pod on ")).cloned().collect::<Vec<_>>();
    let changes = match (pods.is_empty(), sets.filter(|_| of_gpus)) {
        (false, _) => {
            let missing = (!missing.is_empty())
                .then(|| format!("correct the placement of the device plugin: {}", missing.join("; ")));
            let repair = format!("repair the pods that offer {resource}: {}", pods.join("; "));
            missing.into_iter().chain([repair, format!("check whether the node has the device{example}")]).collect()
        }
        (true, Some(sets)) if sets.is_empty() => vec![
            format!(
                "if a node has GPUs, install the software that offers them (device plugin, or the GPU \
                 Operator){of_nodes}{example}: the cluster has no DaemonSet of a device plugin or DRA driver of \
                 NVIDIA"
            ),
            "otherwise add nodes with GPUs".to_owned(),
        ],
        (true, Some(sets)) => vec![
            format!("find out why the device plugin registers no GPU{of_nodes}{example}: {}", sets.join("; ")),
            "if no node has a GPU, add a node with GPUs".to_owned(),
        ],
        (true, None) => vec![
            format!(
                "run the device plugin that offers {resource}{of_nodes}: no pod of this device plugin was found there"
            ),
            "request a resource that the nodes offer".to_owned(),
        ],
    };
    let whole = match count {
        1 => "the only node of the cluster does not offer it".to_owned(),
        _ => format!("none of the {count} nodes of the cluster offers it"),
    };
    let shortage = CapacityShortage {
        problem: Some(format!("no node offers {resource}")),
        shortage: format!("requests {resource}, but {whole}"),
        changes: changes.into_iter().map(Into::into).collect(),
        ..CapacityShortage::default()
    };
    Some((shortage, linked))
}

/// Returns the DaemonSet pods on a node that may offer the resource, each with its state and log: pods of device
/// plugins, and pods whose name, images or containers contain a part of the resource's name.
async fn providers_on(
    connection: &Connection,
    node: &Node,
    resource: &str,
    time: Duration,
) -> (Vec<String>, Vec<LinkedPod>) {
    let name = node.name_any();
    let Ok(pods) = ExistingPods::on_node(connection, &name, time).await else { return (Vec::new(), Vec::new()) };
    let parts = resource.split(|character: char| !character.is_ascii_alphanumeric());
    let parts: Vec<&str> = parts.filter(|part| part.len() > 2 && !COMMON.contains(part)).collect();
    let of_gpus = is_gpu_resource(resource);
    let provides = |pod: &&NvidiaPod| match pod.component {
        Component::DevicePlugin | Component::DraDriver | Component::SandboxDevicePlugin => of_gpus,
        Component::Other if !of_gpus => {
            let of_containers = pod.containers.iter().flat_map(|one| [&one.name, &one.image]);
            let names: Vec<&String> = [&pod.name, &pod.owner].into_iter().chain(of_containers).collect();
            parts.iter().any(|part| names.iter().any(|name| name.contains(part)))
        }
        _ => false,
    };
    let found: Vec<NvidiaPod> = pods.daemon_pods().iter().filter(provides).take(NAMED).cloned().collect();
    let linked = linked_pods::providers(connection, &name, resource, &found, pods.daemon_pods()).await;
    let mut told = Vec::new();
    for pod in &found {
        let warning = events::newest_warning(connection, &pod.namespace, &pod.name).await.ok().flatten();
        let waits = pod.containers.iter().find_map(|container| {
            let state = [Some(&container.state), container.last.as_ref()].into_iter().flatten();
            let message = state.filter_map(|state| state.message.clone().or(state.reason.clone())).next();
            (!container.ready)
                .then(|| format!("container {} is not ready ({})", container.name, message.unwrap_or_default()))
        });
        let state = match (pod.ready, waits, warning) {
            (true, ..) => "is ready, but has registered no device".to_owned(),
            (false, waits, Some(warning)) => {
                format!("{}; {}: {}", waits.unwrap_or_default(), warning.reason, warning.message)
            }
            (false, Some(waits), None) => waits,
            (false, None, None) => format!("is {}", pod.phase),
        };
        told.push(clean_keeping_end(&format!("pod {}/{} on {name}: {state}", pod.namespace, pod.name), MAX_STATE));
    }
    (told, linked)
}

/// Maximum length of the state of a pod.
const MAX_STATE: usize = 600;

/// Returns the DaemonSets that offer GPUs, each with the reason why it has no pod on the node.
fn plugins_on(sets: &[DaemonSet], node: Option<&Node>) -> Vec<String> {
    let any = Node::default();
    let facts = daemon_sets::on_node(sets, node.unwrap_or(&any), &[]);
    let facts = facts.into_iter().filter(|set| set.role == DaemonSetRole::GpuPlugin);
    let in_words = |set: DaemonSetFacts| {
        let why = node.zip(set.mismatch).map(|(node, why)| format!(" has no pod on {}: {why}", node.name_any()));
        format!("DaemonSet {}/{}{}", set.namespace, set.name, why.unwrap_or_default())
    };
    facts.map(in_words).take(NAMED).collect()
}
