//! `demo`: the fixture of `--demo`: a healthy GPU node, two GPU nodes with problems, a node without GPUs, workloads.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    Event, EventSource, ObjectReference, Pod, PodCondition, PodSpec, PodStatus, Taint, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::Value;
use syringe_core::report::Report;
use syringe_core::scenarios;

use crate::fixture::{Fixture, Timing};
use crate::generated_metadata;
use crate::node_fixture::NodeFixture;
use crate::workload::{workload_pod, workloads_of};

/// The nodes, each with the name of its scenario.
const NODES: [(&str, &str); 4] =
    [("gpu-1", "healthy-h100-8"), ("gpu-2", "xid79-off-bus"), ("gpu-3", "ecc-remap-pending"), ("cpu-1", "no-gpu")];
/// The namespace of the pod that cannot be scheduled.
const NAMESPACE: &str = "research";
/// UID of the pod that cannot be scheduled. The event about the pod contains this UID.
const PENDING_UID: &str = "3c1a7b52-8d0e-4f63-9a1b-2e5d7c904f18";
/// The message of the scheduler about the pod that cannot be scheduled.
const FAILED_SCHEDULING: &str = "0/4 nodes are available: 4 Insufficient nvidia.com/gpu. preemption: 0/4 nodes are available: \
     4 No preemption victims found for incoming pod.";

/// Returns the fixture of `--demo`, with the timing of a real cluster.
pub fn demo() -> Fixture {
    let facts = NODES.map(|(name, scenario)| (name, facts_of(scenario)));
    of_facts(facts)
}

/// Returns the fixture with the times of all node facts moved to `now`, so that the facts are not older than the
/// cluster events.
pub fn demo_at(now: Timestamp) -> Fixture {
    let facts = NODES.map(|(name, scenario)| (name, facts_of(scenario)));
    let newest = facts.iter().filter_map(|(_, facts)| facts.taken_at).max();
    let later = newest.map_or(SignedDuration::ZERO, |newest| now.duration_since(newest));
    // Times in logs are whole seconds.
    let later = SignedDuration::from_secs(later.as_secs());
    of_facts(facts.map(|(name, facts)| (name, shifted(&facts, later).unwrap_or(facts))))
}

/// Returns the facts with a duration added to every time.
fn shifted(facts: &Report, later: SignedDuration) -> Option<Report> {
    let mut document = serde_json::to_value(facts).ok()?;
    shift_times(&mut document, later);
    serde_json::from_value(document).ok()
}

fn shift_times(value: &mut Value, later: SignedDuration) {
    match value {
        Value::String(text) => {
            let time = text.parse::<Timestamp>().ok().and_then(|time| time.checked_add(later).ok());
            *text = time.map_or_else(|| std::mem::take(text), |time| time.to_string());
        }
        Value::Array(entries) => entries.iter_mut().for_each(|entry| shift_times(entry, later)),
        Value::Object(fields) => fields.values_mut().for_each(|field| shift_times(field, later)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn facts_of(scenario: &str) -> Report {
    scenarios::named(scenario).map(scenarios::Scenario::report).unwrap_or_default()
}

fn of_facts<const N: usize>(facts: [(&'static str, Report); N]) -> Fixture {
    let nodes: Vec<NodeFixture> = facts.into_iter().map(|(name, facts)| node(name, facts)).collect();
    let mut pods: Vec<Pod> = nodes.iter().flat_map(workloads_of).collect();
    pods.push(workload_pod("monitoring", "prometheus-0", "cpu-1", 0));
    pods.push(pending_pod());
    Fixture {
        cluster_name: "demo".to_owned(),
        nodes,
        pods,
        events: vec![failed_scheduling()],
        timing: Timing::default(),
        ..Fixture::default()
    }
}

fn node(name: &str, facts: Report) -> NodeFixture {
    // The host name in the scenario belongs to another machine.
    let node = NodeFixture::from_facts(name, Report { hostname: Some(name.to_owned()), ..facts });
    if node.resources.is_empty() {
        return node;
    }
    let taint = Taint { key: "nvidia.com/gpu".to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
    NodeFixture { taints: vec![taint], ..node }
}

/// Returns a pod that requests more GPUs than are free.
fn pending_pod() -> Pod {
    let mut pod = workload_pod(NAMESPACE, "finetune-0", "", 8);
    pod.metadata.uid = Some(PENDING_UID.to_owned());
    // The admission plugin ExtendedResourceToleration adds this toleration to every pod that requests GPUs.
    let toleration = Toleration {
        key: Some("nvidia.com/gpu".to_owned()),
        operator: Some("Exists".to_owned()),
        ..Toleration::default()
    };
    let condition = PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("Unschedulable".to_owned()),
        message: Some(FAILED_SCHEDULING.to_owned()),
        ..PodCondition::default()
    };
    Pod {
        spec: pod.spec.map(|spec| PodSpec { node_name: None, tolerations: Some(vec![toleration]), ..spec }),
        status: Some(PodStatus {
            phase: Some("Pending".to_owned()),
            conditions: Some(vec![condition]),
            ..PodStatus::default()
        }),
        ..pod
    }
}

fn failed_scheduling() -> Event {
    let text = |text: &str| Some(text.to_owned());
    let now = Some(Time(generated_metadata::now()));
    Event {
        metadata: ObjectMeta { name: text("finetune-0.1"), namespace: text(NAMESPACE), ..ObjectMeta::default() },
        involved_object: ObjectReference {
            api_version: text("v1"),
            kind: text("Pod"),
            namespace: text(NAMESPACE),
            name: text("finetune-0"),
            uid: text(PENDING_UID),
            ..ObjectReference::default()
        },
        type_: text("Warning"),
        reason: text("FailedScheduling"),
        message: text(FAILED_SCHEDULING),
        count: Some(1),
        first_timestamp: now.clone(),
        last_timestamp: now,
        source: Some(EventSource { component: text("default-scheduler"), host: None }),
        reporting_component: text("default-scheduler"),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_facts_are_as_new_as_the_cluster_and_otherwise_the_same() {
        let now: Timestamp = "2031-02-03T04:05:06Z".parse().expect("a time");
        let (old, new) = (demo(), demo_at(now));
        let taken = |fixture: &Fixture| fixture.nodes.iter().filter_map(|node| node.facts.taken_at).max();
        let (before, after) = (taken(&old).expect("a time"), taken(&new).expect("a time"));
        assert!(now.duration_since(after) < SignedDuration::from_secs(1), "{after}");
        for (old, new) in old.nodes.iter().zip(&new.nodes) {
            let back = shifted(&new.facts, before.duration_since(after)).expect("facts");
            assert_eq!(serde_json::to_value(&back).ok(), serde_json::to_value(&*old.facts).ok(), "{}", old.name);
        }
    }

    #[test]
    fn the_nodes_of_the_demo_have_the_gpus_of_their_scenarios() {
        let demo = demo();
        let gpus: Vec<_> =
            demo.nodes.iter().map(|node| (node.name.as_str(), node.resources.get("nvidia.com/gpu").copied())).collect();
        let expected = [("gpu-1", Some((8, 8))), ("gpu-2", Some((8, 7))), ("gpu-3", Some((8, 8))), ("cpu-1", None)];
        assert_eq!(gpus, expected);
        for node in ["gpu-1", "gpu-2", "gpu-3"] {
            let on_node = |pod: &&Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node);
            assert!(demo.pods.iter().filter(on_node).count() > 0, "{node}");
        }
    }
}
