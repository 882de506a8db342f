//! `is_gpu_resource`, `requests_gpus`, `unit`: recognize GPU resources, and their unit (`Unit`), by name.
//! `count`, `gpu_count`, `gpu_resources`: parse their amounts.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::JsonSchema;
use serde::Serialize;

/// Name of the resource for whole GPUs.
pub const GPU_RESOURCE: &str = "nvidia.com/gpu";

/// The unit of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// A whole GPU.
    Gpu,
    /// A MIG device: a part of a GPU.
    MigDevice,
    /// A replica of a shared GPU (time-slicing, MPS).
    Share,
    /// A device of dynamic resource allocation.
    DraDevice,
}

/// `nvidia.com/` resources that are not GPUs: network devices, and HAMi's units for parts of a GPU. Other resources
/// with this prefix are renamed GPUs (`resources.gpus` of the device plugin).
const NO_GPUS: &[&str] = &[
    "rdma",
    "sriov",
    "hostdev",
    "mlnx",
    "nic",
    "ib",
    "roce",
    "bf",
    "doca",
    "pkey",
    "gpumem",
    "gpucores",
    "priority",
    "gpumem-percentage",
];

/// Returns whether this is a GPU resource: `nvidia.com/gpu`, `nvidia.com/gpu.shared`, `nvidia.com/mig-1g.10gb`, or a
/// renamed GPU resource.
pub fn is_gpu_resource(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("nvidia.com/") else { return false };
    if rest == "gpu" || rest.starts_with("gpu.") || rest.starts_with("mig-") {
        return true;
    }
    let network =
        |word: &str| rest == word || rest.starts_with(&format!("{word}_")) || rest.starts_with(&format!("{word}-"));
    !NO_GPUS.iter().any(|word| network(word) || (word.len() > 3 && rest.starts_with(word)))
}

/// Returns whether a container requests GPUs from a device plugin.
pub fn requests_gpus(container: &Container) -> bool {
    let resources = container.resources.iter();
    let mut amounts = resources.flat_map(|resources| resources.limits.iter().chain(&resources.requests).flatten());
    amounts.any(|(name, quantity)| is_gpu_resource(name) && count(&quantity.0) > 0)
}

/// Returns the unit of `resource` on a node with `replicas` replicas of each GPU.
pub fn unit(resource: &str, replicas: u32) -> Unit {
    match resource.strip_prefix("nvidia.com/") {
        Some(rest) if rest.ends_with(".shared") || replicas > 1 => Unit::Share,
        Some(rest) if rest.starts_with("mig-") => Unit::MigDevice,
        Some(_) => Unit::Gpu,
        None => Unit::DraDevice,
    }
}

/// Parses a number of devices. Kubernetes writes 1000 as `1k`.
pub fn count(quantity: &str) -> u64 {
    let (digits, factor) = match quantity.strip_suffix('k') {
        Some(digits) => (digits, 1000),
        None => (quantity, 1),
    };
    digits.parse::<u64>().map_or(0, |count| count.saturating_mul(factor))
}

/// Returns the number of whole GPUs (`nvidia.com/gpu` or its shared name), or `None` if the node has no such resource.
pub fn gpu_count(resources: &BTreeMap<String, Quantity>) -> Option<u32> {
    let named =
        |name: &str| resources.get(name).map(|quantity| count(&quantity.0)).and_then(|count| u32::try_from(count).ok());
    let whole = named(GPU_RESOURCE);
    // If shared GPUs are renamed, the old name remains with the amount 0.
    whole.filter(|count| *count > 0).or_else(|| named("nvidia.com/gpu.shared")).or(whole)
}

/// Returns the GPU resources with their amounts.
pub fn gpu_resources(resources: &BTreeMap<String, Quantity>) -> BTreeMap<String, u64> {
    let gpus = resources.iter().filter(|(name, _)| is_gpu_resource(name));
    gpus.map(|(name, quantity)| (name.clone(), count(&quantity.0))).collect()
}

#[cfg(test)]
mod tests {
    use super::{Unit, count, is_gpu_resource, unit};

    #[test]
    fn a_renamed_resource_is_a_gpu_and_a_network_device_is_none() {
        for gpu in ["gpu", "gpu.shared", "mig-1g.10gb", "mig-1g.10gb.shared", "a100", "GA102GL_A10", "bigcard"] {
            assert!(is_gpu_resource(&format!("nvidia.com/{gpu}")), "{gpu}");
        }
        for other in ["hostdev", "rdma_shared_device_a", "sriov_rdma_vf", "mlnxnics", "gpumem", "gpucores", "ib_a"] {
            assert!(!is_gpu_resource(&format!("nvidia.com/{other}")), "{other}");
        }
        assert!(!is_gpu_resource("amd.com/gpu") && !is_gpu_resource("cpu"));
    }

    #[test]
    fn units_follow_the_name_and_the_replicas() {
        assert_eq!(unit("nvidia.com/gpu", 1), Unit::Gpu);
        assert_eq!(unit("nvidia.com/gpu", 4), Unit::Share);
        assert_eq!(unit("nvidia.com/gpu.shared", 1), Unit::Share);
        assert_eq!(unit("nvidia.com/mig-1g.10gb", 1), Unit::MigDevice);
        assert_eq!((count("8"), count("1k"), count("1.5")), (8, 1000, 0));
    }
}
