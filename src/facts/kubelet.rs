//! The `kubelet` section: which device the kubelet gave to which container, which no label or annotation carries.
//!
//! Sources: the device manager's checkpoint (`/var/lib/kubelet/device-plugins/kubelet_internal_checkpoint`), or the kubelet's
//! pod-resources API where that cannot be read, and the kubelet's state of resource claims (`dra_manager_state`).

use serde::{Deserialize, Serialize};

/// The kubelet's own account of device allocation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Kubelet {
    /// `checkpoint`, `pod_resources`, or `claims` where neither could be read.
    pub source: String,
    /// Devices held by containers.
    pub allocations: Vec<Allocation>,
    /// Devices that device plugins registered, per resource.
    pub registered: Vec<RegisteredDevices>,
}

/// Devices of one resource that one container holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Allocation {
    /// Pod UID. Empty where the source names the pod otherwise and its UID could not be found.
    pub pod_uid: String,
    /// Namespace, where the source tells (`pod_resources`, claims).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Pod name, where the source tells (`pod_resources`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Container name. Empty for a claim of dynamic resource allocation, which belongs to its pod.
    pub container: String,
    /// Resource name, e.g. `nvidia.com/gpu`, `nvidia.com/mig-1g.10gb`; for a claim its driver (`gpu.nvidia.com`).
    pub resource: String,
    /// Resource claim (dynamic resource allocation) through which the pod holds the devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// GPU or MIG UUIDs. A time-sliced replica is its GPU's UUID; `replicas` counts them. For a claim the driver's own names
    /// (`gpu-3`).
    pub devices: Vec<String>,
    /// Number of time-sliced or MPS replicas, where the devices are shared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
}

impl Allocation {
    /// Whether a pod is the holder: by its UID, or where that is not known by its names.
    pub fn is_of(&self, uid: &str, namespace: &str, name: &str) -> bool {
        match self.pod_uid.as_str() {
            "" => self.namespace.as_deref() == Some(namespace) && self.pod.as_deref() == Some(name),
            own => own == uid,
        }
    }

    /// What the holder is called: `NAMESPACE/NAME` where the names are known, else its UID.
    pub fn holder(&self) -> String {
        match (&self.namespace, &self.pod) {
            (Some(namespace), Some(pod)) => format!("{namespace}/{pod}"),
            _ => self.pod_uid.clone(),
        }
    }
}

/// Devices that a plugin registered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct RegisteredDevices {
    /// Resource name.
    pub resource: String,
    /// GPU or MIG UUIDs, each once: replicas of a shared device are that device.
    pub devices: Vec<String>,
}
