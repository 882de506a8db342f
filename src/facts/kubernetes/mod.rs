//! Facts of the Kubernetes API. The launcher reads them; the rules and the explanation of a pod use them beside the report.
//!
//! `None` means that the value was not read, or that the API refused the request. Nothing is concluded from it.

pub mod gpu_pod;
pub mod node;
pub mod pod;

pub use gpu_pod::{GpuContainer, GpuPod};
pub use node::{
    Component, ContainerStateKind, GpuLabels, KubernetesFacts, KubernetesInput, NvidiaContainer, NvidiaContainerState,
    NvidiaPod, PodWarning, RuntimeClassUse, UnreadInput,
};
pub use pod::{CapacityShortage, ContainerFacts, ContainerState, PodEvent, PodFacts, Preemption, Termination};
