//! `check`: finds processes on GPUs that are not allocated to their pods.
//!
//! Excluded are services of the node, pods of the node's software, pods whose GPUs another scheduler assigned, pods
//! with a claim whose devices are not known, and GPUs of a reservation pod for other pods (Run:ai, KAI). MIG devices of
//! one GPU are not distinguished.

use std::collections::BTreeMap;

use crate::evidence;
use crate::input::node::Node;
use crate::input::processes::{MIN_BYTES, is_service};
use crate::rule::Draft;
use crate::rules::kubernetes::usage::allocations::Allocations;
use crate::rules::kubernetes::usage::rules::UNALLOCATED_USE;
use syringe_core::facts::kubelet::Allocation;
use syringe_core::facts::kubernetes::gpu_pod::GpuPod;
use syringe_core::facts::processes::{GpuProcess, GpuUse};
use syringe_core::gpu_names::GpuNames;

/// Name prefixes of pods that reserve a GPU for other pods.
const RESERVATIONS: [&str; 2] = ["gpu-reservation", "runai-reservation"];

/// Maximum number of uses of one pod in the evidence.
const MAX_USES: usize = 4;

/// A process on one GPU.
type Use<'a> = (&'a GpuProcess, &'a GpuUse);

pub(super) fn check(node: &Node<'_>, all: &Allocations<'_>) -> Vec<Draft> {
    let Some(section) = node.processes().filter(|section| section.host_pid_namespace) else { return Vec::new() };
    let mut strangers: BTreeMap<&str, (&GpuPod, Vec<Use<'_>>)> = BTreeMap::new();
    for process in &section.processes {
        let Some(pod) = suspect(all, process) else { continue };
        let own: Vec<&Allocation> = all.of_pod(pod).collect();
        if (pod.has_claims && own.iter().all(|allocation| allocation.claim.is_none()))
            || !own.iter().all(|one| known(node, one))
        {
            continue;
        }
        let foreign = process.uses.iter().filter(|usage| {
            let names = GpuNames::from_report(node.report, Some(usage.gpu), None);
            let given = own.iter().any(|allocation| names.match_allocation(allocation));
            let large = usage.memory_bytes.is_some_and(|bytes| bytes >= MIN_BYTES);
            large && !given && !holders(all, &names).any(|allocation| is_reservation(all, allocation))
        });
        let foreign: Vec<_> = foreign.map(|usage| (process, usage)).collect();
        if !foreign.is_empty() {
            strangers.entry(&pod.uid).or_insert((pod, Vec::new())).1.extend(foreign);
        }
    }
    strangers.into_values().map(|(pod, uses)| draft(node, all, pod, &uses)).collect()
}

/// Returns the pod of a process, unless the pod is excluded.
fn suspect<'a>(all: &Allocations<'a>, process: &GpuProcess) -> Option<&'a GpuPod> {
    let uid = process.pod_uid.as_deref()?;
    let settled = all.is_settled(process.started_at) && !is_service(process) && process.state.as_deref() != Some("Z");
    let pod = all.pods.iter().find(|pod| pod.uid == uid)?;
    let open = pod.phase == "Running" && !pod.deleting && !pod.is_node_software && !pod.has_annotated_gpus;
    (settled && open && all.is_settled(pod.created)).then_some(pod)
}

/// Returns whether every device of an allocation is a known GPU of this node.
fn known(node: &Node<'_>, allocation: &Allocation) -> bool {
    allocation.devices.iter().all(|device| {
        let alone = Allocation { devices: vec![device.clone()], ..allocation.clone() };
        let is = |gpu: &crate::input::node::Gpu| {
            GpuNames::from_report(node.report, gpu.index, gpu.uuid.as_deref()).match_allocation(&alone)
        };
        node.gpus.iter().any(is)
    })
}

fn holders<'a>(all: &Allocations<'a>, names: &GpuNames<'_>) -> impl Iterator<Item = &'a Allocation> {
    all.kubelet.allocations.iter().filter(|allocation| names.match_allocation(allocation))
}

fn is_reservation(all: &Allocations<'_>, allocation: &Allocation) -> bool {
    // The checkpoint of the kubelet contains only the UID of the pod.
    let pod = all.pods.iter().find(|pod| pod.uid == allocation.pod_uid).map(|pod| pod.name.as_str());
    let names = allocation.pod.as_deref().into_iter().chain(pod);
    names.into_iter().any(|name| RESERVATIONS.iter().any(|start| name.starts_with(start)))
}

fn draft(node: &Node<'_>, all: &Allocations<'_>, pod: &GpuPod, uses: &[Use<'_>]) -> Draft {
    let given: Vec<String> = all.of_pod(pod).flat_map(|allocation| allocation.devices.clone()).collect();
    let name = evidence::data(&pod.full_name());
    let given = match given.as_slice() {
        [] => format!("the kubelet has allocated no GPU to pod {name}"),
        devices => format!("the kubelet has allocated {} to pod {name}", evidence::data(&devices.join(", "))),
    };
    let lines = uses.iter().map(|(process, usage)| {
        let names = GpuNames::from_report(node.report, Some(usage.gpu), None);
        let holders: Vec<String> =
            holders(all, &names).map(|allocation| evidence::data(&allocation.holder())).collect();
        let allocated = match holders.as_slice() {
            [] => "allocated to no pod".to_owned(),
            all => format!("allocated to {}", all.join(", ")),
        };
        let memory = usage.memory_bytes.map(evidence::bytes).unwrap_or_default();
        format!("its {} uses {memory} of GPU {}, {allocated}", evidence::process(process), usage.gpu)
    });
    let lines = evidence::lines(lines, MAX_USES);
    let mut draft = Draft::on_node(UNALLOCATED_USE).with_evidence(given).with_all_evidence(lines);
    draft.scope.pod_uid = Some(pod.uid.clone());
    draft.with_all_evidence(pod.extra_devices_reason.iter().map(|why| evidence::data(why)))
}
