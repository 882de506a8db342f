//! `cluster`, `cluster_with_gpus`: create the `KubernetesFacts` of a scenario's node.
//! `nvidia_pod`, `failing`, `plugin_pod`, `runtime_class`: create pods of NVIDIA's software, and the use of a RuntimeClass.

use jiff::SignedDuration;
use syringe_core::facts::kubernetes::node::{
    Component, ContainerStateKind, KubernetesFacts, NvidiaContainer, NvidiaContainerState, NvidiaPod, RuntimeClassUse,
};

use crate::identity::{ago, days, text};

/// Returns the facts of a node without GPU capacity.
pub(crate) fn cluster(node: &str) -> KubernetesFacts {
    KubernetesFacts { node: text(node), ..KubernetesFacts::default() }
}

/// Returns the facts of a node whose GPUs are all allocatable.
pub(crate) fn cluster_with_gpus(node: &str, count: u32) -> KubernetesFacts {
    KubernetesFacts { gpu_capacity: Some(count), gpu_allocatable: Some(count), ..cluster(node) }
}

/// Returns a RuntimeClass that a pod on the node uses.
pub(crate) fn runtime_class(name: &str, pod: &str) -> Option<Vec<RuntimeClassUse>> {
    Some(vec![RuntimeClassUse { name: name.to_owned(), handler: None, pods: vec![pod.to_owned()] }])
}

/// Returns a pod of NVIDIA's software with one container that has been running for `age`.
pub(crate) fn nvidia_pod(full_name: &str, component: Component, container: &str, age: SignedDuration) -> NvidiaPod {
    let (namespace, name) = full_name.split_once('/').expect("a namespace and a name");
    let state = NvidiaContainerState { kind: ContainerStateKind::Running, since: Some(ago(age)), ..Default::default() };
    let container = NvidiaContainer { name: container.to_owned(), ready: true, state, ..NvidiaContainer::default() };
    NvidiaPod {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        component,
        phase: "Running".to_owned(),
        ready: true,
        containers: vec![container],
        ..NvidiaPod::default()
    }
}

/// Returns a pod of NVIDIA's software whose container fails repeatedly.
pub(crate) fn failing(full_name: &str, component: Component, container: &str) -> NvidiaPod {
    let mut pod = NvidiaPod { ready: false, ..nvidia_pod(full_name, component, container, days(9)) };
    pod.owner = pod.name.rsplit_once('-').map_or("", |(owner, _)| owner).to_owned();
    let container = &mut pod.containers[0];
    (container.ready, container.restarts) = (false, 40);
    container.state = NvidiaContainerState {
        kind: ContainerStateKind::Waiting,
        reason: text("CrashLoopBackOff"),
        ..NvidiaContainerState::default()
    };
    pod
}

/// Returns a pod of NVIDIA's device plugin that has been running for nine days.
pub(crate) fn plugin_pod(full_name: &str) -> NvidiaPod {
    let owner = "nvidia-device-plugin".to_owned();
    NvidiaPod { owner, ..nvidia_pod(full_name, Component::DevicePlugin, "nvidia-device-plugin", days(9)) }
}
