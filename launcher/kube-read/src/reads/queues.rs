//! `of_pod`, `of_owner`: read the objects of queues and pod groups that decide when a pod may start, and return their
//! problems.
//!
//! The objects belong to Kueue, Volcano, KAI Scheduler and the coscheduling plugin. Their events expire after an hour,
//! but their conditions stay. Only a pod without a node, or a job without pods, needs these requests. They are
//! optional.

use std::time::Duration;

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::Value;
use syringe_core::facts::kubernetes::pod::PodEvent;
use syringe_core::text::{clean, clean_keeping_end};
use tokio::time::timeout;

use crate::client::connection::Connection;
use crate::objects::named_owner::NamedOwner;
use crate::reads::events;
use crate::reads::node_lifecycle::{Found, get, list};

/// Time limit for all requests.
const TIME: Duration = Duration::from_secs(5);
/// Maximum number of pages of the list of Workloads.
const MAX_PAGES: usize = 8;
/// Maximum number of problems.
const MAX_PROBLEMS: usize = 4;
/// Maximum length of a message.
const MAX_MESSAGE: usize = 600;
/// Maximum length of a name.
const MAX_NAME: usize = 253;

/// Label with the LocalQueue of Kueue.
const KUEUE_QUEUE: &str = "kueue.x-k8s.io/queue-name";
/// Versions of Kueue's API, the newest first.
const KUEUE: [&str; 2] = ["/apis/kueue.x-k8s.io/v1beta2", "/apis/kueue.x-k8s.io/v1beta1"];

/// Labels and annotations with the name of a group or queue, and the path of that object. `{namespace}` is the placeholder for
/// the namespace of the pod.
const NAMED: [(&str, &str); 5] = [
    ("scheduling.k8s.io/group-name", "/apis/scheduling.volcano.sh/v1beta1/namespaces/{namespace}/podgroups/"),
    ("volcano.sh/queue-name", "/apis/scheduling.volcano.sh/v1beta1/queues/"),
    ("pod-group-name", "/apis/scheduling.run.ai/v2alpha2/namespaces/{namespace}/podgroups/"),
    ("kai.scheduler/queue", "/apis/scheduling.run.ai/v2/queues/"),
    ("scheduling.x-k8s.io/pod-group", "/apis/scheduling.x-k8s.io/v1alpha1/namespaces/{namespace}/podgroups/"),
];

/// Parts of the types of conditions that report a problem while they are true.
const PROBLEMS: [&str; 8] =
    ["fail", "evict", "preempt", "unschedulable", "degraded", "deactivat", "blocked", "exceeded"];
/// Types of conditions that are false before the end of a job.
const NOT_YET: [&str; 6] = ["finished", "complete", "completed", "succeeded", "running", "podsready"];

/// Returns the problems of the group, the Workload and the queues of a pod without a node, the most specific last.
pub async fn of_pod(connection: &Connection, namespace: &str, pod: &Pod) -> Vec<PodEvent> {
    let maps = || pod.labels().iter().chain(pod.annotations());
    let named = NAMED.iter().flat_map(|(key, path)| {
        let values = maps().filter(move |(known, value)| known == key && is_name(value)).map(|(_, value)| value);
        values.map(move |name| format!("{}{name}", path.replace("{namespace}", namespace)))
    });
    let named: Vec<String> = named.collect();
    let uids: Vec<String> =
        pod.uid().into_iter().chain(pod.owner_references().iter().map(|owner| owner.uid.clone())).collect();
    let groups = pod.labels().get("kueue.x-k8s.io/pod-group-name");
    let is_own = |workload: &Value| {
        let owner = |owner: &Value| uids.iter().any(|uid| owner["uid"] == uid.as_str());
        owners(workload).any(owner) || groups.is_some_and(|group| workload["metadata"]["name"] == group.as_str())
    };
    let groups_by_name = NAMED.iter().filter(|(_, path)| path.ends_with("podgroups/"));
    let group_names: Vec<&String> = groups_by_name
        .flat_map(|(key, _)| maps().filter(move |(known, _)| known == key).map(|(_, name)| name))
        .collect();
    let queue = pod.labels().get(KUEUE_QUEUE).filter(|name| is_name(name));
    let gated = pod.spec.iter().flat_map(|spec| spec.scheduling_gates.iter().flatten());
    let is_of_kueue = queue.is_some() || gated.map(|gate| &gate.name).any(|name| name.starts_with("kueue.x-k8s.io/"));
    let read = async {
        let objects = join_all(named.iter().map(|path| get(connection, path)));
        let kueue = async {
            if is_of_kueue { kueue(connection, namespace, queue.map(String::as_str), is_own).await } else { Vec::new() }
        };
        let told = join_all(group_names.iter().map(|name| newest_event(connection, namespace, name)));
        let (objects, kueue, told) = tokio::join!(objects, kueue, told);
        let objects =
            objects.into_iter().filter_map(|found| if let Found::Some(object) = found { Some(object) } else { None });
        most_specific(
            objects.flat_map(|object| problems(&object)).chain(told.into_iter().flatten()).chain(kueue).collect(),
        )
    };
    timeout(TIME, read).await.unwrap_or_default()
}

/// Returns the newest event about a pod group, in the form of a warning. Volcano reports its reasons in events of the type Normal.
async fn newest_event(connection: &Connection, namespace: &str, group: &str) -> Option<PodEvent> {
    let event = events::left_of(connection, namespace, Some("PodGroup"), group).await.into_iter().next()?;
    Some(problem("PodGroup", group, &event.reason, &event.message, event.last)).filter(|_| event.severity == "Normal")
}

/// Returns the problems of the Workload and the queues of a job that has no pods.
pub async fn of_owner(connection: &Connection, namespace: &str, owner: &NamedOwner) -> Vec<PodEvent> {
    let is_own = |workload: &Value| {
        owners(workload)
            .any(|one| one["name"] == owner.name.as_str() && owner.kind.is_none_or(|kind| one["kind"] == kind))
    };
    let read = async { most_specific(kueue(connection, namespace, None, is_own).await) };
    timeout(TIME, read).await.unwrap_or_default()
}

/// Reads the Workloads of the pod, then the queues of these Workloads. `queue`: the LocalQueue in the label of the pod.
async fn kueue(
    connection: &Connection,
    namespace: &str,
    queue: Option<&str>,
    is_own: impl Fn(&Value) -> bool,
) -> Vec<PodEvent> {
    for api in KUEUE {
        let path = format!("{api}/namespaces/{namespace}/workloads");
        let workloads = match list(connection, &path, &is_own, MAX_PAGES).await {
            Found::Some(workloads) => workloads,
            Found::Absent => continue,
            Found::NotRead(_) => return Vec::new(),
        };
        let of_workload = workloads.iter().find_map(|workload| workload["spec"]["queueName"].as_str());
        let mut found = Vec::new();
        // Without a Workload it is not known whether the cluster has Kueue's objects at all.
        let queue = queue.filter(|_| !workloads.is_empty());
        if let Some(name) = of_workload.or(queue).filter(|name| is_name(name)) {
            let local = get(connection, &format!("{api}/namespaces/{namespace}/localqueues/{name}")).await;
            let of_cluster = match &local {
                Found::Some(local) => local["spec"]["clusterQueue"].as_str().filter(|name| is_name(name)),
                Found::Absent | Found::NotRead(_) => None,
            };
            if let Some(name) = of_cluster {
                let cluster = get(connection, &format!("{api}/clusterqueues/{name}")).await;
                found.extend(of_found("ClusterQueue", name, &cluster));
            }
            found.extend(of_found("LocalQueue", name, &local));
        }
        found.extend(workloads.iter().flat_map(problems));
        return found;
    }
    Vec::new()
}

/// Returns the problems of an object that a Workload names. An object that does not exist is also a problem.
fn of_found(kind: &str, name: &str, found: &Found<Value>) -> Vec<PodEvent> {
    match found {
        Found::Some(object) => problems(object),
        Found::Absent => vec![problem(kind, name, "NotFound", "it does not exist", None)],
        Found::NotRead(_) => Vec::new(),
    }
}

/// Returns the conditions of an object that report a problem, in the form of warnings.
fn problems(object: &Value) -> Vec<PodEvent> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
    // A list does not repeat the kind in its items.
    let kind = if kind.is_empty() { "Workload".to_owned() } else { kind };
    let status = &object["status"];
    let conditions = ["conditions", "schedulingConditions"].into_iter().filter_map(|field| status[field].as_array());
    let of_condition = |condition: &Value| {
        let [of, status, reason, message] =
            ["type", "status", "reason", "message"].map(|field| text(&condition[field]));
        is_problem(&of, &status).then(|| {
            let why = [reason.as_str(), message.as_str()]
                .into_iter()
                .filter(|text| !text.is_empty())
                .collect::<Vec<_>>()
                .join(": ");
            let time = condition["lastTransitionTime"].as_str().and_then(|time| time.parse().ok());
            problem(&kind, &name, &of, &format!("{of} is {status}: {why}"), time)
        })
    };
    let of_state = status["state"].as_str().filter(|state| matches!(*state, "Closed" | "Closing"));
    let of_state = of_state.map(|state| problem(&kind, &name, state, &format!("its state is {state}"), None));
    conditions.flatten().filter_map(of_condition).chain(of_state).collect()
}

fn is_problem(condition: &str, status: &str) -> bool {
    let condition = condition.to_ascii_lowercase();
    let is_negative = PROBLEMS.iter().any(|part| condition.contains(part));
    match status {
        "True" => is_negative,
        "False" => !is_negative && !NOT_YET.contains(&condition.as_str()),
        _ => false,
    }
}

fn problem(kind: &str, name: &str, reason: &str, message: &str, time: Option<jiff::Timestamp>) -> PodEvent {
    let [kind, name, reason] = [kind, name, reason].map(|text| clean(text, MAX_NAME));
    let message = clean_keeping_end(&format!("{kind} {name}: {message}"), MAX_MESSAGE);
    PodEvent { time, reason, message, count: 1, field: String::new(), warning: true }
}

/// Returns the last problems, because they are the most specific problems.
fn most_specific(mut problems: Vec<PodEvent>) -> Vec<PodEvent> {
    let excess = problems.len().saturating_sub(MAX_PROBLEMS);
    problems.drain(..excess);
    problems
}

fn owners(object: &Value) -> impl Iterator<Item = &Value> {
    object["metadata"]["ownerReferences"].as_array().into_iter().flatten()
}

/// Returns whether the text can be the name of an object, and therefore a part of a path.
fn is_name(text: &str) -> bool {
    let is_of_name = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '.');
    !text.is_empty()
        && text.len() <= MAX_NAME
        && text.chars().all(is_of_name)
        && text.starts_with(char::is_alphanumeric)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_condition_is_a_problem_by_its_type_and_status() {
        for (condition, status, expected) in [
            ("QuotaReserved", "False", true),
            ("QuotaReserved", "True", false),
            ("Admitted", "False", true),
            ("Active", "False", true),
            ("Evicted", "True", true),
            ("Evicted", "False", false),
            ("Preempted", "True", true),
            ("Unschedulable", "True", true),
            ("UnschedulableOnNodePool", "True", true),
            ("Finished", "False", false),
            ("PodsReady", "False", false),
            ("Ready", "Unknown", false),
        ] {
            assert_eq!(is_problem(condition, status), expected, "{condition} {status}");
        }
    }

    #[test]
    fn the_message_of_a_condition_is_kept_with_its_object() {
        let workload = json!({
            "metadata": {"name": "job-train-1"},
            "status": {"conditions": [
                {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": "insufficient unused quota",
                 "lastTransitionTime": "2026-11-21T01:00:00Z"},
                {"type": "Finished", "status": "False"}, 7, {"type": 1},
            ]},
        });
        let found = problems(&workload);
        let texts: Vec<_> = found.iter().map(|one| (one.reason.as_str(), one.message.as_str())).collect();
        assert_eq!(
            texts,
            [("QuotaReserved", "Workload job-train-1: QuotaReserved is False: Pending: insufficient unused quota")]
        );
        assert!(found[0].time.is_some() && found[0].warning);
        let queue = json!({"kind": "Queue", "metadata": {"name": "gold"}, "status": {"state": "Closed"}});
        assert_eq!(problems(&queue)[0].message, "Queue gold: its state is Closed");
        for strange in [json!({}), json!({"status": []}), json!({"status": {"conditions": {}, "state": 1}})] {
            assert!(problems(&strange).is_empty());
        }
    }

    #[test]
    fn only_a_name_becomes_a_part_of_a_path() {
        for name in ["train", "job-train-1a", "a.b-c"] {
            assert!(is_name(name), "{name}");
        }
        for other in ["", "../secrets/x", "a/b", "-a", ".", "a?b", "a b"] {
            assert!(!is_name(other), "{other}");
        }
    }
}
