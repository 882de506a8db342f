//! `without_ports`: lists network cards (InfiniBand, RoCE, EFA) that have no RDMA device.
//!
//! In this case, the driver or its RDMA module is missing.

use std::fs;
use std::io::Read;
use std::path::Path;

use syringe_core::facts::topology::NetworkCard;
use syringe_core::text::clean;

use super::{AMAZON, Function, MELLANOX, NVIDIA};
use crate::paths::Paths;
use crate::{bounded, files};

/// Vendors of the functions that the topology needs: GPUs, NVSwitches, and network cards.
pub(super) const VENDORS: [u32; 3] = [NVIDIA, MELLANOX, AMAZON];
/// PCI classes of network cards: Ethernet and InfiniBand.
const ETHERNET: u32 = 0x0200;
const INFINIBAND: u32 = 0x0207;
/// Device ids of EFA without the last digit.
const EFA: u32 = 0xefa;
/// Maximum number of cards. A node has up to about 40.
const MAX_CARDS: usize = 64;

/// Returns the network cards among these functions that have no RDMA device. All cards are read in one job of the
/// helper thread.
pub(super) fn without_ports(paths: &Paths, functions: &[Function]) -> Vec<NetworkCard> {
    let is_network = |function: &&Function| [ETHERNET, INFINIBAND].contains(&function.class);
    let mut cards: Vec<Function> = functions.iter().filter(is_network).cloned().collect();
    cards.retain(|card| card.vendor != NVIDIA);
    if cards.is_empty() {
        return Vec::new();
    }
    bounded::cut(&mut cards, MAX_CARDS, "network cards");
    let read = move || Ok(cards.into_iter().filter_map(card).collect());
    bounded::in_time(&paths.sys.join("bus/pci/devices"), read).unwrap_or_default()
}

/// Returns a card without an RDMA device.
fn card(function: Function) -> Option<NetworkCard> {
    let Function { address, folder, vendor, class } = function;
    let device = hex(&folder.join("device"))?;
    let kind = match (vendor, class) {
        (AMAZON, _) if device >> 4 != EFA => return None,
        (AMAZON, _) => "efa",
        (_, INFINIBAND) => "infiniband",
        _ => "ethernet",
    };
    let has_ports = fs::read_dir(folder.join("infiniband")).is_ok_and(|mut devices| devices.next().is_some());
    let driver = fs::read_link(folder.join("driver")).ok();
    let driver = driver.and_then(|driver| Some(clean(driver.file_name()?.to_str()?, 40)));
    let device_id = format!("{vendor:04x}:{device:04x}");
    (!has_ports).then(|| NetworkCard { pci_address: Some(address), device_id, kind: kind.to_owned(), driver })
}

/// Returns the number in a file of sysfs, for the helper thread.
fn hex(path: &Path) -> Option<u32> {
    let mut text = String::new();
    files::open_now(path).ok()?.take(16).read_to_string(&mut text).ok()?;
    u32::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::pci;
    use crate::testing::Tree;

    #[test]
    fn only_cards_without_an_rdma_device_are_listed() {
        let tree = Tree::new();
        tree.pci("pci0000:10/0000:11:00.0", "0x15b3", "0x1021", "0x020700");
        tree.pci("pci0000:20/0000:21:00.0", "0x15b3", "0x1021", "0x020700");
        tree.folder("sys/devices/pci0000:20/0000:21:00.0/infiniband/mlx5_0");
        tree.pci("pci0000:30/0000:31:00.0", "0x1d0f", "0xefa2", "0x020000");
        tree.link("sys/devices/pci0000:30/0000:31:00.0/driver", "../../../bus/pci/drivers/vfio-pci");
        // An ordinary network interface of the cloud, a controller of the BlueField, and a card of another vendor.
        tree.pci("pci0000:40/0000:41:00.0", "0x1d0f", "0xec20", "0x020000");
        tree.pci("pci0000:50/0000:51:00.0", "0x15b3", "0xc2d5", "0x080100");
        tree.pci("pci0000:60/0000:61:00.0", "0x8086", "0x159b", "0x020000");
        // A virtual function of a listed card, and a device that does not respond.
        tree.pci("pci0000:20/0000:21:00.1", "0x15b3", "0x101e", "0x020700");
        tree.link("sys/devices/pci0000:20/0000:21:00.1/physfn", "../0000:21:00.0");
        tree.pci("pci0000:70/0000:71:00.0", "0xffff", "0xffff", "0xffffff");
        let paths = tree.paths();
        let functions = pci::of_vendors(&paths, &VENDORS).expect("sysfs is there");
        let found = without_ports(&paths, &functions);
        let told: Vec<_> =
            found.iter().map(|card| (card.device_id.as_str(), card.kind.as_str(), card.driver.as_deref())).collect();
        assert_eq!(told, [("15b3:1021", "infiniband", None), ("1d0f:efa2", "efa", Some("vfio-pci"))]);
    }
}
