//! `Allocations`: the allocations of the kubelet and the pods of the API, if both are complete. `of_pod`: the
//! allocations of a pod. `SETTLE_TIME`: the age below which pods and containers are skipped.

use jiff::{SignedDuration, Timestamp};

use crate::input::node::Node;
use syringe_core::facts::kubelet::{Allocation, Kubelet};
use syringe_core::facts::kubernetes::gpu_pod::GpuPod;
use syringe_core::report::Status;

/// Pods and containers younger than this are skipped, because the API, the kubelet and the driver may not agree yet.
pub(super) const SETTLE_TIME: SignedDuration = SignedDuration::from_mins(1);

/// The allocations of the kubelet and the pods of the API. Both are complete.
pub(super) struct Allocations<'a> {
    pub(super) kubelet: &'a Kubelet,
    pub(super) pods: &'a [GpuPod],
    now: Timestamp,
}

impl<'a> Allocations<'a> {
    /// Returns the allocations and pods, or `None` if either was not read completely.
    pub(super) fn of(node: &Node<'a>) -> Option<Self> {
        let section = node.report.sections.kubelet.as_ref()?;
        let kubelet = section.data.as_ref()?;
        let whole = section.status == Status::Ok && matches!(kubelet.source.as_str(), "checkpoint" | "pod_resources");
        let (pods, now) = (node.kubernetes.gpu_pods.as_deref()?, node.now?);
        whole.then_some(Self { kubelet, pods, now })
    }

    /// Returns the allocations of a pod.
    pub(super) fn of_pod(&self, pod: &GpuPod) -> impl Iterator<Item = &'a Allocation> {
        let GpuPod { uid, namespace, name, .. } = pod.clone();
        self.kubelet.allocations.iter().filter(move |allocation| allocation.is_of(&uid, &namespace, &name))
    }

    pub(super) fn is_settled(&self, since: Option<Timestamp>) -> bool {
        since.is_some_and(|since| self.now.duration_since(since) >= SETTLE_TIME)
    }
}
