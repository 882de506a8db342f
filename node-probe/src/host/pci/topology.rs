//! `complete_topology`: adds data from sysfs to the `topology` section. `pci_topology`: the GPUs of a node without NVML.
//!
//! The data are NUMA nodes, CPUs, PCIe paths, NICs and NVSwitches. NVLinks, fabric and peer-to-peer come from NVML.

use syringe_core::facts::topology::{GpuDirect, GpuTopology, Topology};
use syringe_core::pci::PciAddress;

use super::{cards, gpudirect, interfaces, nics, pcie_path};
use crate::files;
use crate::host::pci;
use crate::paths::Paths;

/// Adds the data from sysfs to a topology from NVML. Existing values are kept.
pub(crate) fn complete_topology(paths: &Paths, topology: &mut Topology) {
    let Topology { gpus, nics, cards_without_ports, bonds, gpudirect, nvswitches, .. } = topology;
    for gpu in gpus.iter_mut() {
        complete_gpu(paths, gpu);
    }
    let places: Vec<(u32, PciAddress)> =
        gpus.iter().filter_map(|gpu| Some((gpu.index, gpu.pci_address.clone()?))).collect();
    let places = nics::places(paths, &places);
    if nics.is_empty() {
        let routes = interfaces::DefaultRoutes::read(paths);
        *nics = nics::read(paths, &places, &routes);
        *bonds = interfaces::bonds(paths, &routes);
    }
    if gpudirect.is_none() && !places.is_empty() {
        let cards = nics.iter().filter_map(|port| pcie_path::place(&pci::folder(paths, port.pci_address.as_ref()?)));
        let cards: Vec<pcie_path::Place> = cards.collect();
        let settings = gpudirect::read(paths, places.iter().map(|(_, place)| place).chain(&cards));
        *gpudirect = Some(settings).filter(|settings| *settings != GpuDirect::default());
    }
    let functions = pci::of_vendors(paths, &cards::VENDORS).unwrap_or_default();
    if cards_without_ports.is_empty() && !places.is_empty() {
        *cards_without_ports = cards::without_ports(paths, &functions);
    }
    if nvswitches.is_empty() {
        let switches = functions.into_iter().filter(pci::Function::is_nvswitch);
        *nvswitches = switches.map(|switch| switch.address).collect();
    }
}

/// Returns the GPUs on the PCI bus, for a node without NVML. `index` counts the GPUs by address. This is NVML's order
/// only if NVML lists all GPUs.
pub(crate) fn pci_topology(paths: &Paths) -> Vec<GpuTopology> {
    let functions = pci::nvidia(paths).unwrap_or_default();
    let addresses = functions.into_iter().filter(pci::Function::is_gpu).map(|gpu| gpu.address);
    (0..)
        .zip(addresses)
        .map(|(index, address)| {
            let mut gpu = GpuTopology { index, pci_address: Some(address), ..GpuTopology::default() };
            complete_gpu(paths, &mut gpu);
            gpu
        })
        .collect()
}

fn complete_gpu(paths: &Paths, gpu: &mut GpuTopology) {
    let Some(address) = &gpu.pci_address else { return };
    let folder = pci::folder(paths, address);
    gpu.numa_node = gpu.numa_node.or_else(|| pci::numa_node(&folder));
    if gpu.cpu_affinity.is_none() {
        gpu.cpu_affinity = files::text(&folder.join("local_cpulist")).map(|list| syringe_core::text::clean(&list, 200));
    }
    if gpu.pcie_path.is_empty() {
        gpu.pcie_path = pcie_path::hops(paths, address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    fn two_gpus() -> Tree {
        let tree = Tree::new();
        tree.pci("pci0000:5a/0000:5a:01.0/0000:5d:00.0", "0x10de", "0x2330", "0x030200");
        tree.pci("pci0000:9a/0000:9a:01.0/0000:9d:00.0", "0x10de", "0x2330", "0x030200");
        tree.pci("pci0000:9a/0000:9a:02.0/0000:9e:00.0", "0x10de", "0x22a3", "0x068000");
        tree.pci_file("0000:9d:00.0", "numa_node", "1").pci_file("0000:9d:00.0", "local_cpulist", "48-95,144-191\n");
        tree
    }

    #[test]
    fn sysfs_adds_missing_values_and_changes_no_others() {
        let tree = two_gpus();
        let known = GpuTopology {
            index: 7,
            pci_address: PciAddress::parse("00000000:9D:00.0"),
            cpu_affinity: Some("48-95".into()),
            ..GpuTopology::default()
        };
        let mut topology = Topology { gpus: vec![known], ..Topology::default() };
        complete_topology(&tree.paths(), &mut topology);
        let gpu = &topology.gpus[0];
        assert_eq!((gpu.index, gpu.numa_node, gpu.cpu_affinity.as_deref()), (7, Some(1), Some("48-95")));
        assert_eq!(gpu.pcie_path.len(), 2);
        assert_eq!(topology.nvswitches, [PciAddress::new(0, 0x9e, 0, 0)]);
    }

    #[test]
    fn without_nvml_the_gpus_of_the_bus_are_still_listed() {
        let gpus = pci_topology(&two_gpus().paths());
        let seen: Vec<_> = gpus.iter().map(|gpu| (gpu.index, gpu.cpu_affinity.as_deref())).collect();
        assert_eq!(seen, [(0, None), (1, Some("48-95,144-191"))]);
    }

    #[test]
    fn a_gpu_that_sysfs_lacks_stays_without_a_path() {
        let mut topology = Topology {
            gpus: vec![GpuTopology { pci_address: PciAddress::parse("0000:ee:00.0"), ..GpuTopology::default() }],
            ..Topology::default()
        };
        complete_topology(&Tree::new().paths(), &mut topology);
        assert_eq!(topology.gpus[0].pcie_path, []);
        assert_eq!(topology.nics, []);
    }
}
