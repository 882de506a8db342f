//! `is_of_node`, `facts`: find the machine of a node (NodeClaim or Machine), and read its state.
//! A NodeClaim is an object of Karpenter. A Machine is an object of Cluster API or OpenShift.

use serde_json::Value;
use syringe_core::facts::kubernetes::lifecycle::{MachineFacts, NodeConditionFact};
use syringe_core::text::clean;

/// Maximum length of a name, and of a message.
const MAX_NAME: usize = 253;
const MAX_MESSAGE: usize = 600;
/// Maximum number of conditions.
const MAX_CONDITIONS: usize = 16;

/// Conditions that may have a status other than `True` on a machine without a fault.
const NORMALLY_FALSE: [&str; 11] = [
    "Consolidatable",
    "Drifted",
    "Empty",
    "Expired",
    "InstanceTerminating",
    "DisruptionReason",
    "Deleting",
    "Paused",
    "Remediating",
    "Updating",
    "OwnerRemediated",
];

/// Returns whether the object has this name, or is the machine of the node with this name or provider ID.
pub fn is_of_node(object: &Value, name: &str, provider_id: Option<&str>) -> bool {
    let is = |path: &str, wanted: &str| object.pointer(path).and_then(Value::as_str) == Some(wanted);
    let provider = |id| ["/spec/providerID", "/status/providerID"].iter().any(|path| is(path, id));
    is("/metadata/name", name)
        || is("/status/nodeName", name)
        || is("/status/nodeRef/name", name)
        || provider_id.is_some_and(provider)
}

/// Returns the state of a machine.
pub fn facts(object: &Value) -> MachineFacts {
    let text = |path: &str, most| object.pointer(path).and_then(Value::as_str).map(|text| clean(text, most));
    let named = |path: &str| text(path, MAX_NAME).filter(|name| !name.is_empty());
    let time = |path: &str| object.pointer(path).and_then(Value::as_str).and_then(|text| text.parse().ok());
    let is_node_claim = object["apiVersion"].as_str().is_some_and(|version| version.starts_with("karpenter"))
        || object["kind"] == "NodeClaim"
        || object.pointer("/spec/nodeClassRef").is_some();
    // These are the field names of Cluster API before v1beta2, and of OpenShift.
    let reason = text("/status/failureReason", 80).or_else(|| text("/status/errorReason", 80));
    let message = text("/status/failureMessage", MAX_MESSAGE).or_else(|| text("/status/errorMessage", MAX_MESSAGE));
    let failure: Vec<String> = [reason, message].into_iter().flatten().collect();
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let is_bad = |condition: &NodeConditionFact| {
        condition.status != "True" && !NORMALLY_FALSE.contains(&condition.name.as_str())
    };
    MachineFacts {
        kind: if is_node_claim { "NodeClaim" } else { "Machine" }.to_owned(),
        namespace: named("/metadata/namespace"),
        name: named("/metadata/name").unwrap_or_default(),
        node: named("/status/nodeName").or_else(|| named("/status/nodeRef/name")),
        phase: text("/status/phase", 40),
        failure: (!failure.is_empty()).then(|| failure.join(": ")),
        created: time("/metadata/creationTimestamp"),
        deleting: object.pointer("/metadata/deletionTimestamp").is_some_and(Value::is_string),
        conditions: conditions.into_iter().flatten().map(condition).filter(is_bad).take(MAX_CONDITIONS).collect(),
    }
}

fn condition(condition: &Value) -> NodeConditionFact {
    let text = |field: &str, most| clean(condition[field].as_str().unwrap_or_default(), most);
    NodeConditionFact {
        name: text("type", 80),
        status: text("status", 20),
        reason: text("reason", 80),
        message: text("message", MAX_MESSAGE),
        since: condition["lastTransitionTime"].as_str().and_then(|text| text.parse().ok()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_machine_is_found_by_its_name_its_node_and_its_provider_id() {
        let object =
            json!({"metadata": {"name": "claim-1"}, "status": {"nodeName": "gpu-1", "providerID": "aws:///i-1"}});
        assert!(is_of_node(&object, "claim-1", None) && is_of_node(&object, "gpu-1", None));
        assert!(is_of_node(&object, "other", Some("aws:///i-1")));
        assert!(!is_of_node(&object, "gpu-2", Some("aws:///i-2")) && !is_of_node(&json!({}), "gpu-2", None));
    }

    #[test]
    fn only_conditions_that_should_be_true_are_kept() {
        let condition =
            |name: &str, status: &str| json!({"type": name, "status": status, "reason": "R", "message": "M"});
        let all: Vec<_> =
            [("Launched", "True"), ("Registered", "False"), ("Ready", "Unknown"), ("Consolidatable", "False")]
                .map(|(name, status)| condition(name, status))
                .into();
        let facts = facts(&json!({"kind": "NodeClaim", "metadata": {"name": "c"}, "status": {"conditions": all}}));
        let names: Vec<_> = facts.conditions.iter().map(|one| one.name.as_str()).collect();
        assert_eq!((facts.kind.as_str(), names), ("NodeClaim", vec!["Registered", "Ready"]));
        let failed = json!({"metadata": {"name": "m"}, "status": {"nodeRef": {"name": "gpu-1"}, "phase": "Failed",
            "failureReason": "CreateError", "failureMessage": "no capacity"}});
        let facts = super::facts(&failed);
        assert_eq!(facts.failure.as_deref(), Some("CreateError: no capacity"));
        assert_eq!((facts.kind.as_str(), facts.node.as_deref()), ("Machine", Some("gpu-1")));
    }
}
