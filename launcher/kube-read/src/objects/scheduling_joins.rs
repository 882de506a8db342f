//! `gpu_holders`, `bound_devices`, `half_requests`: find pods that hold the GPUs, GPUs that an annotation names, and
//! incomplete requests that explain why a pod is Pending or was rejected.
//!
//! Each function matches objects by identity: the owners of two pods, a UUID in an annotation of the pod and of a node,
//! or a requested resource and the resource that it needs.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use syringe_core::facts::kubernetes::pod::{BoundDevice, GpuHolder, HolderRelation};

use crate::objects::api_objects::meta::Time;
use crate::objects::api_objects::pod_requests::Identity;
use crate::objects::gpu_resource_names::is_gpu_resource;
use crate::objects::pod_requests::{self, MilliValues, NodeRequests};
use crate::objects::scheduler_filters::Candidate;

/// Maximum number of pods or devices that are listed.
const MAX_HOLDERS: usize = 6;

/// Returns the pods that hold GPUs and are being deleted, or belong to the same rollout or controller as the pod.
/// `held`: the requests of the pods of each GPU node.
pub fn gpu_holders(pod: &Pod, held: &HashMap<String, NodeRequests>, now: Timestamp) -> Vec<GpuHolder> {
    let mut found: Vec<GpuHolder> = Vec::new();
    let of_nodes = held.iter().flat_map(|(node, of_node)| of_node.by_pod.iter().map(move |one| (node, one)));
    for (node, (holder, requests)) in of_nodes {
        let Some((resource, amount)) = requests.iter().find(|(name, amount)| is_gpu_resource(name) && **amount > 0)
        else {
            continue;
        };
        let is_itself = holder.name == pod.name_any() && Some(&holder.namespace) == pod.namespace().as_ref();
        let relation = relation(pod, holder);
        let deleted = holder.deletion_timestamp.and_then(Time::timestamp);
        if is_itself || (relation.is_none() && deleted.is_none()) {
            continue;
        }
        found.push(GpuHolder {
            name: holder.full_name(),
            node: node.clone(),
            amount: pod_requests::quantity_text(resource, *amount),
            relation,
            deleted,
            is_overdue: deleted.is_some_and(|ends| ends < now),
            finalizers: holder.finalizers.clone(),
        });
    }
    // Pods that are being deleted come first, because their GPUs can be freed at once.
    found.sort_by(|one, other| {
        let key = |holder: &GpuHolder| (holder.deleted.is_none(), holder.relation.is_none(), holder.name.clone());
        key(one).cmp(&key(other))
    });
    found.truncate(MAX_HOLDERS);
    found
}

/// Returns how a pod that holds GPUs is related to the waiting pod.
fn relation(pod: &Pod, holder: &Identity) -> Option<HolderRelation> {
    if Some(&holder.namespace) != pod.namespace().as_ref() {
        return None;
    }
    let own = pod.owner_references().iter().find(|owner| owner.controller == Some(true))?;
    let other = holder.owner_references.iter().find(|owner| owner.controller == Some(true))?;
    if own.kind != other.kind {
        return None;
    }
    if own.name == other.name {
        return Some(HolderRelation::SameController(format!("{} {}", own.kind, own.name)));
    }
    // The name of a ReplicaSet is the name of its Deployment and a hash of the pod template.
    let deployment = |name: &str| name.rsplit_once('-').map(|(name, _)| name.to_owned());
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let earlier = holder.creation_timestamp.and_then(Time::timestamp).zip(created);
    let same =
        deployment(&own.name).filter(|name| own.kind == "ReplicaSet" && deployment(&other.name).as_ref() == Some(name));
    same.filter(|_| earlier.is_none_or(|(holder, own): (Timestamp, Timestamp)| holder <= own))
        .map(HolderRelation::EarlierOfRollout)
}

/// Returns the devices whose UUIDs are in annotations of the pod, each with the node that has the UUID in an
/// annotation.
pub fn bound_devices(pod: &Pod, nodes: &[Node], candidates: &[Candidate]) -> Vec<BoundDevice> {
    let mut found: Vec<BoundDevice> = Vec::new();
    for (annotation, value) in pod.annotations() {
        for uuid in uuids(value) {
            let has_it = |node: &&Node| node.annotations().values().any(|value| uuids(value).any(|one| one == uuid));
            let Some(node) = nodes.iter().find(has_it).map(ResourceExt::name_any) else { continue };
            let candidate = candidates.iter().find(|candidate| candidate.node == node);
            let reasons_against = candidate.map(|one| one.reasons_against.clone()).unwrap_or_default();
            let device = BoundDevice { annotation: annotation.clone(), uuid: uuid.to_owned(), node, reasons_against };
            if !found.contains(&device) {
                found.push(device);
            }
        }
    }
    found.truncate(MAX_HOLDERS);
    found
}

/// Minimum length of the UUID of a GPU, with its prefix.
const MIN_UUID: usize = 20;

/// Returns the UUIDs of GPUs and MIG devices in a text.
fn uuids(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|one: char| !(one.is_ascii_alphanumeric() || one == '-'));
    words.filter(|word| word.len() >= MIN_UUID && (word.starts_with("GPU-") || word.starts_with("MIG-")))
}

/// Resources that have no effect without another resource, each with the resource that it needs, from the documentation
/// of the plugins.
const NEEDS: [(&str, &str); 8] = [
    ("tencent.com/vcuda-core", "tencent.com/vcuda-memory"),
    ("tencent.com/vcuda-memory", "tencent.com/vcuda-core"),
    ("nvidia.com/gpumem", "nvidia.com/gpu"),
    ("nvidia.com/gpumem-percentage", "nvidia.com/gpu"),
    ("nvidia.com/gpucores", "nvidia.com/gpu"),
    ("volcano.sh/vgpu-memory", "volcano.sh/vgpu-number"),
    ("volcano.sh/vgpu-cores", "volcano.sh/vgpu-number"),
    ("volcano.sh/vgpu-memory-percentage", "volcano.sh/vgpu-number"),
];

/// Amount of `vcuda-core` for one whole GPU, in thousandths. A request for a whole GPU needs no memory resource.
const WHOLE_GPU: u128 = 100_000;

/// Returns the requested resources that lack a request for the resource that they need.
pub fn half_requests(wanted: &MilliValues) -> Vec<(String, String)> {
    let lacks = |(has, needs): &&(&str, &str)| {
        let is_whole = *has == "tencent.com/vcuda-core" && wanted.get(*has).is_some_and(|amount| *amount >= WHOLE_GPU);
        wanted.contains_key(*has) && !wanted.contains_key(*needs) && !is_whole
    };
    let found: BTreeSet<_> = NEEDS.iter().filter(lacks).collect();
    found.into_iter().map(|(has, needs)| ((*has).to_owned(), (*needs).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(kind: &str, owner: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "new-0", "namespace": "ml", "creationTimestamp": "2026-11-21T02:00:00Z",
            "annotations": {"nvidia.com/use-gpuuuid": "GPU-01cb95d8-2cc5-461d-abb2-3779f63b04a1"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": kind, "name": owner, "uid": "u", "controller": true}]}}))
        .expect("a pod")
    }

    fn holder(kind: &str, owner: &str, more: Value) -> HashMap<String, NodeRequests> {
        let mut metadata = json!({"name": "old-0", "namespace": "ml", "creationTimestamp": "2026-11-20T02:00:00Z",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": kind, "name": owner, "controller": true}]});
        metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let identity: Identity = serde_json::from_value(metadata).expect("metadata");
        let asks = MilliValues::from([("nvidia.com/gpu".to_owned(), 1000)]);
        let requests = NodeRequests { total: asks.clone(), by_pod: vec![(identity, asks)] };
        HashMap::from([("gpu-1".to_owned(), requests)])
    }

    fn now() -> Timestamp {
        "2026-11-21T02:40:00Z".parse().expect("a time")
    }

    #[test]
    fn the_holder_is_named_with_its_relation() {
        let relation = |own: (&str, &str), other: (&str, &str), more: Value| {
            let found = gpu_holders(&pod(own.0, own.1), &holder(other.0, other.1, more), now());
            found.first().and_then(|holder| holder.relation.clone())
        };
        let rollout = relation(("ReplicaSet", "web-7f9"), ("ReplicaSet", "web-5d9"), json!({}));
        assert_eq!(rollout, Some(HolderRelation::EarlierOfRollout("web".into())));
        let same = relation(("Job", "train"), ("Job", "train"), json!({}));
        assert_eq!(same, Some(HolderRelation::SameController("Job train".into())));
        let later = json!({"creationTimestamp": "2026-11-22T02:00:00Z"});
        for (own, other, more) in [
            (("ReplicaSet", "web-7f9"), ("ReplicaSet", "web-5d9"), later),
            (("ReplicaSet", "web-7f9"), ("ReplicaSet", "webs-5d9"), json!({})),
            (("Job", "train-1"), ("Job", "train-2"), json!({})),
            (("ReplicaSet", "web-7f9"), ("ReplicaSet", "web-5d9"), json!({"namespace": "other"})),
        ] {
            assert_eq!(relation(own, other, more), None, "{own:?} {other:?}");
        }
        let stays = json!({"deletionTimestamp": "2026-11-21T01:05:00Z", "finalizers": ["x.example/kept"], "namespace": "other"});
        let found = gpu_holders(&pod("Job", "train"), &holder("Job", "scale", stays), now());
        assert_eq!(found.len(), 1);
        assert!(found[0].is_overdue && found[0].finalizers == ["x.example/kept"] && found[0].relation.is_none());
    }

    #[test]
    fn a_device_of_an_annotation_is_found_at_its_node() {
        let node = |name: &str, value: &str| -> Node {
            serde_json::from_value(
                json!({"metadata": {"name": name, "annotations": {"hami.io/node-nvidia-register": value}}}),
            )
            .expect("a node")
        };
        let uuid = "GPU-01cb95d8-2cc5-461d-abb2-3779f63b04a1";
        let nodes = [
            node("gpu-2", "GPU-11111111-2cc5-461d-abb2-3779f63b04a1,10,15360"),
            node("gpu-1", &format!("{uuid},10,15360,100")),
        ];
        let found = bound_devices(&pod("Job", "x"), &nodes, &[]);
        assert_eq!(
            found.iter().map(|one| (one.node.as_str(), one.uuid.as_str())).collect::<Vec<_>>(),
            [("gpu-1", uuid)]
        );
        assert!(bound_devices(&pod("Job", "x"), &nodes[..1], &[]).is_empty());
    }

    #[test]
    fn half_of_a_request_is_found() {
        let found = |wanted: &[(&str, u128)]| {
            half_requests(&wanted.iter().map(|(name, amount)| ((*name).to_owned(), amount * 1000)).collect()).len()
        };
        assert_eq!(found(&[("tencent.com/vcuda-core", 50)]), 1);
        assert_eq!(found(&[("tencent.com/vcuda-core", 200)]), 0);
        assert_eq!(found(&[("tencent.com/vcuda-core", 50), ("tencent.com/vcuda-memory", 8)]), 0);
        assert_eq!(found(&[("nvidia.com/gpumem", 3000)]), 1);
        assert_eq!(found(&[("nvidia.com/gpu", 1), ("cpu", 4)]), 0);
    }
}
