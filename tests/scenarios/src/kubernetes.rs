//! What the Kubernetes API says about a node. The type (`KubernetesFacts`) belongs to the diagnosis, so it is JSON here. A
//! test of the diagnosis checks the names of the fields.

use serde_json::{Map, Value, json};

use crate::identity::ago;
use crate::identity::days;

/// The facts about one node.
#[derive(Clone, Debug)]
pub(crate) struct Cluster(Map<String, Value>);

/// A node that was read in the API.
pub(crate) fn cluster(node: &str) -> Cluster {
    Cluster(Map::new()).with("node", node)
}

impl Cluster {
    pub(crate) fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.0.insert(field.to_owned(), value.into());
        self
    }

    /// All GPUs in the capacity are allocatable.
    pub(crate) fn gpus(self, count: u32) -> Self {
        self.with("gpu_capacity", count).with("gpu_allocatable", count)
    }

    /// Some pods on the node use a RuntimeClass.
    pub(crate) fn runtime_class<const N: usize>(self, name: &str, pods: [&str; N]) -> Self {
        self.with("runtime_classes", json!([{ "name": name, "pods": pods.to_vec() }]))
    }
}

impl From<Cluster> for Value {
    fn from(cluster: Cluster) -> Self {
        Self::Object(cluster.0)
    }
}

/// Adds fields to a JSON object, or replaces them.
pub(crate) fn with(mut object: Value, fields: Value) -> Value {
    if let (Some(object), Value::Object(fields)) = (object.as_object_mut(), fields) {
        object.extend(fields);
    }
    object
}

/// A running pod of NVIDIA's stack with one container, which has run for nine days.
pub(crate) fn nvidia_pod(namespace: &str, name: &str, component: &str, container: &str) -> Value {
    json!({
        "namespace": namespace,
        "name": name,
        "component": component,
        "phase": "Running",
        "ready": true,
        "containers": [nvidia_container(container, days(9))],
    })
}

/// A container of such a pod that has run for so long.
pub(crate) fn nvidia_container(name: &str, age: jiff::SignedDuration) -> Value {
    json!({ "name": name, "ready": true, "state": { "kind": "running", "since": ago(age).to_string() } })
}
