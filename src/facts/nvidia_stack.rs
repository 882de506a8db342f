//! `NvidiaStack`: NVIDIA's software for Kubernetes on a node: sockets, validation files, processes. `Inotify`: limits.

use jiff::Timestamp;
use syringe_macros::facts;

/// Facts about how the driver, the plugins and the kubelet are connected on the node.
#[facts(omit(Option, Vec))]
pub struct NvidiaStack {
    /// Start time of the kubelet process. In k3s, RKE2 and similar, the kubelet is part of another program.
    pub kubelet_started_at: Option<Timestamp>,
    /// Sockets of device plugins in the kubelet's `device-plugins` folder, without `kubelet.sock`. `None`: folder not found.
    pub plugin_sockets: Option<Vec<TimestampedFile>>,
    /// Sockets in the kubelet's folder for plugin registration: DRA drivers, storage. `None` if the folder was not found.
    pub registry_sockets: Option<Vec<TimestampedFile>>,
    /// Files that the validator of the GPU Operator writes (`/run/nvidia/validations`): `driver-ready`, `toolkit-ready`, …
    pub validations: Vec<TimestampedFile>,
    /// Processes with names of NVIDIA's software for Kubernetes. A name is not proof: `pod_uid` identifies the pod.
    pub processes: Vec<StackProcess>,
    /// Limits of inotify, and the number of instances in use.
    pub inotify: Option<Inotify>,
}

/// A file with the time of its last change.
#[facts(omit(Option))]
pub struct TimestampedFile {
    /// Name of the file in the folder.
    pub name: String,
    /// Time of the last change of the file. For a socket, the time of its creation.
    pub at: Option<Timestamp>,
}

/// One process of NVIDIA's software.
#[facts(omit(Option))]
pub struct StackProcess {
    /// Name of the process in the kernel (`comm`), at most 15 bytes, e.g. `nvidia-device-p`.
    pub name: String,
    /// Process id on the host.
    pub pid: u32,
    /// UID of the pod to which the process belongs; absent for a service of the node.
    pub pod_uid: Option<String>,
    /// Start time of the process.
    pub started_at: Option<Timestamp>,
}

/// Limits of `fs.inotify`. If no instance is free, device plugins fail with "too many open files".
#[facts(omit(instances_of_root))]
pub struct Inotify {
    /// `max_user_instances`.
    pub max_user_instances: Option<u64>,
    /// `max_user_watches`.
    pub max_user_watches: Option<u64>,
    /// Number of instances that processes of root hold. `None` if the instances were not counted because the socket of
    /// an NVIDIA plugin exists, or if not all processes could be read.
    pub instances_of_root: Option<u64>,
}
