//! `archive`: creates the archive of a case from its `source`: nodes of scenarios with changes, pods, events and logs.
//!
//! `docs/evals.md` describes the format.

use std::collections::BTreeMap;

use archive::{Archive, ContainerLog};
use demo_cluster::{Fixture, NodeFacts, NodeFixture, pods_of_facts};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use syringe_core::report::{Report, Section};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Source {
    nodes: Vec<SourceNode>,
    /// NAMESPACE/NAME of a Job. For each node, the first pod in the facts belongs to the Job, with the index of the
    /// node.
    job: Option<String>,
    pods: Vec<SourcePod>,
    events: Vec<SourceEvent>,
    /// Objects of other kinds: DaemonSet, Lease, ResourceClaim, ResourceSlice.
    objects: Vec<Value>,
    logs: Vec<ContainerLog>,
}

/// A node with the report of a scenario.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceNode {
    name: String,
    scenario: String,
    /// Values of the report, by JSON pointer. All values of every GPU are present. `null` removes a field, `*` means
    /// all entries of a list.
    #[serde(default)]
    set: BTreeMap<String, Value>,
    /// Lines of the kernel log: seconds before the report, and text.
    #[serde(default)]
    kernel: Vec<(u32, String)>,
    /// A merge patch for the Node object.
    #[serde(default)]
    object: Value,
    /// The reason why the node has no report.
    unread: Option<String>,
}

/// A pod. `containers` and `init` have the status of each container.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SourcePod {
    pod: String,
    node: Option<String>,
    #[serde(default)]
    gpus: u32,
    phase: String,
    #[serde(default)]
    containers: Map<String, Value>,
    #[serde(default)]
    init: Map<String, Value>,
    /// Index of the pod in the Job.
    rank: Option<usize>,
    /// Name of the DaemonSet of the pod.
    daemonset: Option<String>,
    /// A merge patch for the Pod object.
    #[serde(default)]
    object: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceEvent {
    /// `Pod`, `Node` or `Job`.
    #[serde(default = "of_pod")]
    kind: String,
    /// NAMESPACE/NAME, or the name of a node.
    of: String,
    reason: String,
    message: String,
    #[serde(default = "once")]
    count: u32,
    /// Age of the event in minutes, relative to the report.
    #[serde(default)]
    ago: u32,
    #[serde(default)]
    normal: bool,
}

fn of_pod() -> String {
    "Pod".to_owned()
}

fn once() -> u32 {
    1
}

/// Returns the archive of a source.
pub(crate) fn archive(source: &Value) -> Result<Archive, String> {
    let read: Source = parsed(source.clone())?;
    let reports = read.nodes.iter().enumerate().map(|(index, node)| report(node, index));
    let reports: Vec<Report> = reports.collect::<Result<_, _>>()?;
    let now = reports.iter().filter_map(|report| report.taken_at).max().ok_or("no node has a report")?;
    // Times such as `@-90m` are relative to the report.
    let read: Source = parsed(with_times(source.clone(), now))?;
    let nodes: Vec<_> = read.nodes.iter().zip(reports).map(|(node, report)| fixture(node, report)).collect();
    let mut pods = Vec::new();
    for (rank, node) in nodes.iter().enumerate() {
        let mut of_node = if matches!(node.facts, NodeFacts::Missing(_)) { Vec::new() } else { pods_of_facts(node) };
        if let (Some(job), Some(first)) = (&read.job, of_node.first_mut()) {
            let mut object = serde_json::to_value(&*first).map_err(|error| error.to_string())?;
            merge(&mut object, &member_of(job, rank));
            *first = parsed(object)?;
        }
        pods.extend(of_node);
    }
    for pod in &read.pods {
        let mut object = pod_object(pod, now);
        if let (Some(job), Some(rank)) = (&read.job, pod.rank) {
            merge(&mut object, &member_of(job, rank));
        }
        pods.push(parsed(object)?);
    }
    let events = read.events.iter().enumerate();
    let events = events.map(|(index, event)| parsed(event_object(event, index, now))).collect::<Result<_, _>>()?;
    let (claims, others): (Vec<_>, Vec<_>) =
        read.objects.into_iter().partition(|object| object["kind"] == "ResourceClaim");
    let (slices, objects): (Vec<_>, Vec<_>) = others.into_iter().partition(|object| object["kind"] == "ResourceSlice");
    let fixture = Fixture {
        cluster_name: "eval".to_owned(),
        pods,
        events,
        resource_claims: claims,
        resource_slices: slices,
        objects,
        logs: read.logs,
        ..Fixture::of(nodes)
    };
    let mut archive = fixture.to_archive(now);
    let mut objects: Vec<Value> =
        serde_json::from_slice(&archive.objects["nodes"]).map_err(|error| error.to_string())?;
    objects.iter_mut().zip(&read.nodes).for_each(|(object, node)| merge(object, &node.object));
    archive.objects.insert("nodes".to_owned(), serde_json::to_vec(&objects).map_err(|error| error.to_string())?);
    Ok(archive)
}

fn parsed<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, String> {
    let text = value.to_string();
    serde_json::from_value(value).map_err(|error| format!("{error}: {text}"))
}

/// Returns the report of a node. The first node has the identities of the scenario; the other nodes get new ones.
fn report(node: &SourceNode, index: usize) -> Result<Report, String> {
    let unusual = || scenarios::unusual::unusual_nodes().iter().find(|one| one.name == node.scenario);
    let scenario = scenarios::named(&node.scenario).map(|scenario| scenario.report());
    let scenario = scenario.or_else(|| Some(unusual()?.read().0));
    let scenario = scenario.ok_or_else(|| format!("there is no scenario {}", node.scenario))?;
    let mut report = scenarios::in_full(&scenario);
    for (pointer, new) in &node.set {
        let path: Vec<&str> = pointer.split('/').skip(1).collect();
        if !set(&mut report, &path, new) {
            return Err(format!("the report has no {pointer}"));
        }
    }
    let mut report: Report = parsed(own_uuids(&report, index))?;
    report.hostname = Some(node.name.clone());
    report.kernel_log = with_lines(&report, &node.kernel);
    Ok(report)
}

/// Sets the value at a path. Returns `false` if the path does not exist.
fn set(value: &mut Value, path: &[&str], new: &Value) -> bool {
    match (value, path) {
        (Value::Object(fields), [key]) if new.is_null() => drop(fields.remove(*key)),
        (Value::Object(fields), [key]) => drop(fields.insert((*key).to_owned(), new.clone())),
        (Value::Object(fields), [key, rest @ ..]) => {
            return fields.get_mut(*key).is_some_and(|one| set(one, rest, new));
        }
        (Value::Array(entries), ["*", rest @ ..]) => return entries.iter_mut().all(|one| set(one, rest, new)),
        (Value::Array(entries), [key, rest @ ..]) => {
            match (key.parse::<usize>().ok().filter(|at| *at < entries.len()), rest) {
                (Some(at), []) if new.is_null() => drop(entries.remove(at)),
                (Some(at), []) => entries[at] = new.clone(),
                (Some(at), rest) => return set(&mut entries[at], rest, new),
                (None, []) => entries.push(new.clone()),
                (None, _) => return false,
            }
        }
        _ => return false,
    }
    true
}

/// Changes the first digits of all UUIDs, so that two nodes of one scenario differ. The nodes of a rack have the same
/// `cluster_uuid`.
fn own_uuids(report: &Value, index: usize) -> Value {
    let mut text = report.to_string().into_bytes();
    let is_uuid = |part: &[u8]| {
        let is_dash = |at: &usize| [8, 13, 18, 23].contains(at);
        (0..36).all(|at| if is_dash(&at) { part[at] == b'-' } else { part[at].is_ascii_hexdigit() })
    };
    for at in 0..text.len().saturating_sub(36) {
        if index > 0 && is_uuid(&text[at..at + 36]) && !text[..at].ends_with(b"\"cluster_uuid\":\"") {
            text[at..at + 4].copy_from_slice(format!("{index:04x}").as_bytes());
        }
    }
    serde_json::from_slice(&text).expect("JSON")
}

/// Returns the kernel log of the report with more lines, in the order of time.
fn with_lines(report: &Report, lines: &[(u32, String)]) -> Vec<String> {
    let uptime = Section::data_of(&report.sections.host).and_then(|host| host.uptime_seconds).unwrap_or_default();
    let mut records: Vec<(u64, String)> = Vec::new();
    for record in &report.kernel_log {
        let micros = record.split(',').nth(2).and_then(|micros| micros.parse().ok());
        records.push((micros.unwrap_or_else(|| records.last().map_or(0, |last| last.0)), record.clone()));
    }
    for (ago, text) in lines {
        let micros = uptime.saturating_sub(u64::from(*ago)) * 1_000_000;
        records.push((micros, format!("4,0,{micros},-;{text}")));
    }
    records.sort_by_key(|record| record.0);
    let numbered = records.into_iter().enumerate().map(|(number, (_, record))| {
        // A journal record has no sequence number.
        let mut parts = if record.starts_with('{') { "" } else { record.as_str() }.splitn(3, ',');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(priority), Some(_), Some(rest)) => format!("{priority},{number},{rest}"),
            _ => record,
        }
    });
    numbered.collect()
}

fn fixture(node: &SourceNode, report: Report) -> NodeFixture {
    let mut fixture = NodeFixture::from_facts(&node.name, report);
    if let Some(why) = &node.unread {
        fixture.facts = NodeFacts::Missing(why.clone());
    }
    fixture
}

fn pod_object(pod: &SourcePod, now: Timestamp) -> Value {
    let (namespace, name) = pod.pod.split_once('/').unwrap_or(("default", &pod.pod));
    let main = json!({"main": {}});
    let containers = if pod.containers.is_empty() { main.as_object().unwrap() } else { &pod.containers };
    let limits = if pod.gpus > 0 { json!({"nvidia.com/gpu": pod.gpus.to_string()}) } else { json!({}) };
    let spec = |all: &Map<String, Value>| -> Vec<Value> {
        let of = |(index, name): (usize, &String)| {
            let limits = if index == 0 { limits.clone() } else { json!({}) };
            json!({"name": name, "image": format!("registry.example/{name}:1"), "resources": {"limits": limits, "requests": limits}})
        };
        all.keys().enumerate().map(of).collect()
    };
    let status = |all: &Map<String, Value>| -> Vec<Value> {
        let of = |(name, given): (&String, &Value)| {
            let mut status = json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0});
            merge(&mut status, given);
            status
        };
        all.iter().filter(|(_, given)| given.get("state").is_some()).map(of).collect()
    };
    let is_ready = pod.phase == "Running" && containers.values().all(|status| status["ready"] == true);
    let scheduled = json!({"type": "PodScheduled", "status": if pod.node.is_some() { "True" } else { "False" }});
    let created = now - SignedDuration::from_mins(150);
    let mut object = json!({
        "metadata": {"name": name, "namespace": namespace, "uid": uid(&pod.pod), "creationTimestamp": created.to_string()},
        "spec": {"nodeName": pod.node, "containers": spec(containers), "initContainers": spec(&pod.init)},
        "status": {"phase": pod.phase, "conditions": [scheduled, {"type": "Ready", "status": if is_ready { "True" } else { "False" }}],
            "containerStatuses": status(containers), "initContainerStatuses": status(&pod.init)},
    });
    if let Some(owner) = &pod.daemonset {
        object["metadata"]["labels"] = json!({"app": owner});
        object["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": owner, "uid": uid(owner), "controller": true}]);
    }
    merge(&mut object, &pod.object);
    object
}

/// Returns the part of the object of a pod that makes it a pod of a Job.
fn member_of(job: &str, rank: usize) -> Value {
    let (namespace, name) = job.split_once('/').unwrap_or(("default", job));
    json!({"metadata": {
        "name": format!("{name}-{rank}-x7k2p"), "namespace": namespace,
        "labels": {"batch.kubernetes.io/job-name": name, "batch.kubernetes.io/job-completion-index": rank.to_string()},
        "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid(job), "controller": true}],
    }})
}

fn event_object(event: &SourceEvent, index: usize, now: Timestamp) -> Value {
    let (namespace, name) = event.of.split_once('/').unwrap_or(("default", &event.of));
    let of = if event.kind == "Node" { event.of.clone() } else { uid(&event.of) };
    let time = (now - SignedDuration::from_mins(event.ago.into())).to_string();
    json!({
        "metadata": {"name": format!("{name}.{index}"), "namespace": namespace},
        "involvedObject": {"kind": event.kind, "name": name, "namespace": namespace, "uid": of},
        "type": if event.normal { "Normal" } else { "Warning" },
        "reason": event.reason, "message": event.message, "count": event.count, "firstTimestamp": time, "lastTimestamp": time,
    })
}

/// Returns a UID that is derived from the name.
fn uid(name: &str) -> String {
    let sum = name.bytes().fold(7_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    format!("{sum:08x}-0000-4000-8000-000000000001")
}

/// Replaces times such as `@-90m` (`s`, `m`, `h`, `d`) by the time before `now`.
fn with_times(value: Value, now: Timestamp) -> Value {
    match value {
        Value::String(text) => {
            let ago = text.strip_prefix("@-").and_then(|ago| ago.parse::<SignedDuration>().ok());
            Value::String(ago.map_or(text, |ago| (now - ago).to_string()))
        }
        Value::Array(entries) => entries.into_iter().map(|entry| with_times(entry, now)).collect(),
        Value::Object(fields) => fields.into_iter().map(|(key, field)| (key, with_times(field, now))).collect(),
        other => other,
    }
}

/// Applies a JSON merge patch (RFC 7386).
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        if !patch.is_null() {
            *into = patch.clone();
        }
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    let Some(object) = into.as_object_mut() else { return };
    for (key, field) in fields {
        match field {
            Value::Null => drop(object.remove(key)),
            _ => merge(object.entry(key.clone()).or_insert(Value::Null), field),
        }
    }
}
