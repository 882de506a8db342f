//! The types of the `kubelet` section: devices that the kubelet allocated to containers, and registered devices.
//!
//! Labels and annotations of pods do not contain this information.
//!
//! Sources: the checkpoint of the device manager (`/var/lib/kubelet/device-plugins/kubelet_internal_checkpoint`), the
//! state of resource claims (`dra_manager_state`), and, if the checkpoint cannot be read, the pod-resources API of the
//! kubelet.

use syringe_macros::facts;

/// Device allocations of the kubelet.
#[facts]
pub struct Kubelet {
    /// Source of the allocations: `checkpoint`, `pod_resources`, or `claims` if both could not be read.
    pub source: String,
    /// Devices that are allocated to containers.
    pub allocations: Vec<Allocation>,
    /// Devices that device plugins registered, by resource.
    pub registered: Vec<RegisteredDevices>,
}

/// Devices of one resource that are allocated to one container.
#[facts(omit(Option))]
pub struct Allocation {
    /// Pod UID. Empty if the source identifies the pod by name only and the UID was not found.
    pub pod_uid: String,
    /// Namespace, if the source contains it (`pod_resources`, claims).
    pub namespace: Option<String>,
    /// Pod name, if the source contains it (`pod_resources`).
    pub pod: Option<String>,
    /// Container name. Empty for a resource claim, which belongs to the pod.
    pub container: String,
    /// Resource name, e.g. `nvidia.com/gpu`, `nvidia.com/mig-1g.10gb`. For a claim, the driver name (`gpu.nvidia.com`).
    pub resource: String,
    /// Resource claim (dynamic resource allocation) of the devices.
    pub claim: Option<String>,
    /// GPU or MIG UUIDs. A time-sliced replica has the UUID of its GPU; `replicas` counts the replicas. For a claim, the
    /// device names of the DRA driver (`gpu-3`).
    pub devices: Vec<String>,
    /// Number of time-sliced or MPS replicas, if the devices are shared.
    pub replicas: Option<u32>,
}

impl Allocation {
    /// Returns whether the devices are allocated to this pod: by UID, or by name if the UID is unknown.
    pub fn is_of(&self, uid: &str, namespace: &str, name: &str) -> bool {
        match self.pod_uid.as_str() {
            "" => self.namespace.as_deref() == Some(namespace) && self.pod.as_deref() == Some(name),
            own => own == uid,
        }
    }

    /// Returns `NAMESPACE/NAME` of the pod if the names are known, otherwise its UID.
    pub fn holder(&self) -> String {
        match (&self.namespace, &self.pod) {
            (Some(namespace), Some(pod)) => format!("{namespace}/{pod}"),
            _ => self.pod_uid.clone(),
        }
    }
}

/// Devices of one resource that a device plugin registered.
#[facts]
pub struct RegisteredDevices {
    /// Resource name.
    pub resource: String,
    /// GPU or MIG UUIDs, without duplicates: the replicas of a shared device count as one device.
    pub devices: Vec<String>,
}

/// Resources of whole GPUs, and of their shares if the device plugin gives the shares a name of their own.
const WHOLE_GPUS: [&str; 2] = ["nvidia.com/gpu", "nvidia.com/gpu.shared"];

impl RegisteredDevices {
    /// Returns whether the devices are whole GPUs or their shares, and not MIG devices or devices of another kind.
    pub fn are_whole_gpus(&self) -> bool {
        WHOLE_GPUS.contains(&self.resource.as_str())
    }
}
