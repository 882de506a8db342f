//! `place`: the position of a device in the PCI tree (sysfs). `near`: the distance between two devices.
//! `hops`: the path from a GPU to its root port. `link`: generation and width of the PCIe link of a device.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use syringe_core::facts::topology::PcieHop;
use syringe_core::pci::PciAddress;

use crate::files;
use crate::host::pci;
use crate::host::pci::express::Express;
use crate::paths::Paths;

/// Maximum number of bridges in a path; real paths have up to eight.
const MAX_HOPS: usize = 32;

/// The position of a device in the PCI tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::host) struct Place {
    /// The name of the host bridge, such as `pci0000:5d`.
    root: String,
    /// The functions from the host bridge down to the device, with the folder of each function.
    pub(in crate::host) chain: Vec<(PciAddress, PathBuf)>,
    numa_node: Option<u32>,
}

impl Place {
    /// Returns the address of the device itself.
    pub(in crate::host) fn address(&self) -> Option<&PciAddress> {
        self.chain.last().map(|(address, _)| address)
    }
}

/// The distance between two devices, nearest first, in the terms of `nvidia-smi topo -m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::host) enum Near {
    /// The devices share one PCIe switch (or one slot).
    Pix,
    /// Several PCIe bridges are between the devices, but no host bridge.
    Pxb,
    /// The devices share a host bridge.
    Phb,
    /// The devices have different host bridges on one NUMA node.
    Node,
}

impl Near {
    pub(in crate::host) fn word(self) -> &'static str {
        match self {
            Self::Pix => "PIX",
            Self::Pxb => "PXB",
            Self::Phb => "PHB",
            Self::Node => "NODE",
        }
    }
}

/// Returns the position of the device in `folder` (a link in `/sys/bus/pci/devices`, or another link into the tree).
pub(in crate::host) fn place(folder: &Path) -> Option<Place> {
    let real = files::real_path(folder).ok()?;
    let mut chain = Vec::new();
    for folder in real.ancestors().take(MAX_HOPS) {
        let name = folder.file_name()?.to_str()?;
        match PciAddress::parse(name) {
            Some(address) => chain.push((address, folder.to_owned())),
            // A folder `pci…` is the host bridge. For devices behind an Intel VMD, it is the bridge that the VMD
            // provides, which is common to these devices.
            None if name.starts_with("pci") && !chain.is_empty() => {
                chain.reverse();
                return Some(Place { root: name.to_owned(), chain, numa_node: pci::numa_node(&real) });
            }
            // The folders of a NIC (`infiniband/mlx5_0`) are below the function.
            None if chain.is_empty() => {}
            None => return None,
        }
    }
    None
}

/// Returns the distance between two devices; `None` if only the link between NUMA nodes connects them (`SYS`), or if it is
/// unknown.
pub(in crate::host) fn near(one: &Place, other: &Place) -> Option<Near> {
    if one.root != other.root {
        let same_node = one.numa_node.is_some() && one.numa_node == other.numa_node;
        return same_node.then_some(Near::Node);
    }
    let shared = one.chain.iter().zip(&other.chain).take_while(|((left, _), (right, _))| left == right).count();
    if shared == 0 {
        return Some(Near::Phb);
    }
    // Below the common bridge there is at most a downstream port of a switch and the device.
    let below = |place: &Place| place.chain.len() - shared;
    Some(if below(one) <= 2 && below(other) <= 2 { Near::Pix } else { Near::Pxb })
}

/// Returns the path of a GPU, from the GPU to the root port. Empty if the GPU is not in sysfs.
pub(in crate::host) fn hops(paths: &Paths, address: &PciAddress) -> Vec<PcieHop> {
    let Some(Place { chain, .. }) = place(&pci::folder(paths, address)) else { return Vec::new() };
    let last = chain.len() - 1;
    let hop = |(depth, (address, folder)): (usize, &(PciAddress, PathBuf))| {
        let kind = if depth == last { "gpu" } else { bridge_kind(folder, depth) };
        hop(address.clone(), folder, kind)
    };
    chain.iter().enumerate().rev().map(hop).collect()
}

fn bridge_kind(folder: &Path, depth: usize) -> &'static str {
    match Express::read(folder).map(|express| express.port_type) {
        Some(4) => "root_port",
        Some(5) => "switch_upstream",
        Some(6) => "switch_downstream",
        // If the capability is not readable, the type follows from the position: only root ports are directly below the
        // host bridge.
        None if depth == 0 => "root_port",
        _ => "bridge",
    }
}

fn hop(address: PciAddress, folder: &Path, kind: &str) -> PcieHop {
    let Link { generation, max_generation, width, max_width } = link(folder);
    let (pci_address, kind) = (Some(address), kind.to_owned());
    PcieHop { pci_address, kind, generation, width, max_generation, max_width, aer: aer(folder) }
}

/// The link of a device: current and highest generation, current and highest number of lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::host) struct Link {
    pub(in crate::host) generation: Option<u32>,
    pub(in crate::host) max_generation: Option<u32>,
    pub(in crate::host) width: Option<u32>,
    pub(in crate::host) max_width: Option<u32>,
}

/// Returns the link of the device with this folder.
pub(in crate::host) fn link(folder: &Path) -> Link {
    Link {
        generation: generation(&folder.join("current_link_speed")),
        max_generation: generation(&folder.join("max_link_speed")),
        width: width(&folder.join("current_link_width")),
        max_width: width(&folder.join("max_link_width")),
    }
}

/// Returns the PCIe generation of a link speed in sysfs (`16.0 GT/s PCIe`, on older kernels `16 GT/s`).
fn generation(file: &Path) -> Option<u32> {
    let text = files::text(file)?;
    match text.split_whitespace().next()? {
        "2.5" => Some(1),
        "5.0" | "5" => Some(2),
        "8.0" | "8" => Some(3),
        "16.0" | "16" => Some(4),
        "32.0" | "32" => Some(5),
        "64.0" | "64" => Some(6),
        "128.0" | "128" => Some(7),
        // `Unknown` means that there is no link, or that the device is lost.
        _ => None,
    }
}

/// Returns a link width; `None` for 0 (no link), 63 and 255 (on a lost device, all bits read as one).
fn width(file: &Path) -> Option<u32> {
    files::number(file).filter(|lanes| matches!(lanes, 1 | 2 | 4 | 8 | 12 | 16 | 32))
}

/// Returns the totals of Advanced Error Reporting that are not zero.
fn aer(folder: &Path) -> BTreeMap<String, u64> {
    ["correctable", "nonfatal", "fatal"]
        .into_iter()
        .filter_map(|class| {
            let text = files::text(&folder.join(format!("aer_dev_{class}")))?;
            let total = text.lines().find_map(|line| line.strip_prefix("TOTAL_ERR_"))?;
            let total: u64 = total.split_whitespace().last()?.parse().ok()?;
            (total > 0).then(|| (class.to_owned(), total))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    const GPU: &str = "pci0000:5a/0000:5a:01.0/0000:5b:00.0/0000:5c:00.0/0000:5d:00.0";

    /// Returns the configuration space of a bridge with one capability: PCI Express with this port type.
    fn config(port_type: u8) -> Vec<u8> {
        let mut config = vec![0; 256];
        config[0x34] = 0x40;
        config[0x40] = 0x10;
        config[0x42] = port_type << 4 | 2;
        config
    }

    fn switch() -> Tree {
        let tree = Tree::new();
        tree.pci("pci0000:5a/0000:5a:01.0", "0x8086", "0x352a", "0x060400");
        tree.pci("pci0000:5a/0000:5a:01.0/0000:5b:00.0", "0x1000", "0xc030", "0x060400");
        tree.pci("pci0000:5a/0000:5a:01.0/0000:5b:00.0/0000:5c:00.0", "0x1000", "0xc030", "0x060400");
        tree.pci(GPU, "0x10de", "0x2330", "0x030200");
        tree
    }

    #[test]
    fn a_gpu_behind_a_switch_shows_every_hop_to_the_root_port() {
        let tree = switch();
        tree.pci_file("0000:5a:01.0", "config", config(4));
        tree.pci_file("0000:5b:00.0", "config", config(5));
        tree.pci_file("0000:5c:00.0", "config", config(6));
        tree.pci_file("0000:5c:00.0", "current_link_speed", "16.0 GT/s PCIe\n");
        tree.pci_file("0000:5c:00.0", "current_link_width", "8\n").pci_file("0000:5c:00.0", "max_link_width", "16\n");
        tree.pci_file("0000:5c:00.0", "max_link_speed", "32.0 GT/s PCIe\n");
        tree.pci_file("0000:5c:00.0", "aer_dev_correctable", "RxErr 3\nBadTLP 0\nTOTAL_ERR_COR 3\n");
        tree.pci_file("0000:5c:00.0", "aer_dev_fatal", "TOTAL_ERR_FATAL 0\n");
        let hops = hops(&tree.paths(), &PciAddress::new(0, 0x5d, 0, 0));
        let kinds: Vec<&str> = hops.iter().map(|hop| hop.kind.as_str()).collect();
        assert_eq!(kinds, ["gpu", "switch_downstream", "switch_upstream", "root_port"]);
        let port = &hops[1];
        assert_eq!((port.generation, port.max_generation), (Some(4), Some(5)));
        assert_eq!((port.width, port.max_width), (Some(8), Some(16)));
        assert_eq!(port.aer, BTreeMap::from([("correctable".to_owned(), 3)]));
    }

    #[test]
    fn without_rights_to_the_configuration_space_the_root_port_is_still_known() {
        let tree = switch();
        let hops = hops(&tree.paths(), &PciAddress::new(0, 0x5d, 0, 0));
        let kinds: Vec<&str> = hops.iter().map(|hop| hop.kind.as_str()).collect();
        assert_eq!(kinds, ["gpu", "bridge", "bridge", "root_port"]);
    }

    #[test]
    fn a_lost_device_has_no_link_and_not_63_lanes() {
        let tree = switch();
        tree.pci_file("0000:5d:00.0", "current_link_width", "63\n");
        tree.pci_file("0000:5d:00.0", "current_link_speed", "Unknown\n");
        let hops = hops(&tree.paths(), &PciAddress::new(0, 0x5d, 0, 0));
        assert_eq!((hops[0].width, hops[0].generation), (None, None));
    }

    #[test]
    fn nearness_has_the_terms_of_nvidia_smi() {
        let tree = switch();
        let up = "pci0000:5a/0000:5a:01.0/0000:5b:00.0";
        tree.pci(&format!("{up}/0000:5c:01.0/0000:5e:00.0"), "0x15b3", "0x1021", "0x020700");
        tree.pci(&format!("{up}/0000:5c:02.0/0000:60:00.0/0000:61:00.0/0000:62:00.0"), "0x15b3", "0x1021", "0x020700");
        tree.pci("pci0000:5a/0000:5a:02.0/0000:70:00.0", "0x15b3", "0x1021", "0x020700");
        tree.pci("pci0000:9a/0000:9a:01.0/0000:9b:00.0", "0x15b3", "0x1021", "0x020700");
        tree.pci("pci0000:ba/0000:ba:01.0/0000:bb:00.0", "0x15b3", "0x1021", "0x020700");
        for (address, node) in [("0000:5d:00.0", "0\n"), ("0000:9b:00.0", "0\n"), ("0000:bb:00.0", "1\n")] {
            tree.pci_file(address, "numa_node", node);
        }
        let at = |address: &str| place(&tree.path().join("sys/bus/pci/devices").join(address)).expect(address);
        let gpu = at("0000:5d:00.0");
        let word = |address: &str| near(&gpu, &at(address)).map_or("SYS", Near::word);
        assert_eq!(word("0000:5e:00.0"), "PIX");
        assert_eq!(word("0000:62:00.0"), "PXB");
        assert_eq!(word("0000:70:00.0"), "PHB");
        assert_eq!(word("0000:9b:00.0"), "NODE");
        assert_eq!(word("0000:bb:00.0"), "SYS");
    }
}
