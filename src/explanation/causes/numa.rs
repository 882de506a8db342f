//! Free GPUs by NUMA node: what the kubelet's topology manager chooses from.

use std::collections::BTreeMap;

use crate::device_names::DeviceNames;
use crate::report::{Report, Section};

/// How many GPUs of each NUMA node no container holds. `None` where that is not known: the kubelet's bookings, or the NUMA
/// node of a GPU, were not read, or GPUs are shared or divided.
pub(super) fn free_gpus(report: &Report) -> Option<BTreeMap<u32, u64>> {
    let books = Section::data_of(&report.sections.kubelet)?;
    let topology = Section::data_of(&report.sections.topology)?;
    let divided =
        Section::data_of(&report.sections.mig).is_some_and(|mig| mig.gpus.iter().any(|gpu| !gpu.devices.is_empty()));
    let shared = books.allocations.iter().any(|held| held.replicas.is_some());
    if books.source == "claims" || divided || shared || topology.gpus.is_empty() {
        return None;
    }
    let mut free = BTreeMap::new();
    for gpu in &topology.gpus {
        let count: &mut u64 = free.entry(gpu.numa_node?).or_default();
        let names = DeviceNames::of(report, Some(gpu.index), gpu.uuid.as_deref());
        *count += u64::from(!books.allocations.iter().any(|held| names.match_allocation(held)));
    }
    Some(free)
}
