//! `labels`, `resources`: create the labels of GPU feature discovery and the resources of the device plugin for a node.

use std::collections::BTreeMap;

use syringe_core::facts::inventory::Inventory;
use syringe_core::report::{Report, Section};

const GPU: &str = "nvidia.com/gpu";
const MIB: u64 = 1024 * 1024;

fn inventory(facts: &Report) -> Option<&Inventory> {
    facts.sections.inventory.as_ref()?.data.as_ref()
}

/// Returns the number of GPUs of the node: those on the PCI bus, or those that NVML lists if the bus was not read.
fn installed(facts: &Report) -> usize {
    let host = Section::data_of(&facts.sections.host);
    let on_bus = host.map_or(0, |host| host.pci_gpus.len());
    on_bus.max(listed(facts))
}

fn listed(facts: &Report) -> usize {
    inventory(facts).map_or(0, |inventory| inventory.gpus.len())
}

/// Returns the labels of GPU feature discovery; no labels for a node without GPUs.
pub(crate) fn labels(facts: &Report) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    if installed(facts) == 0 {
        return labels;
    }
    let mut label = |name: &str, value: String| {
        labels.insert(format!("nvidia.com/{name}"), value);
    };
    label("gpu.present", "true".to_owned());
    label("gpu.count", installed(facts).to_string());
    let Some(inventory) = inventory(facts) else { return labels };
    let version = |text: &Option<String>| -> Vec<String> {
        text.iter().flat_map(|text| text.split('.')).map(str::to_owned).collect()
    };
    let driver = version(&inventory.driver_version);
    for (part, number) in ["major", "minor", "rev"].iter().zip(&driver) {
        label(&format!("cuda.driver.{part}"), number.clone());
    }
    for (part, number) in ["major", "minor", "revision"].iter().zip(&driver) {
        label(&format!("cuda.driver-version.{part}"), number.clone());
    }
    if let Some(full) = &inventory.driver_version {
        label("cuda.driver-version.full", full.clone());
    }
    for (part, number) in ["major", "minor"].iter().zip(version(&inventory.cuda_version)) {
        label(&format!("cuda.runtime.{part}"), number);
    }
    let Some(gpu) = inventory.gpus.first() else { return labels };
    if let Some(name) = &gpu.name {
        label("gpu.product", name.replace(' ', "-"));
    }
    if let Some(architecture) = &gpu.architecture {
        label("gpu.family", architecture.to_lowercase());
    }
    for (part, number) in ["major", "minor"].iter().zip(version(&gpu.compute_capability)) {
        label(&format!("gpu.compute.{part}"), number);
    }
    if let Some(bytes) = gpu.memory_total_bytes {
        label("gpu.memory", (bytes / MIB).to_string());
    }
    label("mig.capable", gpu.mig_mode.is_some().to_string());
    labels
}

/// Returns the capacity and the allocatable amount by resource: from the kubelet checkpoint if the facts contain one,
/// otherwise from the GPUs.
pub(crate) fn resources(facts: &Report) -> BTreeMap<String, (u64, u64)> {
    let kubelet = Section::data_of(&facts.sections.kubelet);
    let registered = kubelet.map_or(&[][..], |kubelet| &kubelet.registered);
    if registered.is_empty() {
        let counts = (installed(facts) as u64, listed(facts) as u64);
        return (counts.0 > 0).then(|| (GPU.to_owned(), counts)).into_iter().collect();
    }
    let healthy = |device: &&String| {
        let known = inventory(facts).map(|inventory| &inventory.gpus);
        !device.starts_with("GPU-")
            || known.is_none_or(|gpus| gpus.iter().any(|gpu| gpu.uuid.as_ref() == Some(*device)))
    };
    let counts = registered.iter().map(|one| {
        let allocatable = one.devices.iter().filter(healthy).count() as u64;
        (one.resource.clone(), (one.devices.len() as u64, allocatable))
    });
    // The checkpoint of a node without GPUs can have an empty entry, but the Node object has no entry.
    counts.filter(|(_, (capacity, _))| *capacity > 0 || installed(facts) > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(value: serde_json::Value) -> Report {
        serde_json::from_value(serde_json::json!({ "sections": value })).expect("facts")
    }

    #[test]
    fn a_gpu_that_nvml_lost_is_capacity_but_not_allocatable() {
        let facts = facts(serde_json::json!({
            "inventory": {"status": "ok", "data": {
                "driver_version": "570.124.06", "cuda_version": "12.8",
                "gpus": [{"uuid": "GPU-a", "name": "NVIDIA H100 80GB HBM3", "memory_total_bytes": 85_520_809_984_u64}],
            }},
            "host": {"status": "ok", "data": {"pci_gpus": [{}, {}]}},
            "kubelet": {"status": "ok", "data": {"registered": [
                {"resource": "nvidia.com/gpu", "devices": ["GPU-a", "GPU-b"]},
                {"resource": "nvidia.com/mig-1g.10gb", "devices": ["MIG-c"]},
            ]}},
        }));
        let labels = labels(&facts);
        assert_eq!(labels["nvidia.com/gpu.product"], "NVIDIA-H100-80GB-HBM3");
        assert_eq!(labels["nvidia.com/gpu.count"], "2");
        assert_eq!(labels["nvidia.com/gpu.memory"], "81559");
        assert_eq!(labels["nvidia.com/cuda.driver.rev"], "06");
        let resources = resources(&facts);
        assert_eq!((resources[GPU], resources["nvidia.com/mig-1g.10gb"]), ((2, 1), (1, 1)));
    }

    #[test]
    fn a_node_without_gpus_has_no_labels_and_no_resources() {
        assert!(labels(&Report::default()).is_empty() && resources(&Report::default()).is_empty());
    }
}
