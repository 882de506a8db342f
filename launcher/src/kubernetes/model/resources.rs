//! Names of GPU resources: what each of them counts. A node's capacity and a container's request speak in these names.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::JsonSchema;
use serde::Serialize;

/// The resource of whole GPUs.
pub(crate) const GPU_RESOURCE: &str = "nvidia.com/gpu";

/// What one unit of a resource is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// A whole GPU.
    Gpu,
    /// A MIG device: a part of a GPU.
    MigDevice,
    /// A share of a GPU: one of the replicas of time-slicing or MPS.
    Share,
    /// A device of dynamic resource allocation.
    DraDevice,
}

/// `nvidia.com/` resources that are no GPUs: network devices of the same vendor, and what shares of a GPU are measured in
/// (HAMi). Everything else under that name is a GPU that an administrator renamed (the device plugin's `resources.gpus`).
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

/// `nvidia.com/gpu`, `nvidia.com/gpu.shared`, `nvidia.com/mig-1g.10gb`, and whatever GPUs were renamed to.
pub fn is_gpu_resource(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("nvidia.com/") else { return false };
    if rest == "gpu" || rest.starts_with("gpu.") || rest.starts_with("mig-") {
        return true;
    }
    let network =
        |word: &str| rest == word || rest.starts_with(&format!("{word}_")) || rest.starts_with(&format!("{word}-"));
    !NO_GPUS.iter().any(|word| network(word) || (word.len() > 3 && rest.starts_with(word)))
}

/// Whether a container requests GPUs of a device plugin.
pub fn requests_gpus(container: &Container) -> bool {
    let resources = container.resources.iter();
    let mut amounts = resources.flat_map(|resources| resources.limits.iter().chain(&resources.requests).flatten());
    amounts.any(|(name, quantity)| is_gpu_resource(name) && count(&quantity.0) > 0)
}

/// What one unit of `resource` is on a node whose GPUs are replicated `replicas` times.
pub(crate) fn unit(resource: &str, replicas: u32) -> Unit {
    match resource.strip_prefix("nvidia.com/") {
        Some(rest) if rest.ends_with(".shared") || replicas > 1 => Unit::Share,
        Some(rest) if rest.starts_with("mig-") => Unit::MigDevice,
        Some(_) => Unit::Gpu,
        None => Unit::DraDevice,
    }
}

/// Devices are counted in whole numbers; Kubernetes writes a thousand of them as `1k`.
pub(crate) fn count(quantity: &str) -> u64 {
    let (digits, factor) = match quantity.strip_suffix('k') {
        Some(digits) => (digits, 1000),
        None => (quantity, 1),
    };
    digits.parse::<u64>().map_or(0, |count| count.saturating_mul(factor))
}

/// Whole GPUs (`nvidia.com/gpu` or its shared name); `None` where the node offers none under that name.
pub fn gpu_count(resources: &BTreeMap<String, Quantity>) -> Option<u32> {
    let named =
        |name: &str| resources.get(name).map(|quantity| count(&quantity.0)).and_then(|count| u32::try_from(count).ok());
    let whole = named(GPU_RESOURCE);
    // Renamed shares leave the old name behind with nothing in it.
    whole.filter(|count| *count > 0).or_else(|| named("nvidia.com/gpu.shared")).or(whole)
}

/// GPU resources and their amounts.
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
