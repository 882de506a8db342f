//! `ScheduledPod`: a pod that is assigned to a node. Its kubelet updates the status and records events.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Event, EventSource, Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use crate::cluster_state::ClusterState;
use crate::collection::{Key, key_of};
use crate::generated_metadata;
use crate::node_object;

/// A pod that is assigned to a node: name, UID and node.
#[derive(Clone)]
pub(super) struct ScheduledPod {
    pub(super) key: Key,
    pub(super) uid: String,
    pub(super) node: String,
}

impl ScheduledPod {
    /// Returns `None` for a pod that no kubelet runs, because it has no node or its node does not exist.
    pub(super) fn of(state: &ClusterState, pod: &Pod) -> Option<Self> {
        let node = pod.spec.as_ref()?.node_name.clone()?;
        state.host(&node)?;
        Some(Self { key: key_of(pod), uid: pod.metadata.uid.clone()?, node })
    }

    /// Returns the pod, unless it was removed or replaced by a pod with the same name.
    pub(super) fn pod(&self, state: &ClusterState) -> Option<Arc<Pod>> {
        state.get::<Pod>(&self.key).filter(|pod| pod.metadata.uid.as_ref() == Some(&self.uid))
    }

    /// Changes the status of the pod, if it still exists.
    pub(super) fn update(&self, state: &ClusterState, edit: impl FnOnce(&mut Pod)) {
        state.store(|store| {
            let same = |pod: &&Arc<Pod>| pod.metadata.uid.as_ref() == Some(&self.uid);
            if store.pods.get(&self.key).filter(same).is_some() {
                store.edit(&self.key, edit);
            }
        });
    }

    /// Records an event about the pod.
    pub(super) fn record_event(&self, state: &ClusterState, kind: &str, reason: &str, message: String) {
        let now = Time(state.now());
        let text = |text: &str| Some(text.to_owned());
        state.store(|store| {
            let name = format!("{}.{}", self.key.1, generated_metadata::suffix(store.next_number()));
            store.put(Event {
                metadata: ObjectMeta { name: Some(name), namespace: Some(self.key.0.clone()), ..ObjectMeta::default() },
                involved_object: ObjectReference {
                    kind: text("Pod"),
                    api_version: text("v1"),
                    namespace: Some(self.key.0.clone()),
                    name: Some(self.key.1.clone()),
                    uid: Some(self.uid.clone()),
                    ..ObjectReference::default()
                },
                type_: text(kind),
                reason: text(reason),
                message: Some(message),
                count: Some(1),
                first_timestamp: Some(now.clone()),
                last_timestamp: Some(now.clone()),
                source: Some(EventSource { component: text("kubelet"), host: Some(self.node.clone()) }),
                reporting_component: text("kubelet"),
                reporting_instance: Some(self.node.clone()),
                ..Event::default()
            });
        });
    }

    /// Waits until the node is ready.
    pub(super) async fn until_node_ready(&self, state: &ClusterState) {
        let mut changed = state.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let node = state.get::<Node>(&(String::new(), self.node.clone()));
            if state.is_saved
                || node.is_some_and(|node| node_object::is_ready(&node))
                || changed.changed().await.is_err()
            {
                return;
            }
        }
    }
}
