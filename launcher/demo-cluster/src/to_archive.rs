//! `Fixture::to_archive`: creates an archive from a fixture, for the demo and for test data.

use archive::{Archive, SavedNode};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use serde::Serialize;
use serde_json::Value;

use crate::fixture::Fixture;
use crate::node_fixture::NodeFacts;
use crate::node_object;

impl Fixture {
    /// Returns the archive that `gpu-syringe save` would write for this cluster at the time `now`.
    ///
    /// # Panics
    /// Never panics: objects of Kubernetes can always be serialized.
    #[must_use]
    pub fn to_archive(&self, now: Timestamp) -> Archive {
        let mut archive = Archive::default();
        archive.manifest.taken_at = now;
        archive.manifest.context.clone_from(&self.cluster_name);
        archive.manifest.kubernetes_version.clone_from(&self.kubernetes_version);
        let nodes = self.nodes.iter().enumerate();
        let nodes: Vec<_> = nodes
            .map(|(index, node)| ready_since_creation(node.object(index, &self.kubernetes_version, now)))
            .collect();
        let of_kind = |kind: &str| {
            let all = self.objects.iter().filter(|object| object["kind"] == kind);
            at(now, &all.collect::<Vec<_>>())
        };
        for (kind, list) in [
            ("nodes", at(now, &nodes)),
            ("pods", at(now, &self.pods)),
            ("events", at(now, &self.events)),
            ("daemonsets", of_kind("DaemonSet")),
            ("leases", of_kind("Lease")),
            ("resourceclaims", at(now, &self.resource_claims)),
            ("resourceslices", at(now, &self.resource_slices)),
        ] {
            archive.objects.insert(kind.to_owned(), list);
        }
        // Few clusters have the driver with this kind.
        if self.objects.iter().any(|object| object["kind"] == "ComputeDomain") {
            archive.objects.insert("computedomains".to_owned(), of_kind("ComputeDomain"));
        }
        for (node, object) in self.nodes.iter().zip(&nodes) {
            if !node_object::is_ready(object) {
                archive.add_unread_node(&node.name, "no probe starts on a node that is not Ready".to_owned());
                continue;
            }
            if let NodeFacts::Missing(why) = &node.facts {
                archive.add_unread_node(&node.name, why.clone());
                continue;
            }
            let facts = node.facts.report();
            let report = node_probe::run(&["all".to_owned()], Some(&facts)).stdout;
            let kernel_log = (facts.kernel_log.join("\n") + "\n").into_bytes();
            archive.add_node(&node.name, SavedNode { report, kernel_log, files: facts.raw_files.clone() }, None);
        }
        archive.logs.clone_from(&self.logs);
        archive
    }
}

fn ready_since_creation(mut node: Node) -> Node {
    let created = node.metadata.creation_timestamp.clone();
    let conditions = node.status.iter_mut().flat_map(|status| status.conditions.iter_mut().flatten());
    conditions.filter(|one| one.type_ == "Ready").for_each(|one| one.last_transition_time = created.clone());
    node
}

/// Returns objects as JSON. Times within the last minute become `now`.
fn at<T: Serialize>(now: Timestamp, objects: &[T]) -> Vec<u8> {
    fn set(value: &mut Value, now: Timestamp) {
        match value {
            Value::String(text) => {
                let age = text.parse().map(|time: Timestamp| Timestamp::now().duration_since(time).as_secs());
                if age.is_ok_and(|age| (-5..60).contains(&age)) {
                    *text = now.to_string();
                }
            }
            Value::Array(entries) => entries.iter_mut().for_each(|entry| set(entry, now)),
            Value::Object(fields) => fields.values_mut().for_each(|field| set(field, now)),
            _ => {}
        }
    }
    let mut list = serde_json::to_value(objects).expect("JSON");
    set(&mut list, now);
    serde_json::to_vec(&list).expect("JSON")
}
