//! `name_lost`: finds the PCI address, UUID, serial number and slot of GPUs that NVML cannot open.
//!
//! An RMA needs the UUID, the serial number and the slot of a GPU that no longer responds. PCI, the driver's
//! `/proc/driver/nvidia/gpus` and the kernel log may still have these values. Other values are left out.
//!
//! An NVML index is mapped to an address only if the mapping is certain. NVML must count as many GPUs as are bound to
//! the nvidia driver. In addition, either only one of these GPUs has no index, or all other GPUs of NVML are in the
//! order of the bus.

use std::collections::BTreeMap;
use std::path::PathBuf;

use syringe_core::facts::LostGpu;
use syringe_core::facts::kernel_log::{KernelEvent, KernelLog};
use syringe_core::pci::PciAddress;
use syringe_core::report::{Section, Sections};
use syringe_core::text::clean;

use crate::files;
use crate::host::pci;
use crate::paths::Paths;

/// The problem code of a GPU that is bound to the nvidia driver, but that NVML does not count.
const NOT_IN_NVML: &str = "not_in_nvml";

/// Folder in `/proc` with the driver's information about each GPU.
const INFORMATION: &str = "driver/nvidia/gpus";

/// Address, NVML index and UUID of a GPU that NVML opened.
type Listed = (PciAddress, u32, Option<String>);

/// Completes the `lost` list of every section. `listed`: the GPUs that NVML opened; `sees_all`: whether the probe sees
/// all GPUs of the node. If so, a GPU that NVML does not count is missing, and does not belong to another container.
pub(crate) fn name_lost(paths: &Paths, listed: &[Listed], sees_all: bool, sections: &mut Sections) {
    let Sections { inventory, telemetry, topology, ecc, xid, .. } = sections;
    let lists = [
        inventory.as_mut().and_then(|section| Some(&mut section.data.as_mut()?.lost)),
        telemetry.as_mut().and_then(|section| Some(&mut section.data.as_mut()?.lost)),
        topology.as_mut().and_then(|section| Some(&mut section.data.as_mut()?.lost)),
        ecc.as_mut().and_then(|section| Some(&mut section.data.as_mut()?.lost)),
    ];
    let log = Section::data_of(xid);
    let mut bus: Option<Bus> = None;
    for list in lists.into_iter().flatten() {
        let bus = bus.get_or_insert_with(|| Bus::read(paths));
        bus.place(list, listed);
        if sees_all {
            list.extend(bus.uncounted(paths, list, listed));
        }
        for gpu in list.iter_mut() {
            bus.complete(paths, gpu, log);
        }
    }
}

/// The GPUs on the bus that are bound to the nvidia driver, in order, and the names of all slots.
struct Bus {
    gpus: Vec<PciAddress>,
    slots: BTreeMap<String, String>,
}

impl Bus {
    fn read(paths: &Paths) -> Self {
        Self { gpus: pci::bound_gpus(paths), slots: slots(paths) }
    }

    /// Sets the addresses of the lost GPUs, if the addresses are certain.
    fn place(&self, lost: &mut [LostGpu], listed: &[Listed]) {
        let mut indices: Vec<u32> = listed.iter().map(|(_, index, _)| *index).collect();
        indices.extend(lost.iter().filter_map(|gpu| gpu.index));
        indices.sort_unstable();
        indices.dedup();
        if indices.len() != self.gpus.len() {
            return;
        }
        let at = |index: u32| self.gpus.get(usize::try_from(index).ok()?);
        let in_order = listed.iter().all(|(address, index, _)| at(*index) == Some(address));
        let is_known = |address: &&PciAddress| listed.iter().any(|(known, ..)| known == *address);
        let unknown: Vec<&PciAddress> = self.gpus.iter().filter(|address| !is_known(address)).collect();
        let mut nameless: Vec<&mut LostGpu> = lost.iter_mut().filter(|gpu| gpu.pci_address.is_none()).collect();
        if let ([gpu], [address]) = (nameless.as_mut_slice(), unknown.as_slice()) {
            gpu.pci_address = Some((*address).clone());
        } else if in_order {
            nameless.into_iter().for_each(|gpu| gpu.pci_address = gpu.index.and_then(at).cloned());
        }
    }

    /// Returns the driver's GPUs that NVML does not list, without GPUs that are excluded in the driver. Empty if `lost`
    /// has a GPU without an address, because that GPU could be any of them.
    fn uncounted(&self, paths: &Paths, lost: &[LostGpu], listed: &[Listed]) -> Vec<LostGpu> {
        if lost.iter().any(|gpu| gpu.pci_address.is_none()) {
            return Vec::new();
        }
        let counted = |address: &&PciAddress| {
            listed.iter().any(|(known, ..)| known == *address)
                || lost.iter().any(|gpu| gpu.pci_address.as_ref() == Some(*address))
        };
        let is_excluded = |address: &&PciAddress| {
            let lines = files::text(&information(paths, address)).unwrap_or_default();
            lines.lines().any(|line| line.strip_prefix("GPU Excluded:").is_some_and(|word| word.trim() == "Yes"))
        };
        let rest = self.gpus.iter().filter(|address| !counted(address) && !is_excluded(address));
        rest.map(|address| LostGpu {
            pci_address: Some(address.clone()),
            code: NOT_IN_NVML.to_owned(),
            ..LostGpu::default()
        })
        .collect()
    }

    /// Adds the identity of a lost GPU, which is found by the address of the GPU.
    fn complete(&self, paths: &Paths, gpu: &mut LostGpu, log: Option<&KernelLog>) {
        let Some(address) = &gpu.pci_address else { return };
        let events = || {
            let events = log.map(|log| log.events.as_slice()).unwrap_or_default();
            // Only events of the current boot count: another GPU may have been in this slot before.
            events
                .iter()
                .rev()
                .filter(|event: &&KernelEvent| event.pci_address.as_ref() == Some(address) && event.boot_id.is_none())
        };
        if gpu.uuid.is_none() {
            let told = files::text(&information(paths, address)).and_then(|lines| uuid(&lines));
            gpu.uuid = told.or_else(|| events().find_map(|event| event.gpu_uuid.clone()));
        }
        gpu.serial = events().find_map(|event| event.details.get("board_serial").cloned());
        // The address of a slot is the address of a device without the function number.
        let device = address.sysfs().rsplit_once('.').map_or(address.sysfs(), |(device, _)| device);
        gpu.slot = self.slots.get(device).cloned();
    }
}

/// Returns the path of the driver's information file about the GPU at an address.
fn information(paths: &Paths, address: &PciAddress) -> PathBuf {
    paths.proc.join(INFORMATION).join(address.sysfs()).join("information")
}

/// Returns the UUID in the driver's information about a GPU. A GPU that was never initialized has question marks
/// instead of a UUID.
fn uuid(lines: &str) -> Option<String> {
    let uuid = lines.lines().find_map(|line| line.trim().strip_prefix("GPU UUID:"))?.trim();
    (uuid.starts_with("GPU-") && !uuid.contains('?')).then(|| clean(uuid, 64))
}

/// Returns the physical slots: the address of the device in each slot (`0000:5d:00`), and the slot's name.
fn slots(paths: &Paths) -> BTreeMap<String, String> {
    let folder = paths.sys.join("bus/pci/slots");
    let names = files::names(&folder).unwrap_or_default();
    let slot = |name: &String| Some((files::text(&folder.join(name).join("address"))?, clean(name, 40)));
    names.iter().filter_map(slot).collect()
}

#[cfg(test)]
mod tests {
    use syringe_core::facts::ecc::Ecc;

    use super::*;
    use crate::testing::Tree;

    const NVIDIA: &str = "../../../bus/pci/drivers/nvidia";

    /// Creates a node with one GPU on each of these buses, bound to the nvidia driver.
    fn node(buses: &[&str]) -> Tree {
        let tree = Tree::new();
        for bus in buses {
            tree.pci(&format!("pci0000:{bus}/0000:{bus}:00.0"), "0x10de", "0x2330", "0x030200");
            tree.link(&format!("sys/bus/pci/devices/0000:{bus}:00.0/driver"), NVIDIA);
        }
        tree
    }

    fn at(bus: &str) -> PciAddress {
        PciAddress::parse(&format!("0000:{bus}:00.0")).expect("an address")
    }

    fn named(tree: &Tree, listed: &[(&str, u32)], lost: &[u32], sees_all: bool) -> Vec<LostGpu> {
        let lost = lost.iter().map(|index| LostGpu { index: Some(*index), ..LostGpu::default() }).collect();
        let mut sections =
            Sections { ecc: Some(Section::read(Ecc { lost, ..Ecc::default() }, Vec::new())), ..Sections::default() };
        let listed: Vec<Listed> = listed.iter().map(|(bus, index)| (at(bus), *index, None)).collect();
        name_lost(&tree.paths(), &listed, sees_all, &mut sections);
        Section::into_data(sections.ecc).expect("the section").lost
    }

    fn addresses(lost: &[LostGpu]) -> Vec<Option<&str>> {
        lost.iter().map(|gpu| gpu.pci_address.as_ref().map(PciAddress::sysfs)).collect()
    }

    #[test]
    fn a_single_lost_gpu_is_the_gpu_on_the_bus_that_nvml_did_not_open() {
        let tree = node(&["18", "5d", "9a"]);
        tree.file("proc/driver/nvidia/gpus/0000:5d:00.0/information", "Model: \t NVIDIA\nGPU UUID:   GPU-5d5d\n");
        tree.file("sys/bus/pci/slots/7/address", "0000:5d:00\n").file("sys/bus/pci/slots/8/address", "0000:9a:00\n");
        let lost = named(&tree, &[("18", 0), ("9a", 2)], &[1], true);
        assert_eq!(addresses(&lost), [Some("0000:5d:00.0")]);
        assert_eq!((lost[0].uuid.as_deref(), lost[0].slot.as_deref()), (Some("GPU-5d5d"), Some("7")));
        assert_eq!(lost[0].serial, None, "no source has the serial number");
    }

    #[test]
    fn several_lost_gpus_get_addresses_only_if_the_others_are_in_bus_order() {
        let tree = node(&["18", "2a", "5d", "9a"]);
        let lost = named(&tree, &[("18", 0), ("5d", 2)], &[1, 3], true);
        assert_eq!(addresses(&lost), [Some("0000:2a:00.0"), Some("0000:9a:00.0")]);
        let lost = named(&tree, &[("18", 2), ("5d", 0)], &[1, 3], true);
        assert_eq!(addresses(&lost), [None, None]);
    }

    #[test]
    fn a_gpu_that_left_the_bus_has_no_address() {
        let lost = named(&node(&["18", "9a"]), &[("18", 0), ("9a", 2)], &[1], true);
        assert_eq!(addresses(&lost), [None]);
    }

    #[test]
    fn a_gpu_that_nvml_does_not_count_is_listed_if_the_probe_sees_the_whole_node() {
        let tree = node(&["18", "5d"]);
        tree.file("proc/driver/nvidia/gpus/0000:5d:00.0/information", "GPU UUID: \t GPU-????????-????-????\n");
        let lost = named(&tree, &[("18", 0)], &[], true);
        assert_eq!(addresses(&lost), [Some("0000:5d:00.0")]);
        assert_eq!((lost[0].index, lost[0].code.as_str(), lost[0].uuid.as_deref()), (None, "not_in_nvml", None));
        assert!(named(&tree, &[("18", 0)], &[], false).is_empty(), "another container's");
        tree.file("proc/driver/nvidia/gpus/0000:5d:00.0/information", "GPU Excluded:\t Yes\n");
        assert!(named(&tree, &[("18", 0)], &[], true).is_empty(), "the GPU is excluded on purpose");
    }

    #[test]
    fn the_serial_number_comes_from_the_kernel_log_of_this_boot() {
        let event = |boot_id: Option<&str>, serial: &str| KernelEvent {
            pci_address: Some(at("5d")),
            boot_id: boot_id.map(str::to_owned),
            details: [("board_serial".to_owned(), serial.to_owned())].into(),
            ..KernelEvent::default()
        };
        let events = vec![event(None, "16now"), event(Some("0e"), "16before")];
        let log = KernelLog { events, ..KernelLog::default() };
        let mut gpu = LostGpu { pci_address: Some(at("5d")), ..LostGpu::default() };
        let tree = node(&["5d"]);
        Bus::read(&tree.paths()).complete(&tree.paths(), &mut gpu, Some(&log));
        assert_eq!(gpu.serial.as_deref(), Some("16now"));
    }
}
