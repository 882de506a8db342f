//! Whether the node advertises its GPUs, and by which component.

use crate::input::node::Node;
use crate::rule::evidence;
use crate::rules::kubernetes::nvidia_stack::pods;
use syringe_core::facts::kubernetes::node::Component;

/// Whether every GPU is bound to vfio-pci, for virtual machines.
pub(super) fn is_passed_through(node: &Node<'_>) -> bool {
    node.host().is_some_and(|host| {
        !host.pci_gpus.is_empty() && host.pci_gpus.iter().all(|gpu| gpu.driver.as_deref() == Some("vfio-pci"))
    })
}

/// Whether pods can get GPUs of this node.
pub(super) fn advertises_gpus(node: &Node<'_>) -> bool {
    let cluster = node.kubernetes;
    let plain = cluster.gpu_capacity.is_some_and(|count| count > 0) && cluster.gpu_allocatable != Some(0);
    plain || cluster.other_gpu_resources || cluster.gpu_dra == Some(true)
}

/// Whether a DRA driver on the node may publish GPUs, because its ResourceSlices were not read.
pub(super) fn may_advertise_by_dra(node: &Node<'_>) -> bool {
    node.kubernetes.gpu_dra.is_none() && pods::of(node, Component::DraDriver).any(|pod| pod.ready)
}

/// The device plugin, if it is a service of the node.
pub(super) fn plugin_service(node: &Node<'_>) -> Option<String> {
    let stack = node.host()?.nvidia_stack.as_ref()?;
    let plugins = ["nvidia-device-p", "nvidia-gpu-devi", "gpu-kubelet-plu"];
    let own =
        stack.processes.iter().find(|process| process.pod_uid.is_none() && plugins.contains(&process.name.as_str()));
    own.map(|process| evidence::data(&process.name))
}
