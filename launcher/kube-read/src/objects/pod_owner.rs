//! `static_uid`: returns the kubelet's UID of a static pod. `Reference`: the trait of a reference to an owner.
//! `is_node_software`: whether a pod belongs to the software of the node.
//!
//! Any user who may create a pod can write annotations and owners into it. Therefore, the annotations of a static pod
//! count only in the form that a kubelet writes, and an owner counts only as the controller and with the right API
//! group.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::objects::api_objects::meta::Owner;

/// Annotation with the UID that a static pod has in the kubelet and in cgroups.
const STATIC_UID: &str = "kubernetes.io/config.hash";
/// Annotation of the mirror pod of a static pod, with the UID of the static pod in the kubelet.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Length of the UID of a static pod: an MD5. A UID of the API is longer and has dashes.
const STATIC_UID_LENGTH: usize = 32;

/// API group and kind of the controllers for software of the node. The last two belong to the GPU Operator.
const OF_THE_NODE: [(&str, &str); 4] =
    [("apps", "DaemonSet"), ("", "Node"), ("nvidia.com", "ClusterPolicy"), ("nvidia.com", "NVIDIADriver")];

/// Returns the UID that a static pod has in the kubelet and in cgroups; `None` for every other pod.
pub fn static_uid(annotations: &BTreeMap<String, String>) -> Option<&str> {
    let uid = annotations.get(STATIC_UID)?;
    let is_digest = uid.len() == STATIC_UID_LENGTH && uid.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_digest && annotations.get(MIRROR) == Some(uid)).then_some(uid)
}

/// A reference to an owner.
pub trait Reference {
    /// Returns API version, kind, and whether the owner is the controller.
    fn parts(&self) -> (&str, &str, bool);
}

impl Reference for Owner {
    fn parts(&self) -> (&str, &str, bool) {
        (&self.api_version, &self.kind, self.controller == Some(true))
    }
}

impl Reference for OwnerReference {
    fn parts(&self) -> (&str, &str, bool) {
        (&self.api_version, &self.kind, self.controller == Some(true))
    }
}

/// Returns whether the controller of a pod is a controller for software of the node.
pub fn is_node_software(owners: &[impl Reference]) -> bool {
    owners.iter().map(Reference::parts).any(|(version, kind, is_controller)| {
        let group = version.split_once('/').map_or("", |(group, _)| group);
        is_controller && OF_THE_NODE.contains(&(group, kind))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_annotations_of_a_kubelet_make_a_static_pod() {
        let hash = "5d1f".repeat(8);
        let api_uid = "0f8a7c2e-11aa-4bbb-8ccc-123456789abc";
        let cases = [
            (Some(hash.as_str()), Some(hash.as_str()), true),
            (Some(&hash), None, false),
            (Some(&hash), Some("x"), false),
            // This is the UID of another user's pod.
            (Some(api_uid), Some(api_uid), false),
            (Some("5d1f"), Some("5d1f"), false),
            (None, Some(&hash), false),
        ];
        for (uid, mirror, expected) in cases {
            let pairs = [(STATIC_UID, uid), (MIRROR, mirror)];
            let annotations = pairs.iter().filter_map(|(name, value)| Some(((*name).to_owned(), (*value)?.to_owned())));
            assert_eq!(static_uid(&annotations.collect()).is_some(), expected, "{pairs:?}");
        }
    }

    #[test]
    fn an_owner_counts_with_its_group_and_as_the_controller() {
        let owned = |version: &str, kind: &str, controller: Option<bool>| {
            let owner = Owner { kind: kind.into(), name: "x".into(), api_version: version.into(), controller };
            is_node_software(&[owner])
        };
        for (version, kind) in [
            ("apps/v1", "DaemonSet"),
            ("v1", "Node"),
            ("nvidia.com/v1", "ClusterPolicy"),
            ("nvidia.com/v1alpha1", "NVIDIADriver"),
        ] {
            assert!(owned(version, kind, Some(true)), "{version} {kind}");
            assert!(!owned(version, kind, None) && !owned(version, kind, Some(false)), "{version} {kind}");
            assert!(!owned("attacker.example/v1", kind, Some(true)), "{kind} of another group");
        }
        assert!(!owned("apps/v1", "ReplicaSet", Some(true)) && !owned("apps/v1", "Node", Some(true)));
    }
}
