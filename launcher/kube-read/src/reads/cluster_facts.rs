//! `from_objects`: creates the facts about a node that the rules need, from its Node object and pods.
//! `add_from_api`, `add_warnings`: read further facts from the API. `is_telling`, `warning_of`: select and convert
//! events.
//!
//! A node without `nvidia.com/gpu` in its capacity may have a broken device plugin, may use dynamic resource allocation
//! for its GPUs (also as an extended resource), or may be in a cluster that advertises no GPUs. Only such a node needs
//! further requests. Each pod that does not start needs one more request, for its newest event.

use std::time::Duration;

use futures_util::future::try_join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use syringe_core::facts::kubernetes::node::{
    DraDevice, KubernetesFacts, KubernetesInput, NvidiaPod, PodWarning, UnreadInput,
};
use syringe_core::unknown::Unknown;
use tokio::time::timeout;

use crate::Failure;
use crate::client::api_error::{silent, unread_input};
use crate::client::connection::Connection;
use crate::client::lists::Freshness;
use crate::objects::gpu_resource_names::gpu_resources;
use crate::objects::{compute_domains as domain_objects, gpu_operator_labels, node_facts as node_gpus};
use crate::reads::existing_pods::ExistingPods;
use crate::reads::{compute_domains, daemon_sets, events, nodes, pods, resource_claims};

/// Time limit for the additional requests. A diagnosis without their results is still useful.
const TIME: Duration = Duration::from_secs(5);
/// Maximum number of starting pods whose events are read.
const STARTING_PODS: usize = 3;
/// Next step if dynamic resource allocation could not be read.
const DRA_STEP: &str = "An administrator grants the permissions with gpu-syringe setup --apply --user NAME.";

/// Returns the facts from the Node object that was read at the time `now`, and from the pods on the node if they were
/// listed.
pub fn from_objects(kubernetes: &Node, existing_pods: Option<&ExistingPods>, now: Timestamp) -> KubernetesFacts {
    let mut facts = KubernetesFacts { read_at: Some(now), ..node_gpus::cluster_facts(kubernetes) };
    if node_gpus::is_from_report(kubernetes) {
        return facts;
    }
    facts.nvidia_pods = existing_pods.map(|existing_pods| existing_pods.nvidia_pods().to_vec());
    facts.runtime_classes = existing_pods.map(|existing_pods| existing_pods.runtime_classes().to_vec());
    facts.starting_pods = existing_pods.map(|existing_pods| existing_pods.starting_pods().to_vec());
    facts.failed_pods = existing_pods.map(|existing_pods| existing_pods.failed_pods().to_vec());
    facts
}

/// Adds facts that are not in the Node object and not in the pods of the node. `failing`: the pod of NVIDIA's stack
/// whose events are read.
pub async fn add_from_api(
    connection: &Connection,
    kubernetes: &Node,
    mut facts: KubernetesFacts,
    failing: Option<NvidiaPod>,
    time: Duration,
) -> KubernetesFacts {
    if node_gpus::is_from_report(kubernetes) {
        return facts;
    }
    let name = kubernetes.name_any();
    let offers = facts.gpu_capacity.unwrap_or(0) > 0 || facts.other_gpu_resources;
    let mut sets = facts.daemon_sets.take();
    // Each request has its own time limit, so that a long list of nodes does not prevent the other requests.
    let time = time.min(TIME);
    let other_nodes =
        async { if offers { Ok(OtherNodes::default()) } else { other_nodes(connection, kubernetes, &facts).await } };
    let domain = kubernetes.labels().get(domain_objects::LABEL).map(String::as_str);
    let (of_node, warnings, (), dra, other_nodes, domain) = tokio::join!(
        within(connection, time, "Listing the events of the node", events::of_node(connection, &name)),
        Warnings::read(connection, &facts, failing, time),
        daemon_sets::add_refusals(connection, &name, sets.as_deref_mut().unwrap_or_default(), time),
        within(connection, time, "Listing resource slices", by_dra(connection, &name)),
        within(connection, time, "Listing the other nodes", other_nodes),
        compute_domains::read(connection, &name, domain, time)
    );
    match domain {
        Ok(domain) => facts.compute_domain = domain,
        Err(why) => facts.compute_domain_unread = Some(why),
    }
    facts.daemon_sets = sets;
    // An error is ignored, because the verdict does not depend on these events.
    facts.warnings = of_node.unwrap_or_default().into_iter().filter(is_telling).map(warning_of).collect();
    warnings.add_to(&mut facts);
    let mut unread = Vec::new();
    // A device plugin that offers GPUs shows how pods get them, so the verdict does not need the ResourceSlices.
    let devices = if offers { dra.ok() } else { or_unread(KubernetesInput::ResourceSlices, dra, &mut unread) };
    facts.gpu_dra = devices.as_ref().map(|devices| !devices.is_empty());
    facts.dra_devices = devices.unwrap_or_default();
    if !offers {
        let OtherNodes { plugin, pci_label } =
            or_unread(KubernetesInput::OtherNodes, other_nodes, &mut unread).unwrap_or_default();
        (facts.gpu_plugin_in_cluster, facts.pci_label_elsewhere) = (plugin, pci_label);
    }
    facts.unread.extend(unread);
    facts
}

/// Adds the warnings about pods that do not start. `failing`: the pod of NVIDIA's stack whose events are read.
pub async fn add_warnings(
    connection: &Connection,
    mut facts: KubernetesFacts,
    failing: Option<NvidiaPod>,
    time: Duration,
) -> KubernetesFacts {
    Warnings::read(connection, &facts, failing, time.min(TIME)).await.add_to(&mut facts);
    facts
}

/// The newest warnings about pods that do not start.
struct Warnings {
    failing: Option<NvidiaPod>,
    of_failing: Result<Option<PodWarning>, Failure>,
    of_starting: Result<Vec<Option<PodWarning>>, Failure>,
}

impl Warnings {
    async fn read(
        connection: &Connection,
        facts: &KubernetesFacts,
        failing: Option<NvidiaPod>,
        time: Duration,
    ) -> Self {
        let of_failing = async {
            let Some(NvidiaPod { namespace, name, .. }) = failing.as_ref() else { return Ok(None) };
            newest_warning(connection, namespace, name).await
        };
        let starting = facts.starting_pods.iter().flatten().take(STARTING_PODS);
        let of_starting = try_join_all(starting.map(|pod| newest_warning(connection, &pod.namespace, &pod.name)));
        let (of_failing, of_starting) = tokio::join!(
            within(connection, time, "Listing the events of a pod of NVIDIA's stack", of_failing),
            within(connection, time, "Listing the events of pods that do not start", of_starting)
        );
        Self { failing, of_failing, of_starting }
    }

    fn add_to(self, facts: &mut KubernetesFacts) {
        let mut unread = Vec::new();
        let warning = or_unread(KubernetesInput::PodEvents, self.of_failing, &mut unread).flatten();
        let of_starting = match self.of_starting {
            Err(failure) if unread.is_empty() => {
                unread.push(unread_input(KubernetesInput::PodEvents, &failure));
                Vec::new()
            }
            of_starting => of_starting.unwrap_or_default(),
        };
        for (pod, warning) in facts.starting_pods.iter_mut().flatten().zip(of_starting) {
            pod.warning = warning;
        }
        facts.unread.extend(unread);
        let Some((failing, warning)) = self.failing.zip(warning) else { return };
        if let Some(pod) = facts.nvidia_pods.iter_mut().flatten().find(|pod| pod.uid == failing.uid) {
            pod.warning = Some(warning);
        }
    }
}

async fn newest_warning(connection: &Connection, namespace: &str, pod: &str) -> Result<Option<PodWarning>, Failure> {
    Ok(events::newest_warning(connection, namespace, pod).await?.map(warning_of))
}

/// Returns whether an event of a node is a warning, the loss of the condition Ready, or the start of the kubelet.
/// Kubernetes reports the last two as `Normal`.
pub fn is_telling(event: &events::NodeEvent) -> bool {
    let kubelet_starts = event.reason == "Starting" && event.message.contains("kubelet");
    event.severity == "Warning" || event.reason == "NodeNotReady" || kubelet_starts
}

/// Returns an event as a fact for the rules.
pub fn warning_of(event: events::NodeEvent) -> PodWarning {
    let events::NodeEvent { reason, message, count, last, severity: _ } = event;
    PodWarning { reason, message, count, last }
}

/// Returns the result of a request, or a failure if it takes longer than `time`.
async fn within<T>(
    connection: &Connection,
    time: Duration,
    what: &str,
    request: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    timeout(time, request).await.unwrap_or_else(|_| Err(silent(connection, what.to_owned(), time)))
}

/// Returns the result of a request. If the request failed, adds `input` to `unread`.
fn or_unread<T>(input: KubernetesInput, read: Result<T, Failure>, unread: &mut Vec<UnreadInput>) -> Option<T> {
    read.map_err(|failure| unread.push(unread_input(input, &failure))).ok()
}

/// Returns the GPUs of the node that a driver for dynamic resource allocation publishes.
async fn by_dra(connection: &Connection, node: &str) -> Result<Vec<DraDevice>, Failure> {
    let mut unknown = Vec::new();
    let devices = resource_claims::devices_of(connection, node, &mut unknown).await?;
    match unknown.pop() {
        Some(Unknown { why, .. }) => Err(Failure::new("Reading dynamic resource allocation", why, DRA_STEP)),
        None => Ok(devices),
    }
}

/// Facts from the other nodes of the cluster.
#[derive(Default)]
struct OtherNodes {
    /// Whether NVIDIA GPUs are advertised in this cluster.
    plugin: Option<bool>,
    /// Whether another node has the label of node feature discovery for NVIDIA's PCI devices.
    pci_label: Option<bool>,
}

/// Reads the other nodes. GPUs are advertised in the cluster if the node has labels or a pod of the GPU Operator or GPU
/// Feature Discovery, or if another node advertises GPUs.
async fn other_nodes(
    connection: &Connection,
    kubernetes: &Node,
    facts: &KubernetesFacts,
) -> Result<OtherNodes, Failure> {
    let is_labelled = kubernetes.labels().keys().any(|label| label.starts_with("nvidia.com/"));
    let pod = if is_labelled { Ok(true) } else { has_plugin_pod(connection, kubernetes, facts).await };
    let here = pod.as_ref().is_ok_and(|has| *has);
    let labelled = facts.labels.pci_present;
    if here && labelled {
        return Ok(OtherNodes { plugin: Some(true), pci_label: None });
    }
    let is_sign = |node: &Node| offers(node) || gpu_operator_labels::has_pci_label(node);
    let row = |node: Node| (offers(&node), gpu_operator_labels::has_pci_label(&node));
    let (_, rows) = nodes::collect(connection, None, is_sign, row).await?;
    let plugin = here || rows.iter().any(|(offers, _)| *offers);
    // If no other node advertises GPUs, the pods of this node decide: it is an error if they could not be read.
    if !plugin {
        pod?;
    }
    let pci_label = Some(!labelled && rows.iter().any(|(_, labelled)| *labelled));
    Ok(OtherNodes { plugin: Some(plugin), pci_label })
}

/// Returns whether a pod on the node has the name of NVIDIA software that advertises GPUs.
async fn has_plugin_pod(connection: &Connection, kubernetes: &Node, facts: &KubernetesFacts) -> Result<bool, Failure> {
    if facts.nvidia_pods.as_ref().is_some_and(|pods| !pods.is_empty()) {
        return Ok(true);
    }
    let of_vendor = |name: &str| {
        let vendor = name.contains("nvidia") || name.contains("gpu");
        vendor
            && ["device-plugin", "operator", "feature-discovery", "dra-driver"].iter().any(|part| name.contains(part))
    };
    let pods = pods::on_node(connection, &kubernetes.name_any(), Freshness::Cached).await?;
    Ok(pods.iter().any(|pod| of_vendor(&pod.metadata.name)))
}

fn offers(node: &Node) -> bool {
    let capacity = node.status.as_ref().and_then(|status| status.capacity.as_ref());
    capacity.is_some_and(|resources| gpu_resources(resources).values().any(|count| *count > 0))
}
