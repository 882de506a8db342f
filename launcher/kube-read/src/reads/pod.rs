//! `read`, `read_selected`: read one pod with its events (`ReadPod`), by the name of the pod or of its owner, or by
//! labels.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt};
use syringe_core::facts::kubernetes::lifecycle::NodeConditionFact;
use syringe_core::facts::kubernetes::pod::{JOB_REASONS, PodEvent, PodFacts};

use crate::Failure;
use crate::client::api_error::{request_failed, timed_out};
use crate::client::connection::Connection;
use crate::client::retry;
use crate::objects::named_owner::NamedOwner;
use crate::objects::{machines, name_validation, pod_facts};
use crate::reads::owned_pods::{self, OwnedPods, PodsOf};
use crate::reads::{events, node_lifecycle, queues};

/// A pod with its events.
pub struct ReadPod {
    /// The object; `None` if the pod does not exist because its controller could not create it.
    pub object: Option<Pod>,
    /// The facts for an explanation, including the events.
    pub facts: PodFacts,
    /// The failure, if the events could not be read.
    pub no_events: Option<Failure>,
    /// If the caller specified an owner instead of a pod: the number of the owner's pods in each phase.
    pub selected_of: Option<BTreeMap<String, usize>>,
    /// Names of the other pods of the owner that have a node, the worst first.
    pub others: Vec<String>,
    /// All pods of the owner.
    pub all: Vec<Pod>,
}

/// Reads the pods with labels that match, and the events of the worst pod.
pub async fn read_selected(connection: &Connection, namespace: &str, selector: &str) -> Result<ReadPod, Failure> {
    name_validation::check_namespace(namespace)?;
    let owned = owned_pods::worst(connection, namespace, PodsOf::Selector(selector)).await?.ok_or_else(|| {
        Failure::new(
            format!("Listing the pods of namespace {namespace}"),
            format!("no pod of context {} matches '{selector}'", connection.context),
            "Check the labels and the namespace (on the command line: -n NAMESPACE).",
        )
    })?;
    Ok(worst_of(connection, namespace, owned).await)
}

/// Reads the pod and its events. If there is no pod with this name, reads the worst pod of the owner with this name.
pub async fn read(connection: &Connection, namespace: &str, target: &NamedOwner) -> Result<ReadPod, Failure> {
    let name = &target.name;
    name_validation::check_namespace(namespace)?;
    name_validation::check_pod_name(name)?;
    let what = || format!("Reading pod {namespace}/{name}");
    if target.kind.is_some() {
        let found = owned_pods::worst(connection, namespace, PodsOf::Owner(target)).await?;
        if let Some(owned) = found {
            return Ok(worst_of(connection, namespace, owned).await);
        }
    }
    let pods: Api<Pod> = Api::namespaced(connection.client.clone(), namespace);
    let pod = retry::read(|| pods.get_opt(name))
        .await
        .ok_or_else(|| timed_out(connection, what()))?
        .map_err(|error| request_failed(connection, what(), &error))?;
    let pod = pod.filter(|_| target.kind.is_none());
    let Some(pod) = pod else {
        // A failure to list the owner's pods is not reported, because the caller did not request a list.
        let owned = if target.kind.is_none() {
            owned_pods::worst(connection, namespace, PodsOf::Owner(target)).await
        } else {
            Ok(None)
        };
        if let Ok(Some(owned)) = owned {
            return Ok(worst_of(connection, namespace, owned).await);
        }
        let refused = not_created(connection, namespace, name).await;
        let kind = target.kind.is_none().then_some("Pod");
        let left =
            if refused.is_none() { events::left_of(connection, namespace, kind, name).await } else { Vec::new() };
        let of_job = match target.kind {
            None if refused.is_none() && left.is_empty() => {
                events::left_of(connection, namespace, Some("Job"), name).await
            }
            _ => left.clone(),
        };
        let queued = if refused.is_none() { queues::of_owner(connection, namespace, target).await } else { Vec::new() };
        let ended = job_without_pods(namespace, target, of_job).filter(|_| refused.is_none());
        let waits = || {
            (!queued.is_empty())
                .then(|| pod_facts::without_pods(namespace, &target.name, controller(target), Vec::new()))
        };
        let facts = refused.or(ended).or_else(waits).map(|facts| PodFacts { related_warnings: queued, ..facts });
        let facts = facts.ok_or_else(|| {
            let failure = Failure::new(
                target.kind.map_or_else(what, |_| format!("Reading the pods of {} in namespace {namespace}", target.text())),
                match target.kind {
                    None => format!("there is no such pod in context {}{}", connection.context, events_left(&left)),
                    Some(_) => format!("there is no such object in context {}, or it has no pods{}", connection.context, events_left(&left)),
                },
                match target.kind {
                    None => "Check the name and the namespace (on the command line: -n NAMESPACE). A deleted pod is no longer in the API; only its \
                             events and the node's kernel log (analyze_xid_errors) remain."
                        .to_owned(),
                    Some(_) => format!(
                        "Check the name and the namespace (on the command line: -n NAMESPACE). If the object exists, it is suspended, it waits in a \
                         queue, or its pods are deleted. For the reason, run: kubectl describe -n {namespace} {}. With Kueue, also run: kubectl get workloads -n {namespace}.",
                        target.text()
                    ),
                },
            );
            if left.is_empty() { failure } else { failure.quoting_the_node() }
        })?;
        return Ok(ReadPod {
            object: None,
            facts,
            no_events: None,
            selected_of: None,
            others: Vec::new(),
            all: Vec::new(),
        });
    };
    Ok(with_events(connection, namespace, pod).await)
}

async fn worst_of(connection: &Connection, namespace: &str, owned: OwnedPods) -> ReadPod {
    let OwnedPods { worst, phases, others, all } = owned;
    ReadPod { selected_of: Some(phases), others, all, ..with_events(connection, namespace, worst).await }
}

/// Returns the facts of a job without pods, if its newest event shows the reason. `events`: newest first.
fn job_without_pods(namespace: &str, target: &NamedOwner, events: Vec<events::NodeEvent>) -> Option<PodFacts> {
    let tells = |event: &events::NodeEvent| JOB_REASONS.iter().any(|reason| event.reason.contains(reason));
    // The controller deletes the pods after this event.
    let newest = events.iter().position(|event| event.reason != "SuccessfulDelete")?;
    if !tells(&events[newest]) {
        return None;
    }
    let as_pod_event = |event: events::NodeEvent| PodEvent {
        time: event.last,
        reason: event.reason,
        message: event.message,
        count: event.count,
        field: String::new(),
        warning: event.severity == "Warning",
    };
    let events = events.into_iter().skip(newest).rev().map(as_pod_event).collect();
    Some(pod_facts::without_pods(namespace, &target.name, controller(target), events))
}

/// Returns kind and name of the owner: `Job train`.
fn controller(owner: &NamedOwner) -> String {
    format!("{} {}", owner.kind.unwrap_or("Job"), owner.name)
}

/// Formats the events of a deleted pod.
fn events_left(events: &[events::NodeEvent]) -> String {
    let time = |event: &events::NodeEvent| event.last.map(|last| format!("{last:.0} ")).unwrap_or_default();
    let each: Vec<_> =
        events.iter().map(|event| format!("{}{}: {}", time(event), event.reason, event.message)).collect();
    if each.is_empty() { String::new() } else { format!("; its last events: {}", each.join("; ")) }
}

/// Adds the events of the pod. Events are optional: a user who may not list them still gets an explanation.
async fn with_events(connection: &Connection, namespace: &str, pod: Pod) -> ReadPod {
    let mut facts = pod_facts::from_pod(&pod);
    let no_events = match events::of_pod(connection, namespace, &pod.uid().unwrap_or_default()).await {
        Ok(events) => {
            facts.events = events;
            let of_machine = events_of_nominated(connection, &facts).await;
            facts.events.splice(0..0, of_machine);
            facts.related_warnings = warnings_beside(connection, namespace, &pod).await;
            if facts.node.is_none() && facts.phase == "Pending" {
                facts.related_warnings.extend(queues::of_pod(connection, namespace, &pod).await);
            }
            None
        }
        Err(failure) => Some(failure),
    };
    ReadPod { object: Some(pod), facts, no_events, selected_of: None, others: Vec::new(), all: Vec::new() }
}

/// Reads the warnings about objects that mention the pod or that the pod belongs to. If they cannot be read, the
/// explanation does not change.
async fn warnings_beside(connection: &Connection, namespace: &str, pod: &Pod) -> Vec<PodEvent> {
    let related = pod_facts::related_names(pod);
    let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
    let names = events::PodNames { name: &name, uid: &uid, related: &related };
    events::warnings_beside(connection, namespace, &names).await.unwrap_or_default()
}

/// Maximum number of NodeClaims whose events are read.
const NOMINATED: usize = 2;

/// Reads the warnings about the NodeClaims that Karpenter created for a pod without a node, and their conditions that
/// report a failure. They contain the reason why the cloud provides no machine.
async fn events_of_nominated(connection: &Connection, facts: &PodFacts) -> Vec<PodEvent> {
    let pending = facts.node.is_none();
    let nominations = facts.events.iter().rev().filter(|event| pending && event.reason == "Nominated");
    let words = nominations.flat_map(|event| event.message.split([' ', ',']));
    let names: Vec<&str> = words.filter_map(|word| word.strip_prefix("nodeclaim/")).take(NOMINATED).collect();
    let mut found = Vec::new();
    for name in names {
        let events = events::about(connection, None, name).await.unwrap_or_default();
        let warnings = events.into_iter().filter(|event| event.severity == "Warning");
        found.extend(warnings.map(|event| PodEvent {
            time: event.last,
            reason: event.reason,
            message: format!("NodeClaim {name}: {}", event.message),
            count: event.count,
            field: String::new(),
            warning: true,
        }));
        let path = format!("/apis/karpenter.sh/v1/nodeclaims/{name}");
        let now = connection.now();
        let of_claim = |time, reason: String, message: String| PodEvent {
            time,
            reason,
            message: format!("NodeClaim {name}: {message}"),
            count: 1,
            field: String::new(),
            warning: true,
        };
        match node_lifecycle::get(connection, &path).await {
            node_lifecycle::Found::Some(object) => {
                let conditions = machines::facts(&object).conditions;
                found.extend(conditions.into_iter().filter_map(|condition| {
                    let waits = condition.since.is_some_and(|since| now.duration_since(since) > JOINS);
                    let is_late = waits && ["Registered", "Initialized"].contains(&condition.name.as_str());
                    let since = condition.since.map(|since| format!(" since {since:.0}")).unwrap_or_default();
                    let message = format!("{} is {}: {}", condition.name, condition.status, condition.message);
                    match reports_failure(&condition) {
                        true => Some(of_claim(condition.since, condition.reason, message)),
                        false => is_late.then(|| of_claim(Some(now), condition.reason, format!("{message}{since}"))),
                    }
                }));
            }
            node_lifecycle::Found::Absent | node_lifecycle::Found::NotRead(_) => {}
        }
    }
    found
}

/// A machine of a cloud joins the cluster, and its device plugin registers, within this time.
const JOINS: SignedDuration = SignedDuration::from_mins(8);

/// Returns whether a condition of a NodeClaim reports a failure. While a machine starts, its conditions are Unknown.
fn reports_failure(condition: &NodeConditionFact) -> bool {
    let words = format!("{} {}", condition.reason, condition.message).to_ascii_lowercase();
    condition.status == "False" || ["fail", "insufficient", "error", "denied"].iter().any(|word| words.contains(word))
}

/// Finds a pod that its controller could not create because a quota or another admission plugin rejected the pod. `name` may
/// be the name in the event, a name that the controller would use, or the name of the controller.
async fn not_created(connection: &Connection, namespace: &str, name: &str) -> Option<PodFacts> {
    let refused = events::of_failed_creates(connection, namespace).await.ok()?;
    let names_the_pod = |refused: &&events::FailedCreate| refused.event.message.contains(&format!("\"{name}\""));
    // If the names of several controllers match, the longest name is used.
    let controls =
        |refused: &&events::FailedCreate| is_named_after(name, &refused.name) || is_named_after(&refused.name, name);
    let by_name = || refused.iter().filter(controls).max_by_key(|refused| refused.name.len());
    let newest = refused.iter().rev().find(names_the_pod).or_else(by_name)?;
    let own = refused.iter().filter(|other| other.controller == newest.controller);
    let events = own.map(|refused| refused.event.clone()).collect();
    Some(pod_facts::not_created(namespace, name, newest.controller.clone(), events))
}

/// Returns whether `controller` could create a pod or ReplicaSet with `name`: the controller's name, optionally with
/// one suffix.
fn is_named_after(name: &str, controller: &str) -> bool {
    let Some(rest) = name.strip_prefix(controller).filter(|_| !controller.is_empty()) else { return false };
    rest.is_empty() || rest.strip_prefix('-').is_some_and(|suffix| !suffix.is_empty() && !suffix.contains('-'))
}

#[cfg(test)]
mod tests {
    use super::{events::NodeEvent, is_named_after, job_without_pods};
    use crate::objects::named_owner::NamedOwner;

    #[test]
    fn a_job_that_was_resumed_is_not_suspended() {
        let events = |reasons: &[&str]| {
            reasons.iter().map(|reason| NodeEvent { reason: (*reason).to_owned(), ..NodeEvent::default() }).collect()
        };
        let job = NamedOwner::of_kind("job/train").expect("a kind");
        let found = |reasons: &[&str]| job_without_pods("ml", &job, events(reasons)).is_some();
        assert!(
            found(&["Suspended"])
                && found(&["SuccessfulDelete", "DeadlineExceeded"])
                && found(&["PyTorchJobSuspended"])
        );
        assert!(!found(&["Resumed", "Suspended"]) && !found(&["SuccessfulCreate"]) && !found(&[]));
    }

    #[test]
    fn a_pod_is_named_after_its_controller() {
        for name in ["train", "train-x7k2p", "train-0"] {
            assert!(is_named_after(name, "train"), "{name}");
        }
        for other in ["train-eval-x7k2p", "training", "trai", "", "train-"] {
            assert!(!is_named_after(other, "train"), "{other}");
        }
        assert!(!is_named_after("x", ""));
    }
}
