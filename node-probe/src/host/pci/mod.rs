//! `nvidia`, `bound_gpus`: list NVIDIA's functions on the PCI bus (GPUs, NVSwitches), and GPUs of the nvidia driver.
//! `Function`: a PCI function. `describe`: facts about a GPU. `folder`, `numa_node`: its sysfs folder and NUMA node.
//! The modules read PCIe paths, registers, network cards, the topology, and what is known about lost GPUs.
//!
//! Limits: a function that the kernel removed (surprise removal) is not listed. Virtual functions are
//! not counted: they are parts of a GPU for virtual machines, and NVML does not list them.

mod cards;
pub(in crate::host) mod express;
mod gpudirect;
mod interfaces;
pub(in crate::host) mod lost_gpus;
mod nics;
pub(in crate::host) mod pcie_path;
pub(in crate::host) mod topology;

use std::io;
use std::path::{Path, PathBuf};

use syringe_core::facts::host::PciGpu;
use syringe_core::pci::PciAddress;

use crate::files;
use crate::paths::Paths;

const NVIDIA: u32 = 0x10de;
const MELLANOX: u32 = 0x15b3;
const AMAZON: u32 = 0x1d0f;
/// PCI classes of GPUs: VGA and 3D controllers.
const DISPLAY: [u32; 2] = [0x0300, 0x0302];
/// PCI class of an NVSwitch: "other bridge".
const BRIDGE_OTHER: u32 = 0x0680;

#[derive(Clone, Debug)]
pub(in crate::host) struct Function {
    pub(in crate::host) address: PciAddress,
    /// The function's folder in sysfs (a link).
    pub(in crate::host) folder: PathBuf,
    vendor: u32,
    /// PCI class without the programming interface: `0302`.
    class: u32,
}

impl Function {
    pub(in crate::host) fn is_gpu(&self) -> bool {
        self.vendor == NVIDIA && DISPLAY.contains(&self.class)
    }

    pub(in crate::host) fn is_nvswitch(&self) -> bool {
        self.vendor == NVIDIA && self.class == BRIDGE_OTHER
    }

    pub(in crate::host) fn driver(&self) -> Option<String> {
        target_name(&self.folder.join("driver"))
    }
}

/// Returns every NVIDIA function, ordered by address.
pub(in crate::host) fn nvidia(paths: &Paths) -> io::Result<Vec<Function>> {
    of_vendors(paths, &[NVIDIA])
}

/// Returns the addresses of the GPUs that are bound to the nvidia driver, in order.
pub(crate) fn bound_gpus(paths: &Paths) -> Vec<PciAddress> {
    let functions = nvidia(paths).unwrap_or_default().into_iter();
    let bound = functions.filter(|function| function.is_gpu() && function.driver().as_deref() == Some("nvidia"));
    bound.map(|function| function.address).collect()
}

/// Returns every function of these vendors, ordered by address.
fn of_vendors(paths: &Paths, vendors: &[u32]) -> io::Result<Vec<Function>> {
    let bus = paths.sys.join("bus/pci/devices");
    let mut found: Vec<Function> = files::names(&bus)?
        .iter()
        .filter_map(|name| {
            let folder = bus.join(name);
            // According to the SR-IOV standard, all bits of the vendor and device IDs of a virtual function are set, as
            // on a lost GPU.
            if files::link_metadata(&folder.join("physfn")).is_ok() {
                return None;
            }
            let vendor = files::hex(&folder.join("vendor")).filter(|vendor| vendors.contains(vendor))?;
            let class = files::hex(&folder.join("class"))? >> 8;
            Some(Function { address: PciAddress::parse(name)?, folder, vendor, class })
        })
        .collect();
    found.sort_by(|one, other| one.address.cmp(&other.address));
    Ok(found)
}

/// Returns the folder of a function in sysfs, by its address.
pub(in crate::host) fn folder(paths: &Paths, address: &PciAddress) -> PathBuf {
    paths.sys.join("bus/pci/devices").join(address.sysfs())
}

/// Returns the entry of one GPU in the `host` section, without the field that shows whether NVML lists the GPU.
pub(in crate::host) fn describe(gpu: &Function) -> PciGpu {
    PciGpu {
        pci_address: Some(gpu.address.clone()),
        device_id: files::hex(&gpu.folder.join("device")).map(|id| format!("{id:04x}")),
        driver: gpu.driver(),
        in_nvml: None,
        numa_node: numa_node(&gpu.folder),
        iommu_group: target_name(&gpu.folder.join("iommu_group")).and_then(|group| group.parse().ok()),
        iommu_domain: files::text(&gpu.folder.join("iommu_group/type"))
            .map(|kind| syringe_core::text::clean(&kind, 20)),
        answers: answers(&gpu.folder),
    }
}

/// Returns the NUMA node of a function; `None` for the kernel's `-1` (no NUMA, or unknown to the firmware).
pub(in crate::host) fn numa_node(folder: &Path) -> Option<u32> {
    files::number(&folder.join("numa_node"))
}

/// Returns whether the configuration space is readable. On a device that left the bus, all bits read as one.
fn answers(folder: &Path) -> Option<bool> {
    let vendor_and_device = files::head(&folder.join("config"), 4).ok()?;
    (vendor_and_device.len() == 4).then(|| vendor_and_device != [0xff; 4])
}

/// Returns the last component of the target of a link.
fn target_name(link: &Path) -> Option<String> {
    let target = files::link(link).ok()?;
    Some(syringe_core::text::clean(target.file_name()?.to_str()?, 40))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    #[test]
    fn a_gpu_that_left_the_bus_is_listed_and_does_not_respond() {
        let tree = Tree::new();
        tree.pci("pci0000:5d/0000:5d:00.0", "0x10de", "0x2330", "0x030200");
        tree.pci_file("0000:5d:00.0", "config", [0xff; 64]).pci_file("0000:5d:00.0", "numa_node", "1\n");
        tree.link("sys/bus/pci/devices/0000:5d:00.0/driver", "../../../bus/pci/drivers/nvidia");
        tree.link("sys/devices/pci0000:5d/0000:5d:00.0/iommu_group", "../../../kernel/iommu_groups/17");
        tree.file("sys/kernel/iommu_groups/17/type", "DMA-FQ\n");
        let found = nvidia(&tree.paths()).expect("sysfs is there");
        let gpu = describe(&found[0]);
        assert_eq!(gpu.answers, Some(false));
        assert_eq!((gpu.numa_node, gpu.iommu_group), (Some(1), Some(17)));
        assert_eq!(gpu.iommu_domain.as_deref(), Some("DMA-FQ"));
        assert_eq!((gpu.driver.as_deref(), gpu.device_id.as_deref()), (Some("nvidia"), Some("2330")));
    }

    #[test]
    fn audio_functions_and_other_vendors_are_not_gpus() {
        let tree = Tree::new();
        tree.pci("pci0000:00/0000:01:00.0", "0x10de", "0x2684", "0x030000");
        tree.pci("pci0000:00/0000:01:00.1", "0x10de", "0x22ba", "0x040300");
        tree.pci("pci0000:00/0000:02:00.0", "0x1a03", "0x2000", "0x030000");
        tree.pci("pci0000:00/0000:03:00.0", "0x10de", "0x22a3", "0x068000");
        let found = nvidia(&tree.paths()).expect("sysfs is there");
        let addresses = |of: &dyn Fn(&Function) -> bool| -> Vec<String> {
            found.iter().filter(|function| of(function)).map(|function| function.address.to_string()).collect()
        };
        assert_eq!(addresses(&Function::is_gpu), ["00000000:01:00.0"]);
        assert_eq!(addresses(&Function::is_nvswitch), ["00000000:03:00.0"]);
    }

    #[test]
    fn virtual_functions_are_not_lost_gpus() {
        let tree = Tree::new();
        tree.pci("pci0000:00/0000:01:00.0", "0x10de", "0x2235", "0x030200");
        tree.pci("pci0000:00/0000:01:00.4", "0x10de", "0x2235", "0x030200");
        tree.pci_file("0000:01:00.4", "config", [0xff; 64]);
        tree.link("sys/bus/pci/devices/0000:01:00.4/physfn", "../0000:01:00.0");
        let found = nvidia(&tree.paths()).expect("sysfs is there");
        let addresses: Vec<_> = found.iter().map(|function| function.address.to_string()).collect();
        assert_eq!(addresses, ["00000000:01:00.0"]);
    }

    #[test]
    fn no_numa_is_none_and_not_node_4294967295() {
        let tree = Tree::new();
        tree.pci("pci0000:00/0000:01:00.0", "0x10de", "0x2684", "0x030000");
        tree.pci_file("0000:01:00.0", "numa_node", "-1\n");
        let found = nvidia(&tree.paths()).expect("sysfs is there");
        assert_eq!(describe(&found[0]).numa_node, None);
        assert_eq!(describe(&found[0]).answers, None);
    }
}
