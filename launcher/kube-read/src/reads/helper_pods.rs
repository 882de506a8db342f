//! `of_scheduling`, `of_node`: find failing pods of schedulers, queues, network plugins and drivers that a pod needs.
//! `absent_provider`: finds the DaemonSet of a driver that does not run on the node of a pod. `ended_near`: finds device plugins that ended while the kubelet admitted a pod.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use syringe_core::facts::kubernetes::daemon_set::DaemonSetFacts;
use syringe_core::facts::kubernetes::node::{Component, NvidiaPod};
use syringe_core::facts::kubernetes::pod::PodFacts;
use tokio::time::timeout;

use crate::client::connection::Connection;
use crate::client::pagination::{self, Query};
use crate::objects::api_objects::pod::Pod as ListedPod;
use crate::objects::{daemon_sets, nvidia_pod_facts};
use crate::reads::peers::{self, Peer};
use crate::reads::{daemon_sets as daemon_set_list, nodes};

/// Maximum number of pods in the result.
const MAX_PODS: usize = 2;
/// Time limit for the list. The answer does not depend on it.
const TIME: std::time::Duration = std::time::Duration::from_secs(5);
/// Maximum time between the end of a device plugin and the refusal of a pod.
const NEAR: SignedDuration = SignedDuration::from_mins(2);

/// Labels that a scheduler sets on a pod and on the pods that it creates for it.
const OF_HELPERS: [&str; 1] = ["runai-gpu-group"];

/// Labels whose value can be the name of a scheduler.
const OF_SCHEDULERS: [&str; 4] = ["app", "app.kubernetes.io/name", "app.kubernetes.io/component", "component"];

/// Words, in lower case, of a call to an extender or webhook that failed.
const FAILED_CALLS: [&str; 7] = [
    "dial tcp",
    "connection refused",
    "deadline exceeded",
    "x509",
    ": eof",
    "no endpoints available",
    "client.timeout exceeded",
];

/// Returns the failing pods that the placement of a waiting pod depends on: pods of its scheduler if the scheduler is
/// silent or reports a failed call, and pods with a label that only a scheduler sets.
pub(crate) async fn of_scheduling(connection: &Connection, object: &Pod, facts: &PodFacts) -> Vec<Peer> {
    if facts.phase != "Pending" || facts.node.is_some() {
        return Vec::new();
    }
    // The pods of a controller begin with the first part of the domain of its gate: `kueue.x-k8s.io/admission`.
    let controller = facts.scheduling_gates.iter().find_map(|gate| gate.split(['.', '/']).next());
    let labels: Vec<(&str, &String)> =
        OF_HELPERS.iter().filter_map(|label| Some((*label, object.labels().get(*label)?))).collect();
    let warning = facts.events.iter().rev().find(|event| event.warning).map(|event| &event.message);
    let message = facts.message.as_ref().or(warning);
    let asks_scheduler = controller.is_none() && message.is_none_or(|message| is_failed_call(message));
    if labels.is_empty() && controller.is_none() && !asks_scheduler {
        return Vec::new();
    }
    let scheduler = match facts.scheduler.as_deref() {
        None | Some("default-scheduler") => "kube-scheduler",
        Some(name) => name,
    };
    let keep = |pod: ListedPod| {
        let has = |(label, value): &(&str, &String)| pod.metadata.labels.get(*label) == Some(*value);
        let role = if labels.iter().any(has) {
            "a scheduler created it for the pod".to_owned()
        } else if let Some(controller) = controller.filter(|name| is_start(name, &pod.metadata.name)) {
            format!("it is a pod of {controller}, and the waiting pod has a gate of {controller}")
        } else {
            (asks_scheduler && is_of_scheduler(&pod, scheduler))
                .then(|| format!("it is a pod of the scheduler {scheduler}"))?
        };
        let is_itself = pod.metadata.name == facts.name && pod.metadata.namespace == facts.namespace;
        let (_, _) = peers::trouble(&pod, None, false).filter(|_| !is_itself)?;
        Some(Peer { pod, role, ended: None })
    };
    let query = Query { what: "Listing the pods of schedulers", path: "/api/v1/pods", labels: None, fields: None };
    let list = pagination::fold(connection, &query, Vec::new, |kept: &mut Vec<Peer>, pod: ListedPod| {
        if kept.len() < MAX_PODS {
            kept.extend(keep(pod));
        }
    });
    timeout(TIME, list).await.ok().and_then(Result::ok).unwrap_or_default()
}

fn is_failed_call(message: &str) -> bool {
    let lower = message.to_ascii_lowercase();
    let calls = lower.contains("://") || lower.contains("webhook") || lower.contains("extender");
    calls && FAILED_CALLS.iter().any(|words| lower.contains(words))
}

fn is_of_scheduler(pod: &ListedPod, scheduler: &str) -> bool {
    let name = pod.metadata.name.as_str();
    let is_named = name == scheduler || name.strip_prefix(scheduler).is_some_and(|rest| rest.starts_with('-'));
    is_named
        || OF_SCHEDULERS.iter().any(|label| pod.metadata.labels.get(*label).is_some_and(|value| value == scheduler))
}

/// Returns whether a name is the start of the name of a pod, or the whole name.
fn is_start(start: &str, pod: &str) -> bool {
    pod.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// Texts before the name of a component of the node in messages of the kubelet and of plugins.
const BEFORE_COMPONENTS: [&str; 3] = ["driver name ", "plugin type=\"", "DRA driver "];

/// Returns the failing DaemonSet pods on the node that the messages of a pod that does not start name.
pub(crate) async fn of_node(connection: &Connection, facts: &PodFacts) -> Vec<Peer> {
    let Some(node) = facts.node.as_deref().filter(|_| facts.phase == "Pending") else { return Vec::new() };
    let warnings = facts.events.iter().filter(|event| event.warning);
    let names: Vec<String> = warnings.flat_map(|event| components(&event.message)).collect();
    if names.is_empty() {
        return Vec::new();
    }
    let query = Query {
        what: &format!("Listing the pods of {node}"),
        path: "/api/v1/pods",
        labels: None,
        fields: Some(&format!("spec.nodeName={node}")),
    };
    let list = pagination::fold(connection, &query, Vec::new, |kept: &mut Vec<Peer>, pod: ListedPod| {
        let is_daemon = pod.metadata.owner_references.iter().any(|owner| owner.kind == "DaemonSet");
        let is_named = names.iter().any(|name| provides(&pod, name));
        let here = pod.spec.node_name == node && is_daemon && is_named;
        if here && kept.len() < MAX_PODS && peers::trouble(&pod, None, false).is_some() {
            let role = format!("it provides the component of {node} that a message names");
            kept.push(Peer { pod, role, ended: None });
        }
    });
    timeout(TIME, list).await.ok().and_then(Result::ok).unwrap_or_default()
}

/// Returns the DaemonSet of a driver that a message of a pod misses, and the reason why it has no pod on the node:
/// `DaemonSet kube-system/fsx-csi-node has no pod on gpu-1: it does not tolerate the taint …`.
pub async fn absent_provider(connection: &Connection, facts: &PodFacts) -> Option<String> {
    let name = facts.node.as_deref().filter(|_| facts.phase == "Pending")?;
    let warnings = facts.events.iter().filter(|event| event.warning);
    let drivers: Vec<String> = warnings
        .filter(|event| event.message.contains("driver name "))
        .flat_map(|event| components(&event.message))
        .collect();
    if drivers.is_empty() {
        return None;
    }
    let (sets, node) =
        tokio::join!(daemon_set_list::list(connection, TIME), timeout(TIME, nodes::read(connection, name)));
    let (sets, node) = (sets.ok()?, node.ok()?.ok()?);
    let of_driver = |set: &DaemonSetFacts| drivers.iter().any(|driver| is_named_after(&set.name, driver));
    let found: Vec<DaemonSetFacts> = daemon_sets::on_node(&sets, &node, &[]).into_iter().filter(of_driver).collect();
    if found.iter().any(|set| set.mismatch.is_none()) {
        return None;
    }
    let set = found.into_iter().next()?;
    Some(format!("DaemonSet {}/{} has no pod on {name}: {}", set.namespace, set.name, set.mismatch?))
}

/// Returns the components that a message names: CSI and DRA drivers, network plugins, and sockets of services.
fn components(message: &str) -> Vec<String> {
    let is_end = |one: char| !(one.is_ascii_alphanumeric() || ".-_".contains(one));
    let after = BEFORE_COMPONENTS.iter().filter_map(|start| message.split_once(start)?.1.split(is_end).next());
    let sockets = message.split(|one: char| one.is_whitespace() || "\":,".contains(one));
    let sockets = sockets.filter(|word| word.ends_with(".sock")).filter_map(|path| path.rsplit('/').next());
    let mut names: Vec<String> =
        after.chain(sockets).map(|name| name.trim_end_matches('.').to_ascii_lowercase()).collect();
    names.retain(|name| name.len() > 2);
    names.dedup();
    names
}

/// Returns whether a pod belongs to a component. The name of the pod contains the first part of the name of a plugin
/// (`cilium-cni`) or driver (`fsx.csi.aws.com`). NVIDIA's DRA driver is recognized by its containers.
fn provides(pod: &ListedPod, component: &str) -> bool {
    if component.ends_with(".nvidia.com") {
        return nvidia_pod_facts::any_pod(pod).component == Component::DraDriver;
    }
    is_named_after(&pod.metadata.name, component)
}

/// Returns whether the name of a pod or DaemonSet contains the first part of the name of a plugin or driver.
fn is_named_after(name: &str, component: &str) -> bool {
    let is_csi = component.contains(".csi.") || component.starts_with("csi.");
    let mut parts = component.split(['.', '-', '_']).filter(|part| part.len() > 2 && *part != "csi");
    let Some(first) = parts.next() else { return false };
    name.split('-').any(|part| part == first) && (!is_csi || name.contains("csi"))
}

/// Returns the device plugins of a node of which a container ended near the time at which the kubelet refused a pod,
/// each with the time of the end.
pub(crate) fn ended_near(pods: &[NvidiaPod], refused: Timestamp) -> Vec<(NvidiaPod, Timestamp)> {
    let is_plugin = |pod: &&NvidiaPod| {
        matches!(pod.component, Component::DevicePlugin | Component::DraDriver | Component::SandboxDevicePlugin)
    };
    let ended = |pod: &NvidiaPod| {
        let ends = pod.containers.iter().flat_map(|one| [Some(&one.state), one.last.as_ref()]).flatten();
        let failed = ends.filter(|end| end.exit_code.is_some_and(|code| code != 0)).filter_map(|end| end.since);
        failed.filter(|end| end.duration_since(refused).abs() <= NEAR).max()
    };
    let found = pods.iter().filter(is_plugin).filter_map(|pod| Some((pod.clone(), ended(pod)?)));
    found.take(MAX_PODS).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use syringe_core::facts::kubernetes::node::{ContainerStateKind, NvidiaContainer, NvidiaContainerState};

    use super::*;

    #[test]
    fn a_failed_call_is_distinguished_from_a_reason_of_the_scheduler() {
        for (message, is_call) in [
            ("Post \"https://127.0.0.1:443/filter\": dial tcp 127.0.0.1:443: connect: connection refused", true),
            ("failed calling webhook \"x.kb.io\": no endpoints available for service \"x\"", true),
            ("0/4 nodes are available: 4 Insufficient nvidia.com/gpu.", false),
        ] {
            assert_eq!(is_failed_call(message), is_call, "{message}");
        }
    }

    #[test]
    fn pods_of_a_scheduler_have_its_name_or_label() {
        let pod = |name: &str, label: &str| -> ListedPod {
            serde_json::from_value(json!({"metadata": {"name": name, "labels": {"app": label}}})).expect("a pod")
        };
        assert!(is_of_scheduler(&pod("hami-scheduler-6d9", "x"), "hami-scheduler"));
        assert!(is_of_scheduler(&pod("vc-1", "volcano-scheduler"), "volcano-scheduler"));
        assert!(!is_of_scheduler(&pod("hami-schedulers", "hami"), "hami-scheduler"));
    }

    #[test]
    fn a_message_names_the_component_of_the_node() {
        for (message, pod, is_its) in [
            ("driver name fsx.csi.aws.com not found in the list of registered CSI drivers", "fsx-csi-node-x", true),
            ("driver name fsx.csi.aws.com not found in the list of registered CSI drivers", "fsx-exporter-x", false),
            ("plugin type=\"cilium-cni\" failed (add): unable to connect to Cilium agent", "cilium-x", true),
            (
                "plugin type=\"multus-shim\" failed (add): dial unix /host/run/multus/multus.sock: refused",
                "kube-multus-ds-x",
                true,
            ),
            ("plugin type=\"cilium-cni\" failed (add)", "kube-proxy-x", false),
            ("Back-off pulling image \"x\"", "x-csi", false),
        ] {
            let listed: ListedPod = serde_json::from_value(json!({"metadata": {"name": pod}})).expect("a pod");
            let found = components(message).iter().any(|name| provides(&listed, name));
            assert_eq!(found, is_its, "{message}: {pod}");
        }
    }

    #[test]
    fn a_plugin_that_ended_at_the_refusal_is_found() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let ended = NvidiaContainerState {
            kind: ContainerStateKind::Terminated,
            exit_code: Some(2),
            since: Some(at("2026-11-21T02:41:10Z")),
            ..NvidiaContainerState::default()
        };
        let container = NvidiaContainer { last: Some(ended), ..NvidiaContainer::default() };
        let pod = |component| NvidiaPod { component, containers: vec![container.clone()], ..NvidiaPod::default() };
        let pods = [pod(Component::Driver), pod(Component::DevicePlugin)];
        assert_eq!(ended_near(&pods, at("2026-11-21T02:41:12Z")).len(), 1);
        assert!(ended_near(&pods, at("2026-11-21T02:31:12Z")).is_empty());
    }
}
