//! `Pod` and its parts (`PodSpec`, `Container`, `Gpus`): a pod with only its data about GPUs, converted from the pod
//! that the API sends. Other annotations and environment variables are dropped, because they can be secret.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use syringe_core::facts::kubernetes::node::NvidiaPod;

use crate::objects::api_objects::meta::{Owner, Quantities, Time, given};
use crate::objects::api_objects::pod as sent;
use crate::objects::api_objects::pod::{Named, PodClaim};
use crate::objects::api_objects::pod_status::PodStatus;
use crate::objects::gpu_resource_names::{count, is_gpu_resource};
use crate::objects::pod_owner::static_uid;

/// A pod with its data about GPUs.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(test, derive(serde::Deserialize), serde(from = "sent::Pod"))]
pub struct Pod {
    pub metadata: PodMetadata,
    /// Specification of the pod.
    pub spec: PodSpec,
    /// Status of the pod.
    pub status: PodStatus,
    /// Data about the pod if it is a part of NVIDIA's stack.
    pub nvidia: Option<Box<NvidiaPod>>,
    /// The same data as in `nvidia`, if the pod belongs to a DaemonSet.
    pub daemon: Option<Box<NvidiaPod>>,
}

/// Identity of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodMetadata {
    pub name: String,
    pub namespace: String,
    /// UID in the API.
    pub uid: String,
    /// Whether the pod is being deleted. A pod holds its devices until it no longer exists.
    pub is_deleting: bool,
    /// End of the grace period of a pod that is being deleted.
    pub deletion_due: Option<Timestamp>,
    /// The annotations about GPUs.
    pub annotations: Annotations,
    /// Time of creation.
    pub created: Option<Timestamp>,
    pub owner_references: Vec<Owner>,
}

/// The annotations of a pod that are about GPUs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Annotations {
    /// GPU and MIG UUIDs that HAMi, Volcano or another scheduler wrote.
    pub uuids: Vec<String>,
    /// UID of a static pod in the kubelet and in cgroups. Its mirror pod in the API has another UID.
    pub static_uid: Option<String>,
}

/// Specification of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodSpec {
    /// Node of the pod.
    pub node_name: Option<String>,
    pub containers: Vec<Container>,
    /// Init containers and sidecars.
    pub init_containers: Vec<Container>,
    /// Claims of dynamic resource allocation.
    pub resource_claims: Vec<PodClaim>,
    /// RuntimeClass of the pod.
    pub runtime_class_name: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Container {
    pub name: String,
    /// `Always` on an init container makes it a sidecar.
    pub restart_policy: Option<String>,
    pub resources: Resources,
    /// Whether the container has all privileges and devices of the host.
    pub is_privileged: bool,
    /// Value of the variable `NVIDIA_VISIBLE_DEVICES`.
    pub visible_devices: Option<String>,
}

/// GPU resources of a container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    pub requests: Gpus,
    pub limits: Gpus,
    /// Names of the pod's claims that the container uses.
    pub claims: Vec<Named>,
}

/// Amounts of GPU resources by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Gpus(pub BTreeMap<String, u64>);

impl From<sent::Pod> for Pod {
    fn from(sent::Pod { metadata, spec, status }: sent::Pod) -> Self {
        let sent::PodMetadata { name, namespace, uid, annotations, owner_references, .. } = metadata;
        let containers = |all: Vec<sent::Container>| all.into_iter().map(Container::from).collect();
        Self {
            metadata: PodMetadata {
                name,
                namespace,
                uid,
                is_deleting: metadata.deletion_timestamp.is_some(),
                deletion_due: metadata.deletion_timestamp.and_then(Time::timestamp),
                annotations: Annotations::of(annotations),
                created: metadata.creation_timestamp.and_then(Time::timestamp),
                owner_references,
            },
            spec: PodSpec {
                node_name: given(spec.node_name),
                containers: containers(spec.containers),
                init_containers: containers(spec.init_containers),
                resource_claims: spec.resource_claims,
                runtime_class_name: given(spec.runtime_class_name),
            },
            status,
            nvidia: None,
            daemon: None,
        }
    }
}

impl From<sent::Container> for Container {
    fn from(container: sent::Container) -> Self {
        let sent::Container { name, env, resources, security_context, restart_policy, image: _ } = container;
        let visible_devices = env.into_iter().find(|variable| variable.name == "NVIDIA_VISIBLE_DEVICES");
        Self {
            name,
            restart_policy: given(restart_policy),
            resources: Resources {
                requests: Gpus::among(resources.requests),
                limits: Gpus::among(resources.limits),
                claims: resources.claims,
            },
            is_privileged: security_context.privileged,
            visible_devices: visible_devices.and_then(|variable| given(variable.value)),
        }
    }
}

impl Gpus {
    /// Returns the GPU resources in `quantities`.
    fn among(quantities: Quantities) -> Self {
        let gpus = quantities.into_iter().filter(|(name, _)| is_gpu_resource(name));
        Self(gpus.map(|(name, quantity)| (name, count(&quantity.text))).collect())
    }
}

impl Annotations {
    /// Keeps the UID of a static pod and the GPU UUIDs.
    fn of(annotations: BTreeMap<String, String>) -> Self {
        let mut kept = Self { static_uid: static_uid(&annotations).map(str::to_owned), ..Self::default() };
        // last-applied-configuration contains what a user requested, and not an allocation.
        for (_, text) in annotations.iter().filter(|(name, _)| !name.starts_with("kubectl.kubernetes.io/")) {
            uuids_in(text, &mut kept.uuids);
        }
        kept
    }
}

/// Adds each `GPU-…` and `MIG-…` UUID in `text` to `uuids`, without duplicates.
fn uuids_in(text: &str, uuids: &mut Vec<String>) {
    /// Length of a UUID: `8-4-4-4-12` hexadecimal digits.
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
                "kubernetes.io/config.hash": "5d1f".repeat(8), "kubernetes.io/config.mirror": "5d1f".repeat(8),
            }},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "2", "nvidia.com/gpu": "2"}}}]},
        }))
        .expect("a pod");
        assert_eq!(pod.metadata.annotations.uuids, [uuid]);
        assert_eq!(pod.metadata.annotations.static_uid, Some("5d1f".repeat(8)));
        assert_eq!(pod.spec.containers[0].resources.requests, Gpus([("nvidia.com/gpu".to_owned(), 2)].into()));
    }
}
