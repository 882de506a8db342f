//! `facts`: creates the facts about a ComputeDomain of NVIDIA's DRA driver. `LABEL`: its label on nodes.
//! `is_of_node`: whether an object is the ComputeDomain of a node.

use serde_json::Value;
use syringe_core::facts::kubernetes::compute_domain::{ComputeDomain, DomainNode};
use syringe_core::text::clean;

/// The label by which the DRA driver assigns a node to a ComputeDomain. The value is the UID of the domain.
pub const LABEL: &str = "resource.nvidia.com/computeDomain";
/// Maximum length of a name.
const MAX_NAME: usize = 253;
/// Maximum number of nodes. The largest NVLink domains have fewer nodes.
const MAX_NODES: usize = 512;

/// Returns whether the object is the domain with this UID. In an archive with pseudonyms, the label may contain another
/// UID than the object, but the name of the node is the same in both.
pub fn is_of_node(object: &Value, uid: &str, node: &str) -> bool {
    object["metadata"]["uid"] == uid || entries(object).any(|entry| entry["name"] == node)
}

/// Returns the facts of a ComputeDomain.
pub fn facts(object: &Value) -> ComputeDomain {
    let text = |value: &Value| clean(value.as_str().unwrap_or_default(), MAX_NAME);
    let node = |entry: &Value| DomainNode {
        name: text(&entry["name"]),
        ready: entry["status"].as_str().filter(|status| !status.is_empty()).map(|status| status == "Ready"),
        clique: text(&entry["cliqueID"]),
    };
    ComputeDomain {
        namespace: text(&object["metadata"]["namespace"]),
        name: text(&object["metadata"]["name"]),
        status: object["status"]["status"].as_str().filter(|status| !status.is_empty()).map(|status| clean(status, 20)),
        expected_nodes: object["spec"]["numNodes"].as_u64().and_then(|count| count.try_into().ok()).unwrap_or(0),
        created: object["metadata"]["creationTimestamp"].as_str().and_then(|text| text.parse().ok()),
        nodes: entries(object).take(MAX_NODES).map(node).collect(),
    }
}

fn entries(object: &Value) -> impl Iterator<Item = &Value> {
    object["status"]["nodes"].as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_domain_of_any_version_of_the_driver_is_read() {
        let object = json!({
            "metadata": {"name": "cd", "namespace": "ml", "uid": "u", "creationTimestamp": "2026-11-21T01:00:00Z"},
            "spec": {"numNodes": 2},
            "status": {"status": "NotReady", "nodes": [
                {"name": "a", "cliqueID": "c.1", "status": "Ready"}, {"name": "b", "cliqueID": "", "status": "NotReady"}, {"name": "c"},
            ]},
        });
        let domain = facts(&object);
        assert_eq!(
            (domain.status.as_deref(), domain.expected_nodes, domain.created.is_some()),
            (Some("NotReady"), 2, true)
        );
        let ready: Vec<_> = domain.nodes.iter().map(|node| (node.name.as_str(), node.ready)).collect();
        assert_eq!(ready, [("a", Some(true)), ("b", Some(false)), ("c", None)]);
        assert!(
            is_of_node(&object, "u", "x") && is_of_node(&object, "other", "a") && !is_of_node(&object, "other", "x")
        );
        for strange in
            [json!({}), json!({"status": 1, "spec": {"numNodes": -1}}), json!({"status": {"nodes": [1, null]}})]
        {
            let domain = facts(&strange);
            assert_eq!((domain.status, domain.expected_nodes), (None, 0));
        }
    }
}
