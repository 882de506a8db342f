//! `read`: lists the objects of a cluster that answers need, for an archive.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::client::connection::Connection;
use crate::objects::slim_objects::slim;
use crate::reads::node_lifecycle::{Found, list};

/// Maximum number of pages of a list, with 500 objects each.
const MAX_PAGES: usize = 400;

/// The kinds, each with its paths. Of several versions, the first one that the cluster serves is read.
const KINDS: [(&str, &[&str]); 9] = [
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
];

/// Objects by kind, and the kinds that could not be listed, with the reason.
#[derive(Debug, Default)]
pub struct SavedObjects {
    pub lists: BTreeMap<&'static str, Vec<Value>>,
    pub unread: BTreeMap<&'static str, String>,
}

/// Lists the objects. With `nodes`, only those of these nodes, and the pods that have no node.
pub async fn read(connection: &Connection, nodes: Option<&BTreeSet<String>>) -> SavedObjects {
    let is_wanted = |kind: &str, object: &Value| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let Some(nodes) = nodes else { return true };
        match kind {
            "nodes" | "leases" => nodes.contains(&text(&object["metadata"]["name"])),
            "pods" => {
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
        saved.keep_events_of_others();
    }
    saved
}

impl SavedObjects {
    /// Removes the events about nodes and pods that are not in the lists.
    fn keep_events_of_others(&mut self) {
        let names = |kind: &str| -> BTreeSet<(String, String)> {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let objects = self.lists.get(kind).into_iter().flatten();
            objects.map(|one| (text(&one["metadata"]["namespace"]), text(&one["metadata"]["name"]))).collect()
        };
        let (nodes, pods) = (names("nodes"), names("pods"));
        if let Some(events) = self.lists.get_mut("events") {
            events.retain(|event| {
                let about = &event["involvedObject"];
                let text = |field: &str| about[field].as_str().unwrap_or_default().to_owned();
                match about["kind"].as_str() {
                    Some("Node") => nodes.contains(&(String::new(), text("name"))),
                    Some("Pod") => pods.contains(&(text("namespace"), text("name"))),
                    _ => true,
                }
            });
        }
    }
}
