//! `free_gpus`: counts the free GPUs of each NUMA node, from which the kubelet's topology manager chooses.

use std::collections::BTreeMap;

use syringe_core::facts::kubelet::Allocation;
use syringe_core::gpu_names::GpuNames;
use syringe_core::report::{Report, Section};

/// Returns the number of GPUs of each NUMA node that are not allocated to a container. `None` if the number is not
/// known, because the kubelet's allocations or the NUMA node of a GPU were not read, or because GPUs are shared or
/// partitioned. Allocations of pods that are not in `live` do not count, because the kubelet releases them before it
/// searches for free GPUs.
pub(crate) fn free_gpus(report: &Report, live: Option<&[String]>) -> Option<BTreeMap<u32, u64>> {
    let kubelet = Section::data_of(&report.sections.kubelet)?;
    let topology = Section::data_of(&report.sections.topology)?;
    let partitioned =
        Section::data_of(&report.sections.mig).is_some_and(|mig| mig.gpus.iter().any(|gpu| !gpu.devices.is_empty()));
    let shared = kubelet.allocations.iter().any(|held| held.replicas.is_some());
    if kubelet.source == "claims" || partitioned || shared || topology.gpus.is_empty() {
        return None;
    }
    let is_stale =
        |held: &Allocation| !held.pod_uid.is_empty() && live.is_some_and(|live| !live.contains(&held.pod_uid));
    let mut free = BTreeMap::new();
    for gpu in &topology.gpus {
        let count: &mut u64 = free.entry(gpu.numa_node?).or_default();
        let names = GpuNames::from_report(report, Some(gpu.index), gpu.uuid.as_deref());
        *count += u64::from(!kubelet.allocations.iter().any(|held| !is_stale(held) && names.match_allocation(held)));
    }
    Some(free)
}
