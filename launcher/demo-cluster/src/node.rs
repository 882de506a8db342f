//! A node of a fixture: what a probe finds on it, and the API object that Kubernetes would show of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    ContainerImage, Node, NodeAddress, NodeCondition, NodeSpec, NodeStatus, NodeSystemInfo, Taint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use syringe_core::report::Report;

use super::{identity, operator};

/// A node, and what a probe finds on it.
#[derive(Clone, Debug)]
pub struct NodeFixture {
    /// The node's name.
    pub name: String,
    /// What a probe finds.
    pub facts: Arc<Report>,
    /// Labels beside the usual ones.
    pub labels: BTreeMap<String, String>,
    /// Taints.
    pub taints: Vec<Taint>,
    /// Conditions beside `Ready`, such as those of a node-problem-detector.
    pub conditions: Vec<NodeCondition>,
    /// Whether it is cordoned.
    pub unschedulable: bool,
    /// Capacity and allocatable by resource: `nvidia.com/gpu` → (8, 8).
    pub resources: BTreeMap<String, (u64, u64)>,
    /// Images that it has.
    pub images: Vec<String>,
    /// Images that it cannot pull.
    pub unpullable_images: Vec<String>,
    /// Files of its `/var/log`, which its kubelet serves: `kern.log` → text.
    pub log_files: BTreeMap<String, String>,
}

impl NodeFixture {
    /// A node as Kubernetes would show it if its facts were true: with the labels of GPU feature discovery, and with the
    /// resources of the device plugin. A GPU that NVML does not list counts as capacity, but not as allocatable.
    pub fn from_facts(name: &str, facts: Report) -> Self {
        let (labels, resources) = (operator::labels(&facts), operator::resources(&facts));
        Self { labels, resources, ..Self::new(name, facts) }
    }

    /// A node with these facts and nothing of Kubernetes beyond the usual.
    pub fn new(name: &str, facts: Report) -> Self {
        Self {
            name: name.to_owned(),
            facts: Arc::new(facts),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            conditions: Vec::new(),
            unschedulable: false,
            resources: BTreeMap::new(),
            images: Vec::new(),
            unpullable_images: Vec::new(),
            log_files: BTreeMap::new(),
        }
    }

    /// With a label.
    #[must_use]
    pub fn with_label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// With a resource of which all is allocatable.
    #[must_use]
    pub fn with_resource(mut self, resource: &str, count: u64) -> Self {
        self.resources.insert(resource.to_owned(), (count, count));
        self
    }

    /// With a taint.
    #[must_use]
    pub fn with_taint(mut self, key: &str, effect: &str) -> Self {
        self.taints.push(Taint { key: key.to_owned(), effect: effect.to_owned(), ..Taint::default() });
        self
    }

    /// With an image that cannot be pulled.
    #[must_use]
    pub fn with_unpullable_image(mut self, image: &str) -> Self {
        self.unpullable_images.push(image.to_owned());
        self
    }

    /// The API object. `place` is the node's place in the fixture: its addresses are made of it.
    pub(super) fn object(&self, place: usize, version: &str) -> Node {
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
        let mut conditions = vec![ready(true)];
        conditions.extend(self.conditions.clone());
        let image = |name: &String| ContainerImage { names: Some(vec![name.clone()]), size_bytes: Some(12_000_000) };
        Node {
            metadata: ObjectMeta { name: Some(self.name.clone()), labels: Some(all), ..ObjectMeta::default() },
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
                    NodeAddress { type_: "InternalIP".to_owned(), address: address(place) },
                    NodeAddress { type_: "Hostname".to_owned(), address: self.name.clone() },
                ]),
                node_info: Some(self.system_info(version)),
                images: (!self.images.is_empty()).then(|| self.images.iter().map(image).collect()),
                ..NodeStatus::default()
            }),
        }
    }

    fn system_info(&self, version: &str) -> NodeSystemInfo {
        NodeSystemInfo {
            architecture: "amd64".to_owned(),
            operating_system: "linux".to_owned(),
            os_image: "Ubuntu 24.04.3 LTS".to_owned(),
            kernel_version: self.facts.kernel.clone().unwrap_or_else(|| "6.8.0-79-generic".to_owned()),
            kubelet_version: version.to_owned(),
            container_runtime_version: "containerd://2.1.4".to_owned(),
            ..NodeSystemInfo::default()
        }
    }
}

/// The address of the node at this place of the fixture.
fn address(place: usize) -> String {
    format!("10.{}.{}.{}", place / 62_500, place / 250 % 250, place % 250 + 1)
}

/// The `Ready` condition of a node whose kubelet reports, or no longer does.
pub(super) fn ready(reports: bool) -> NodeCondition {
    let (status, reason, message) = if reports {
        ("True", "KubeletReady", "kubelet is posting ready status")
    } else {
        ("Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.")
    };
    let now = Some(Time(identity::now()));
    NodeCondition {
        type_: "Ready".to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: now.clone(),
        last_transition_time: now,
    }
}
