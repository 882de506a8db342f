//! Traces of NVIDIA's software for Kubernetes on the node: sockets, registrations, validation files, processes.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Facts of the node about the links from the driver to the kubelet's capacity.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct NvidiaStack {
    /// When the kubelet's process started (of k3s, RKE2 and the like: the program that it is part of).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubelet_started_at: Option<Timestamp>,
    /// Sockets in the kubelet's folder of device plugins, without the kubelet's own. `None`: the folder was not found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin_sockets: Option<Vec<TimestampedFile>>,
    /// Sockets in the kubelet's folder of plugin registrations: DRA drivers, storage. `None`: the folder was not found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry_sockets: Option<Vec<TimestampedFile>>,
    /// Files that the validator of the GPU Operator writes (`/run/nvidia/validations`): `driver-ready`, `toolkit-ready`, …
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub validations: Vec<TimestampedFile>,
    /// Processes with the names of NVIDIA's software for Kubernetes. A name is no proof: `pod_uid` identifies the pod.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<StackProcess>,
    /// Limits of inotify, and their use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inotify: Option<Inotify>,
}

/// A file with the time of its last change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct TimestampedFile {
    /// Its name in the folder.
    pub name: String,
    /// When it was last changed; for a socket, when it was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

/// One process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct StackProcess {
    /// Its name in the kernel (`comm`), at most 15 bytes: `nvidia-device-p`.
    pub name: String,
    /// Process id on the host.
    pub pid: u32,
    /// Pod that it belongs to; absent for a service of the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// When it started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
}

/// Limits of `fs.inotify`. Without a free instance device plugins fail with "too many open files".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Inotify {
    /// `max_user_instances`.
    pub max_user_instances: Option<u64>,
    /// `max_user_watches`.
    pub max_user_watches: Option<u64>,
    /// Instances that processes of root hold. `None`: not counted (an NVIDIA plugin has its socket), or not all processes could
    /// be looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instances_of_root: Option<u64>,
}
