//! `of_pod`: finds failing pods (`Peer`) that may explain the end of a pod: pods in its messages, and pods of its job
//! or group. `trouble`: whether a pod fails (`Trouble`), and when it ended.

use std::collections::BTreeSet;
use std::net::IpAddr;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use syringe_core::facts::kubernetes::linked_pod::LinkedPod;
use syringe_core::facts::kubernetes::pod::PodFacts;
use tokio::time::timeout;

use crate::client::connection::Connection;
use crate::objects::api_objects::meta::Time;
use crate::objects::api_objects::pod::Pod as ListedPod;
use crate::objects::{name_validation, node_conditions};
use crate::reads::{nodes, owned_pods};

/// Maximum number of pods in the result.
const MAX_PODS: usize = 2;
/// Maximum number of other namespaces whose services are in the messages.
const NAMESPACES: usize = 2;
/// Time limit for each list. If a list takes longer, the answer is given without the list.
const TIME: std::time::Duration = std::time::Duration::from_secs(5);
/// Maximum time between the end of a container of another pod and the end of the pod. Collective operations have time
/// limits of 10 minutes.
const NEAR: SignedDuration = SignedDuration::from_mins(15);
/// Maximum difference between the clocks of two nodes.
const SLACK: SignedDuration = SignedDuration::from_secs(60);

/// Labels that all pods of one job or group have. If a row has two labels, both values must be equal.
const GROUPS: [&[&str]; 12] = [
    &["jobset.sigs.k8s.io/jobset-name"],
    &["leaderworkerset.sigs.k8s.io/name", "leaderworkerset.sigs.k8s.io/group-index"],
    &["ray.io/cluster"],
    &["training.kubeflow.org/job-name"],
    &["trainer.kubeflow.org/trainjob-name"],
    &["volcano.sh/job-name"],
    &["grove.io/podgang"],
    &["grove.io/podclique"],
    &["scheduling.x-k8s.io/pod-group"],
    &["pod-group.scheduling.sigs.k8s.io"],
    &["batch.kubernetes.io/job-name"],
    &["app.kubernetes.io/instance"],
];

/// Phrases, in lower case, in messages about another host that was not found or did not respond.
const CONNECTIONS: [&str; 19] = [
    "could not resolve",
    "couldn't resolve",
    "name or service not known",
    "no such host",
    "host not found",
    "unknown host",
    "failure in name resolution",
    "nodename nor servname",
    "getaddrinfo",
    "connection refused",
    "no route to host",
    "connection timed out",
    "i/o timeout",
    "while dialing",
    "failed to connect",
    "rendezvous",
    "timed out while waiting",
    "waiting for ",
    "no healthy endpoints",
];

/// A pod that may be the reason for the end of another pod.
pub(crate) struct Peer {
    pub(crate) pod: ListedPod,
    /// Why the pod was selected.
    pub(crate) role: String,
    /// If the pod runs again: the time at which its container ended.
    pub(crate) ended: Option<Timestamp>,
}

/// The problem of a pod. A lower value is a better explanation for the end of other pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// The cluster or the kernel ended the pod: evicted, lost, out of memory.
    Ended,
    /// The pod has not started, or its program failed.
    Fails,
}

/// Returns the pods that may explain the end of the pod. These pods fail, or failed shortly before that end. The
/// messages of the pod name them, or they belong to its job or group.
pub(crate) async fn of_pod(connection: &Connection, object: &Pod, facts: &PodFacts) -> Vec<Peer> {
    let texts: Vec<&str> = texts_of(facts).collect();
    let is_about_others = texts.iter().any(|text| {
        let lower = text.to_ascii_lowercase();
        CONNECTIONS.iter().any(|words| lower.contains(words))
    });
    let end = facts.end().filter(|end| end.exit_code != 0);
    let services = services(&texts);
    if !is_about_others && end.is_none() && facts.siblings_not_running.is_empty() && services.is_empty() {
        return Vec::new();
    }
    let own_end = end.and_then(|end| end.finished);
    let names = Names {
        own: &facts.name,
        // Without a message about a connection, a name in the settings is no sign of a dependency.
        hosts: if is_about_others { hosts(facts, &texts) } else { hosts(&PodFacts::default(), &texts) },
        addresses: texts.iter().flat_map(|text| addresses(text)).collect(),
        group: Group::of(object, is_about_others),
    };
    let namespaces: BTreeSet<&str> = services.iter().map(|(_, namespace)| namespace.as_str()).collect();
    let others = namespaces.into_iter().filter(|namespace| *namespace != facts.namespace).take(NAMESPACES);
    let lists = std::iter::once(facts.namespace.as_str()).chain(others).map(|namespace| {
        let services = &services;
        let is_service = move |pod: &str| {
            services.iter().any(|(service, of)| of == namespace && (service == pod || is_start_of(service, pod)))
        };
        let names = (namespace == facts.namespace).then_some(&names);
        let keep = move |pod: ListedPod| {
            let by_name = names.and_then(|names| names.role_of(&pod));
            let role = if is_service(&pod.metadata.name) && pod.metadata.name != facts.name {
                Some("its service is in the messages of the pod")
            } else {
                by_name
            };
            let role = role?;
            let role = if role == LinkedPod::OF_SAME_JOB && !is_about_others { LinkedPod::BESIDE } else { role };
            let (trouble, ended) = trouble(&pod, own_end, role == LinkedPod::BESIDE)?;
            let runs_again = ended.filter(|ended| runs_again(&pod, *ended));
            let role = format!("{role}{}", if runs_again.is_some() { "; it runs again" } else { "" });
            Some((trouble, ended, Peer { pod, role, ended: runs_again }))
        };
        async move { timeout(TIME, owned_pods::in_namespace(connection, namespace, None, keep)).await }
    });
    let found = join_all(lists).await.into_iter().filter_map(|list| list.ok()?.ok());
    let mut found: Vec<(Trouble, Option<Timestamp>, Peer)> = found.flatten().collect();
    // Order: named pods before other pods of the job, then by kind of problem, then the pod that failed first.
    found.sort_by_key(|(trouble, ended, peer)| {
        let by_group = [LinkedPod::OF_SAME_JOB, LinkedPod::BESIDE].iter().any(|role| peer.role.starts_with(role));
        (by_group, *trouble, ended.is_none(), *ended)
    });
    let mut peers: Vec<Peer> = found.into_iter().map(|(.., peer)| peer).take(MAX_PODS).collect();
    let reads = peers.iter_mut().map(|peer| add_node(connection, peer));
    timeout(TIME, join_all(reads)).await.ok();
    peers
}

/// Adds to the role of a pod that its node is not Ready.
async fn add_node(connection: &Connection, peer: &mut Peer) {
    let name = &peer.pod.spec.node_name;
    if name.is_empty() {
        return;
    }
    if let Ok(Some(node)) = nodes::find(connection, name).await
        && !node_conditions::is_ready(&node)
    {
        peer.role.push_str(LinkedPod::NODE_NOT_READY);
    }
}

/// The names and the group with which pods of the same namespace are compared.
struct Names<'a> {
    /// Name of the pod itself.
    own: &'a str,
    hosts: BTreeSet<String>,
    addresses: BTreeSet<IpAddr>,
    group: Option<Group>,
}

impl Names<'_> {
    /// Returns why `pod` may explain the end of the pod with these names.
    fn role_of(&self, pod: &ListedPod) -> Option<&'static str> {
        let name = pod.metadata.name.as_str();
        if name == self.own {
            return None;
        }
        let is_host = |host: &String| host == name || host.contains('-') && is_start_of(host, name);
        if self.hosts.iter().any(is_host) {
            return Some("its name is in the messages or settings of the pod");
        }
        if pod.status.pod_ip.parse().is_ok_and(|address| self.addresses.contains(&address)) {
            return Some("its address is in the messages of the pod");
        }
        self.group.as_ref().is_some_and(|group| group.has(pod)).then_some(LinkedPod::OF_SAME_JOB)
    }
}

/// Returns whether the name of a pod begins with `start`, followed by more parts.
fn is_start_of(start: &str, pod: &str) -> bool {
    pod.strip_prefix(start).is_some_and(|rest| rest.starts_with('-'))
}

/// The job or group of a pod.
struct Group {
    /// Kind and name of the controller, if its pods may wait for each other.
    controller: Option<(String, String)>,
    /// Labels of the first row of [`GROUPS`] that the pod has, with their values.
    labels: Vec<(&'static str, String)>,
}

impl Group {
    /// Returns the group of a pod. `with_instances`: whether the label of an application, the last row, counts.
    fn of(pod: &Pod, with_instances: bool) -> Option<Self> {
        let controller = owned_pods::controller_of_job(pod).map(|owner| (owner.kind.clone(), owner.name.clone()));
        let rows = &GROUPS[..GROUPS.len() - usize::from(!with_instances || controller.is_some())];
        let value = |label: &&'static str| Some((*label, pod.labels().get(*label)?.clone()));
        let labels = rows.iter().find_map(|row| row.iter().map(value).collect::<Option<Vec<_>>>());
        (controller.is_some() || labels.is_some()).then(|| Self { controller, labels: labels.unwrap_or_default() })
    }

    fn has(&self, pod: &ListedPod) -> bool {
        let owners = &pod.metadata.owner_references;
        let of_controller = self
            .controller
            .as_ref()
            .is_some_and(|(kind, name)| owners.iter().any(|owner| owner.kind == *kind && owner.name == *name));
        let labels = &pod.metadata.labels;
        let of_labels = !self.labels.is_empty()
            && self.labels.iter().all(|(label, value)| labels.get(*label).is_some_and(|other| other == value));
        of_controller || of_labels
    }
}

fn is_ready(pod: &ListedPod) -> bool {
    pod.status.conditions.iter().any(|one| one.name == "Ready" && one.status == "True")
}

/// Returns whether the container of a pod that ended at this time runs again.
fn runs_again(pod: &ListedPod, ended: Timestamp) -> bool {
    let statuses = pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses);
    statuses.filter(|one| one.state.running.is_some()).any(|one| {
        let last = one.last_state.terminated.as_ref();
        last.and_then(|last| last.finished_at?.timestamp()) == Some(ended)
    })
}

/// Returns the problem of a pod. Also returns the time of its last end, if this end can explain the end of the other
/// pod at `own_end`. `only_before`: whether an end after the end of the other pod does not count.
pub(crate) fn trouble(
    pod: &ListedPod,
    own_end: Option<Timestamp>,
    only_before: bool,
) -> Option<(Trouble, Option<Timestamp>)> {
    let status = &pod.status;
    // The pods of a lost node are being deleted, and have a reason (`NodeLost`).
    let is_deleted = pod.metadata.deletion_timestamp.is_some() && status.reason.is_empty();
    // A pod that was created after the end of the other pod did not cause it.
    let created = pod.metadata.creation_timestamp.and_then(Time::timestamp);
    let is_younger = created.zip(own_end).is_some_and(|(created, own)| created > own + SLACK);
    if status.phase == "Succeeded" || is_deleted || is_younger {
        return None;
    }
    let statuses = status.init_container_statuses.iter().chain(&status.container_statuses);
    let states = statuses.flat_map(|one| [&one.state, &one.last_state]);
    let failed = states.filter_map(|state| state.terminated.as_ref()).filter(|end| end.exit_code != 0);
    let newest = failed.max_by_key(|end| end.finished_at.and_then(Time::timestamp));
    let ended = newest.and_then(|end| end.finished_at?.timestamp());
    let near = own_end
        .zip(ended)
        .is_some_and(|(own, other)| other.duration_since(own).abs() <= NEAR && !(only_before && other > own + SLACK));
    let is_old = own_end.is_some() && ended.is_some() && !near;
    // A Job keeps failed pods after it has created new pods.
    if is_ready(pod) && !near || is_old && (only_before || status.phase == "Failed") {
        return None;
    }
    let by_cluster = !status.reason.is_empty() || newest.is_some_and(|end| end.reason == "OOMKilled");
    Some((if by_cluster { Trouble::Ended } else { Trouble::Fails }, ended.filter(|_| near)))
}

/// Returns the last texts of the pod: its log, the messages of its containers, and its warnings.
fn texts_of(facts: &PodFacts) -> impl Iterator<Item = &str> {
    let end = facts.end().filter(|end| end.exit_code != 0).map(|end| end.message);
    let log = facts.log_lines.iter().chain(facts.other_logs.iter().flat_map(|log| &log.lines)).map(String::as_str);
    let warnings = facts.events.iter().filter(|event| event.warning).map(|event| event.message.as_str());
    log.chain(end).chain(warnings)
}

/// Returns the names that can be host names: words with a hyphen in messages and arguments, and whole values of
/// variables, each up to its first dot or colon.
fn hosts(facts: &PodFacts, texts: &[&str]) -> BTreeSet<String> {
    let label = |text: &str| {
        let host = text.rsplit_once("://").map_or(text, |(_, rest)| rest);
        host.split(['.', ':', '/']).next().unwrap_or_default().to_owned()
    };
    let specs = || facts.specs.iter();
    let values = specs().flat_map(|spec| &spec.environment).map(|(_, value)| label(value));
    let arguments = specs().flat_map(|spec| &spec.arguments).map(String::as_str);
    let is_part = |one: char| one.is_ascii_alphanumeric() || ".-:/".contains(one);
    let words = texts.iter().copied().chain(arguments).flat_map(move |text| text.split(move |one: char| !is_part(one)));
    let words = words.map(|word| label(word.trim_start_matches('-'))).filter(|word| word.contains('-'));
    let named = values.chain(words).filter(|name| name.len() > 2 && name_validation::check_pod_name(name).is_ok());
    named.collect()
}

/// Returns the services in messages (`NAME.NAMESPACE.svc`), each as name and namespace.
fn services(texts: &[&str]) -> BTreeSet<(String, String)> {
    let is_part = |one: char| one.is_ascii_alphanumeric() || ".-".contains(one);
    let words = texts.iter().flat_map(|text| text.split(move |one: char| !is_part(one)));
    let service = |word: &str| {
        let parts: Vec<&str> = word.split('.').collect();
        let at = parts.iter().position(|part| *part == "svc").filter(|at| *at >= 2)?;
        let namespace = parts[at - 1];
        let names = parts[..at - 1].iter().map(|name| ((*name).to_owned(), namespace.to_owned()));
        Some(names.collect::<Vec<_>>())
    };
    let is_valid = |(name, namespace): &(String, String)| {
        name_validation::check_pod_name(name).is_ok() && name_validation::check_namespace(namespace).is_ok()
    };
    words.filter_map(service).flatten().filter(is_valid).collect()
}

/// Returns the IP addresses in a message. `10.0.0.1:80` and `10.0.0.1<80>` contain an address, too.
fn addresses(text: &str) -> impl Iterator<Item = IpAddr> {
    let words = text.split(|one: char| !(one.is_ascii_hexdigit() || ".:".contains(one)));
    let address = |word: &str| {
        let word = word.trim_end_matches(['.', ':']);
        word.parse().or_else(|_| word.split(':').next().unwrap_or_default().parse()).ok()
    };
    words.filter_map(address).filter(|address: &IpAddr| !address.is_loopback() && !address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn listed(name: &str, labels: Value, status: Value) -> ListedPod {
        let pod =
            json!({"metadata": {"name": name, "namespace": "ml", "labels": labels}, "spec": {}, "status": status});
        serde_json::from_value(pod).expect("a pod")
    }

    fn own(labels: Value, owner: Option<(&str, &str)>) -> Pod {
        let owners: Vec<_> = owner
            .iter()
            .map(|(kind, name)| json!({"apiVersion": "v1", "kind": kind, "name": name, "uid": "u", "controller": true}))
            .collect();
        let pod =
            json!({"metadata": {"name": "own-0", "namespace": "ml", "labels": labels, "ownerReferences": owners}});
        serde_json::from_value(pod).expect("a pod")
    }

    fn time(text: &str) -> Option<Timestamp> {
        text.parse().ok()
    }

    #[test]
    fn pods_of_one_group_have_the_same_labels() {
        let group = |labels, owner| Group::of(&own(labels, owner), true).expect("a group");
        let other = |labels: Value| listed("x", labels, json!({}));
        let jobset = |name: &str| json!({"jobset.sigs.k8s.io/jobset-name": name, "batch.kubernetes.io/job-name": "a"});
        assert!(group(jobset("t"), Some(("Job", "t-0"))).has(&other(jobset("t"))));
        assert!(!group(jobset("t"), Some(("Job", "t-0"))).has(&other(jobset("u"))));
        let lws = |index: &str| json!({"leaderworkerset.sigs.k8s.io/name": "l", "leaderworkerset.sigs.k8s.io/group-index": index});
        assert!(group(lws("0"), None).has(&other(lws("0"))));
        assert!(!group(lws("0"), None).has(&other(lws("1"))), "another replica");
        let release = || json!({"app.kubernetes.io/instance": "r"});
        assert!(group(release(), None).has(&other(release())));
        assert!(Group::of(&own(release(), None), false).is_none(), "no message about another host");
        assert!(Group::of(&own(json!({"app": "x"}), Some(("ReplicaSet", "x-1"))), true).is_none());
    }

    #[test]
    fn addresses_and_services_are_read_from_messages() {
        let found: Vec<String> =
            ["connect to 10.42.1.7<45112> returned", "dial tcp 10.0.0.9:80: i/o timeout.", "[fd00::7]:29500"]
                .iter()
                .flat_map(|text| addresses(text).map(|address| address.to_string()))
                .collect();
        assert_eq!(found, ["10.42.1.7", "10.0.0.9", "fd00::7"]);
        assert_eq!(addresses("version 1.2.3 at 02:41:10, 127.0.0.1, 0xdeadbeef").count(), 0);
        let found = services(&["connect to https://minio.storage.svc:9000/models", "x-0.x.ml.svc.cluster.local"]);
        let found: Vec<String> = found.iter().map(|(name, namespace)| format!("{namespace}/{name}")).collect();
        assert_eq!(found, ["storage/minio", "ml/x", "ml/x-0"]);
    }

    #[test]
    fn an_address_or_a_name_joins_a_pod() {
        let names = Names {
            own: "own-0",
            hosts: BTreeSet::from(["bench-worker".to_owned()]),
            addresses: addresses("10.42.1.7<1>").collect(),
            group: None,
        };
        let role = |name: &str, ip: &str| names.role_of(&listed(name, json!({}), json!({"podIP": ip})));
        assert!(role("a", "10.42.1.7").is_some_and(|role| role.contains("address")));
        assert!(role("bench-worker-1", "").is_some_and(|role| role.contains("name")));
        assert!(role("own-0", "10.42.1.7").is_none() && role("b", "10.42.1.70").is_none());
    }

    #[test]
    fn a_pod_that_failed_near_the_end_of_the_other_is_in_trouble() {
        let ready = |status: &str| json!([{"type": "Ready", "status": status}]);
        let ended =
            |at: &str, reason: &str| json!({"terminated": {"exitCode": 137, "reason": reason, "finishedAt": at}});
        let own_end = time("2026-11-21T02:42:10Z");
        let restarted = |at: &str| {
            let statuses = json!([{"name": "c", "lastState": ended(at, "OOMKilled"), "state": {"running": {}}}]);
            listed(
                "x",
                json!({}),
                json!({"phase": "Running", "conditions": ready("True"), "containerStatuses": statuses}),
            )
        };
        assert_eq!(
            trouble(&restarted("2026-11-21T02:41:10Z"), own_end, true),
            Some((Trouble::Ended, time("2026-11-21T02:41:10Z")))
        );
        assert!(trouble(&restarted("2026-11-21T01:41:10Z"), own_end, false).is_none(), "long before");
        assert!(trouble(&restarted("2026-11-21T02:45:10Z"), own_end, true).is_none(), "after the end of the pod");
        assert!(trouble(&restarted("2026-11-21T02:41:10Z"), None, false).is_none(), "the pod has not ended");
        let evicted = |at: &str| {
            let statuses = json!([{"name": "c", "state": ended(at, "Error")}]);
            listed("x", json!({}), json!({"phase": "Failed", "reason": "Evicted", "containerStatuses": statuses}))
        };
        assert!(trouble(&evicted("2026-11-21T02:31:10Z"), own_end, true).is_some());
        assert!(trouble(&evicted("2026-11-20T02:31:10Z"), own_end, false).is_none(), "an earlier attempt");
        let pending = listed("x", json!({}), json!({"phase": "Pending"}));
        assert_eq!(trouble(&pending, own_end, true), Some((Trouble::Fails, None)));
        let mut young = pending;
        young.metadata.creation_timestamp = serde_json::from_value(json!("2026-11-21T02:44:10Z")).expect("a time");
        assert!(trouble(&young, own_end, false).is_none(), "created after the end of the pod");
        let done = listed("x", json!({}), json!({"phase": "Succeeded"}));
        assert!(trouble(&done, own_end, true).is_none());
    }
}
