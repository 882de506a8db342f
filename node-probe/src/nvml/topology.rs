//! The `topology` section, as far as NVML knows it: NVLinks, fabric, peer-to-peer, nearness of GPUs to each other and
//! to CPUs. NUMA nodes, PCIe paths and NICs come from sysfs.

use nvml_wrapper::Device;
use syringe_core::facts::Unsupported;
use syringe_core::facts::topology::{Fabric, GpuTopology, P2pLack, Topology};
use syringe_core::report::Section;

use super::errors::{Kind, Refusal};
use super::missing::{Asker, Missing, told_apart};
use super::session::{Identity, Session};
use super::{nvlink, possible, raw, words};

/// Words of the CPU mask that NVML is given: 4096 CPUs.
const CPU_WORDS: usize = 64;
/// `NVML_GPU_FABRIC_STATE_COMPLETED`.
const FABRIC_COMPLETED: u32 = 3;
/// `NVML_GPU_FABRIC_STATE_NOT_SUPPORTED`.
const FABRIC_NOT_SUPPORTED: u32 = 0;

/// Peer-to-peer capabilities that matter to programs (`nvmlGpuP2PCapsIndex_t`).
const CAPABILITIES: &[(u32, &str)] = &[(0, "read"), (1, "write"), (3, "atomics")];

impl Session {
    /// Reads NVML's part of the topology. `numa_node`, `pcie_path`, `nics` and `nvswitches` are left to sysfs.
    pub fn topology(&self) -> Section<Topology> {
        let (gpus, mut missing) = self.each(entry, read);
        let mut topology = Topology { gpus, ..Topology::default() };
        self.relate(&mut topology, &mut missing);
        let Missing { unsupported, unread, lost, problems } =
            told_apart(missing, &topology.gpus, |gpu| (gpu.index, gpu.uuid.as_deref(), gpu.pci_address.as_ref()));
        Section::read(Topology { unsupported, unread, lost, ..topology }, problems)
    }

    /// Fills in what concerns pairs of GPUs.
    fn relate(&self, topology: &mut Topology, missing: &mut Missing) {
        let gpus = &topology.gpus;
        let mut matrix = vec![vec![String::from("X"); gpus.len()]; gpus.len()];
        let mut peers = Peers::default();
        for (row, own) in gpus.iter().enumerate() {
            for (column, other) in gpus.iter().enumerate().skip(row + 1) {
                let devices = self.device(own.index).zip(self.device(other.index));
                let word = self.nearness(own, other, devices.as_ref());
                matrix[row][column].clone_from(&word);
                matrix[column][row] = word;
                if let Some((first, second)) = &devices {
                    let _under_way = self.trace().enter("nvmlDeviceGetP2PStatus", Some(own.index));
                    peers.ask([own.index, other.index], |capability| raw::p2p_status(first, second, capability));
                }
            }
        }
        topology.matrix = matrix;
        topology.p2p_all_ok = peers.everywhere();
        topology.p2p_lacking = peers.lacking;
        if peers.absent {
            let gpus = topology.gpus.iter().map(|gpu| gpu.index).collect();
            missing.unsupported.push(Unsupported { gpus, fields: vec!["p2p".into()] });
        }
        let failed = peers.failed.map(|refusal| refusal.problem("p2p (nvmlDeviceGetP2PStatus)", None));
        missing.problems.extend(failed);
    }

    /// How two GPUs are connected, in the words of `nvidia-smi topo -m`.
    fn nearness(&self, own: &GpuTopology, other: &GpuTopology, devices: Option<&(Device<'_>, Device<'_>)>) -> String {
        if let Some(links) = nvlink::between(own, other) {
            return format!("NV{links}");
        }
        let Some((first, second)) = devices else { return "?".into() };
        let _under_way = self.trace().enter("nvmlDeviceGetTopologyCommonAncestor", Some(own.index));
        raw::common_ancestor(first, second).map_or("?", words::topology_level).into()
    }
}

/// What pairs of GPUs can do with each other.
#[derive(Default)]
struct Peers {
    /// Pairs that were asked and answered.
    answered: u32,
    lacking: Vec<P2pLack>,
    /// NVML does not offer the question at all: it is not asked again.
    absent: bool,
    /// Why some pair could not be asked; the first reason.
    failed: Option<Refusal>,
}

impl Peers {
    fn ask(&mut self, gpus: [u32; 2], status: impl Fn(u32) -> Result<u32, Refusal>) {
        for (capability, name) in CAPABILITIES {
            if self.absent {
                return;
            }
            match status(*capability).map(words::p2p_status) {
                Ok("ok") => {}
                Ok(status) => self.lack(name, status, gpus),
                Err(refusal) => return self.refuse(refusal),
            }
        }
        self.answered += 1;
    }

    fn lack(&mut self, capability: &str, status: &str, pair: [u32; 2]) {
        let same = |lack: &&mut P2pLack| lack.capability == capability && lack.status == status;
        match self.lacking.iter_mut().find(same) {
            Some(lack) => lack.pairs.push(pair),
            None => {
                self.lacking.push(P2pLack { capability: capability.into(), status: status.into(), pairs: vec![pair] });
            }
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        match refusal.kind() {
            Kind::Absent => self.absent = true,
            // One of the two was just lost: every other section says so.
            Kind::Gone => {}
            Kind::Failed => {
                self.failed.get_or_insert(refusal);
            }
        }
    }

    /// The capabilities that no pair lacks, of the pairs that answered.
    fn everywhere(&self) -> Vec<String> {
        let lacks = |name: &str| self.lacking.iter().any(|lack| lack.capability == name);
        let everywhere = |name: &&str| self.answered > 0 && !lacks(name);
        CAPABILITIES.iter().map(|(_, name)| *name).filter(everywhere).map(str::to_owned).collect()
    }
}

fn entry(gpu: Identity) -> GpuTopology {
    let Identity { index, uuid, pci_address } = gpu;
    GpuTopology { index, uuid, pci_address, ..GpuTopology::default() }
}

fn read(device: &Device<'_>, asker: &mut Asker<'_>, gpu: &mut GpuTopology) {
    gpu.cpu_affinity = asker
        .ask("nvmlDeviceGetCpuAffinity", &["cpu_affinity"], || device.cpu_affinity(CPU_WORDS))
        .and_then(|mask| cpu_list(&mask));
    gpu.nvlinks = nvlink::links(device, asker);
    gpu.fabric = asker.ask("nvmlDeviceGetGpuFabricInfoV", &["fabric"], || raw::fabric_info(device)).map(fabric);
    const REPLAYS: &str = "nvmlDeviceGetPcieReplayCounter";
    let replays = asker.ask(REPLAYS, &["pcie_replays"], || device.pcie_replay_counter());
    gpu.pcie_replays = asker.within(REPLAYS, "pcie_replays", replays, possible::SMALL_COUNT).map(u64::from);
}

/// Only a completed registration has a result, a place and a cluster; only a GPU that can register has a health.
fn fabric(info: raw::FabricInfo) -> Fabric {
    let is_completed = info.state == FABRIC_COMPLETED;
    let is_supported = info.state != FABRIC_NOT_SUPPORTED;
    let status = Refusal::check(info.status).map_or_else(|refusal| refusal.code(), |()| "success");
    Fabric {
        state: words::fabric_state(info.state),
        status: is_completed.then(|| status.to_owned()),
        clique_id: is_completed.then_some(info.clique_id),
        cluster_uuid: uuid(info.cluster_uuid).filter(|_| is_completed),
        health: info.health_summary.filter(|_| is_supported).map(words::fabric_health),
        health_issues: if is_supported { words::fabric_issues(info.health_mask) } else { Vec::new() },
    }
}

/// `8-4-4-4-12` hex digits; `None` for all zeros.
fn uuid(bytes: [u8; 16]) -> Option<String> {
    let number = u128::from_be_bytes(bytes);
    let hex = format!("{number:032x}");
    let parts = [hex.get(0..8)?, hex.get(8..12)?, hex.get(12..16)?, hex.get(16..20)?, hex.get(20..32)?];
    (number != 0).then(|| parts.join("-"))
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
    use super::{Peers, Refusal, cpu_list, fabric, raw, uuid};

    #[test]
    fn a_capability_that_one_pair_lacks_is_not_everywhere() {
        let mut peers = Peers::default();
        peers.ask([0, 1], |_| Ok(0));
        peers.ask([0, 2], |capability| Ok(if capability == 3 { 5 } else { 0 }));
        assert_eq!(peers.everywhere(), ["read", "write"]);
        assert_eq!(peers.lacking.len(), 1);
        assert_eq!(
            (peers.lacking[0].pairs.as_slice(), peers.lacking[0].status.as_str()),
            (&[[0, 2]][..], "not_supported")
        );
    }

    #[test]
    fn nothing_is_everywhere_where_nobody_answered() {
        assert!(Peers::default().everywhere().is_empty());
        let mut peers = Peers::default();
        peers.ask([0, 1], |_| Err(Refusal::MissingFunction));
        peers.ask([0, 2], |_| Ok(0));
        assert!(peers.everywhere().is_empty() && peers.lacking.is_empty());
    }

    #[test]
    fn a_gpu_that_fails_does_not_hide_the_other_pairs() {
        let mut peers = Peers::default();
        peers.ask([0, 1], |_| Err(Refusal::Code(16)));
        peers.ask([0, 2], |_| Ok(0));
        assert_eq!(peers.everywhere().len(), 3);
        assert_eq!(peers.failed, Some(Refusal::Code(16)));
    }

    #[test]
    fn a_cpu_mask_reads_as_ranges() {
        assert_eq!(cpu_list(&[0b1011, 1 << 63, 1]).as_deref(), Some("0-1,3,127-128"));
        assert_eq!(cpu_list(&[u64::MAX, 0]).as_deref(), Some("0-63"));
        assert_eq!(cpu_list(&[0, 0]), None);
    }

    #[test]
    fn a_single_node_has_no_cluster() {
        assert_eq!(uuid([0; 16]), None);
        assert_eq!(uuid([0xab; 16]).as_deref(), Some("abababab-abab-abab-abab-abababababab"));
    }

    #[test]
    fn only_a_completed_registration_has_a_result() {
        let info = |state, status| raw::FabricInfo {
            cluster_uuid: [0xab; 16],
            status,
            clique_id: 7,
            state,
            health_mask: 0,
            health_summary: Some(1),
        };
        let waiting = fabric(info(2, 0));
        assert_eq!((waiting.state.as_str(), waiting.status, waiting.clique_id), ("in_progress", None, None));
        assert_eq!((waiting.cluster_uuid, fabric(info(3, 0)).cluster_uuid.is_some()), (None, true));
        assert_eq!(fabric(info(3, 0)).status.as_deref(), Some("success"));
        assert_eq!(fabric(info(3, 999)).status.as_deref(), Some("unknown"));
        assert_eq!(fabric(info(0, 0)).health, None);
    }
}
