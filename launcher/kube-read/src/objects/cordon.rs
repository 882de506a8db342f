//! `author`: finds the controller that has cordoned a node, if labels, annotations or taints of the node show it.
//! `notes`: the annotations in which people and scripts write why they cordoned it.

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use syringe_core::text::clean;

use crate::objects::platform_signals;

/// Labels and annotations that a controller sets while it keeps a node cordoned: the key, the value that means that the
/// controller has finished, and the controller.
const MARKS: [(&str, &str, &str); 5] = [
    ("nvidia.com/gpu-driver-upgrade-state", "upgrade-done", "the GPU Operator (upgrade of the driver)"),
    ("machineconfiguration.openshift.io/state", "Done", "the Machine Config Operator of OpenShift"),
    ("kured.dev/reboot-in-progress", "", "kured (reboot)"),
    ("weave.works/kured-reboot-in-progress", "", "kured (reboot)"),
    ("k8saas.nvidia.com/cordon-by", "", "NVSentinel (fault of the node)"),
];

/// Taints that an autoscaler sets on a node before it removes the node.
const REMOVES: [&str; 3] = ["ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted", "karpenter.sh/disruption"];

/// Returns the controller that keeps the node cordoned, with its label, annotation or taint:
/// `kured (reboot): kured.dev/reboot-in-progress`.
pub fn author(node: &Node) -> Option<String> {
    let value = |key: &str| node.labels().get(key).or_else(|| node.annotations().get(key));
    let mark = MARKS.iter().find_map(|(key, done, owner)| {
        let value = value(key).filter(|value| !value.is_empty() && value != done)?;
        Some(format!("{owner}: {key}={}", clean(value, 80)))
    });
    let taints = || node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let removes = || {
        let taint = taints().find(|taint| REMOVES.contains(&taint.key.as_str()))?;
        Some(format!("the autoscaler, which removes the node: taint {}", clean(&taint.key, 80)))
    };
    let repair = || platform_signals::running_repair(node).map(|repair| format!("{}: {}", repair.owner, repair.signal));
    mark.or_else(removes).or_else(repair)
}

/// Words in the names of annotations in which people and scripts write why a node takes no pods.
const NOTES: [&str; 8] =
    ["cordon", "drain", "maintenance", "quarantine", "unschedulable", "ticket", "incident", "reason"];

/// Maximum number of notes.
const MAX_NOTES: usize = 4;

/// Returns whether an annotation can be a note about a cordon.
pub fn is_note(name: &str, value: &str) -> bool {
    let name = name.to_ascii_lowercase();
    (1..240).contains(&value.len()) && NOTES.iter().any(|word| name.contains(word))
}

/// Returns whether a controller marks a cordoned node with this label or annotation.
pub fn is_mark(name: &str) -> bool {
    MARKS.iter().any(|(key, ..)| *key == name)
}

/// Returns the annotations of a cordoned node that can say why it is cordoned, as `key=value`.
pub fn notes(node: &Node) -> Vec<String> {
    if !node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or_default() {
        return Vec::new();
    }
    let all = node.annotations().iter();
    let notes = all.filter(|(name, value)| is_note(name, value) && !platform_signals::is_known_state(name));
    notes.map(|(name, value)| clean(&format!("{name}={value}"), 320)).take(MAX_NOTES).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_controller_that_has_not_finished_is_the_author() {
        let author = |metadata: Value, spec: Value| {
            author(&serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a node"))
        };
        let upgrade = |state: &str| json!({"labels": {"nvidia.com/gpu-driver-upgrade-state": state}});
        assert!(author(upgrade("cordon-required"), json!({})).is_some_and(|author| author.contains("GPU Operator")));
        assert!(author(upgrade("upgrade-done"), json!({})).is_none());
        let config = |state: &str| json!({"annotations": {"machineconfiguration.openshift.io/state": state}});
        assert!(author(config("Working"), json!({})).is_some() && author(config("Done"), json!({})).is_none());
        let taints = json!({"taints": [{"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}]});
        assert!(author(json!({}), taints).is_some_and(|author| author.contains("autoscaler")));
        assert!(author(json!({}), json!({"unschedulable": true})).is_none());
    }

    #[test]
    fn only_a_cordoned_node_has_notes_about_its_cordon() {
        let notes = |cordoned: bool| {
            let annotations = json!({"ops.example.com/cordon-reason": "RMA of GPU 3, ticket 17", "other": "x"});
            let node = json!({"metadata": {"annotations": annotations}, "spec": {"unschedulable": cordoned}});
            notes(&serde_json::from_value(node).expect("a node"))
        };
        assert_eq!(notes(true), ["ops.example.com/cordon-reason=RMA of GPU 3, ticket 17"]);
        assert!(notes(false).is_empty());
    }
}
