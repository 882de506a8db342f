//! `GpuNames`: matches a GPU and its MIG devices with kubelet allocations.
//! `without_share`: a device name without the suffix for a shared GPU. `count_without_shares`: counts such names.
//! `gpu_addresses`: the PCI address, index and UUID of every GPU.

use std::collections::BTreeSet;

use crate::facts::kubelet::Allocation;
use crate::pci::PciAddress;
use crate::report::{Report, Section};

/// The names of one GPU.
#[derive(Clone, Debug, Default)]
pub struct GpuNames<'a> {
    /// UUIDs of the GPU and of its MIG devices.
    uuids: Vec<&'a str>,
    /// Minor number: N of `/dev/nvidiaN`.
    minor: Option<u32>,
    /// NVML index.
    index: Option<u32>,
}

impl<'a> GpuNames<'a> {
    /// Returns the names that the report contains for the GPU with this index or UUID.
    pub fn from_report(report: &'a Report, index: Option<u32>, uuid: Option<&'a str>) -> Self {
        let inventory = Section::data_of(&report.sections.inventory).into_iter().flat_map(|inventory| &inventory.gpus);
        let listed = inventory.into_iter().find(|gpu| match uuid {
            Some(_) => gpu.uuid.as_deref() == uuid,
            None => Some(gpu.index) == index,
        });
        let index = index.or(listed.map(|gpu| gpu.index));
        let mig = Section::data_of(&report.sections.mig).into_iter().flat_map(|mig| &mig.gpus);
        let parts = mig.filter(|gpu| Some(gpu.index) == index).flat_map(|gpu| &gpu.devices);
        let own = uuid.or_else(|| listed.and_then(|gpu| gpu.uuid.as_deref()));
        let uuids = own.into_iter().chain(parts.filter_map(|part| part.uuid.as_deref())).collect();
        Self { uuids, minor: listed.and_then(|gpu| gpu.minor_number), index }
    }

    /// Returns whether an allocation contains this GPU or a part of it.
    pub fn match_allocation(&self, allocation: &Allocation) -> bool {
        allocation.devices.iter().any(|device| self.match_device(device, allocation.claim.is_some()))
    }

    /// Returns whether a device is this GPU or a part of it. `claimed`: whether a DRA driver named the device. Such a
    /// name (`gpu-3`, `gpu-3-mig-…`) contains the minor number or, in some versions, the index of the GPU.
    pub fn match_device(&self, device: &str, claimed: bool) -> bool {
        let device = without_share(device);
        let named = |prefix: &str, number: Option<u32>, separator: char| {
            let rest = number.and_then(|number| device.strip_prefix(prefix)?.strip_prefix(&number.to_string()));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(separator))
        };
        // Device names of GKE's plugin: `nvidia0`, `nvidia0/vgpu3`, `nvidia0/gi1`.
        self.uuids.contains(&device)
            || named("nvidia", self.minor.or(self.index), '/')
            || (claimed && (named("gpu-", self.minor, '-') || named("gpu-", self.index, '-')))
    }
}

/// Length of a UUID in NVIDIA's form: `GPU-` or `MIG-` and 36 characters.
const UUID_LENGTH: usize = 40;

/// Returns the name of a GPU or MIG device in the name of a device, without the suffix that the device plugin added for
/// a share:
/// `GPU-…::3` (NVIDIA), `GPU-…-_-3` (gpushare), `GPU-…-3`, `nvidia0/vgpu3` (GKE).
pub fn without_share(device: &str) -> &str {
    let is_uuid = |text: &&str| {
        let digits = text.strip_prefix("GPU-").or_else(|| text.strip_prefix("MIG-")).unwrap_or_default();
        !digits.is_empty()
            && digits.char_indices().all(|(at, one)| match at {
                8 | 13 | 18 | 23 => one == '-',
                _ => one.is_ascii_hexdigit(),
            })
    };
    let uuid = device.get(..UUID_LENGTH).filter(is_uuid);
    let without = |mark: &str| device.split_once(mark).map(|(name, _)| name);
    uuid.or_else(|| without("::")).or_else(|| without("/vgpu")).unwrap_or(device)
}

/// Returns the number of different GPUs or MIG devices, of which a device plugin may have registered several shares each.
pub fn count_without_shares(devices: &[String]) -> u32 {
    let different: BTreeSet<&str> = devices.iter().map(|device| without_share(device)).collect();
    u32::try_from(different.len()).unwrap_or(u32::MAX)
}

/// Returns PCI address, index and UUID of every GPU in the inventory. These values are used to find the GPU of a kernel
/// event.
pub fn gpu_addresses(report: &Report) -> Vec<(PciAddress, u32, Option<String>)> {
    let inventory = Section::data_of(&report.sections.inventory);
    let gpus = inventory.map(|inventory| inventory.gpus.as_slice()).unwrap_or_default();
    gpus.iter().filter_map(|gpu| Some((gpu.pci_address.clone()?, gpu.index, gpu.uuid.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_has_the_name_of_its_gpu() {
        let gpu = "GPU-0ef073d2-8b0d-4220-a630-44b3db6f98bb";
        for share in ["", "::3", "-_-0", "-12", "/1"] {
            assert_eq!(without_share(&format!("{gpu}{share}")), gpu);
        }
        assert_eq!((without_share("GPU-a::3"), without_share("nvidia0/vgpu3")), ("GPU-a", "nvidia0"));
        assert_eq!(without_share("nvidia0/gi1"), "nvidia0/gi1", "a MIG device is not a share");
    }

    #[test]
    fn a_gpu_matches_all_its_names_in_device_plugins() {
        let names = GpuNames { uuids: vec!["GPU-a", "MIG-a"], minor: Some(1), index: Some(0) };
        for ours in ["GPU-a", "GPU-a::3", "MIG-a", "nvidia1", "nvidia1/vgpu3", "nvidia1/gi1"] {
            assert!(names.match_device(ours, false), "{ours}");
        }
        for other in ["GPU-b", "MIG-b", "nvidia0", "nvidia10", "nvidia10/gi1", "gpu-1", ""] {
            assert!(!names.match_device(other, false), "{other}");
        }
        assert!(
            names.match_device("gpu-0", true)
                && names.match_device("gpu-1-mig-9-0", true)
                && !names.match_device("gpu-10", true)
        );
    }
}
