//! `demo`: the cluster of `--demo`: a healthy GPU node, two GPU nodes with problems, a node without GPUs, workloads.
//!
//! The demo is an archive in the program, `demo.tar.gz`. The tests of this module create the archive from the
//! scenarios.

use archive::Archive;

use crate::fixture::Fixture;

/// The archive of the demo.
pub const DEMO: &[u8] = include_bytes!("../demo.tar.gz");

/// Returns the cluster of the demo.
///
/// # Panics
/// Never, because a test reads the archive.
pub fn demo() -> Fixture {
    let archive = Archive::read(DEMO, false).unwrap_or_default();
    Fixture::of_archive(archive).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use jiff::Timestamp;
    use k8s_openapi::api::core::v1::{
        Event, EventSource, ObjectReference, Pod, PodCondition, PodSpec, PodStatus, Taint, Toleration,
    };
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
    use syringe_core::report::Report;
    use syringe_core::scenarios;

    use super::*;
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

    /// Returns the archive that is embedded in the program.
    fn archive() -> Archive {
        let nodes = NODES.map(|(name, scenario)| node(name, scenarios::named(scenario).expect("a scenario").report()));
        let now = nodes.iter().filter_map(|node| node.facts.report().taken_at).max().expect("a time");
        let mut pods: Vec<Pod> = nodes.iter().flat_map(workloads_of).collect();
        pods.push(workload_pod("monitoring", "prometheus-0", "cpu-1", 0));
        pods.push(pending_pod());
        let events = vec![failed_scheduling(now)];
        let cluster_name = "demo".to_owned();
        let mut archive = Fixture { cluster_name, pods, events, ..Fixture::of(nodes) }.to_archive(now);
        archive.manifest.note = Some("This is demo data, not a real cluster.".to_owned());
        archive
    }

    fn node(name: &str, facts: Report) -> NodeFixture {
        // The scenario contains the host name of another machine, which is replaced by the name of the node.
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

    fn failed_scheduling(now: Timestamp) -> Event {
        let text = |text: &str| Some(text.to_owned());
        let now = Some(Time(now));
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

    /// Writes the archive with `INSTA_UPDATE=always`.
    #[test]
    fn the_archive_in_the_program_is_made_of_the_scenarios() {
        let expected = archive();
        if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
            let file =
                std::fs::File::create(Path::new(env!("CARGO_MANIFEST_DIR")).join("demo.tar.gz")).expect("a file");
            expected.write(file).expect("the archive can be written");
            return;
        }
        let found = Archive::read(DEMO, true).expect("an archive");
        assert!(found == expected, "demo.tar.gz is old: run this test with INSTA_UPDATE=always");
    }

    #[test]
    fn the_nodes_of_the_demo_have_the_gpus_of_their_scenarios() {
        let demo = demo();
        let gpus = |node: &NodeFixture| {
            let status = node.object.as_ref()?.status.clone()?;
            let count = |of: Option<BTreeMap<String, Quantity>>| Some(of?.get("nvidia.com/gpu")?.0.clone());
            Some((count(status.capacity)?, count(status.allocatable)?))
        };
        let found: Vec<_> = demo.nodes.iter().map(|node| (node.name.as_str(), gpus(node))).collect();
        let pair = |capacity: &str, allocatable: &str| Some((capacity.to_owned(), allocatable.to_owned()));
        let expected =
            [("gpu-1", pair("8", "8")), ("gpu-2", pair("8", "7")), ("gpu-3", pair("8", "8")), ("cpu-1", None)];
        assert_eq!(found, expected);
        for node in ["gpu-1", "gpu-2", "gpu-3"] {
            let on_node = |pod: &&Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node);
            assert!(demo.pods.iter().filter(on_node).count() > 0, "{node}");
        }
    }
}
