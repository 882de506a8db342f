//! `KubernetesFacts`: facts from the API about one node: GPU resources, labels, conditions, pods, NVIDIA's software.
//! Types of its fields: labels, DRA devices, `NvidiaPod` with its `Component`, pods that start, warnings of pods.
//! `KubernetesInput`, `UnreadInput`: an input from the API, and why it could not be read.
//!
//! The launcher reads these facts; scenarios contain them as JSON.
//!
//! A field of type `Option` is `None` if it was not read or the API denied the request. No conclusion is drawn from `None`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::facts::kubernetes::compute_domain::ComputeDomain;
use crate::facts::kubernetes::daemon_set::DaemonSetFacts;
use crate::facts::kubernetes::gpu_pod::GpuPod;
use crate::facts::kubernetes::lifecycle::{Decision, MachineFacts, NodeConditionFact};
use crate::facts::kubernetes::linked_pod::LinkedPod;

/// Facts about a node from the Kubernetes API.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KubernetesFacts {
    /// Name of the node.
    pub node: Option<String>,
    /// GPUs in the capacity of the node (`nvidia.com/gpu`), without replicas of time-slicing. `None` if the node was not
    /// read (no `node`), or if the capacity does not contain this resource.
    pub gpu_capacity: Option<u32>,
    /// GPUs in the allocatable resources of the node.
    pub gpu_allocatable: Option<u32>,
    /// GPUs that GPU Feature Discovery counted (`nvidia.com/gpu.count`).
    pub gpu_label_count: Option<u32>,
    /// Instance type of the machine, from the label of the cloud provider.
    pub instance_type: Option<String>,
    /// Whether the node advertises GPUs as other resources: MIG profiles, shared GPUs, renamed resources, or GPUs for
    /// virtual machines.
    pub other_gpu_resources: bool,
    /// These other resources with their capacity, if none of them is allocatable: `volcano.sh/vgpu-number: 40`.
    pub other_gpus_withheld: Vec<String>,
    /// Whether a DRA driver publishes GPUs of this node. `None` if this is not known.
    pub gpu_dra: Option<bool>,
    /// The devices that DRA drivers publish for GPUs of this node.
    pub dra_devices: Vec<DraDevice>,
    /// Whether any node of the cluster advertises NVIDIA GPUs or runs the NVIDIA device plugin. `None` if this is not known.
    pub gpu_plugin_in_cluster: Option<bool>,
    /// UIDs of the pods on the node, except Succeeded and Failed pods. `None` if they are not known.
    pub live_pod_uids: Option<Vec<String>>,
    /// Node conditions about GPUs that are not in the healthy state: `type: reason, message`.
    pub gpu_conditions: Vec<String>,
    /// Times at which these conditions last changed, by their type.
    pub gpu_conditions_since: BTreeMap<String, Timestamp>,

    /// Time at which the API was read. The ages of pods and labels are relative to this time.
    pub read_at: Option<Timestamp>,
    /// Whether the node is Ready.
    pub ready: Option<bool>,
    /// Time at which the node became Ready or not Ready (`lastTransitionTime` of the condition).
    pub ready_since: Option<Timestamp>,
    /// Operating system (`status.nodeInfo.osImage`).
    pub os_image: Option<String>,
    /// Container runtime (`status.nodeInfo.containerRuntimeVersion`), e.g. `containerd://2.1.4`.
    pub runtime_version: Option<String>,
    /// Labels on the node from NVIDIA's operators and from node feature discovery. They select the components on the node.
    pub labels: GpuLabels,
    /// Pods of NVIDIA's software on the node.
    pub nvidia_pods: Option<Vec<NvidiaPod>>,
    /// Whether another node has the label of node feature discovery for PCI devices of NVIDIA.
    pub pci_label_elsewhere: Option<bool>,
    /// The pods that may explain why the node offers no GPUs: device plugins, pods that they need, and the operator
    /// that creates them. Read only if no GPU is offered.
    pub linked_pods: Vec<LinkedPod>,
    /// RuntimeClasses that pods on the node use.
    pub runtime_classes: Option<Vec<RuntimeClassUse>>,

    /// Pods on the node with allocated resources, and pods that the kubelet rejected.
    pub gpu_pods: Option<Vec<GpuPod>>,

    /// Pods on the node that have not started any container yet, except pods of NVIDIA's software.
    pub starting_pods: Option<Vec<StartingPod>>,

    /// Pods on the node that request GPUs and failed, newest failure first, except pods of NVIDIA's software.
    pub failed_pods: Option<Vec<FailedPod>>,

    /// The DaemonSets of the cluster, in relation to this node. `None` if the DaemonSets or the
    /// pods on the node were not read.
    pub daemon_sets: Option<Vec<DaemonSetFacts>>,
    /// Why the DaemonSets could not be read. This alone does not change the verdict about the node.
    pub daemon_sets_unread: Option<String>,

    /// The ComputeDomain of the node. `None` if the node is not in a ComputeDomain.
    pub compute_domain: Option<ComputeDomain>,
    /// Why the ComputeDomain could not be read. This alone does not change the verdict about the node.
    pub compute_domain_unread: Option<String>,

    /// Conditions of the node that are not in their healthy state, except conditions about GPUs.
    pub conditions: Vec<NodeConditionFact>,
    /// Taints as `key=value:effect`.
    pub taints: Vec<String>,
    /// Labels and annotations of operators and monitors that report a problem or unfinished work, as `key=value`.
    pub states: Vec<String>,
    /// What platforms and repair systems have decided about the node, e.g. maintenance or repair.
    pub decisions: Vec<Decision>,
    /// Annotations of a cordoned node that can say why it is cordoned, as `key=value`.
    pub cordon_notes: Vec<String>,
    /// Time at which the Node object was created.
    pub created: Option<Timestamp>,
    /// Whether the Node object is being deleted.
    pub deleting: bool,
    /// Why no probe could run on the node. In this case, all facts about the node are from the API.
    pub no_probe: Option<String>,
    /// Time at which the kubelet last renewed the Lease of the node. Read only if no probe ran.
    pub lease_renewed: Option<Timestamp>,
    /// The NodeClaims and Machines of the node. Read only if no probe ran.
    pub machines: Vec<MachineFacts>,
    /// Warnings about the node, newest first; if no probe ran, also about its machine and the autoscaler.
    pub warnings: Vec<PodWarning>,
    /// Whether the cluster has no Node object with this name.
    pub no_node: bool,

    /// Inputs from the API that could not be read. The rules that need them do not run, so the node is not `healthy`.
    pub unread: Vec<UnreadInput>,
}

/// Taint of a cordoned node.
pub const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

impl KubernetesFacts {
    /// Returns whether the node was read from Kubernetes and advertises no GPUs: no whole GPUs, no other GPU resources, and
    /// no GPUs through dynamic resource allocation. A device plugin that never registered leaves no resource, so a
    /// missing resource counts as zero.
    pub fn advertises_no_gpus(&self) -> bool {
        let capacity = self.gpu_capacity.or_else(|| self.node.as_ref().map(|_| 0));
        capacity == Some(0) && !self.other_gpu_resources && self.gpu_dra != Some(true)
    }

    /// Returns whether the node is cordoned: it gets no new pods.
    pub fn is_cordoned(&self) -> bool {
        self.taints.iter().any(|taint| taint.starts_with(UNSCHEDULABLE))
    }

    /// Removes the facts that come from `input`, and records that they were not read.
    pub fn forget(&mut self, input: KubernetesInput, why: String) {
        match input {
            KubernetesInput::Pods => {
                (self.live_pod_uids, self.gpu_pods, self.nvidia_pods, self.runtime_classes) = (None, None, None, None);
                (self.starting_pods, self.failed_pods, self.daemon_sets) = (None, None, None);
                self.linked_pods.clear();
            }
            KubernetesInput::ResourceSlices => {
                self.gpu_dra = None;
                self.dra_devices.clear();
            }
            KubernetesInput::OtherNodes => (self.gpu_plugin_in_cluster, self.pci_label_elsewhere) = (None, None),
            KubernetesInput::PodEvents => {
                self.nvidia_pods.iter_mut().flatten().for_each(|pod| pod.warning = None);
                self.starting_pods.iter_mut().flatten().for_each(|pod| pod.warning = None);
            }
        }
        self.unread.push(UnreadInput { input, why });
    }
}

/// An input from the API that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreadInput {
    pub input: KubernetesInput,
    pub why: String,
}

/// Inputs from the API in addition to the node object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KubernetesInput {
    /// The pods on the node: `live_pod_uids`, `gpu_pods`, `nvidia_pods`, `runtime_classes`, `starting_pods`, `failed_pods`,
    /// `daemon_sets`.
    Pods,
    /// The ResourceSlices of the node: `gpu_dra`, `dra_devices`.
    ResourceSlices,
    /// The other nodes of the cluster, and the device plugin pods on them: `gpu_plugin_in_cluster`, `pci_label_elsewhere`.
    OtherNodes,
    /// The events of the first pod of NVIDIA's software that does not start, and of starting pods: `nvidia_pods[].warning`,
    /// `starting_pods[].warning`.
    PodEvents,
}

impl KubernetesInput {
    pub const ALL: [Self; 4] = [Self::Pods, Self::ResourceSlices, Self::OtherNodes, Self::PodEvents];

    /// Returns the name of the input for the field `section` of `unknown`.
    pub fn section(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::ResourceSlices => "dynamic resource allocation",
            Self::OtherNodes => "nodes",
            Self::PodEvents => "events",
        }
    }
}

/// A GPU or MIG device in a ResourceSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DraDevice {
    /// Name in the pool, e.g. `gpu-3`.
    pub name: String,
    /// `gpu`, `mig` or `vfio`, from the driver.
    pub kind: Option<String>,
    /// GPU or MIG UUID.
    pub uuid: Option<String>,
    /// Taints as `key=value:effect`. New pods do not get a tainted device.
    pub taints: Vec<String>,
}

/// Labels on the node that the GPU Operator, its components and node feature discovery write.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuLabels {
    /// `nvidia.com/gpu.deploy.*`, without that prefix: the components that the GPU Operator runs on the node (`true`,
    /// `false`, `paused-for-mig-change`, `paused-for-driver-upgrade`).
    pub deploy: BTreeMap<String, String>,
    /// `nvidia.com/mig.config`: the requested MIG layout.
    pub mig_config: Option<String>,
    /// `nvidia.com/mig.config.state`: `success`, `pending`, `rebooting`, `failed`.
    pub mig_config_state: Option<String>,
    /// `nvidia.com/gpu-driver-upgrade-state`.
    pub driver_upgrade_state: Option<String>,
    /// `nvidia.com/gpu.workload.config`: `container`, `vm-passthrough`, `vm-vgpu`.
    pub workload_config: Option<String>,
    /// Whether node feature discovery found a PCI device of NVIDIA on the node
    /// (`feature.node.kubernetes.io/pci-10de.present` and its variants with a device class).
    pub pci_present: bool,
    /// Whether the node has any label of node feature discovery.
    pub feature_discovery: bool,
    /// Release of the operating system according to node feature discovery (`system-os_release.OSTREE_VERSION`), which
    /// selects the image of the driver on OpenShift.
    pub os_release: Option<String>,
    /// Version of the kernel according to node feature discovery (`kernel-version.full`), which selects precompiled drivers.
    pub kernel: Option<String>,
    /// How the device plugin shares GPUs (`nvidia.com/gpu.sharing-strategy`): `none`, `time-slicing`, `mps`.
    pub sharing_strategy: Option<String>,
    /// Version of the driver that GKE installs (`cloud.google.com/gke-gpu-driver-version`); `disabled` if GKE installs
    /// no driver.
    pub gke_driver_version: Option<String>,
    /// For some labels of the node (by full name): the last time at which the writer of the label changed anything on
    /// the node (`managedFields`). The label has not changed since then.
    pub unchanged_since: BTreeMap<String, Timestamp>,
}

/// A component of NVIDIA's software on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Component {
    /// Installs and loads the driver.
    Driver,
    /// Configures the container runtime.
    ContainerToolkit,
    DevicePlugin,
    /// The kubelet plugin of NVIDIA's driver for dynamic resource allocation.
    DraDriver,
    /// The validator of the GPU Operator.
    Validator,
    FeatureDiscovery,
    /// Sets the MIG layout.
    MigManager,
    /// The device plugin for GPUs that are passed through to virtual machines.
    SandboxDevicePlugin,
    /// The manager of vGPU or vfio on the host.
    VgpuManager,
    /// DCGM and its exporter.
    Monitoring,
    /// Other software of NVIDIA.
    #[default]
    Other,
}

/// A pod of NVIDIA's software on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NvidiaPod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub component: Component,
    /// Name of the DaemonSet to which the pod belongs, or of another controller if there is no DaemonSet.
    pub owner: String,
    /// Phase of the pod: `Pending`, `Running`, `Succeeded`, `Failed`.
    pub phase: String,
    /// `status.reason`, e.g. `UnexpectedAdmissionError`, `Evicted`.
    pub reason: Option<String>,
    /// `status.message`.
    pub message: Option<String>,
    /// Creation time of the pod.
    pub created: Option<Timestamp>,
    /// Whether the pod is being deleted.
    pub deleting: bool,
    /// Time at which the pod should be gone (`deletionTimestamp`: the time of the request plus the grace period).
    pub deletion_due: Option<Timestamp>,
    /// `spec.runtimeClassName`.
    pub runtime_class: Option<String>,
    /// Whether the condition `Ready` of the pod is true.
    pub ready: bool,
    /// Time at which the condition `Ready` got its current status.
    pub ready_since: Option<Timestamp>,
    /// Init containers, then containers, in the order of the pod specification.
    pub containers: Vec<NvidiaContainer>,
    /// The newest warning event of the pod; only for a pod that is not ready.
    pub warning: Option<PodWarning>,
}

/// A container of a pod of NVIDIA's software.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NvidiaContainer {
    pub name: String,
    /// Whether the container is an init container.
    pub init: bool,
    /// Image in the pod specification.
    pub image: String,
    /// Variables of the container toolkit that name the container runtime to configure: `RUNTIME`, `CONTAINERD_SOCKET`, …
    pub runtime_settings: BTreeMap<String, String>,
    /// Whether the container is ready.
    pub ready: bool,
    pub restarts: u32,
    pub state: NvidiaContainerState,
    /// State of the container before the last restart.
    pub last: Option<NvidiaContainerState>,
}

/// The state of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NvidiaContainerState {
    pub kind: ContainerStateKind,
    /// Reason, e.g. `CrashLoopBackOff`, `ImagePullBackOff`, `Error`.
    pub reason: Option<String>,
    pub message: Option<String>,
    /// Exit code, if the container exited.
    pub exit_code: Option<i32>,
    /// Time at which the container started or exited.
    pub since: Option<Timestamp>,
}

/// Kind of a container state (the field `state`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerStateKind {
    /// Waiting to start.
    #[default]
    Waiting,
    Running,
    Terminated,
}

/// A warning event about a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodWarning {
    /// Reason, e.g. `FailedCreatePodSandBox`.
    pub reason: String,
    pub message: String,
    pub count: u32,
    /// Time of the last occurrence.
    pub last: Option<Timestamp>,
}

/// A pod on the node that has not started any container yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StartingPod {
    pub namespace: String,
    pub name: String,
    /// UID in the API.
    pub uid: String,
    /// Time at which the kubelet first saw the pod, or its creation time.
    pub since: Option<Timestamp>,
    /// Reason why the first waiting container of the pod has not started, e.g. `ContainerCreating`,
    /// `CreateContainerError`.
    pub reason: Option<String>,
    /// Message of the first waiting container of the pod.
    pub message: Option<String>,
    /// The newest warning event of the pod. It is read for the pods that have waited longest.
    pub warning: Option<PodWarning>,
}

/// A pod on the node whose container failed, or that the kubelet rejected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FailedPod {
    pub namespace: String,
    pub name: String,
    /// UID in the API.
    pub uid: String,
    /// Container that failed. `None` if the kubelet rejected the pod.
    pub container: Option<String>,
    /// Reason in one word: `Error`, `OOMKilled`, `TopologyAffinityError`.
    pub reason: String,
    /// Last message of the container, or message of the kubelet, with its lines.
    pub message: Option<String>,
    /// Time of the end or of the rejection.
    pub at: Option<Timestamp>,
    /// Number of restarts of the container.
    pub restarts: u32,
    /// Whether the container waits for its next start after several failures (`CrashLoopBackOff`).
    pub backs_off: bool,
}

/// A RuntimeClass of pods on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuntimeClassUse {
    pub name: String,
    /// Handler of the class in the runtime's configuration. `None` if it was not read or the API denied the request: the
    /// default permissions do not include RuntimeClasses. The handler usually has the same name as the class.
    pub handler: Option<String>,
    /// Some of the pods on the node that use the class (`namespace/name`).
    pub pods: Vec<String>,
}
