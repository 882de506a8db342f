//! `read`: reads settings for direct transfers between GPUs and network cards: ACS of PCIe ports, RDMA clients.

use std::collections::BTreeMap;

use syringe_core::facts::topology::GpuDirect;
use syringe_core::pci::PciAddress;
use syringe_core::text::clean;

use super::express::Express;
use super::pcie_path::Place;
use crate::paths::Paths;
use crate::{bounded, files};

/// Maximum number of ports whose registers are read. A machine with eight GPUs and 16 cards has about 50.
const MAX_PORTS: usize = 256;
/// Maximum number of clients.
const MAX_CLIENTS: usize = 16;
/// Bits of the ACS control register: P2P request redirect, P2P completion redirect, upstream forwarding.
const REDIRECT: u16 = 0b1_1100;

/// Reads the settings for the devices at these positions.
pub(super) fn read<'a>(paths: &Paths, places: impl Iterator<Item = &'a Place>) -> GpuDirect {
    let mut ports: BTreeMap<&PciAddress, &std::path::PathBuf> = BTreeMap::new();
    for place in places {
        let above = place.chain.split_last().map(|(_, above)| above).unwrap_or_default();
        ports.extend(above.iter().map(|(address, folder)| (address, folder)));
    }
    let mut ports: Vec<_> = ports.into_iter().collect();
    bounded::cut(&mut ports, MAX_PORTS, "PCIe ports above GPUs and network cards");
    let mut told = GpuDirect { memory_peers: memory_peers(paths), ..GpuDirect::default() };
    for (address, folder) in ports {
        let Some(Express { port_type, acs_control: Some(control), .. }) = Express::read(folder) else { continue };
        let redirects = control & REDIRECT != 0;
        match port_type {
            4 if redirects => told.acs_root_ports.push(address.clone()),
            6 if redirects => told.acs_switch_ports.push(address.clone()),
            4 | 6 => {}
            _ => continue,
        }
        *told.acs_ports_read.get_or_insert(0) += 1;
    }
    told
}

/// Returns the modules that are registered as peer-memory clients (GPUDirect RDMA); `None` if the folder of the kernel
/// cannot be read.
fn memory_peers(paths: &Paths) -> Option<Vec<String>> {
    let memory = paths.sys.join("kernel/mm");
    if !files::exists(&memory) {
        return None;
    }
    let names = files::names(&memory.join("memory_peers")).unwrap_or_default();
    Some(names.iter().take(MAX_CLIENTS).map(|name| clean(name, 40)).collect())
}

#[cfg(test)]
mod tests {
    use super::super::express::tests::config;
    use super::super::pcie_path;
    use super::*;
    use crate::testing::Tree;

    #[test]
    fn ports_above_a_gpu_that_redirect_are_listed() {
        let tree = Tree::new();
        let switch = "pci0000:5a/0000:5a:01.0/0000:5b:00.0";
        for (below, class) in [
            ("pci0000:5a/0000:5a:01.0", "0x060400"),
            (switch, "0x060400"),
            (&format!("{switch}/0000:5c:00.0"), "0x060400"),
            (&format!("{switch}/0000:5c:00.0/0000:5d:00.0"), "0x030200"),
            (&format!("{switch}/0000:5c:01.0"), "0x060400"),
            (&format!("{switch}/0000:5c:01.0/0000:5e:00.0"), "0x030200"),
        ] {
            tree.pci(below, "0x10de", "0x2330", class);
        }
        tree.pci_file("0000:5a:01.0", "config", config(4, 0, 0x1d));
        tree.pci_file("0000:5b:00.0", "config", config(5, 0, 0));
        tree.pci_file("0000:5c:00.0", "config", config(6, 0, 0x1d));
        tree.pci_file("0000:5c:01.0", "config", config(6, 0, 0x01));
        let places = ["0000:5d:00.0", "0000:5e:00.0"]
            .map(|name| pcie_path::place(&tree.path().join("sys/bus/pci/devices").join(name)).expect(name));
        let told = read(&tree.paths(), places.iter());
        assert_eq!(told.acs_switch_ports, [PciAddress::new(0, 0x5c, 0, 0)]);
        assert_eq!(told.acs_root_ports, [PciAddress::new(0, 0x5a, 1, 0)]);
        assert_eq!((told.acs_ports_read, told.memory_peers), (Some(3), None));
        tree.pci_file("0000:5c:00.0", "config", &config(6, 0, 0x1d)[..256]);
        tree.folder("sys/kernel/mm/memory_peers/nv_mem");
        let told = read(&tree.paths(), places.iter());
        assert_eq!((told.acs_switch_ports, told.acs_ports_read), (vec![], Some(2)), "only root reads more");
        assert_eq!(told.memory_peers, Some(vec!["nv_mem".to_owned()]));
    }
}
