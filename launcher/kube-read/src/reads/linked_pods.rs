//! Functions that read other pods that may explain a problem, and their logs. `of_pod`: pods that the messages of a pod
//! name. `of_node`, `providers`: pods that should offer the GPUs of a node. `named`, `log_of`: logs that findings name,
//! and one log.
//!
//! Only directly linked pods are read: pods that a message mentions, pods of the same job that messages are about, pods
//! that offer the missing resource, the pods that these need, and the operator that creates them. Healthy pods and
//! nodes need no request.

use futures_util::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use syringe_core::facts::kubernetes::linked_pod::LinkedPod;
use syringe_core::facts::kubernetes::node::{
    Component, ContainerStateKind, KubernetesFacts, NvidiaContainer, NvidiaPod,
};
use syringe_core::facts::kubernetes::pod::{ContainerState, PodFacts};
use syringe_core::facts::stack_log::StackLog;
use tokio::time::timeout;

use crate::client::connection::Connection;
use crate::objects::api_objects::pod::Pod as ListedPod;
use crate::objects::name_validation;
use crate::objects::nvidia_pod_facts;
use crate::reads::{cluster_facts, events, helper_pods, owned_pods, peers, pod_log};

/// Maximum number of linked pods, and of their logs, in one answer.
const MAX_PODS: usize = 4;
/// Maximum number of pods of each kind.
const MAX_OF_KIND: usize = 2;
/// Maximum number of namespaces in which the operator is searched.
const NAMESPACES: usize = 3;
/// Maximum distance between the word `pod` and the name of a pod in a message.
const NEAR: usize = 60;
/// Time limit for all requests. The answer does not depend on them.
const TIME: std::time::Duration = std::time::Duration::from_secs(5);

/// Namespaces of the GPU Operator in its documentation and in OperatorHub.
const OPERATOR_NAMESPACES: [&str; 2] = ["gpu-operator", "nvidia-gpu-operator"];

/// Returns the pod with its state and the end of its log.
async fn with_log(connection: &Connection, pod: NvidiaPod, node: Option<String>, role: String) -> LinkedPod {
    let (container, log) = match container_to_read(&pod) {
        Some((name, previous)) => {
            let log = pod_log::read(connection, &pod.namespace, &pod.name, name, previous).await;
            (name.to_owned(), log)
        }
        None => (String::new(), Some(Vec::new())),
    };
    LinkedPod { role, pod, node, container, log, older_than: Vec::new() }
}

async fn with_logs(connection: &Connection, pods: Vec<(NvidiaPod, Option<String>, String)>) -> Vec<LinkedPod> {
    let reads = pods.into_iter().take(MAX_PODS).map(|(pod, node, role)| with_log(connection, pod, node, role));
    timeout(TIME, join_all(reads)).await.unwrap_or_default()
}

/// Reads the log of a container of NVIDIA's software that does not start, for a report without this log.
pub async fn log_of(connection: &Connection, pod: &NvidiaPod, container: &str) -> Option<StackLog> {
    let previous = pod.containers.iter().any(|one| one.name == container && waits(one));
    let read = |previous| pod_log::tail(connection, &pod.namespace, &pod.name, container, previous);
    let lines = match read(previous).await {
        // The runtime may have removed the log of the last run.
        None if previous => read(false).await?,
        lines => lines?,
    };
    Some(StackLog { pod_uid: pod.uid.clone(), container: container.to_owned(), lines, ..StackLog::default() })
}

/// Returns whether the log of the last run must be read: the container is waiting, or `state` is a copy of its last end
/// (see [`at_its_end`]).
fn waits(container: &NvidiaContainer) -> bool {
    container.state.kind == ContainerStateKind::Waiting || container.last.as_ref() == Some(&container.state)
}

/// Returns the container whose log may show the reason, and whether to read the log before its last restart. This is
/// the first container that is not ready, or else the first running container.
fn container_to_read(pod: &NvidiaPod) -> Option<(&str, bool)> {
    let has_run = |one: &NvidiaContainer| one.restarts > 0 || !waits(one);
    let is_done = |one: &NvidiaContainer| one.init && one.state.exit_code == Some(0);
    let mut started = pod.containers.iter().filter(|one| has_run(one));
    let held_up = started.clone().find(|one| !one.ready && !is_done(one));
    let container = held_up.or_else(|| started.find(|one| !one.init))?;
    Some((container.name.as_str(), waits(container)))
}

/// Reads the pods that the messages of a pod refer to. `object`: the pod.
pub async fn of_pod(connection: &Connection, object: &Pod, facts: &PodFacts) -> Vec<LinkedPod> {
    let own = (facts.namespace.as_str(), facts.name.as_str());
    let told = facts.message.iter().chain(&facts.not_ready);
    let of_events = facts.events.iter().rev().chain(facts.related_warnings.iter().rev()).filter(|event| event.warning);
    let waits = facts.containers.iter().filter_map(|container| match &container.state {
        ContainerState::Waiting { message, .. } => Some(message),
        _ => None,
    });
    let messages = told.chain(waits).chain(of_events.map(|event| &event.message));
    let mut names: Vec<(String, String)> = Vec::new();
    for name in messages.flat_map(|message| named_pods(message)) {
        if (name.0.as_str(), name.1.as_str()) != own && !names.contains(&name) {
            names.push(name);
        }
    }
    names.truncate(MAX_OF_KIND);
    let named = names.iter().map(|(namespace, name)| get(connection, namespace, name));
    let named = async { timeout(TIME, join_all(named)).await.unwrap_or_default() };
    let peers = peers::of_pod(connection, object, facts);
    let helpers = helper_pods::of_scheduling(connection, object, facts);
    let of_node = helper_pods::of_node(connection, facts);
    let (named, peers, helpers, of_node) = tokio::join!(named, peers, helpers, of_node);
    let named = named.into_iter().flatten().map(|pod| (pod, "a message of the pod names it".to_owned()));
    let facts_of = |(pod, role): (ListedPod, String)| {
        let node = Some(pod.spec.node_name.clone()).filter(|node| !node.is_empty());
        let mut facts = nvidia_pod_facts::any_pod(&pod);
        facts.message = facts.message.or_else(|| unplaced(&pod));
        (facts, node, role)
    };
    let mut all: Vec<(NvidiaPod, Option<String>, String)> = named.map(facts_of).collect();
    for peer in peers.into_iter().chain(helpers).chain(of_node) {
        let (mut pod, node, role) = facts_of((peer.pod, peer.role));
        if let Some(ended) = peer.ended {
            at_its_end(&mut pod, ended);
        }
        all.push((pod, node, role));
    }
    let mut linked = with_logs(connection, all).await;
    add_warnings(connection, &mut linked).await;
    linked
}

/// Reads the device plugins of a node that ended near the time at which its kubelet refused a pod. `pods`: the pods of
/// NVIDIA's software on the node.
pub async fn ended_near(connection: &Connection, node: &str, pods: &[NvidiaPod], refused: Timestamp) -> Vec<LinkedPod> {
    let wanted = helper_pods::ended_near(pods, refused).into_iter().map(|(mut pod, ended)| {
        at_its_end(&mut pod, ended);
        let role = format!("it offers the GPUs of {node}, and ended at {ended:.0}, near the refusal of the pod");
        (pod, Some(node.to_owned()), role)
    });
    with_logs(connection, wanted.collect()).await
}

/// Returns the message of the scheduler about a pod without a node.
fn unplaced(pod: &ListedPod) -> Option<String> {
    let condition = pod.status.conditions.iter().find(|one| one.name == "PodScheduled" && one.status == "False")?;
    Some(condition.message.clone()).filter(|message| !message.is_empty())
}

/// Replaces the state of the container that ended at this time with the state of its end. The pod may be running again.
fn at_its_end(pod: &mut NvidiaPod, ended: Timestamp) {
    pod.ready = false;
    for container in &mut pod.containers {
        let of_end = container.last.clone().filter(|last| last.since == Some(ended));
        if let Some(last) = of_end {
            (container.state, container.ready) = (last, false);
        }
    }
}

/// Adds the newest warning to each pod whose containers have not started. The warning contains the reason why the pod
/// waits.
async fn add_warnings(connection: &Connection, linked: &mut [LinkedPod]) {
    let reads = linked.iter_mut().filter(|one| !one.pod.ready && one.container.is_empty()).map(|one| async {
        let newest = events::newest_warning(connection, &one.pod.namespace, &one.pod.name).await;
        one.pod.warning = newest.ok().flatten().map(cluster_facts::warning_of);
    });
    timeout(TIME, join_all(reads)).await.ok();
}

async fn get(connection: &Connection, namespace: &str, name: &str) -> Option<ListedPod> {
    let pods: Api<Pod> = Api::namespaced(connection.client.clone(), namespace);
    let pod = pods.get_opt(name).await.ok()??;
    serde_json::from_value(serde_json::to_value(pod).ok()?).ok()
}

/// Returns the pods that a message mentions as `NAMESPACE/NAME` after the word `pod`.
fn named_pods(message: &str) -> Vec<(String, String)> {
    let lower = message.to_ascii_lowercase();
    let is_name = |text: &str| name_validation::check_pod_name(text).is_ok();
    let is_namespace = |text: &str| name_validation::check_namespace(text).is_ok();
    let mut found = Vec::new();
    for word in message.split(|one: char| one.is_whitespace() || "\"'`(),;:[]{}".contains(one)) {
        let word = word.trim_end_matches('.');
        let Some((namespace, name)) = word.split_once('/') else { continue };
        let at = word.as_ptr() as usize - message.as_ptr() as usize;
        let start = lower.floor_char_boundary(at.saturating_sub(NEAR));
        if is_namespace(namespace) && is_name(name) && lower[start..at].contains("pod") {
            found.push((namespace.to_owned(), name.to_owned()));
        }
    }
    found
}

/// Returns the DaemonSet pods on a node that may offer a resource, with their logs. `pods`: all DaemonSet pods on the
/// node.
pub async fn providers(
    connection: &Connection,
    node: &str,
    resource: &str,
    providers: &[NvidiaPod],
    pods: &[NvidiaPod],
) -> Vec<LinkedPod> {
    let role = format!("it offers {resource} on {node}");
    let wanted = providers.iter().take(MAX_OF_KIND).map(|pod| (pod.clone(), Some(node.to_owned()), role.clone()));
    let mut linked = with_logs(connection, wanted.collect()).await;
    linked.iter_mut().for_each(|one| one.older_than = older_than(&one.pod, pods));
    linked
}

/// Returns the driver pods on the node that became ready only after a device plugin had started, because the plugin may
/// have found no device. A driver of network cards is compared with the plugins of its namespace, and NVIDIA's driver
/// with GPU plugins.
fn older_than(plugin: &NvidiaPod, pods: &[NvidiaPod]) -> Vec<String> {
    let of_gpus =
        matches!(plugin.component, Component::DevicePlugin | Component::DraDriver | Component::SandboxDevicePlugin);
    let started = plugin.containers.iter().filter(|one| !one.init).filter_map(|one| one.state.since).max();
    let is_driver = |pod: &&NvidiaPod| match of_gpus {
        true => pod.component == Component::Driver,
        false => {
            let names = [&pod.name, &pod.owner];
            pod.component == Component::Other
                && pod.namespace == plugin.namespace
                && names.iter().any(|name| ["ofed", "doca", "driver"].iter().any(|part| name.contains(part)))
        }
    };
    let later = pods.iter().filter(|pod| pod.ready && pod.uid != plugin.uid).filter(is_driver).filter_map(|pod| {
        let ready = pod.ready_since.filter(|ready| started.is_some_and(|started| *ready > started))?;
        Some(format!("{}/{} (ready since {ready:.0})", pod.namespace, pod.name))
    });
    later.take(MAX_OF_KIND).collect()
}

/// Reads the pods that should offer the GPUs of a node without advertised GPUs: its device plugins, the MPS daemon that
/// they need, and, if there is no plugin, the operator that should create one. `daemon_pods`: all DaemonSet pods on the
/// node.
pub async fn of_node(
    connection: &Connection,
    node: &str,
    facts: &KubernetesFacts,
    daemon_pods: &[NvidiaPod],
) -> Vec<LinkedPod> {
    let is_plugin = |pod: &&NvidiaPod| {
        matches!(pod.component, Component::DevicePlugin | Component::DraDriver | Component::SandboxDevicePlugin)
    };
    let of_stack = || facts.nvidia_pods.iter().flatten().filter(|pod| !pod.deleting && pod.phase != "Succeeded");
    let is_mps = |pod: &&NvidiaPod| pod.containers.iter().any(|one| one.name.starts_with("mps-control"));
    let with_role = |role: &'static str| move |pod: &NvidiaPod| (pod.clone(), Some(node.to_owned()), role.to_owned());
    let plugins =
        of_stack().filter(is_plugin).filter(|pod| !is_mps(pod)).take(MAX_OF_KIND).map(with_role("it offers the GPUs"));
    let mut wanted: Vec<_> = plugins.collect();
    let has_plugin = !wanted.is_empty();
    wanted.extend(of_stack().filter(is_mps).take(1).map(with_role("the device plugin shares the GPUs through it")));
    if !has_plugin {
        let of_vendor =
            daemon_pods.iter().filter(|pod| pod.name.contains("gpu-operator") || pod.name.contains("nvidia"));
        let own = of_vendor.map(|pod| pod.namespace.as_str());
        let mut namespaces: Vec<&str> = Vec::new();
        for namespace in own.chain(OPERATOR_NAMESPACES) {
            if !namespaces.contains(&namespace) {
                namespaces.push(namespace);
            }
        }
        let lists = namespaces.into_iter().take(NAMESPACES).map(|namespace| operators(connection, namespace));
        let found = timeout(TIME, join_all(lists)).await.unwrap_or_default();
        wanted.extend(found.into_iter().flatten().take(MAX_OF_KIND));
    }
    let mut linked = with_logs(connection, wanted).await;
    linked.iter_mut().for_each(|one| one.older_than = older_than(&one.pod, daemon_pods));
    linked
}

/// Reads the logs of the pods that findings refer to.
pub async fn named(connection: &Connection, node: &str, pods: &[NvidiaPod]) -> Vec<LinkedPod> {
    let role = LinkedPod::NAMED_BY_FINDING;
    let wanted = pods.iter().map(|pod| (pod.clone(), Some(node.to_owned()), role.to_owned()));
    with_logs(connection, wanted.collect()).await
}

/// Returns the pods of the GPU Operator in a namespace.
async fn operators(connection: &Connection, namespace: &str) -> Vec<(NvidiaPod, Option<String>, String)> {
    let is_operator = |pod: &ListedPod| {
        let of_operator = |image: &str| {
            let image = image.split('@').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
            image == "gpu-operator" || image.starts_with("gpu-operator:")
        };
        pod.spec.containers.iter().any(|one| of_operator(&one.image) || one.name == "gpu-operator")
    };
    let list = owned_pods::in_namespace(connection, namespace, None, |pod: ListedPod| {
        let is_present = is_operator(&pod) && pod.metadata.deletion_timestamp.is_none();
        let node = Some(pod.spec.node_name.clone()).filter(|node| !node.is_empty());
        let role = "it should create the DaemonSets of the driver, the toolkit and the device plugin".to_owned();
        is_present.then(|| (nvidia_pod_facts::any_pod(&pod), node, role))
    });
    list.await.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use syringe_core::facts::kubernetes::node::NvidiaContainerState;

    use super::*;

    #[test]
    fn a_message_names_pods_with_their_namespace() {
        let found = |message: &str| {
            named_pods(message).into_iter().map(|(space, name)| format!("{space}/{name}")).collect::<Vec<_>>()
        };
        assert_eq!(found("the GPU reservation pod kai/gpu-reservation-x is not ready"), ["kai/gpu-reservation-x"]);
        assert_eq!(found("waiting for Pod \"ml/head-0\" (2 restarts)"), ["ml/head-0"]);
        for other in [
            "0/4 nodes are available: 1 node(s) had untolerated taint {nvidia.com/gpu: true}",
            "Back-off restarting failed container in pod train-0_ml",
            "pod has unbound volumes; see /var/lib/kubelet/pods",
            "failed to pull image docker.io/library/x:1",
        ] {
            assert!(found(other).is_empty(), "{other}: {:?}", found(other));
        }
    }

    fn container(name: &str, kind: ContainerStateKind, restarts: u32, ready: bool) -> NvidiaContainer {
        let state = NvidiaContainerState { kind, ..NvidiaContainerState::default() };
        NvidiaContainer { name: name.into(), state, restarts, ready, ..NvidiaContainer::default() }
    }

    #[test]
    fn the_log_of_the_container_that_holds_the_pod_up_is_read() {
        use ContainerStateKind::{Running, Waiting};
        let read = |containers: &[NvidiaContainer]| {
            let pod = NvidiaPod { containers: containers.to_vec(), ..NvidiaPod::default() };
            container_to_read(&pod).map(|(name, previous)| (name.to_owned(), previous))
        };
        let (runs, crashes) = (container("a", Running, 0, true), container("b", Waiting, 4, false));
        assert_eq!(read(&[runs.clone(), crashes]), Some(("b".to_owned(), true)));
        assert_eq!(read(&[runs]), Some(("a".to_owned(), false)));
        assert_eq!(read(&[container("c", Waiting, 0, false)]), None);
    }

    #[test]
    fn a_plugin_is_older_than_a_driver_that_became_ready_later() {
        let pod = |name: &str, component, since: &str, ready: &str| {
            let mut main = container("main", ContainerStateKind::Running, 0, true);
            main.state.since = since.parse().ok();
            let (ready_since, uid) = (ready.parse().ok(), name.into());
            NvidiaPod {
                name: name.into(),
                uid,
                component,
                ready: true,
                ready_since,
                containers: vec![main],
                ..NvidiaPod::default()
            }
        };
        let plugin = pod("rdma-dp", Component::Other, "2026-11-21T01:30:00Z", "2026-11-21T01:31:00Z");
        let early = pod("mofed-ds", Component::Other, "2026-11-21T01:20:00Z", "2026-11-21T01:25:00Z");
        let late = pod("mofed-ds", Component::Other, "2026-11-21T01:20:00Z", "2026-11-21T01:35:00Z");
        assert!(older_than(&plugin, &[early]).is_empty());
        assert_eq!(older_than(&plugin, std::slice::from_ref(&late)).len(), 1);
        let gpus = pod("nvidia-dp", Component::DevicePlugin, "2026-11-21T01:30:00Z", "2026-11-21T01:31:00Z");
        assert!(older_than(&gpus, &[late]).is_empty(), "a driver of network cards");
    }
}
