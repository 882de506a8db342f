//! Nodes and pods with the fields that an answer needs, and no others: a list of 50,000 pods passes through memory
//! page by page, and of each pod a few hundred bytes stay while its page is read.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::{Node as FullNode, NodeCondition, NodeSpec, NodeStatus, Taint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use syringe_core::diagnosis::NvidiaPod;

use crate::kubernetes::model::gpu_resource_names::{count, is_gpu_resource};

/// Annotation with the UID by which the kubelet and cgroups know a static pod.
pub(crate) const STATIC_UID: &str = "kubernetes.io/config.hash";

/// A node without its images, addresses and managed fields, which are nine tenths of it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Node {
    metadata: NodeMetadata,
    spec: SlimNodeSpec,
    status: SlimNodeStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeMetadata {
    name: String,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SlimNodeSpec {
    taints: Option<Vec<Taint>>,
    unschedulable: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SlimNodeStatus {
    capacity: Option<BTreeMap<String, Quantity>>,
    allocatable: Option<BTreeMap<String, Quantity>>,
    conditions: Option<Vec<NodeCondition>>,
}

impl From<Node> for FullNode {
    fn from(node: Node) -> Self {
        let Node { metadata, spec, status } = node;
        Self {
            // All labels: those that --allow-nodes selects by may be any.
            metadata: ObjectMeta { name: Some(metadata.name), labels: metadata.labels, ..ObjectMeta::default() },
            spec: Some(NodeSpec { taints: spec.taints, unschedulable: spec.unschedulable, ..NodeSpec::default() }),
            status: Some(NodeStatus {
                capacity: status.capacity,
                allocatable: status.allocatable,
                conditions: status.conditions,
                ..NodeStatus::default()
            }),
        }
    }
}

/// A pod, as far as it holds GPUs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// Who it is.
    pub metadata: PodMetadata,
    /// What it asks for.
    pub spec: PodSpec,
    /// What became of it.
    pub status: PodStatus,
    /// The pod as a part of NVIDIA's stack, if it is one. Only lists of one node tell.
    #[serde(skip)]
    pub nvidia: Option<Box<NvidiaPod>>,
}

/// Identity of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodMetadata {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// UID: what kubelet and cgroups know it by.
    pub uid: String,
    /// Set while it is being deleted; it holds its devices until it is gone.
    pub deletion_timestamp: Option<String>,
    /// What its annotations say that matters here.
    pub annotations: Annotations,
    /// When it was created.
    pub creation_timestamp: Option<String>,
    /// What created it.
    pub owner_references: Vec<OwnerReference>,
}

/// What created a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct OwnerReference {
    /// `DaemonSet`, `ReplicaSet`, `Node` for the mirror of a static pod, …
    pub kind: String,
}

/// What matters of a pod's annotations.
#[derive(Clone, Debug, Default)]
pub struct Annotations {
    /// GPU and MIG UUIDs (HAMi, Volcano and others write them).
    pub uuids: Vec<String>,
    /// UID by which kubelet and cgroups know a static pod: the API has another one for its mirror.
    pub static_uid: Option<String>,
}

/// What a pod asks for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodSpec {
    /// Node that it is bound to; empty while it waits.
    pub node_name: String,
    /// Its containers.
    pub containers: Vec<Container>,
    /// Containers that run before them, and sidecars.
    pub init_containers: Vec<Container>,
    /// Claims of dynamic resource allocation.
    pub resource_claims: Vec<PodClaim>,
    /// RuntimeClass that it names.
    pub runtime_class_name: Option<String>,
}

/// One container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Container {
    /// Name.
    pub name: String,
    /// `Always` on an init container makes it a sidecar.
    pub restart_policy: Option<String>,
    /// Its GPU resources.
    pub resources: Resources,
    /// Whether it is privileged.
    pub security_context: SecurityContext,
    /// Value of NVIDIA_VISIBLE_DEVICES.
    #[serde(rename = "env")]
    pub visible_devices: VisibleDevices,
}

/// Rights of a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct SecurityContext {
    /// Whether it has all rights of the host, and all its devices.
    pub privileged: Option<bool>,
}

/// Value of the variable `NVIDIA_VISIBLE_DEVICES` of a container. Values of other variables can be secrets: none is kept.
#[derive(Clone, Debug, Default)]
pub struct VisibleDevices(pub Option<String>);

impl<'de> Deserialize<'de> for VisibleDevices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Variable {
            name: String,
            value: Option<String>,
        }
        let variables = Option::<Vec<Variable>>::deserialize(deserializer)?;
        let own = variables.into_iter().flatten().find(|variable| variable.name == "NVIDIA_VISIBLE_DEVICES");
        Ok(Self(own.and_then(|variable| variable.value)))
    }
}

/// GPU resources of a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Requests.
    pub requests: Gpus,
    /// Limits.
    pub limits: Gpus,
    /// Names of the pod's claims that it uses.
    pub claims: Vec<Named>,
}

/// Something with a name.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Named {
    /// The name.
    pub name: String,
}

/// A claim as the pod names it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodClaim {
    /// Name inside the pod.
    pub name: String,
    /// Name of the ResourceClaim, where the pod names it itself.
    pub resource_claim_name: Option<String>,
}

/// What became of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed`.
    pub phase: String,
    /// Why it is in it, in one word: `UnexpectedAdmissionError`, `Evicted`, …
    pub reason: String,
    /// The same in words.
    pub message: String,
    /// When the kubelet saw it first.
    pub start_time: Option<String>,
    /// ResourceClaims that were made for it, by the pod's name of them.
    pub resource_claim_statuses: Vec<PodClaim>,
    /// State of its containers.
    pub container_statuses: Vec<ContainerStatus>,
    /// State of its init containers.
    pub init_container_statuses: Vec<ContainerStatus>,
}

/// State of a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerStatus {
    /// Name.
    pub name: String,
    /// `containerd://…`.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// Devices that the kubelet gave it, with their health (KEP-4680; 1.31 on, behind a feature gate).
    pub allocated_resources_status: Vec<ResourceStatus>,
    /// What it does.
    pub state: ContainerState,
}

/// What a container does.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ContainerState {
    /// It runs.
    pub running: Option<Running>,
}

/// A container that runs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Running {
    /// Since when.
    pub started_at: Option<String>,
}

/// Devices of one resource.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ResourceStatus {
    /// Resource name, or `claim:NAME/REQUEST`.
    pub name: String,
    /// The devices.
    pub resources: Vec<ResourceHealth>,
}

/// Health of one device.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ResourceHealth {
    /// The device plugin's name of the device: a UUID.
    #[serde(rename = "resourceID")]
    pub resource_id: String,
    /// `Healthy`, `Unhealthy`, `Unknown`.
    pub health: String,
}

/// Amounts of GPU resources by name. Others are passed over while reading.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Gpus(pub BTreeMap<String, u64>);

impl<'de> Deserialize<'de> for Gpus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct GpusVisitor;
        impl<'de> Visitor<'de> for GpusVisitor {
            type Value = Gpus;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("quantities by resource name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Gpus, A::Error> {
                let mut gpus = BTreeMap::new();
                while let Some(name) = map.next_key::<Cow<'_, str>>()? {
                    if is_gpu_resource(&name) {
                        let Quantity(quantity) = map.next_value()?;
                        gpus.insert(name.into_owned(), count(&quantity));
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Gpus(gpus))
            }
        }
        deserializer.deserialize_map(GpusVisitor)
    }
}

/// Keeps the UID of a static pod and the GPU UUIDs; drops every other annotation.
impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnnotationsVisitor;
        impl<'de> Visitor<'de> for AnnotationsVisitor {
            type Value = Annotations;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("annotations")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Annotations, A::Error> {
                let mut kept = Annotations::default();
                while let Some((name, text)) = map.next_entry::<Cow<'_, str>, Cow<'_, str>>()? {
                    if name == STATIC_UID {
                        kept.static_uid = Some(text.into_owned());
                    } else if !name.starts_with("kubectl.kubernetes.io/") {
                        // last-applied-configuration is what a user requested, not an allocation.
                        uuids_in(&text, &mut kept.uuids);
                    }
                }
                Ok(kept)
            }
        }
        deserializer.deserialize_map(AnnotationsVisitor)
    }
}

/// Adds each `GPU-…` and `MIG-…` UUID in `text`, once.
fn uuids_in(text: &str, uuids: &mut Vec<String>) {
    /// `8-4-4-4-12` hexadecimal digits.
    const UUID_LENGTH: usize = 36;
    for (start, _) in text.match_indices("GPU-").chain(text.match_indices("MIG-")) {
        let Some(uuid) = text.get(start..start + 4 + UUID_LENGTH) else { continue };
        let shape = |(at, byte): (usize, u8)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        };
        if uuid.bytes().skip(4).enumerate().all(shape) && !uuids.iter().any(|known| known == uuid) {
            uuids.push(uuid.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Gpus, Pod};

    #[test]
    fn a_pod_keeps_its_gpus_and_the_uuids_of_its_annotations() {
        let uuid = "GPU-f632d18c-0e6a-418b-a0c2-b2d54a0e1ddd";
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "annotations": {
                "hami.io/vgpu-devices-allocated": format!("{uuid},NVIDIA,2000,30:;{uuid},NVIDIA,1,1:;"),
                "kubectl.kubernetes.io/last-applied-configuration": "GPU-00000000-0e6a-418b-a0c2-b2d54a0e1ddd",
                "note": "GPU-less MIG-rate",
                "kubernetes.io/config.hash": "5d1f",
            }},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "2", "nvidia.com/gpu": "2"}}}]},
        }))
        .expect("a pod");
        assert_eq!(pod.metadata.annotations.uuids, [uuid]);
        assert_eq!(pod.metadata.annotations.static_uid.as_deref(), Some("5d1f"));
        assert_eq!(pod.spec.containers[0].resources.requests, Gpus([("nvidia.com/gpu".to_owned(), 2)].into()));
    }
}
