//! Events of a node, and of a probe pod: what kubelet, node-problem-detector and controllers reported of late.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use syringe_core::text::clean;

use crate::error::Failure;
use crate::kubernetes::Connection;
use crate::kubernetes::client::pages;
use crate::kubernetes::client::pages::Query;

/// Longest message: events carry text that a node wrote.
const MESSAGE: usize = 300;

/// An event.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct NodeEvent {
    /// `Normal` or `Warning`.
    pub severity: String,
    /// In one word.
    pub reason: String,
    /// In words. Text from the node: data, not advice.
    pub message: String,
    /// How often.
    pub count: u32,
    /// When last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Timestamp>,
}

/// The events of a node that the API server still has (an hour of them, by default), newest first.
pub(crate) async fn of_node(connection: &Connection, node: &str) -> Result<Vec<NodeEvent>, Failure> {
    let fields = format!("involvedObject.kind=Node,involvedObject.name={node}");
    list(connection, "/api/v1/events", &fields, &format!("Listing the events of node {node}")).await
}

/// The newest warning about a pod, where there is one: why it does not start, in the words of whoever tried.
pub(crate) async fn newest_warning(
    connection: &Connection,
    namespace: &str,
    pod: &str,
) -> Result<Option<NodeEvent>, Failure> {
    let path = format!("/api/v1/namespaces/{namespace}/events");
    let fields = format!("involvedObject.name={pod},type=Warning");
    let events = list(connection, &path, &fields, &format!("Listing the events of pod {namespace}/{pod}")).await?;
    Ok(events.into_iter().next())
}

/// Newest first.
async fn list(connection: &Connection, path: &str, fields: &str, what: &str) -> Result<Vec<NodeEvent>, Failure> {
    let query = Query { what, path, labels: None, fields: Some(fields) };
    let mut events =
        pages::fold(connection, &query, Vec::new, |events, event: LeanEvent| events.push(event.into_event())).await?;
    events.sort_by_key(|event: &NodeEvent| std::cmp::Reverse(event.last));
    Ok(events)
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct LeanEvent {
    #[serde(rename = "type")]
    severity: String,
    reason: String,
    message: String,
    count: Option<u32>,
    last_timestamp: Option<Time>,
    event_time: Option<MicroTime>,
    series: Option<Series>,
}

/// Newer reporters count here.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Series {
    count: u32,
    last_observed_time: Option<MicroTime>,
}

impl LeanEvent {
    fn into_event(self) -> NodeEvent {
        let Self { severity, reason, message, count, last_timestamp, event_time, series } = self;
        let series = series.unwrap_or_default();
        NodeEvent {
            severity: clean(&severity, 20),
            reason: clean(&reason, 60),
            message: clean(&message, MESSAGE),
            count: count.unwrap_or(0).max(series.count).max(1),
            last: series.last_observed_time.or(event_time).map(|time| time.0).or(last_timestamp.map(|time| time.0)),
        }
    }
}
