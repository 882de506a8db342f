//! `NodeFixture`: a node of a fixture and its `Node` object. `NodeFacts`: the facts that a probe reads on the node.
//! `PROBE_IMAGE`, `PROBE_IMAGE_PINNED`, `probe_image_digest`: the image of the probe.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use k8s_openapi::api::core::v1::{
    ContainerImage, Node, NodeAddress, NodeCondition, NodeSpec, NodeStatus, NodeSystemInfo, Taint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, ObjectMeta, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use node_probe::Outcome;
use serde_json::json;
use syringe_core::report::{Problem, Report};
use syringe_core::unknown::FROM_REPORT;

use crate::{advertised_gpus, node_object, stored_document};

/// The probe image of the current gpu-syringe version. Every node of a fixture has this image.
pub const PROBE_IMAGE: &str = concat!("ghcr.io/gpu-syringe/node-probe:", env!("CARGO_PKG_VERSION"));

/// The image of the probe by digest.
pub const PROBE_IMAGE_PINNED: &str =
    "ghcr.io/gpu-syringe/node-probe@sha256:eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee";

/// Returns the digest of the image of the probe.
#[must_use]
pub fn probe_image_digest() -> &'static str {
    PROBE_IMAGE_PINNED.split_once('@').map_or("", |(_, digest)| digest)
}

/// The facts that a probe reads on a node.
#[derive(Clone, Debug)]
pub enum NodeFacts {
    Known(Arc<Report>),
    /// A document of node-probe. An archive can contain thousands of documents, so each is parsed only when it is
    /// needed.
    Document(Bytes),
    /// The reason why the archive has no report of the node.
    Missing(String),
}

impl NodeFacts {
    /// Runs a command line of node-probe (without the name of the program) on these facts.
    pub fn run_probe(&self, arguments: &[String]) -> Outcome {
        let stored =
            if let Self::Document(document) = self { stored_document::output(document, arguments) } else { None };
        match stored {
            Some(stdout) => Outcome { stdout, stderr: Vec::new(), exit_code: 0 },
            None => node_probe::run(arguments, Some(&self.report())),
        }
    }

    /// Returns the facts. If a document cannot be parsed, the result is the parse error.
    pub fn report(&self) -> Arc<Report> {
        let failed = |why: String| {
            let problem = Problem {
                what: "the node".to_owned(),
                why,
                next_step: "Ask about another node, or save the node again.".to_owned(),
                code: "not_in_archive".to_owned(),
                gpu: None,
            };
            Arc::new(Report { error: Some(problem), ..Report::default() })
        };
        match self {
            Self::Known(report) => Arc::clone(report),
            Self::Missing(why) => failed(format!("the archive has no report of this node: {why}")),
            Self::Document(document) => match Report::from_node(document) {
                Ok(report) => Arc::new(report),
                Err(error) => failed(format!("the report in the archive cannot be parsed: {error}")),
            },
        }
    }
}

/// A node, and the facts that a probe reads on the node.
#[derive(Clone, Debug)]
pub struct NodeFixture {
    pub name: String,
    /// The facts that a probe reads.
    pub facts: NodeFacts,
    /// The `Node` object of an archive, which replaces the object from the other fields.
    pub object: Option<Box<Node>>,
    /// Labels in addition to those that every node has.
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    /// Conditions in addition to `Ready`, such as the conditions of node-problem-detector.
    pub conditions: Vec<NodeCondition>,
    /// Whether the node is cordoned.
    pub unschedulable: bool,
    /// Capacity and allocatable by resource, such as (8, 8) for `nvidia.com/gpu`.
    pub resources: BTreeMap<String, (u64, u64)>,
    /// Images on the node; by default the image of the probe.
    pub images: Vec<String>,
    /// Images that the node cannot pull.
    pub unpullable_images: Vec<String>,
    /// Files in `/var/log`, which the kubelet serves, by name (such as `kern.log`).
    pub log_files: BTreeMap<String, String>,
    /// The operating system that the kubelet reports; Ubuntu by default.
    pub os_image: Option<String>,
    /// The time at which a label was written, by label, for `managedFields`.
    pub label_times: BTreeMap<String, Timestamp>,
    /// Whether the node has the annotation of an object that was made from a report.
    pub is_from_report: bool,
}

impl NodeFixture {
    /// Returns a node with these facts, the labels of GPU feature discovery, and the resources of the device plugin.
    /// The capacity includes the GPUs that NVML does not list, but these GPUs are not allocatable.
    pub fn from_facts(name: &str, facts: Report) -> Self {
        let (labels, resources) = (advertised_gpus::labels(&facts), advertised_gpus::resources(&facts));
        Self { labels, resources, ..Self::new(name, facts) }
    }

    /// Returns a node with these facts, without GPU labels or GPU resources.
    pub fn new(name: &str, facts: Report) -> Self {
        Self {
            name: name.to_owned(),
            facts: NodeFacts::Known(Arc::new(facts)),
            object: None,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            conditions: Vec::new(),
            unschedulable: false,
            resources: BTreeMap::new(),
            images: [PROBE_IMAGE, PROBE_IMAGE_PINNED].map(str::to_owned).into(),
            unpullable_images: Vec::new(),
            log_files: BTreeMap::new(),
            os_image: None,
            label_times: BTreeMap::new(),
            is_from_report: false,
        }
    }

    /// Adds a label.
    #[must_use]
    pub fn with_label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Adds a resource that is completely allocatable.
    #[must_use]
    pub fn with_resource(mut self, resource: &str, count: u64) -> Self {
        self.resources.insert(resource.to_owned(), (count, count));
        self
    }

    /// Adds a taint.
    #[must_use]
    pub fn with_taint(mut self, key: &str, effect: &str) -> Self {
        self.taints.push(Taint { key: key.to_owned(), effect: effect.to_owned(), ..Taint::default() });
        self
    }

    /// Adds an image that cannot be pulled.
    #[must_use]
    pub fn with_unpullable_image(mut self, image: &str) -> Self {
        self.unpullable_images.push(image.to_owned());
        self
    }

    /// Returns the `Node` object. The address is derived from `index`, the position of the node in the fixture.
    pub(crate) fn object(&self, index: usize, version: &str, now: Timestamp) -> Node {
        if let Some(object) = &self.object {
            let mut node = Node::clone(object);
            node.status.get_or_insert_default().images = Some(self.reported_images());
            return node;
        }
        let labels = [("kubernetes.io/hostname", self.name.as_str()), ("kubernetes.io/os", "linux")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let mut all = BTreeMap::from(labels);
        all.insert("kubernetes.io/arch".to_owned(), "amd64".to_owned());
        all.extend(self.labels.clone());
        let amounts = |pick: fn(&(u64, u64)) -> u64| {
            let basics = [("cpu", "64"), ("memory", "527942040Ki"), ("ephemeral-storage", "1843Gi"), ("pods", "110")];
            let mut amounts = BTreeMap::from(basics.map(|(key, value)| (key.to_owned(), Quantity(value.to_owned()))));
            let own = self.resources.iter().map(|(key, both)| (key.clone(), Quantity(pick(both).to_string())));
            amounts.extend(own);
            Some(amounts)
        };
        let mut conditions = vec![node_object::ready_condition(true, now)];
        conditions.extend(self.conditions.clone());
        Node {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some(all),
                annotations: self.is_from_report.then(|| BTreeMap::from([(FROM_REPORT.to_owned(), String::new())])),
                managed_fields: self.managed_fields(),
                // The node was created long before the facts were read, so it does not count as a node that is joining.
                creation_timestamp: Some(Time(now.checked_sub(SignedDuration::from_hours(30 * 24)).unwrap_or(now))),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec {
                taints: (!self.taints.is_empty()).then(|| self.taints.clone()),
                unschedulable: self.unschedulable.then_some(true),
                provider_id: Some(format!("embedded://{}", self.name)),
                ..NodeSpec::default()
            }),
            status: Some(NodeStatus {
                capacity: amounts(|both| both.0),
                allocatable: amounts(|both| both.1),
                conditions: Some(conditions),
                addresses: Some(vec![
                    NodeAddress { type_: "InternalIP".to_owned(), address: address(index) },
                    NodeAddress { type_: "Hostname".to_owned(), address: self.name.clone() },
                ]),
                node_info: Some(self.system_info(version)),
                images: (!self.images.is_empty()).then(|| self.reported_images()),
                ..NodeStatus::default()
            }),
        }
    }

    /// Returns the images for the status of the node: one entry for each repository, because a fixture has at most one
    /// image per repository.
    fn reported_images(&self) -> Vec<ContainerImage> {
        let mut images: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for name in &self.images {
            let untagged = name.split('@').next().unwrap_or_default();
            let path_at = untagged.rfind('/').map_or(0, |at| at + 1);
            let end = untagged[path_at..].find(':').map_or(untagged.len(), |at| path_at + at);
            images.entry(&name[..end]).or_default().push(name.clone());
        }
        images.into_values().map(|names| ContainerImage { names: Some(names), size_bytes: Some(12_000_000) }).collect()
    }

    /// Returns the `managedFields` of the node: one entry for each label whose time is known.
    fn managed_fields(&self) -> Option<Vec<ManagedFieldsEntry>> {
        let entry = |(label, time): (&String, &Timestamp)| ManagedFieldsEntry {
            manager: Some("operator".to_owned()),
            operation: Some("Update".to_owned()),
            api_version: Some("v1".to_owned()),
            fields_type: Some("FieldsV1".to_owned()),
            fields_v1: Some(FieldsV1(json!({"f:metadata": {"f:labels": {(format!("f:{label}")): {}}}}))),
            time: Some(Time(*time)),
            ..ManagedFieldsEntry::default()
        };
        (!self.label_times.is_empty()).then(|| self.label_times.iter().map(entry).collect())
    }

    fn system_info(&self, version: &str) -> NodeSystemInfo {
        NodeSystemInfo {
            architecture: "amd64".to_owned(),
            operating_system: "linux".to_owned(),
            os_image: self.os_image.clone().unwrap_or_else(|| "Ubuntu 24.04.3 LTS".to_owned()),
            kernel_version: self.facts.report().kernel.clone().unwrap_or_else(|| "6.8.0-79-generic".to_owned()),
            kubelet_version: version.to_owned(),
            container_runtime_version: "containerd://2.1.4".to_owned(),
            ..NodeSystemInfo::default()
        }
    }
}

/// Returns the address of the node at this position in the fixture.
fn address(index: usize) -> String {
    format!("10.{}.{}.{}", index / 62_500, index / 250 % 250, index % 250 + 1)
}
