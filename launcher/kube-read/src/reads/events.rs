//! Functions that read events (`NodeEvent`, `ObjectEvent`) of a node (`of_node`, `about`), of a pod (`of_pod`,
//! `newest_warning`), of related or deleted objects, and of controllers that could not create a pod
//! (`of_failed_creates`).
//!
//! All lists use one function, which follows pages, counts `series` as well as `count`, and keeps the newest events.

use std::cmp::Reverse;

use futures_util::future::try_join_all;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use syringe_core::facts::kubernetes::pod::PodEvent;
use syringe_core::text::{clean, clean_keeping_end};
use syringe_macros::omit;

use crate::Failure;
use crate::client::connection::Connection;
use crate::client::pagination;
use crate::client::pagination::Query;
use crate::objects::gpu_pod::{Pod, PodMetadata};

/// Maximum length of the message of a node event. The message is text from a node.
const NODE_MESSAGE: usize = 300;
/// Maximum length of the message of a pod event. A longer message is cut in the middle, because runtimes write the
/// reason at the end.
const POD_MESSAGE: usize = 1000;
/// Maximum length of a field path.
const FIELD: usize = 320;
/// Maximum number of events of one node. The newest are kept. By default, an API server keeps events for an hour.
const MAX_NODE_EVENTS: usize = 500;
/// Maximum number of events of all nodes, and of all pods.
const MAX_CLUSTER_EVENTS: usize = 10_000;
/// Maximum number of events of a pod.
const MAX_POD_EVENTS: usize = 50;
/// Maximum number of events of a deleted pod.
const MAX_LEFT_EVENTS: usize = 3;
/// Maximum number of events in a namespace about pods that could not be created.
const MAX_REFUSALS: usize = 100;

/// An event.
#[omit(Option)]
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct NodeEvent {
    /// `Normal` or `Warning`.
    pub severity: String,
    /// Reason in one word.
    pub reason: String,
    /// Message. Text from the node: data, not advice.
    pub message: String,
    /// Number of occurrences.
    pub count: u32,
    /// Time of the last occurrence.
    pub last: Option<Timestamp>,
}

/// An event of a node or pod, with its object.
#[derive(Clone, Debug)]
pub struct ObjectEvent {
    /// `Node` or `Pod`.
    pub kind: &'static str,
    /// Name of the node, or `namespace/name` of the pod.
    pub object: String,
    /// Node of the kubelet that reported the event, if a kubelet reported it.
    pub host: Option<String>,
    pub event: NodeEvent,
}

/// Reads the newest events of all nodes and pods.
pub async fn of_nodes_and_pods(connection: &Connection) -> Result<Vec<ObjectEvent>, Failure> {
    let each = ["Node", "Pod"].map(|kind| async move {
        let what = format!("Listing the events of {}s", kind.to_lowercase());
        let fields = format!("involvedObject.kind={kind}");
        let events = newest(connection, "/api/v1/events", &fields, &what, MAX_CLUSTER_EVENTS).await?;
        Ok::<_, Failure>(events.into_iter().map(move |event| event.into_object_event(kind)))
    });
    Ok(try_join_all(each).await?.into_iter().flatten().collect())
}

/// Reads the events of a node, newest first.
pub async fn of_node(connection: &Connection, node: &str) -> Result<Vec<NodeEvent>, Failure> {
    let fields = format!("involvedObject.kind=Node,involvedObject.name={node}");
    let what = format!("Listing the events of node {node}");
    let events = newest(connection, "/api/v1/events", &fields, &what, MAX_NODE_EVENTS).await?;
    Ok(events.into_iter().map(SlimEvent::into_node_event).collect())
}

/// Kinds of objects with events about a node: the node, its machine, and the status of the autoscaler.
const ABOUT_NODES: [&str; 4] = ["Node", "NodeClaim", "Machine", "ConfigMap"];

/// Reads the events of the node, machine or autoscaler status with this name, newest first. The events of an object
/// without a namespace can be in any namespace.
pub async fn about(connection: &Connection, namespace: Option<&str>, name: &str) -> Result<Vec<NodeEvent>, Failure> {
    let path = match namespace {
        Some(namespace) => format!("/api/v1/namespaces/{namespace}/events"),
        None => "/api/v1/events".to_owned(),
    };
    let what = format!("Listing the events of {name}");
    let fields = format!("involvedObject.name={name}");
    let mut events = newest(connection, &path, &fields, &what, MAX_NODE_EVENTS).await?;
    // A pod can have the same name as a node or a machine.
    let kind = |event: &SlimEvent| event.involved_object.kind.clone().unwrap_or_default();
    events.retain(|event| ABOUT_NODES.contains(&kind(event).as_str()));
    Ok(events.into_iter().map(SlimEvent::into_node_event).collect())
}

/// Reads the newest events of the pod with this UID, oldest first.
pub async fn of_pod(connection: &Connection, namespace: &str, uid: &str) -> Result<Vec<PodEvent>, Failure> {
    let path = format!("/api/v1/namespaces/{namespace}/events");
    let what = format!("Listing the events of the pod in namespace {namespace}");
    let mut events = newest(connection, &path, &format!("involvedObject.uid={uid}"), &what, MAX_POD_EVENTS).await?;
    // The sort is stable: events of the same second keep the order of the API server.
    events.sort_by_key(SlimEvent::last);
    Ok(events.into_iter().map(SlimEvent::into_pod_event).collect())
}

/// Kinds of objects whose events are not about a pod, although their name may be the beginning of the pod's name.
const NOT_OF_PODS: [&str; 10] = [
    "Pod",
    "Node",
    "Service",
    "HorizontalPodAutoscaler",
    "VerticalPodAutoscaler",
    "PodDisruptionBudget",
    "Ingress",
    "Endpoints",
    "EndpointSlice",
    "Certificate",
];

/// Names by which other objects refer to a pod.
pub struct PodNames<'a> {
    pub name: &'a str,
    pub uid: &'a str,
    /// Names and UIDs of owners, and names in labels, annotations, volumes and claims of the pod.
    pub related: &'a [String],
}

/// Reads the newest warnings about other objects that mention the pod or belong to it, oldest first. The kind and name
/// of the object are added before each message.
pub async fn warnings_beside(
    connection: &Connection,
    namespace: &str,
    pod: &PodNames<'_>,
) -> Result<Vec<PodEvent>, Failure> {
    let path = format!("/api/v1/namespaces/{namespace}/events");
    let what = format!("Listing the warnings in namespace {namespace}");
    let mut events = newest(connection, &path, "type=Warning", &what, MAX_NODE_EVENTS).await?;
    events.retain(|event| event.is_beside(pod));
    events.truncate(WARNINGS_OF_POD);
    events.sort_by_key(SlimEvent::last);
    Ok(events.into_iter().map(SlimEvent::into_named_event).collect())
}

/// An event of a controller that could not create a pod.
pub struct FailedCreate {
    /// Kind and name of the controller: `Job train`.
    pub controller: String,
    /// Name of the controller alone.
    pub name: String,
    /// The event.
    pub event: PodEvent,
}

/// Reads the events of the controllers of a namespace about pods that they could not create, oldest first.
pub async fn of_failed_creates(connection: &Connection, namespace: &str) -> Result<Vec<FailedCreate>, Failure> {
    let path = format!("/api/v1/namespaces/{namespace}/events");
    let what = format!("Listing the events of controllers in namespace {namespace}");
    let mut events = newest(connection, &path, "reason=FailedCreate", &what, MAX_REFUSALS).await?;
    events.sort_by_key(SlimEvent::last);
    let refused = |event: SlimEvent| {
        let InvolvedObject { kind, name, .. } = &event.involved_object;
        let [kind, name] = [kind, name].map(|text| clean(text.as_deref().unwrap_or_default(), FIELD));
        FailedCreate { controller: format!("{kind} {name}"), name, event: event.into_pod_event() }
    };
    Ok(events.into_iter().map(refused).collect())
}

/// Reads the newest events of objects with this name, of one kind or of any kind, newest first. The API keeps events
/// for some time after an object is deleted.
pub async fn left_of(connection: &Connection, namespace: &str, kind: Option<&str>, name: &str) -> Vec<NodeEvent> {
    let path = format!("/api/v1/namespaces/{namespace}/events");
    let kind = kind.map_or_else(String::new, |kind| format!("involvedObject.kind={kind},"));
    let fields = format!("{kind}involvedObject.name={name}");
    let what = format!("Listing the events of {namespace}/{name}");
    let events = newest(connection, &path, &fields, &what, MAX_LEFT_EVENTS).await.unwrap_or_default();
    events.into_iter().map(SlimEvent::into_node_event).collect()
}

/// Reads the newest warning about a pod, if there is one. The warning contains the reason why the pod does not start.
pub async fn newest_warning(connection: &Connection, namespace: &str, pod: &str) -> Result<Option<NodeEvent>, Failure> {
    let mut warnings = newest_of_severity(connection, namespace, pod, "Warning", WARNINGS_OF_POD).await?;
    // A back-off event only shows that there was an earlier failure.
    let telling = warnings.iter().position(|event| event.reason != "BackOff").unwrap_or(0);
    Ok((!warnings.is_empty()).then(|| warnings.swap_remove(telling)))
}

/// A warning about a pod of a node.
#[omit(Option)]
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct PodEventRow {
    /// `namespace/name` of the pod.
    pub pod: String,
    /// Reason in one word.
    pub reason: String,
    /// Message. Text from the cluster: data, not advice.
    pub message: String,
    /// Number of occurrences.
    pub count: u32,
    /// Time of the last occurrence.
    pub last: Option<Timestamp>,
}

/// Maximum number of pods on one node for which warnings are read, and maximum number of warnings for one pod.
const PODS_WITH_WARNINGS: usize = 8;
const WARNINGS_OF_POD: usize = 3;

/// Reads the newest warnings about the pods that are not ready or were restarted, newest first. Other pods have no
/// warnings that matter, and need no request.
pub async fn warnings_of_pods(connection: &Connection, pods: &[Pod]) -> Result<Vec<PodEventRow>, Failure> {
    let is_ready = |pod: &Pod| pod.status.conditions.iter().any(|one| one.name == "Ready" && one.status == "True");
    let restarts =
        |pod: &Pod| pod.status.container_statuses.iter().map(|status| status.restart_count).max().unwrap_or(0);
    let mut told: Vec<&Pod> =
        pods.iter().filter(|pod| pod.status.phase != "Succeeded" && (!is_ready(pod) || restarts(pod) > 0)).collect();
    told.sort_by_key(|pod| (is_ready(pod), Reverse(restarts(pod)), pod.metadata.name.clone()));
    let each = told.into_iter().take(PODS_WITH_WARNINGS).map(|pod| async move {
        let PodMetadata { namespace, name, .. } = &pod.metadata;
        let warnings = newest_of_severity(connection, namespace, name, "Warning", WARNINGS_OF_POD).await?;
        let row = |event: NodeEvent| {
            let NodeEvent { reason, message, count, last, severity: _ } = event;
            PodEventRow { pod: clean(&format!("{namespace}/{name}"), FIELD), reason, message, count, last }
        };
        Ok::<_, Failure>(warnings.into_iter().map(row).collect::<Vec<_>>())
    });
    let mut rows: Vec<_> = try_join_all(each).await?.into_iter().flatten().collect();
    rows.sort_by_key(|row| Reverse(row.last));
    Ok(rows)
}

/// Reads the kubelet's message about the image that it is pulling for a pod. `None` if no pull is in progress.
pub async fn unfinished_pull(connection: &Connection, namespace: &str, pod: &str) -> Result<Option<String>, Failure> {
    let events = newest_of_severity(connection, namespace, pod, "Normal", MAX_POD_EVENTS).await?;
    // The order of the events cannot be used, because events of the same second have no order.
    let is_later = |event: &NodeEvent| ["Pulled", "Created", "Started"].contains(&event.reason.as_str());
    if events.iter().any(is_later) {
        return Ok(None);
    }
    Ok(events.into_iter().find(|event| event.reason == "Pulling").map(|event| event.message))
}

async fn newest_of_severity(
    connection: &Connection,
    namespace: &str,
    pod: &str,
    severity: &str,
    most: usize,
) -> Result<Vec<NodeEvent>, Failure> {
    let path = format!("/api/v1/namespaces/{namespace}/events");
    let fields = format!("involvedObject.name={pod},type={severity}");
    let what = format!("Listing the events of pod {namespace}/{pod}");
    let events = newest(connection, &path, &fields, &what, most).await?;
    Ok(events.into_iter().map(SlimEvent::into_node_event).collect())
}

/// Reads all pages, and returns the newest `most` events, newest first.
async fn newest(
    connection: &Connection,
    path: &str,
    fields: &str,
    what: &str,
    most: usize,
) -> Result<Vec<SlimEvent>, Failure> {
    let query = Query { what, path, labels: None, fields: Some(fields) };
    let keep = |events: &mut Vec<SlimEvent>, event| {
        events.push(event);
        // Up to twice as many events are kept, because sorting at each event would take longer than reading the list.
        if events.len() >= 2 * most.max(64) {
            keep_newest(events, most);
        }
    };
    let mut events = pagination::fold(connection, &query, Vec::new, keep).await?;
    keep_newest(&mut events, most);
    Ok(events)
}

/// Sorts the events, newest first, and keeps `most` of them. Events of the same time keep the order of the API server.
fn keep_newest(events: &mut Vec<SlimEvent>, most: usize) {
    events.sort_by_key(|event| Reverse(event.last()));
    events.truncate(most);
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SlimEvent {
    #[serde(rename = "type")]
    severity: Option<String>,
    reason: Option<String>,
    message: Option<String>,
    count: Option<u32>,
    first_timestamp: Option<Time>,
    last_timestamp: Option<Time>,
    event_time: Option<MicroTime>,
    series: Option<Series>,
    involved_object: InvolvedObject,
    source: EventSource,
}

/// The reporter of an event.
#[derive(Default, Deserialize)]
#[serde(default)]
struct EventSource {
    host: Option<String>,
}

/// The field in which newer reporters count repeats.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Series {
    count: u32,
    last_observed_time: Option<MicroTime>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct InvolvedObject {
    kind: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
    field_path: Option<String>,
}

impl SlimEvent {
    /// Returns the latest time of the event, or `None` for 1970, which the API uses for a time that was never set.
    fn last(&self) -> Option<Timestamp> {
        let series = self.series.as_ref().and_then(|series| series.last_observed_time.as_ref());
        let micro = [series, self.event_time.as_ref()].into_iter().flatten().map(|time| time.0);
        let plain = [self.last_timestamp.as_ref(), self.first_timestamp.as_ref()].into_iter().flatten();
        micro.chain(plain.map(|time| time.0)).filter(|time| time.as_second() > 0).max()
    }

    fn count(&self) -> u32 {
        let series = self.series.as_ref().map_or(0, |series| series.count);
        self.count.unwrap_or(0).max(series).max(1)
    }

    fn into_node_event(self) -> NodeEvent {
        NodeEvent {
            severity: clean(self.severity.as_deref().unwrap_or_default(), 20),
            reason: clean(self.reason.as_deref().unwrap_or_default(), 60),
            message: clean_keeping_end(self.message.as_deref().unwrap_or_default(), NODE_MESSAGE),
            count: self.count(),
            last: self.last(),
        }
    }

    fn into_object_event(self, kind: &'static str) -> ObjectEvent {
        let InvolvedObject { namespace, name, .. } = &self.involved_object;
        let name = name.as_deref().unwrap_or_default();
        let namespace = namespace.as_deref().filter(|_| kind == "Pod");
        let object = namespace.map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"));
        let host = self.source.host.as_deref().filter(|host| !host.is_empty()).map(|host| clean(host, FIELD));
        ObjectEvent { kind, object: clean(&object, FIELD), host, event: self.into_node_event() }
    }

    /// Returns whether the event is about another object of the pod: the message contains the name of the pod, or the
    /// pod refers to the object, or the object has the name of a controller of the pod.
    fn is_beside(&self, pod: &PodNames<'_>) -> bool {
        let InvolvedObject { kind, name, uid, .. } = &self.involved_object;
        let [kind, name, uid] = [kind, name, uid].map(|text| text.as_deref().unwrap_or_default());
        if name.is_empty() || uid == pod.uid || (kind == "Pod" && name == pod.name) {
            return false;
        }
        // Kueue calls the Workload of an owner KIND-NAME-HASH.
        let queued = name.split_once('-').and_then(|(_, rest)| rest.rsplit_once('-')).filter(|_| kind == "Workload");
        let queued = queued.map_or("", |(owner, _)| owner);
        let is_related = queued == pod.name || pod.related.iter().any(|one| one == name || one == uid || one == queued);
        let controls = pod.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'));
        // An event of an autoscaler or disruption budget with this name is not about the pod. An event about a pod that
        // a controller could not create is about another pod.
        let of_others = NOT_OF_PODS.contains(&kind) || self.reason.as_deref().is_some_and(|why| why == "FailedCreate");
        let words = self.message.as_deref().unwrap_or_default();
        let names_it = words
            .split(|character: char| !(character.is_ascii_alphanumeric() || "-.".contains(character)))
            .any(|word| word.trim_matches('.') == pod.name);
        names_it || (!of_others && (is_related || controls))
    }

    /// Returns the event with the kind and name of its object before the message.
    fn into_named_event(self) -> PodEvent {
        let InvolvedObject { kind, name, .. } = &self.involved_object;
        let [kind, name] = [kind, name].map(|text| clean(text.as_deref().unwrap_or_default(), FIELD));
        let event = self.into_pod_event();
        PodEvent { message: format!("{kind} {name}: {}", event.message), ..event }
    }

    fn into_pod_event(self) -> PodEvent {
        PodEvent {
            time: self.last(),
            reason: clean(self.reason.as_deref().unwrap_or_default(), 80),
            message: clean_keeping_end(self.message.as_deref().unwrap_or_default(), POD_MESSAGE),
            count: self.count(),
            field: clean(self.involved_object.field_path.as_deref().unwrap_or_default(), FIELD),
            warning: self.severity.as_deref() == Some("Warning"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(value: serde_json::Value) -> SlimEvent {
        serde_json::from_value(value).expect("an event")
    }

    #[test]
    fn a_series_counts_and_dates_an_event_for_nodes_and_pods_alike() {
        let repeated = || {
            event(json!({
                "type": "Warning", "reason": "Unhealthy", "message": "probe failed", "count": null,
                "eventTime": "2026-11-21T02:00:00.000000Z",
                "series": {"count": 12, "lastObservedTime": "2026-11-21T02:10:00.000000Z"},
            }))
        };
        let (node, pod) = (repeated().into_node_event(), repeated().into_pod_event());
        assert_eq!((node.count, pod.count), (12, 12));
        assert_eq!(node.last, pod.time);
        assert_eq!(node.last, "2026-11-21T02:10:00Z".parse().ok());
    }

    #[test]
    fn the_workload_of_a_queue_belongs_to_its_pod() {
        let is_beside = |kind: &str, name: &str| {
            let object = json!({"kind": kind, "name": name, "uid": "w"});
            let pod = PodNames { name: "train-0", uid: "p", related: &["train".to_owned()] };
            event(json!({"type": "Warning", "reason": "Pending", "message": "no quota", "involvedObject": object}))
                .is_beside(&pod)
        };
        assert!(is_beside("Workload", "pod-train-0-3f1c9") && is_beside("Workload", "job-train-0a1b2"));
        assert!(!is_beside("Workload", "pod-train-1-3f1c9") && !is_beside("Service", "pod-train-0-3f1c9"));
    }

    #[test]
    fn the_newest_are_kept() {
        let at = |minute: u32| {
            event(json!({"reason": minute.to_string(),
            "lastTimestamp": format!("2026-11-21T02:{minute:02}:00Z")}))
        };
        let mut events: Vec<_> = [7, 3, 59, 12].into_iter().map(at).collect();
        keep_newest(&mut events, 2);
        let reasons: Vec<_> = events.iter().map(|event| event.reason.as_deref().unwrap_or_default()).collect();
        assert_eq!(reasons, ["59", "12"]);
        assert_eq!(event(json!({"firstTimestamp": "1970-01-01T00:00:00Z"})).last(), None);
    }
}
