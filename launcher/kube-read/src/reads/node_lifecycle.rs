//! `read`: reads API data about a node that no probe reaches (`Lifecycle`): its Lease, the objects of its machine, and
//! its events. `get`, `list`: read objects that the cluster may not have. `condition_line`, `machine_line`: format
//! these data.
//!
//! The default permissions include only the events. The other objects are read if the user may read them and the
//! cluster has them.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use serde_json::Value;
use syringe_core::facts::kubernetes::lifecycle::{MachineFacts, NodeConditionFact};
use tokio::time::timeout;

use crate::client::api_status::is_page_of_proxy;
use crate::client::connection::Connection;
use crate::client::retry;
use crate::failure::kube_reason;
use crate::objects::machines;
use crate::reads::events;
use crate::reads::events::NodeEvent;

/// Time limit for each request. An answer without these facts is still useful.
const TIME: Duration = Duration::from_secs(5);
/// Number of objects in a page, and maximum number of pages.
const PAGE: u32 = 500;
const MAX_PAGES: usize = 8;
/// Maximum number of machines of one node.
const MAX_MACHINES: usize = 4;
/// Maximum number of warnings.
const MAX_WARNINGS: usize = 20;

/// Lists of objects that provide machines: Karpenter, Cluster API, OpenShift. Of the versions of one kind, the first
/// one that the cluster serves is read.
const KINDS: [(&str, &[&str]); 3] = [
    ("nodeclaims.karpenter.sh", &["/apis/karpenter.sh/v1/nodeclaims"]),
    (
        "machines.cluster.x-k8s.io",
        &["/apis/cluster.x-k8s.io/v1beta2/machines", "/apis/cluster.x-k8s.io/v1beta1/machines"],
    ),
    ("machines.machine.openshift.io", &["/apis/machine.openshift.io/v1beta1/machines"]),
];

/// Data from the API about a node, in addition to its Node object and its pods.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    pub lease_renewed: Option<Timestamp>,
    pub machines: Vec<MachineFacts>,
    /// Events of the node, of its machines and of the autoscaler, newest first.
    pub events: Vec<NodeEvent>,
    /// Data that could not be read, with the reason.
    pub not_read: Vec<String>,
}

impl Lifecycle {
    /// Returns whether the API has no data about the node.
    pub fn is_empty(&self) -> bool {
        self.machines.is_empty() && self.events.is_empty() && self.lease_renewed.is_none()
    }
}

/// The response to a request for objects that the cluster may not have.
pub(crate) enum Found<T> {
    Some(T),
    /// The cluster does not have the object or the kind.
    Absent,
    /// The reason why the object could not be read.
    NotRead(String),
}

/// Reads the facts about the node or machine `name`, within `time`. `node`: its Node object, if there is one. This
/// function does not fail.
pub async fn read(connection: &Connection, name: &str, node: Option<&Node>, time: Duration) -> Lifecycle {
    let mut lifecycle = Lifecycle::default();
    let time = time.min(TIME);
    let lease = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}");
    let autoscaler = async { events::about(connection, Some("kube-system"), "cluster-autoscaler-status").await };
    let (lease, machines, own, scaled) = tokio::join!(
        within(time, get(connection, &lease)),
        of_node(connection, name, node, time),
        timeout(time, events::about(connection, None, name)),
        timeout(time, autoscaler)
    );
    let mut not_read: Vec<(&str, String)> = Vec::new();
    match lease {
        Found::Some(lease) => {
            let renewed = lease["spec"]["renewTime"].as_str();
            lifecycle.lease_renewed = renewed.and_then(|text| text.parse().ok());
        }
        Found::NotRead(why) => not_read.push(("the Lease of the node", why)),
        Found::Absent => {}
    }
    lifecycle.machines = machines.0;
    not_read.extend(machines.1);
    let of_machines = lifecycle.machines.iter().filter(|machine| machine.name != name).take(1);
    let mut all = Vec::new();
    for machine in of_machines {
        let events = timeout(time, events::about(connection, machine.namespace.as_deref(), &machine.name)).await;
        all.extend(events.ok().and_then(Result::ok).unwrap_or_default());
    }
    match own {
        Ok(Ok(events)) => all.extend(events),
        Ok(Err(failure)) => not_read.push(("events of the node", failure.why)),
        Err(_) => not_read.push(("events of the node", format!("no answer within {time:?}"))),
    }
    // A failure is ignored, because the events of the autoscaler are optional.
    let scaled = scaled.ok().and_then(Result::ok).unwrap_or_default();
    all.extend(scaled.into_iter().filter(|event| event.severity == "Warning"));
    all.sort_by_key(|event| std::cmp::Reverse(event.last));
    all.truncate(MAX_WARNINGS);
    lifecycle.events = all;
    lifecycle.not_read = not_read.into_iter().map(|(what, why)| format!("{what}: {why}")).collect();
    lifecycle
}

/// Returns the machines of a node, and the objects that could not be read.
async fn of_node(
    connection: &Connection,
    name: &str,
    node: Option<&Node>,
    time: Duration,
) -> (Vec<MachineFacts>, Vec<(&'static str, String)>) {
    let provider = node.and_then(|node| node.spec.as_ref()?.provider_id.as_deref());
    let is_own = |object: &Value| machines::is_of_node(object, name, provider);
    let each = KINDS.map(|(kind, paths)| async move {
        for path in paths {
            match within(time, list(connection, path, is_own, MAX_PAGES)).await {
                Found::Some(objects) => return (objects, None),
                Found::NotRead(why) => return (Vec::new(), Some((kind, why))),
                Found::Absent => {}
            }
        }
        (Vec::new(), None)
    });
    let mut found = Vec::new();
    let mut not_read = Vec::new();
    for (objects, why) in futures_util::future::join_all(each).await {
        found.extend(objects.iter().map(machines::facts));
        not_read.extend(why);
    }
    found.truncate(MAX_MACHINES);
    (found, not_read)
}

async fn within<T>(time: Duration, request: impl Future<Output = Found<T>>) -> Found<T> {
    timeout(time, request).await.unwrap_or_else(|_| Found::NotRead(format!("no answer within {time:?}")))
}

pub(crate) async fn get(connection: &Connection, path: &str) -> Found<Value> {
    let ask = || async {
        let request = http::Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
        connection.client.request::<Value>(request).await
    };
    match retry::read(ask).await {
        Some(Ok(value)) => Found::Some(value),
        Some(Err(kube::Error::Api(status))) if status.code == 404 && !is_page_of_proxy(&status) => Found::Absent,
        // The API server responds with 404 in plain text for a group that it does not serve.
        Some(Err(kube::Error::Api(status))) if status.code == 404 && status.message.trim() == "404 page not found" => {
            Found::Absent
        }
        Some(Err(error)) => Found::NotRead(kube_reason(&error)),
        None => Found::NotRead(format!("{} did not answer", connection.server)),
    }
}

/// Lists the objects for which `is_own` is true, page by page.
pub(crate) async fn list(
    connection: &Connection,
    path: &str,
    is_own: impl Fn(&Value) -> bool,
    max_pages: usize,
) -> Found<Vec<Value>> {
    let mut own = Vec::new();
    let mut next = String::new();
    for _ in 0..max_pages {
        let mut page = match get(connection, &format!("{path}?limit={PAGE}{next}")).await {
            Found::Some(page) => page,
            Found::Absent => return Found::Absent,
            Found::NotRead(why) => return Found::NotRead(why),
        };
        let items = page["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
        own.extend(items.into_iter().filter(|object| is_own(object)));
        let Some(token) = page["metadata"]["continue"].as_str().filter(|token| !token.is_empty()) else { break };
        let token: String = form_urlencoded::byte_serialize(token.as_bytes()).collect();
        next = format!("&continue={token}");
    }
    Found::Some(own)
}

/// Formats a condition: `Registered is Unknown since … (NodeNotFound: message)`.
pub fn condition_line(condition: &NodeConditionFact) -> String {
    let NodeConditionFact { name, status, reason, message, since } = condition;
    let since = since.map(|time| format!(" since {time}")).unwrap_or_default();
    let why = [reason, message].map(String::as_str).into_iter().filter(|text| !text.is_empty());
    format!("{name} is {status}{since} ({})", why.collect::<Vec<_>>().join(": "))
}

/// Formats the state of a machine in one line.
pub fn machine_line(machine: &MachineFacts) -> String {
    let MachineFacts { kind, name, node, phase, failure, created, deleting, conditions, .. } = machine;
    let created = created.map(|time| format!(", created {time}")).unwrap_or_default();
    let node = node.as_ref().map_or_else(|| ", without a node".to_owned(), |node| format!(", node {node}"));
    let phase = phase.as_ref().map(|phase| format!(", phase {phase}")).unwrap_or_default();
    let deleting = if *deleting { ", being deleted" } else { "" };
    let state: Vec<_> = failure.iter().cloned().chain(conditions.iter().map(condition_line)).collect();
    let state = if state.is_empty() { "every condition is True".to_owned() } else { state.join("; ") };
    format!("{kind} {name}{created}{node}{phase}{deleting}: {state}")
}
