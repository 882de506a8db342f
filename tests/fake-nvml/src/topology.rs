//! NVML functions for topology: distance of two GPUs, peer-to-peer, CPU and NUMA affinity (section `topology`).

use std::ffi::{c_uint, c_ulong};

use nvml_wrapper_sys::bindings::*;

use crate::facts::{Gpu, gpu_count, topology};
use crate::ffi::{
    Answer, INSUFFICIENT_SIZE, INVALID_ARGUMENT, NOT_SUPPORTED, Out, array, ask, handle, on_gpu, put, put_list, resolve,
};
use crate::session;

gpu_values! {
    nvmlDeviceGetNumaNodeId: c_uint => |gpu| gpu.topology()?.numa_node;
}

/// Runs `work` with a GPU and its peer. Both must respond.
fn with_peer(
    function: &str,
    device: nvmlDevice_t,
    peer: nvmlDevice_t,
    work: impl FnOnce(&Gpu<'_>, &Gpu<'_>) -> Answer,
) -> nvmlReturn_t {
    on_gpu(function, device, |gpu| {
        let session = session::current()?;
        let peer = resolve(&session, peer)?;
        peer.answers()?;
        if peer.index == gpu.index { Err(INVALID_ARGUMENT) } else { work(gpu, &peer) }
    })
}

/// Returns the cell of the connection matrix for two GPUs. Rows and columns have the order of the GPUs in the section.
fn connection<'r>(gpu: &Gpu<'r>, peer: u32) -> Option<&'r str> {
    let topology = topology(gpu.report)?;
    let place = |index: u32| topology.gpus.iter().position(|entry| entry.index == index);
    topology.matrix.get(place(gpu.index)?)?.get(place(peer)?).map(String::as_str)
}

/// Returns the PCIe level that connects two GPUs. For a pair with NVLinks, the level depends on the NUMA nodes.
fn level(gpu: &Gpu<'_>, peer: &Gpu<'_>) -> Answer<nvmlGpuTopologyLevel_t> {
    let numa_node = |gpu: &Gpu<'_>| gpu.topology().and_then(|topology| topology.numa_node);
    match connection(gpu, peer.index).ok_or(NOT_SUPPORTED)? {
        "PIX" => Ok(nvmlGpuLevel_enum_NVML_TOPOLOGY_SINGLE),
        "PXB" => Ok(nvmlGpuLevel_enum_NVML_TOPOLOGY_MULTIPLE),
        "PHB" => Ok(nvmlGpuLevel_enum_NVML_TOPOLOGY_HOSTBRIDGE),
        "NODE" => Ok(nvmlGpuLevel_enum_NVML_TOPOLOGY_NODE),
        "SYS" => Ok(nvmlGpuLevel_enum_NVML_TOPOLOGY_SYSTEM),
        links if links.starts_with("NV") && numa_node(gpu) == numa_node(peer) => {
            Ok(nvmlGpuLevel_enum_NVML_TOPOLOGY_NODE)
        }
        links if links.starts_with("NV") => Ok(nvmlGpuLevel_enum_NVML_TOPOLOGY_SYSTEM),
        _ => Err(NOT_SUPPORTED),
    }
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetTopologyCommonAncestor(
    device: nvmlDevice_t,
    peer: nvmlDevice_t,
    out: Out<'_, nvmlGpuTopologyLevel_t>,
) -> nvmlReturn_t {
    with_peer("nvmlDeviceGetTopologyCommonAncestor", device, peer, |gpu, peer| put(out, level(gpu, peer)?))
}

/// Returns the GPUs that are connected at exactly this level.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetTopologyNearestGpus(
    device: nvmlDevice_t,
    at: nvmlGpuTopologyLevel_t,
    count: Option<&mut c_uint>,
    devices: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    on_gpu("nvmlDeviceGetTopologyNearestGpus", device, |gpu| {
        let peers = (0..gpu_count(gpu.report)).filter(|index| *index != gpu.index);
        let near = peers.filter(|index| level(gpu, &Gpu { index: *index, ..*gpu }) == Ok(at));
        put_list(count, devices, near.map(|index| handle(index, None)).collect())
    })
}

/// Returns a P2P capability. The facts list the capabilities that all pairs have and, for each missing capability, the
/// pairs that lack it.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetP2PStatus(
    device: nvmlDevice_t,
    peer: nvmlDevice_t,
    index: nvmlGpuP2PCapsIndex_t,
    out: Out<'_, nvmlGpuP2PStatus_t>,
) -> nvmlReturn_t {
    with_peer("nvmlDeviceGetP2PStatus", device, peer, |gpu, peer| {
        let facts = topology(gpu.report).ok_or(NOT_SUPPORTED)?;
        let capability = match index {
            nvmlGpuP2PCapsIndex_enum_NVML_P2P_CAPS_INDEX_READ => "read",
            nvmlGpuP2PCapsIndex_enum_NVML_P2P_CAPS_INDEX_WRITE => "write",
            nvmlGpuP2PCapsIndex_enum_NVML_P2P_CAPS_INDEX_ATOMICS => "atomics",
            nvmlGpuP2PCapsIndex_enum_NVML_P2P_CAPS_INDEX_NVLINK => {
                let linked = connection(gpu, peer.index).is_some_and(|cell| cell.starts_with("NV"));
                return put(out, if linked { 0 } else { nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_NOT_SUPPORTED });
            }
            other if other < nvmlGpuP2PCapsIndex_enum_NVML_P2P_CAPS_INDEX_UNKNOWN => {
                return put(out, nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_NOT_SUPPORTED);
            }
            _ => return Err(INVALID_ARGUMENT),
        };
        if facts.p2p_all_ok.iter().any(|ok| ok == capability) {
            return put(out, nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_OK);
        }
        let about = || facts.p2p_lacking.iter().filter(|lack| lack.capability == capability);
        let both = |pair: &[u32; 2]| pair.contains(&gpu.index) && pair.contains(&peer.index);
        let this = about().find(|lack| lack.pairs.iter().any(both));
        put(
            out,
            match this {
                Some(lack) => p2p_status(&lack.status),
                None if about().next().is_some() => nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_OK,
                None => nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_NOT_SUPPORTED,
            },
        )
    })
}

fn p2p_status(word: &str) -> nvmlGpuP2PStatus_t {
    match word {
        "ok" => nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_OK,
        "chipset_not_supported" => nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_CHIPSET_NOT_SUPPORTED,
        "gpu_not_supported" => nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_GPU_NOT_SUPPORTED,
        "topology_not_supported" => nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_IOH_TOPOLOGY_NOT_SUPPORTED,
        "disabled_by_regkey" => nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_DISABLED_BY_REGKEY,
        "not_supported" => nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_NOT_SUPPORTED,
        _ => nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_UNKNOWN,
    }
}

/// Returns the numbers in a kernel list such as `0-47,96-143`.
fn list_members(list: &str) -> Option<Vec<usize>> {
    let mut members = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        members.extend(first.trim().parse::<usize>().ok()?..=last.trim().parse().ok()?);
    }
    Some(members)
}

/// Fills a set of `size` words with one bit for each member.
fn put_set(size: c_uint, words: *mut c_ulong, members: &[usize]) -> Answer {
    let bits = c_ulong::BITS as usize;
    if size == 0 {
        return Err(INVALID_ARGUMENT);
    }
    if members.iter().any(|member| member / bits >= size as usize) {
        return Err(INSUFFICIENT_SIZE);
    }
    for (place, word) in array(words, size as usize)?.iter_mut().enumerate() {
        let here = members.iter().filter(|member| *member / bits == place);
        word.write(here.fold(0, |set, member| set | 1 << (member % bits)));
    }
    Ok(())
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetCpuAffinity(device: nvmlDevice_t, size: c_uint, set: *mut c_ulong) -> nvmlReturn_t {
    on_gpu("nvmlDeviceGetCpuAffinity", device, |gpu| {
        put_set(size, set, &ask(gpu, |gpu| list_members(gpu.topology()?.cpu_affinity.as_deref()?))?)
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetCpuAffinityWithinScope(
    device: nvmlDevice_t,
    size: c_uint,
    set: *mut c_ulong,
    _scope: nvmlAffinityScope_t,
) -> nvmlReturn_t {
    on_gpu("nvmlDeviceGetCpuAffinityWithinScope", device, |gpu| {
        put_set(size, set, &ask(gpu, |gpu| list_members(gpu.topology()?.cpu_affinity.as_deref()?))?)
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetMemoryAffinity(
    device: nvmlDevice_t,
    size: c_uint,
    set: *mut c_ulong,
    _scope: nvmlAffinityScope_t,
) -> nvmlReturn_t {
    on_gpu("nvmlDeviceGetMemoryAffinity", device, |gpu| {
        put_set(size, set, &[ask(gpu, |gpu| gpu.topology()?.numa_node)? as usize])
    })
}
