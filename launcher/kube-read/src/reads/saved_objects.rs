//! `read`: lists the Kubernetes objects of a cluster that `gpu-syringe save` writes into an archive.
//! Data that no answer needs is left out.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::client::connection::Connection;
use crate::objects::slim_objects::slim;
use crate::reads::node_lifecycle::{Found, list};

/// Maximum number of pages of a list, with 500 objects each.
const MAX_PAGES: usize = 400;

/// The kinds, each with its paths. If a kind has several versions, the first version that the cluster serves is read.
const KINDS: [(&str, &[&str]); 10] = [
    ("nodes", &["/api/v1/nodes"]),
    ("pods", &["/api/v1/pods"]),
    ("events", &["/api/v1/events"]),
    ("daemonsets", &["/apis/apps/v1/daemonsets"]),
    ("leases", &["/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"]),
    ("nodeclaims", &["/apis/karpenter.sh/v1/nodeclaims"]),
    (
        "machines",
        &[
            "/apis/cluster.x-k8s.io/v1beta2/machines",
            "/apis/cluster.x-k8s.io/v1beta1/machines",
            "/apis/machine.openshift.io/v1beta1/machines",
        ],
    ),
    (
        "resourceclaims",
        &[
            "/apis/resource.k8s.io/v1/resourceclaims",
            "/apis/resource.k8s.io/v1beta2/resourceclaims",
            "/apis/resource.k8s.io/v1beta1/resourceclaims",
        ],
    ),
    (
        "resourceslices",
        &[
            "/apis/resource.k8s.io/v1/resourceslices",
            "/apis/resource.k8s.io/v1beta2/resourceslices",
            "/apis/resource.k8s.io/v1beta1/resourceslices",
        ],
    ),
    ("computedomains", &["/apis/resource.nvidia.com/v1beta1/computedomains"]),
];

/// Objects by kind, and the kinds that could not be listed, with the reason.
#[derive(Debug, Default)]
pub struct SavedObjects {
    pub lists: BTreeMap<&'static str, Vec<Value>>,
    pub unread: BTreeMap<&'static str, String>,
}

/// Lists the objects. With `nodes`, only the objects of these nodes, the pods without a node, and objects of the whole
/// cluster, such as DaemonSets.
pub async fn read(connection: &Connection, nodes: Option<&BTreeSet<String>>) -> SavedObjects {
    let is_wanted = |kind: &str, object: &Value| {
        let Some(nodes) = nodes else { return true };
        match kind {
            "nodes" | "leases" => nodes.contains(&text(&object["metadata"]["name"])),
            "pods" => {
                let node = text(&object["spec"]["nodeName"]);
                node.is_empty() || nodes.contains(&node)
            }
            // A slice without a node belongs to a pool that several nodes share.
            "resourceslices" => {
                let node = text(&object["spec"]["nodeName"]);
                node.is_empty() || nodes.contains(&node)
            }
            _ => true,
        }
    };
    let each = KINDS.map(|(kind, paths)| async move {
        for path in paths {
            match list(connection, path, |object| is_wanted(kind, object), MAX_PAGES).await {
                Found::Some(mut objects) => {
                    objects.iter_mut().for_each(|object| slim(kind, object));
                    return (kind, Some(Ok(objects)));
                }
                Found::NotRead(why) => return (kind, Some(Err(why))),
                Found::Absent => {}
            }
        }
        (kind, None)
    });
    let mut saved = SavedObjects::default();
    for (kind, listed) in futures_util::future::join_all(each).await {
        match listed {
            Some(Ok(objects)) => drop(saved.lists.insert(kind, objects)),
            Some(Err(why)) => drop(saved.unread.insert(kind, why)),
            None => {}
        }
    }
    if nodes.is_some() {
        saved.remove_claims_of_others();
        saved.remove_events_of_others();
    }
    saved
}

impl SavedObjects {
    /// Removes the claims that are reserved only for pods outside of the list.
    fn remove_claims_of_others(&mut self) {
        let pods = self.names("pods");
        if let Some(claims) = self.lists.get_mut("resourceclaims") {
            claims.retain(|claim| {
                let namespace = text(&claim["metadata"]["namespace"]);
                let reserved = claim["status"]["reservedFor"].as_array().map(Vec::as_slice).unwrap_or_default();
                let is_own = |consumer: &Value| pods.contains(&(namespace.clone(), text(&consumer["name"])));
                reserved.is_empty() || reserved.iter().any(is_own)
            });
        }
    }

    /// Removes the events about nodes, pods and claims that are not in the lists.
    fn remove_events_of_others(&mut self) {
        let lists = [("Node", "nodes"), ("Pod", "pods"), ("ResourceClaim", "resourceclaims")];
        let known = lists.map(|(kind, list)| (kind, self.names(list)));
        if let Some(events) = self.lists.get_mut("events") {
            events.retain(|event| {
                let about = &event["involvedObject"];
                let Some((kind, known)) = known.iter().find(|(kind, _)| about["kind"] == *kind) else { return true };
                let namespace = if *kind == "Node" { String::new() } else { text(&about["namespace"]) };
                known.contains(&(namespace, text(&about["name"])))
            });
        }
    }

    /// Returns the namespaces and names of the objects in a list.
    fn names(&self, kind: &str) -> BTreeSet<(String, String)> {
        let objects = self.lists.get(kind).into_iter().flatten();
        objects.map(|one| (text(&one["metadata"]["namespace"]), text(&one["metadata"]["name"]))).collect()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn with_names_of_nodes_claims_and_events_of_others_are_removed() {
        let named = |names: &[&str]| -> Vec<Value> {
            names.iter().map(|name| json!({"metadata": {"name": name, "namespace": "a"}})).collect()
        };
        let claim = |name: &str, pods: &[&str]| {
            let reserved: Vec<_> = pods.iter().map(|pod| json!({"resource": "pods", "name": pod})).collect();
            json!({"metadata": {"name": name, "namespace": "a"}, "status": {"reservedFor": reserved}})
        };
        let event = |kind: &str, name: &str| json!({"involvedObject": {"kind": kind, "name": name, "namespace": "a"}});
        let lists = [
            ("nodes", vec![json!({"metadata": {"name": "gpu-1"}})]),
            ("pods", named(&["mine"])),
            (
                "resourceclaims",
                vec![claim("own", &["mine", "other"]), claim("free", &[]), claim("foreign", &["other"])],
            ),
            (
                "events",
                vec![
                    event("Node", "gpu-1"),
                    event("Node", "gpu-2"),
                    event("Pod", "mine"),
                    event("Pod", "other"),
                    event("ResourceClaim", "foreign"),
                    event("DaemonSet", "plugin"),
                ],
            ),
        ];
        let mut saved = SavedObjects { lists: lists.into(), ..SavedObjects::default() };
        saved.remove_claims_of_others();
        saved.remove_events_of_others();
        assert_eq!(
            saved.names("resourceclaims").into_iter().map(|(_, name)| name).collect::<Vec<_>>(),
            ["free", "own"]
        );
        let about = |event: &Value| text(&event["involvedObject"]["name"]);
        assert_eq!(saved.lists["events"].iter().map(about).collect::<Vec<_>>(), ["gpu-1", "mine", "plugin"]);
    }
}
