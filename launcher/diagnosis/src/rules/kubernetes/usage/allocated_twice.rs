//! `check`: finds GPUs and MIG devices that the kubelet allocated to two pods without sharing.
//!
//! The kubelet releases the devices of ended pods before it allocates a device again. Two running pods with the same
//! device are therefore an error: a checkpoint that was restored or edited, two device plugins, or a plugin and a DRA
//! driver.

use std::collections::{BTreeMap, BTreeSet};

use crate::evidence;
use crate::input::node::Node;
use crate::input::pods_match::matching_fails;
use crate::rule::Draft;
use crate::rules::kubernetes::usage::rules::ALLOCATED_TWICE;
use syringe_core::facts::kubelet::Allocation;
use syringe_core::report::{Section, Status};

/// Maximum number of devices in the evidence.
const SHOWN: usize = 4;

pub(super) fn check(node: &Node<'_>) -> Option<Draft> {
    let section = node.report.sections.kubelet.as_ref()?;
    let kubelet = Section::data_of(&node.report.sections.kubelet).filter(|_| section.status == Status::Ok)?;
    let ended = |allocation: &Allocation| {
        let live = node.kubernetes.live_pod_uids.as_ref().filter(|_| matching_fails(node).is_none());
        live.is_some_and(|live| !allocation.pod_uid.is_empty() && !live.contains(&allocation.pod_uid))
    };
    let mut holders: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut shared: BTreeSet<&str> = BTreeSet::new();
    for allocation in kubelet.allocations.iter().filter(|allocation| !ended(allocation)) {
        for device in allocation.devices.iter().filter(|device| is_whole(device)) {
            // If the resource name shows that programs share a GPU, they have the same GPU on purpose.
            let is_shared = allocation.replicas.is_some() || allocation.claim.is_some() || !is_exclusive(allocation);
            if is_shared {
                shared.insert(device);
            }
            holders.entry(device).or_default().insert(allocation.holder());
        }
    }
    let twice = holders.into_iter().filter(|(device, pods)| pods.len() > 1 && !shared.contains(device));
    let lines: Vec<String> = twice
        .map(|(device, pods)| {
            let pods: Vec<String> = pods.iter().map(|pod| name_of(node, pod)).collect();
            format!("{} is allocated to {}", evidence::data(device), pods.join(" and "))
        })
        .collect();
    (!lines.is_empty()).then(|| Draft::on_node(ALLOCATED_TWICE).with_all_evidence(lines.into_iter().take(SHOWN)))
}

/// Returns whether a device is a whole GPU or a whole MIG device, not a replica or a part.
fn is_whole(device: &str) -> bool {
    (device.starts_with("GPU-") || device.starts_with("MIG-")) && !device.contains("::") && !device.contains('/')
}

/// Returns whether NVIDIA's device plugin allocates a device of this resource to one container only.
fn is_exclusive(allocation: &Allocation) -> bool {
    allocation.resource == "nvidia.com/gpu" || allocation.resource.starts_with("nvidia.com/mig-")
}

fn name_of(node: &Node<'_>, holder: &str) -> String {
    format!("pod {}", node.pod_name(holder).unwrap_or_else(|| evidence::data(holder)))
}
