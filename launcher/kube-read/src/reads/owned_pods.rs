//! `worst`: reads the pods of an owner or label selector (`PodsOf`), and selects the worst pod. `in_namespace`: lists
//! matching pods. `not_running_beside`: the pods of the same controller (`controller_of_job`) that do not run.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use serde::de::DeserializeOwned;
use syringe_core::facts::kubernetes::pod::{ContainerState, PodFacts};

use crate::Failure;
use crate::client::connection::Connection;
use crate::client::pagination::{self, Query};
use crate::objects::named_owner::NamedOwner;
use crate::objects::pod_facts;

/// The pods of one owner.
pub struct OwnedPods {
    /// The pod in the worst state.
    pub worst: Pod,
    /// Number of pods in each phase.
    pub phases: BTreeMap<String, usize>,
    /// Names of the other pods that have a node, the worst first.
    pub others: Vec<String>,
    /// All pods.
    pub all: Vec<Pod>,
}

/// The selection of pods in a call without the name of a pod.
#[derive(Clone, Copy, Debug)]
pub enum PodsOf<'a> {
    Owner(&'a NamedOwner),
    /// The pods with labels that match.
    Selector(&'a str),
}

/// The states of a pod, in order: a later state is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Succeeded,
    Running,
    NotReady,
    Waiting,
    CannotStart,
    Failed,
}

/// Returns the pods of an owner, or the pods with matching labels; `None` if the namespace has no such pod. Fails if
/// the pods cannot be listed.
pub async fn worst(connection: &Connection, namespace: &str, of: PodsOf<'_>) -> Result<Option<OwnedPods>, Failure> {
    let selector = if let PodsOf::Selector(selector) = of { Some(selector) } else { None };
    let is_of = |pod: Pod| (!matches!(of, PodsOf::Owner(owner) if !owner.owns(&pod))).then_some(pod);
    Ok(select(in_namespace(connection, namespace, selector, is_of).await?))
}

/// Lists the pods of a namespace whose labels match, and returns the results of `keep` for each pod.
pub(crate) async fn in_namespace<P: DeserializeOwned, T>(
    connection: &Connection,
    namespace: &str,
    labels: Option<&str>,
    keep: impl Fn(P) -> Option<T>,
) -> Result<Vec<T>, Failure> {
    let query = Query {
        what: &format!("Listing the pods of namespace {namespace}"),
        path: &format!("/api/v1/namespaces/{namespace}/pods"),
        labels,
        fields: None,
    };
    pagination::fold(connection, &query, Vec::new, |kept: &mut Vec<T>, pod: P| kept.extend(keep(pod))).await
}

/// Maximum number of other pods that are returned for a pod.
const MAX_BESIDE: usize = 32;

/// Controllers whose pods do not wait for each other.
const INDEPENDENT: [&str; 3] = ["ReplicaSet", "DaemonSet", "Node"];

/// Returns the controller of a pod, if its pods may wait for each other.
pub(crate) fn controller_of_job(pod: &Pod) -> Option<&OwnerReference> {
    let controller = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
    controller.filter(|owner| !INDEPENDENT.contains(&owner.kind.as_str()))
}

/// Returns the other pods of the pod's controller that do not run, each with its phase. The program of a running pod
/// may be waiting for them.
pub async fn not_running_beside(connection: &Connection, pod: &Pod) -> Vec<String> {
    let Some(controller) = controller_of_job(pod) else { return Vec::new() };
    let waiting = |other: Pod| {
        let phase = other.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
        let is_beside = other.owner_references().iter().any(|owner| owner.uid == controller.uid);
        // A Job keeps its failed pods after it has created new pods.
        let waits = phase == "Pending" || (phase == "Failed" && controller.kind != "Job");
        (waits && is_beside && other.name_any() != pod.name_any()).then(|| format!("{} ({phase})", other.name_any()))
    };
    let namespace = pod.namespace().unwrap_or_default();
    let mut names = in_namespace(connection, &namespace, None, waiting).await.unwrap_or_default();
    names.truncate(MAX_BESIDE);
    names
}

fn select(pods: Vec<Pod>) -> Option<OwnedPods> {
    let mut phases = BTreeMap::new();
    let all = pods.clone();
    let mut ranked: Vec<_> = pods
        .into_iter()
        .map(|pod| {
            let facts = pod_facts::from_pod(&pod);
            *phases.entry(facts.phase.clone()).or_default() += 1;
            (state(&facts), since(&facts), pod)
        })
        .collect();
    // If several pods are in the same state, the first pod that failed is probably the cause of the other failures.
    ranked.sort_by_key(|(state, since, pod)| (std::cmp::Reverse(*state), *since, pod.name_any()));
    let mut ranked = ranked.into_iter();
    let (_, _, worst) = ranked.next()?;
    let others = ranked.map(|(_, _, pod)| pod).filter(has_node).map(|pod| pod.name_any()).collect();
    Some(OwnedPods { worst, phases, others, all })
}

fn has_node(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())
}

fn state(facts: &PodFacts) -> State {
    let is_stuck = |state: &ContainerState| match state {
        ContainerState::Waiting { reason, .. } => !matches!(reason.as_str(), "ContainerCreating" | "PodInitializing"),
        _ => false,
    };
    match facts.phase.as_str() {
        "Succeeded" => State::Succeeded,
        "Failed" => State::Failed,
        _ if facts.containers.iter().any(|container| is_stuck(&container.state)) => State::CannotStart,
        "Running" if facts.ready == Some(true) => State::Running,
        "Running" => State::NotReady,
        _ => State::Waiting,
    }
}

/// Returns the time at which a container terminated, or else the time at which the pod was created.
fn since(facts: &PodFacts) -> Option<Timestamp> {
    facts.end().and_then(|end| end.finished).or(facts.created)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, phase: &str, finished: Option<&str>, waiting: Option<&str>) -> Pod {
        let state = match (finished, waiting) {
            (Some(at), _) => json!({"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": at}}),
            (None, Some(reason)) => json!({"waiting": {"reason": reason}}),
            (None, None) => json!({"running": {"startedAt": "2026-11-22T00:00:00Z"}}),
        };
        let container: Value =
            json!({"name": "main", "image": "x", "imageID": "x", "ready": false, "restartCount": 0, "state": state});
        let value = json!({
            "metadata": {"name": name, "namespace": "ml", "creationTimestamp": "2026-11-22T00:00:00Z"},
            "status": {"phase": phase, "containerStatuses": [container]},
        });
        serde_json::from_value(value).expect("a pod")
    }

    fn name_of_worst(pods: &[Pod]) -> String {
        select(pods.to_vec()).expect("a pod").worst.name_any()
    }

    #[test]
    fn the_first_pod_that_failed_is_the_worst() {
        let pods = [
            pod("a", "Failed", Some("2026-11-22T03:00:00Z"), None),
            pod("b", "Failed", Some("2026-11-22T02:00:00Z"), None),
            pod("c", "Running", None, None),
            pod("d", "Pending", None, Some("ImagePullBackOff")),
        ];
        assert_eq!(name_of_worst(&pods), "b");
        assert_eq!(name_of_worst(&pods[2..]), "d");
        assert_eq!(select(pods.to_vec()).expect("pods").phases["Failed"], 2);
        assert!(select(Vec::new()).is_none());
    }

    #[test]
    fn a_pod_that_is_starting_is_better_than_one_that_cannot_start() {
        let starting = pod("starting", "Pending", None, Some("ContainerCreating"));
        let refused = pod("refused", "Pending", None, Some("CreateContainerError"));
        assert_eq!(name_of_worst(&[starting.clone(), refused]), "refused");
        let done = pod("done", "Succeeded", None, None);
        assert_eq!(name_of_worst(&[done, starting]), "starting");
    }
}
