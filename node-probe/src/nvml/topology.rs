//! The part of the `topology` section from NVML: NVLinks, fabric, peer-to-peer, nearness of GPUs to each other and
//! to CPUs. NUMA nodes, PCIe paths and NICs come from sysfs.

use nvml_wrapper::Device;
use syringe_core::facts::Unsupported;
use syringe_core::facts::topology::{GpuTopology, Topology};
use syringe_core::report::Section;

use super::device_reader::DeviceReader;
use super::field_errors::{FieldErrors, with_duplicate_identities};
use super::identity::Identity;
use super::peer_to_peer::PeerToPeer;
use super::session::Session;
use super::{enum_names, fabric, nvlink, raw, value_ranges};

/// Words of the CPU mask for NVML: 4096 CPUs.
const CPU_WORDS: usize = 64;
impl Session {
    /// Reads NVML's part of the topology. `numa_node`, `pcie_path`, `nics` and `nvswitches` come from sysfs.
    pub(crate) fn topology(&self) -> Section<Topology> {
        let (gpus, mut field_errors) = self.each(entry, read);
        let mut topology = Topology { gpus, ..Topology::default() };
        self.add_pairs(&mut topology, &mut field_errors);
        let FieldErrors { unsupported, unread, lost, problems } =
            with_duplicate_identities(field_errors, &topology.gpus, |gpu| {
                (gpu.index, gpu.uuid.as_deref(), gpu.pci_address.as_ref())
            });
        Section::read(Topology { unsupported, unread, lost, ..topology }, problems)
    }

    /// Adds the facts about pairs of GPUs.
    fn add_pairs(&self, topology: &mut Topology, field_errors: &mut FieldErrors) {
        let gpus = &topology.gpus;
        let mut matrix = vec![vec![String::from("X"); gpus.len()]; gpus.len()];
        let mut peers = PeerToPeer::default();
        for (row, own) in gpus.iter().enumerate() {
            for (column, other) in gpus.iter().enumerate().skip(row + 1) {
                let devices = self.device(own.index).zip(self.device(other.index));
                let word = self.connection(own, other, devices.as_ref());
                matrix[row][column].clone_from(&word);
                matrix[column][row] = word;
                if let Some((first, second)) = &devices {
                    let _under_way = self.recorder().record("nvmlDeviceGetP2PStatus", Some(own.index));
                    peers.read_pair([own.index, other.index], |capability| raw::p2p_status(first, second, capability));
                }
            }
        }
        topology.matrix = matrix;
        topology.p2p_all_ok = peers.common_to_all_pairs();
        topology.p2p_lacking = peers.lacking;
        if peers.absent {
            let gpus = topology.gpus.iter().map(|gpu| gpu.index).collect();
            field_errors.unsupported.push(Unsupported { gpus, fields: vec!["p2p".into()] });
        }
        let failed = peers.failed.map(|error| error.problem("p2p (nvmlDeviceGetP2PStatus)", None));
        field_errors.problems.extend(failed);
    }

    /// How two GPUs are connected, in the terms of `nvidia-smi topo -m`.
    fn connection(&self, own: &GpuTopology, other: &GpuTopology, devices: Option<&(Device<'_>, Device<'_>)>) -> String {
        if let Some(links) = nvlink::between(own, other) {
            return format!("NV{links}");
        }
        let Some((first, second)) = devices else { return "?".into() };
        let _under_way = self.recorder().record("nvmlDeviceGetTopologyCommonAncestor", Some(own.index));
        raw::common_ancestor(first, second).map_or("?", enum_names::topology_level).into()
    }
}

fn entry(gpu: Identity) -> GpuTopology {
    let Identity { index, uuid, pci_address } = gpu;
    GpuTopology { index, uuid, pci_address, ..GpuTopology::default() }
}

fn read(device: &Device<'_>, reader: &mut DeviceReader<'_>, gpu: &mut GpuTopology) {
    gpu.cpu_affinity = reader
        .call("nvmlDeviceGetCpuAffinity", &["cpu_affinity"], || device.cpu_affinity(CPU_WORDS))
        .and_then(|mask| cpu_list(&mask));
    gpu.nvlinks = nvlink::links(device, reader);
    gpu.fabric =
        reader.call("nvmlDeviceGetGpuFabricInfoV", &["fabric"], || raw::fabric_info(device)).map(fabric::describe);
    const REPLAYS: &str = "nvmlDeviceGetPcieReplayCounter";
    let replays = reader.call(REPLAYS, &["pcie_replays"], || device.pcie_replay_counter());
    gpu.pcie_replays = reader.check_range(REPLAYS, "pcie_replays", replays, value_ranges::SMALL_COUNT).map(u64::from);
}

/// A CPU mask as ranges, e.g. `0-47,96-143`; `None` for no CPU.
fn cpu_list(mask: &[std::os::raw::c_ulong]) -> Option<String> {
    let bits = u64::BITS as usize;
    let is_set = |cpu: &usize| mask.get(cpu / bits).is_some_and(|word| word >> (cpu % bits) & 1 == 1);
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for cpu in (0..mask.len() * bits).filter(is_set) {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    let word = |(first, last): &(usize, usize)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    Some(ranges.iter().map(word).collect::<Vec<_>>().join(",")).filter(|list| !list.is_empty())
}

#[cfg(test)]
mod tests {
    use super::cpu_list;

    #[test]
    fn a_cpu_mask_reads_as_ranges() {
        assert_eq!(cpu_list(&[0b1011, 1 << 63, 1]).as_deref(), Some("0-1,3,127-128"));
        assert_eq!(cpu_list(&[u64::MAX, 0]).as_deref(), Some("0-63"));
        assert_eq!(cpu_list(&[0, 0]), None);
    }
}
