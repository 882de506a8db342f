//! `Session::topology`: reads the NVML part of the `topology` section of one GPU: NVLinks, fabric, near CPUs.
//! `Session::pairs`: reads the connections between GPUs: distances, peer-to-peer.
//!
//! NUMA nodes, PCIe paths and NICs come from sysfs.

use nvml_wrapper::Device;
use syringe_core::facts::topology::GpuTopology;

use super::cache::Function;
use super::device_reader::DeviceReader;
use super::peer_to_peer::PeerToPeer;
use super::session::{Gpu, Session};
use super::{c2c, enum_names, fabric, nvlink, raw, value_ranges};
use crate::nvml::answer::{Pairs, Part};

/// Number of words of the CPU mask for NVML: 4096 CPUs.
const CPU_WORDS: usize = 64;
/// Name of the field for the peer-to-peer capabilities.
const P2P: &str = "p2p";

impl Session {
    /// Reads the topology of one GPU.
    pub(in crate::nvml) fn topology(&self, gpu: &Gpu) -> Part<GpuTopology> {
        let part = self.part(gpu, read);
        if let Some(entry) = part.entry.as_ref().filter(|_| part.complete) {
            let _ = gpu.topology.set(entry.clone());
        }
        part
    }

    /// Reads the connections between a GPU and the GPUs with a higher index.
    pub(in crate::nvml) fn pairs(&self, gpu: &Gpu) -> Part<Pairs> {
        let others = self.gpus.iter().filter(|other| other.identity.index > gpu.identity.index && other.is_open());
        let mut part = self.part(gpu, |device, reader, pairs: &mut Pairs| {
            let mut peers = PeerToPeer { absent: self.p2p_absent.get(), ..PeerToPeer::default() };
            for other in others {
                let (far, pair) = (other.device(), [gpu.identity.index, other.identity.index]);
                reader.other = Some(pair[1]);
                pairs.words.push((pair[1], connection(gpu, other, device, far, reader)));
                if let Some(far) = far {
                    peers.read_pair(pair, |capability| {
                        reader.try_call("nvmlDeviceGetP2PStatus", || raw::p2p_status(device, far, capability))
                    });
                }
            }
            self.p2p_absent.set(peers.absent);
            if let Some(error) = &peers.failed {
                reader.note_failure("nvmlDeviceGetP2PStatus", error, &[P2P]);
            }
            (pairs.answered, pairs.lacking, pairs.absent) = (peers.answered, peers.lacking, peers.absent);
        });
        // Another process may read the pairs that include a GPU that this process leaves out.
        part.complete &= usize::try_from(self.count) == Ok(self.gpus.len());
        part
    }
}

/// Returns the connection between two GPUs, in the terms of `nvidia-smi topo -m`.
fn connection(
    gpu: &Gpu,
    other: &Gpu,
    device: &Device<'_>,
    far: Option<&Device<'_>>,
    reader: &DeviceReader<'_>,
) -> String {
    let links = gpu.topology.get().zip(other.topology.get()).and_then(|(own, other)| nvlink::between(own, other));
    if let Some(links) = links {
        return format!("NV{links}");
    }
    let Some(far) = far else { return "?".into() };
    let level =
        reader.call_ignoring_errors("nvmlDeviceGetTopologyCommonAncestor", || raw::common_ancestor(device, far));
    level.map_or("?", enum_names::topology_level).into()
}

pub(in crate::nvml) fn read(device: &Device<'_>, reader: &mut DeviceReader<'_>, gpu: &mut GpuTopology) {
    gpu.cpu_affinity = reader
        .call("nvmlDeviceGetCpuAffinity", &["cpu_affinity"], || device.cpu_affinity(CPU_WORDS))
        .and_then(|mask| cpu_list(&mask));
    gpu.nvlinks = nvlink::links(device, reader);
    gpu.c2c = c2c::read(device, reader);
    gpu.fabric =
        reader.call("nvmlDeviceGetGpuFabricInfoV", &["fabric"], || raw::fabric_info(device)).map(fabric::describe);
    const REPLAYS: &str = "nvmlDeviceGetPcieReplayCounter";
    let replays = reader.call(Function::of_gpu(REPLAYS), &["pcie_replays"], || device.pcie_replay_counter());
    gpu.pcie_replays = reader.check_range(REPLAYS, "pcie_replays", replays, value_ranges::SMALL_COUNT).map(u64::from);
}

/// Returns a CPU mask as ranges, e.g. `0-47,96-143`; `None` if no bit is set.
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
