//! `Fixture::of_archive`: creates the fixture of a cluster from an archive.
//! Probes replay the saved reports, and the clock shows the time of the archive.

use std::collections::HashMap;

use archive::Archive;
use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use serde::de::DeserializeOwned;
use serde_json::Value;
use syringe_core::report::Report;
use syringe_core::unknown::NOT_IN_ARCHIVE;

use crate::fixture::{Denial, Fixture, Timing};
use crate::node_fixture::{NodeFacts, NodeFixture};

/// The kinds of an archive, with their API groups.
const GROUPS: [(&str, &str); 10] = [
    ("nodes", ""),
    ("pods", ""),
    ("events", ""),
    ("daemonsets", "apps"),
    ("leases", "coordination.k8s.io"),
    ("nodeclaims", "karpenter.sh"),
    ("machines", "cluster.x-k8s.io"),
    ("resourceclaims", "resource.k8s.io"),
    ("resourceslices", "resource.k8s.io"),
    ("computedomains", "resource.nvidia.com"),
];

/// The kinds that are stored as JSON, with the names of the kinds.
const KINDS: [(&str, &str); 5] = [
    ("daemonsets", "DaemonSet"),
    ("leases", "Lease"),
    ("nodeclaims", "NodeClaim"),
    ("machines", "Machine"),
    ("computedomains", "ComputeDomain"),
];

impl Fixture {
    /// Returns the cluster of an archive. The server rejects requests for lists that are not in the archive, with the
    /// reason in the archive.
    ///
    /// # Errors
    /// Fails if a file of the archive does not contain objects of its kind. [`Archive::read`] limits the number of
    /// objects.
    pub fn of_archive(archive: Archive) -> Result<Self, String> {
        let Archive { manifest, mut nodes, mut objects, logs } = archive;
        let mut take = |kind: &str| objects.remove(kind).unwrap_or_default();
        let unread: HashMap<_, _> =
            manifest.nodes.iter().filter_map(|entry| Some((&*entry.name, entry.unread.as_ref()?))).collect();
        let facts = |name: &str, document: Option<Vec<u8>>| match document {
            Some(document) => NodeFacts::Document(Bytes::from(document)),
            None => {
                let why = unread.get(name).map(|why| (*why).clone());
                NodeFacts::Missing(why.unwrap_or_else(|| "the node was not saved".to_owned()))
            }
        };
        let mut fixtures = Vec::new();
        for object in parsed::<Node>("nodes", &take("nodes"))? {
            let name = object.metadata.name.clone().unwrap_or_default();
            let facts = facts(&name, nodes.remove(&name).map(|node| node.report));
            let object = Some(Box::new(object));
            fixtures.push(NodeFixture { facts, object, ..NodeFixture::new(&name, Report::default()) });
        }
        // If the archive has no Node object for a report, the object is created from the report.
        for (name, node) in nodes {
            let report = Report::from_node(&node.report).map_err(|error| format!("the report of {name}: {error}"))?;
            let mut fixture = NodeFixture::from_facts(&name, report);
            // It is not known which GPUs Kubernetes can allocate.
            fixture.resources.values_mut().for_each(|(capacity, allocatable)| *allocatable = *capacity);
            fixture.is_from_report = true;
            fixtures.push(fixture);
        }
        let mut others = Vec::new();
        for (kind, name) in KINDS {
            others.extend(parsed::<Value>(kind, &take(kind))?.into_iter().filter_map(|mut object| {
                // The API server omits the kind of list entries. A kind in the archive is overwritten, because the list
                // determines the kind.
                object.as_object_mut()?.insert("kind".to_owned(), name.into());
                Some(object)
            }));
        }
        let [pods, events] = [take("pods"), take("events")];
        let serves_dra = objects.contains_key("resourceslices") || manifest.unread.contains_key("resourceslices");
        let mut take = |kind: &str| objects.remove(kind).unwrap_or_default();
        let denied = GROUPS.iter().filter_map(|(kind, group)| {
            let why = manifest.unread.get(*kind)?;
            Some(["get", "list"].map(|verb| Denial {
                group: Some((*group).to_owned()),
                why: Some(format!("{NOT_IN_ARCHIVE}{why}")),
                ..Denial::of(verb, kind)
            }))
        });
        Ok(Self {
            cluster_name: manifest.context.clone(),
            kubernetes_version: Some(manifest.kubernetes_version.clone())
                .filter(|version| !version.is_empty())
                .unwrap_or_else(|| Self::default().kubernetes_version),
            nodes: fixtures,
            pods: parsed::<Pod>("pods", &pods)?,
            events: parsed::<Event>("events", &events)?,
            resource_claims: parsed("resourceclaims", &take("resourceclaims"))?,
            resource_slices: parsed("resourceslices", &take("resourceslices"))?,
            serves_dra,
            objects: others,
            logs,
            is_saved: true,
            clock_behind: Timestamp::now().duration_since(manifest.taken_at),
            denied: denied.flatten().filter(|denial| denial.verb == "list" || denial.resource == "leases").collect(),
            timing: Timing::none(),
            ..Self::default()
        })
    }
}

/// Parses a list of objects. A file that is absent is an empty list.
fn parsed<T: DeserializeOwned>(kind: &str, list: &[u8]) -> Result<Vec<T>, String> {
    if list.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_slice(list).map_err(|error| format!("kubernetes/{kind}.json cannot be parsed: {error}"))
}
