//! `read`: reads InfiniBand and RoCE ports with their counters and settings, and the GPUs near each port.
//! `places`: the positions of the GPUs in the PCI tree.
//!
//! Source: `/sys/class/infiniband`.

use std::collections::BTreeMap;
use std::path::Path;

use syringe_core::facts::rdma_counters;
use syringe_core::facts::rdma_counters::Folder;
use syringe_core::facts::topology::{NearGpu, NicPort, NicSlot};
use syringe_core::pci::PciAddress;
use syringe_core::text::clean;

use super::express::Express;
use super::interfaces::{self, DefaultRoutes};
use super::pcie_path;
use super::pcie_path::{Near, Place};
use crate::host::pci;
use crate::paths::Paths;
use crate::{bounded, files};

/// Maximum number of devices, without virtual functions. A node has up to about 20; users can add software devices.
const MAX_DEVICES: usize = 128;
/// Maximum number of ports of a device.
const MAX_PORTS: usize = 16;
/// Maximum number of GIDs of a port that are read. The kernel fills the table from the start.
const MAX_GIDS: usize = 32;

const ETHERNET: &str = "Ethernet";
const INFINIBAND: &str = "InfiniBand";

/// Returns the positions of the GPUs in the PCI tree. `gpus`: NVML index and address.
pub(super) fn places(paths: &Paths, gpus: &[(u32, PciAddress)]) -> Vec<(u32, Place)> {
    let place = |address: &PciAddress| pcie_path::place(&pci::folder(paths, address));
    gpus.iter().filter_map(|(index, address)| Some((*index, place(address)?))).collect()
}

/// Returns every port of every RDMA device, ordered by device and port.
pub(super) fn read(paths: &Paths, gpus: &[(u32, Place)], routes: &DefaultRoutes) -> Vec<NicPort> {
    let class = paths.sys.join("class/infiniband");
    let mut devices = files::names(&class).unwrap_or_default();
    // Virtual functions of a listed NIC add no facts, and there may be hundreds.
    let virtual_function = |device: &&String| files::exists(&class.join(device).join("device/physfn"));
    devices.retain(|device| !virtual_function(&device));
    bounded::cut(&mut devices, MAX_DEVICES, "RDMA devices");
    devices.iter().flat_map(|device| ports(&class.join(device), device, gpus, routes)).collect()
}

fn ports(folder: &Path, device: &str, gpus: &[(u32, Place)], routes: &DefaultRoutes) -> Vec<NicPort> {
    let function = folder.join("device");
    let place = pcie_path::place(&function);
    let near = place.as_ref().map(|place| nearest(place, gpus)).unwrap_or_default();
    let mut numbers: Vec<u32> =
        files::names(&folder.join("ports")).unwrap_or_default().iter().filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    bounded::cut(&mut numbers, MAX_PORTS, "ports of an RDMA device");
    let text = |path: &Path| files::text(path).map(|text| clean(&text, 40));
    let (firmware, board_id) = (text(&folder.join("fw_ver")), text(&folder.join("board_id")));
    let slot = place.as_ref().map(slot).filter(|slot| *slot != NicSlot::default());
    let port = |number: u32| {
        let port = folder.join("ports").join(number.to_string());
        let link_layer = text(&port.join("link_layer"));
        let is_ethernet = link_layer.as_deref() == Some(ETHERNET);
        let interface = if is_ethernet { interfaces::of_port(&function, number, routes) } else { None };
        let net = interface.as_ref().map(|interface| function.join("net").join(&interface.name));
        NicPort {
            device: clean(device, 40),
            port: number,
            pci_address: place.as_ref().and_then(Place::address).cloned(),
            numa_node: pci::numa_node(&function),
            state: files::text(&port.join("state")).map(|text| state(&text)),
            physical_state: files::text(&port.join("phys_state")).map(|text| state(&text)),
            rate_gigabits_per_second: files::text(&port.join("rate")).as_deref().and_then(rate),
            firmware: firmware.clone(),
            board_id: board_id.clone(),
            roce_v2_address: if is_ethernet { has_roce_v2_address(&port) } else { None },
            counters: counters(folder, &port, net.as_deref(), link_layer.as_deref()),
            link_layer,
            interface,
            slot: slot.clone(),
            near: near.clone(),
        }
    };
    numbers.into_iter().map(port).collect()
}

/// Returns the counters of the table that are not zero. `net`: the folder of the port's network interface.
fn counters(device: &Path, port: &Path, net: Option<&Path>, link_layer: Option<&str>) -> BTreeMap<String, u64> {
    let is_efa = !matches!(link_layer, Some(ETHERNET | INFINIBAND));
    let of = |folder: Folder| match folder {
        Folder::Counters if !is_efa => vec![port.join("counters")],
        Folder::HwCounters if !is_efa => vec![port.join("hw_counters")],
        Folder::Efa if is_efa => vec![port.join("hw_counters"), device.join("hw_counters")],
        Folder::Statistics => net.iter().map(|net| net.join("statistics")).collect(),
        Folder::Interface => net.iter().map(|net| net.to_path_buf()).collect(),
        Folder::Counters | Folder::HwCounters | Folder::Efa => Vec::new(),
    };
    let all = [Folder::Counters, Folder::HwCounters, Folder::Efa, Folder::Statistics, Folder::Interface];
    let mut counted = BTreeMap::new();
    for (folder, path) in all.into_iter().flat_map(|folder| of(folder).into_iter().map(move |path| (folder, path))) {
        let names = rdma_counters::all().iter().filter(|row| row.folder == folder).map(|row| row.name).collect();
        let found = files::numbers(&path, names).into_iter().filter(|(_, count)| *count > 0);
        counted.extend(found.map(|(name, count)| (name.to_owned(), count)));
    }
    counted
}

/// Returns whether the port has a RoCE v2 GID that is not link-local, in one job of the helper thread. `None`: nothing
/// was read.
fn has_roce_v2_address(port: &Path) -> Option<bool> {
    let at = port.to_owned();
    let read = move || {
        let text = |path: &Path| {
            use std::io::Read;
            let mut text = String::new();
            files::open_now(path)?.take(64).read_to_string(&mut text)?;
            std::io::Result::Ok(text)
        };
        let mut is_read = false;
        for number in 0..MAX_GIDS {
            let Ok(gid) = text(&at.join("gids").join(number.to_string())) else { break };
            is_read = true;
            let is_empty = gid.trim().split(':').all(|part| part.bytes().all(|digit| digit == b'0'));
            if is_empty || gid.starts_with("fe80:") {
                continue;
            }
            let kind = text(&at.join("gid_attrs/types").join(number.to_string())).unwrap_or_default();
            if kind.trim() == "RoCE v2" {
                return Ok(Some(true));
            }
        }
        Ok(is_read.then_some(false))
    };
    bounded::in_time(&port.join("gids"), read).ok().flatten()
}

/// Returns the PCIe link and the settings of a card.
fn slot(card: &Place) -> NicSlot {
    let folder = |above: usize| card.chain.len().checked_sub(above + 1).map(|at| card.chain[at].1.as_path());
    let link = folder(0).map(pcie_path::link).unwrap_or_default();
    let port = folder(1).map(pcie_path::link).unwrap_or_default();
    let settings = folder(0).and_then(Express::read).unwrap_or_default();
    NicSlot {
        generation: link.generation,
        width: link.width,
        max_generation: link.max_generation,
        max_width: link.max_width,
        port_max_generation: port.max_generation,
        port_max_width: port.max_width,
        max_payload_bytes: settings.max_payload,
        port_max_payload_bytes: folder(1).and_then(Express::read).and_then(|port| port.max_payload),
        max_read_request_bytes: settings.max_read_request,
    }
}

/// Returns the GPUs that are nearest to a NIC; an empty list if no GPU is on the NUMA node of the NIC.
fn nearest(nic: &Place, gpus: &[(u32, Place)]) -> Vec<NearGpu> {
    let measured: Vec<(u32, Near)> =
        gpus.iter().filter_map(|(index, gpu)| Some((*index, pcie_path::near(nic, gpu)?))).collect();
    let best = measured.iter().map(|(_, near)| *near).min();
    measured
        .into_iter()
        .filter(|(_, near)| Some(*near) == best)
        .map(|(gpu, near)| NearGpu { gpu, via: near.word().to_owned() })
        .collect()
}

/// Returns the state without its number (`4: ACTIVE`).
fn state(text: &str) -> String {
    clean(text.split_once(": ").map_or(text, |(_, word)| word), 40)
}

/// Returns the rate in Gbit/s from a text such as `400 Gb/sec (4X NDR)`.
fn rate(text: &str) -> Option<f64> {
    let (number, unit) = text.split_once(' ')?;
    let rate: f64 = number.parse().ok()?;
    (unit.starts_with("Gb/sec") && rate.is_finite()).then_some(rate)
}

#[cfg(test)]
mod tests {
    use super::super::express::tests::config;
    use super::*;
    use crate::testing::Tree;

    #[test]
    fn a_nic_names_the_gpu_behind_its_own_switch() {
        let tree = Tree::new();
        let switch = "pci0000:5a/0000:5a:01.0/0000:5b:00.0";
        tree.pci(&format!("{switch}/0000:5c:00.0/0000:5d:00.0"), "0x10de", "0x2330", "0x030200");
        tree.pci("pci0000:5a/0000:5a:02.0/0000:6d:00.0", "0x10de", "0x2330", "0x030200");
        let nic = format!("{switch}/0000:5c:01.0/0000:5e:00.0");
        tree.pci(&nic, "0x15b3", "0x1021", "0x020700").pci_file("0000:5e:00.0", "numa_node", "0");
        tree.pci(&format!("{switch}/0000:5c:01.0"), "0x1000", "0xc030", "0x060400");
        tree.link(&format!("sys/devices/{nic}/infiniband/mlx5_0/device"), "../..");
        let port = format!("sys/devices/{nic}/infiniband/mlx5_0/ports/1");
        tree.file(&format!("{port}/state"), "4: ACTIVE\n").file(&format!("{port}/rate"), "400 Gb/sec (4X NDR)\n");
        tree.file(&format!("{port}/link_layer"), "InfiniBand\n");
        tree.link("sys/class/infiniband/mlx5_0", &format!("../../devices/{nic}/infiniband/mlx5_0"));
        let gpus = [(0, PciAddress::new(0, 0x5d, 0, 0)), (1, PciAddress::new(0, 0x6d, 0, 0))];
        let counters = format!("{port}/counters");
        tree.file(&format!("{port}/phys_state"), "5: LinkUp\n").file(&format!("{counters}/link_downed"), "3\n");
        tree.file(&format!("{counters}/symbol_error"), "0\n").file(&format!("{counters}/port_xmit_data"), "9\n");
        tree.file(&format!("{port}/hw_counters/out_of_sequence"), "17\n")
            .file(&format!("{counters}/port_rcv_errors"), "x\n");
        tree.file(&format!("sys/devices/{nic}/infiniband/mlx5_0/fw_ver"), "28.43.1014\n");
        tree.pci_file("0000:5e:00.0", "config", config(0, 0x5936, 0)).pci_file(
            "0000:5c:01.0",
            "config",
            config(6, 0x2010, 0),
        );
        tree.pci_file("0000:5e:00.0", "current_link_width", "8\n").pci_file("0000:5e:00.0", "max_link_width", "16\n");
        tree.pci_file("0000:5c:01.0", "max_link_width", "16\n");
        let ports = read(&tree.paths(), &places(&tree.paths(), &gpus), &DefaultRoutes::read(&tree.paths()));
        let port = &ports[0];
        let counted: Vec<(&str, u64)> = port.counters.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        assert_eq!(counted, [("link_downed", 3), ("out_of_sequence", 17)], "no zeros, no traffic");
        assert_eq!((port.physical_state.as_deref(), port.firmware.as_deref()), (Some("LinkUp"), Some("28.43.1014")));
        let slot = NicSlot {
            width: Some(8),
            max_width: Some(16),
            port_max_width: Some(16),
            max_payload_bytes: Some(256),
            port_max_payload_bytes: Some(128),
            max_read_request_bytes: Some(4096),
            ..NicSlot::default()
        };
        assert_eq!(port.slot.as_ref(), Some(&slot));
        assert_eq!((port.roce_v2_address, &port.interface), (None, &None), "the port is InfiniBand");
        assert_eq!(port.near, [NearGpu { gpu: 0, via: "PIX".into() }]);
        assert_eq!(port.pci_address, Some(PciAddress::new(0, 0x5e, 0, 0)));
        assert_eq!((port.state.as_deref(), port.rate_gigabits_per_second), (Some("ACTIVE"), Some(400.0)));
        assert_eq!((port.port, port.numa_node, port.link_layer.as_deref()), (1, Some(0), Some("InfiniBand")));
    }

    #[test]
    fn only_a_routable_gid_of_version_2_is_a_roce_address() {
        let tree = Tree::new();
        assert_eq!(has_roce_v2_address(tree.path()), None);
        let gids = [
            ("fe80:0000:0000:0000:0ac0:ebff:fe12:3456", "RoCE v2\n"),
            ("0000:0000:0000:0000:0000:ffff:0a00:0001", "IB/RoCE v1\n"),
            ("0000:0000:0000:0000:0000:0000:0000:0000", ""),
        ];
        for (number, (gid, kind)) in gids.iter().enumerate() {
            tree.file(&format!("gids/{number}"), gid).file(&format!("gid_attrs/types/{number}"), kind);
        }
        assert_eq!(has_roce_v2_address(tree.path()), Some(false));
        tree.file("gids/3", gids[1].0).file("gid_attrs/types/3", "RoCE v2\n");
        assert_eq!(has_roce_v2_address(tree.path()), Some(true));
    }

    #[test]
    fn the_counters_of_an_efa_device_are_in_one_of_two_folders() {
        let tree = Tree::new();
        tree.file("hw_counters/no_completion_cmds", "2\n").file("ports/1/hw_counters/rx_drops", "5\n");
        tree.file("ports/1/counters/link_downed", "5\n");
        let counted = counters(tree.path(), &tree.path().join("ports/1"), None, Some("Unspecified"));
        assert_eq!(counted, BTreeMap::from([("no_completion_cmds".to_owned(), 2), ("rx_drops".to_owned(), 5)]));
    }

    #[test]
    fn a_rate_in_another_unit_is_unknown_rather_than_wrong() {
        assert_eq!(rate("2.5 Gb/sec (1X SDR)"), Some(2.5));
        assert_eq!(rate("100 Mb/sec"), None);
        assert_eq!(rate("nan Gb/sec"), None);
    }
}
