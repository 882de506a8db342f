//! Reads InfiniBand and RoCE ports, and the GPUs near each port (`read`). Source: `/sys/class/infiniband`.

use std::path::Path;

use syringe_core::facts::topology::{NearGpu, NicPort};
use syringe_core::pci::PciAddress;
use syringe_core::text::clean;

use super::pcie_path;
use super::pcie_path::{Near, Place};
use crate::host::pci;
use crate::paths::Paths;
use crate::{bounded, files};

/// Maximum number of devices, without virtual functions. A node has up to about 20; users can add software devices.
const MAX_DEVICES: usize = 128;

/// Returns every port of every RDMA device, ordered by device and port. `gpus`: NVML index and address.
pub(in crate::host) fn read(paths: &Paths, gpus: &[(u32, PciAddress)]) -> Vec<NicPort> {
    let class = paths.sys.join("class/infiniband");
    let places: Vec<(u32, Place)> = gpus
        .iter()
        .filter_map(|(index, address)| Some((*index, pcie_path::place(&pci::folder(paths, address))?)))
        .collect();
    let mut devices = files::names(&class).unwrap_or_default();
    // Virtual functions of a listed NIC add no facts, and there may be hundreds.
    let virtual_function = |device: &&String| files::exists(&class.join(device).join("device/physfn"));
    devices.retain(|device| !virtual_function(&device));
    bounded::cut(&mut devices, MAX_DEVICES, "RDMA devices");
    devices.iter().flat_map(|device| ports(&class.join(device), device, &places)).collect()
}

fn ports(folder: &Path, device: &str, gpus: &[(u32, Place)]) -> Vec<NicPort> {
    let function = folder.join("device");
    let place = pcie_path::place(&function);
    let near = place.as_ref().map(|place| nearest(place, gpus)).unwrap_or_default();
    let mut numbers: Vec<u32> =
        files::names(&folder.join("ports")).unwrap_or_default().iter().filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    let port = |number: u32| {
        let port = folder.join("ports").join(number.to_string());
        NicPort {
            device: clean(device, 40),
            port: number,
            pci_address: place.as_ref().and_then(Place::address).cloned(),
            numa_node: pci::numa_node(&function),
            link_layer: files::text(&port.join("link_layer")).map(|text| clean(&text, 40)),
            state: files::text(&port.join("state")).map(|text| state(&text)),
            rate_gigabits_per_second: files::text(&port.join("rate")).as_deref().and_then(rate),
            near: near.clone(),
        }
    };
    numbers.into_iter().map(port).collect()
}

/// Returns the GPUs that are nearest to a NIC; an empty list if all GPUs are on NUMA nodes other than that of the NIC.
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
        tree.link(&format!("sys/devices/{nic}/infiniband/mlx5_0/device"), "../..");
        let port = format!("sys/devices/{nic}/infiniband/mlx5_0/ports/1");
        tree.file(&format!("{port}/state"), "4: ACTIVE\n").file(&format!("{port}/rate"), "400 Gb/sec (4X NDR)\n");
        tree.file(&format!("{port}/link_layer"), "InfiniBand\n");
        tree.link("sys/class/infiniband/mlx5_0", &format!("../../devices/{nic}/infiniband/mlx5_0"));
        let gpus = [(0, PciAddress::new(0, 0x5d, 0, 0)), (1, PciAddress::new(0, 0x6d, 0, 0))];
        let ports = read(&tree.paths(), &gpus);
        let port = &ports[0];
        assert_eq!(port.near, [NearGpu { gpu: 0, via: "PIX".into() }]);
        assert_eq!(port.pci_address, Some(PciAddress::new(0, 0x5e, 0, 0)));
        assert_eq!((port.state.as_deref(), port.rate_gigabits_per_second), (Some("ACTIVE"), Some(400.0)));
        assert_eq!((port.port, port.numa_node, port.link_layer.as_deref()), (1, Some(0), Some("InfiniBand")));
    }

    #[test]
    fn a_rate_in_another_unit_is_unknown_rather_than_wrong() {
        assert_eq!(rate("2.5 Gb/sec (1X SDR)"), Some(2.5));
        assert_eq!(rate("100 Mb/sec"), None);
        assert_eq!(rate("nan Gb/sec"), None);
    }
}
