//! Modules of the facts from the Kubernetes API: nodes with their conditions and machines, pods, DaemonSets,
//! ComputeDomains, and decisions of platforms about nodes.
//!
//! The launcher reads these facts. The rules and the explanation of a pod use them together with the report.
//!
//! `None` means that the value was not read, or that the API denied the request. No conclusion is drawn from `None`.

pub mod compute_domain;
pub mod daemon_set;
pub mod gpu_pod;
pub mod lifecycle;
pub mod linked_pod;
pub mod node;
pub mod pod;

pub use compute_domain::{ComputeDomain, DomainNode};
pub use daemon_set::{DaemonSetFacts, DaemonSetRole};
pub use gpu_pod::{GpuContainer, GpuPod};
pub use lifecycle::{MachineFacts, NodeConditionFact};
pub use linked_pod::LinkedPod;
pub use node::{
    Component, ContainerStateKind, GpuLabels, KubernetesFacts, KubernetesInput, NvidiaContainer, NvidiaContainerState,
    NvidiaPod, PodWarning, RuntimeClassUse, StartingPod, UnreadInput,
};
pub use pod::{CapacityShortage, ContainerFacts, ContainerState, PodEvent, PodFacts, Preemption, Termination};
