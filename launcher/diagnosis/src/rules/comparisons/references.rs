//! `check`: compares facts that refer to each other: driver versions, processes, NICs, NVLinks, connections, MIG
//! devices, PCIe links, clock reasons.

use std::collections::{BTreeMap, BTreeSet};

use crate::evidence;
use crate::input::boards;
use crate::input::node::{Gpu, Node};
use crate::rule::Draft;
use crate::rules::comparisons::agreement::DISAGREE;
use syringe_core::facts::clock_events;
use syringe_core::facts::mig::MigDevice;
use syringe_core::facts::topology::NvlinkGroup;

/// Maximum number of evidence lines about one subject.
const SHOWN: usize = 3;

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    // A GPU that does not respond is missing from some sections. A finding about this GPU explains that.
    let passed_through = |gpu: &Gpu| node.pci_of(gpu).is_some_and(|pci| pci.driver.as_deref() == Some("vfio-pci"));
    if node.answering().next().is_none() || node.gpus.iter().any(|gpu| !gpu.answers && !passed_through(gpu)) {
        return Vec::new();
    }
    let of_node = [versions(node), processes(node), nics(node), matrix(node), mig_devices(node)];
    let lines: Vec<String> = of_node.into_iter().flat_map(|lines| lines.into_iter().take(SHOWN)).collect();
    let mut drafts =
        if lines.is_empty() { Vec::new() } else { vec![Draft::on_node(DISAGREE).with_all_evidence(lines)] };
    for gpu in node.answering() {
        let lines = [pcie_path(node, gpu), clock_reasons(node, gpu)].concat();
        if !lines.is_empty() {
            drafts.push(Draft::on_gpu(DISAGREE, gpu).with_all_evidence(lines));
        }
    }
    drafts
}

/// Compares the version of the driver in NVML, in the kernel and in file names.
fn versions(node: &Node<'_>) -> Vec<String> {
    let (Some(inventory), host) = (node.inventory(), node.host()) else { return Vec::new() };
    let Some(version) = inventory.driver_version.as_deref() else { return Vec::new() };
    let loaded = host.and_then(|host| host.driver.loaded.as_deref());
    let others = [
        ("the loaded module", loaded.filter(|loaded| *loaded != version)),
        ("the NVML library", inventory.nvml_version.as_deref().filter(|nvml| !nvml.ends_with(version))),
    ];
    let line = |(name, other): (&str, &str)| {
        format!("NVML reports driver version {}, but {name} reports {}", evidence::data(version), evidence::data(other))
    };
    others.into_iter().filter_map(|(name, other)| Some(line((name, other?)))).collect()
}

/// Checks the GPUs, MIG devices and device files that a process refers to.
fn processes(node: &Node<'_>) -> Vec<String> {
    let Some(section) = node.processes() else { return Vec::new() };
    let indices: BTreeSet<u32> = node.gpus.iter().filter_map(|gpu| gpu.index).collect();
    let minors: BTreeSet<u32> =
        node.inventory().into_iter().flat_map(|all| &all.gpus).filter_map(|gpu| gpu.minor_number).collect();
    let mut lines = Vec::new();
    let mut pids = BTreeSet::new();
    let mut used: BTreeMap<u32, u64> = BTreeMap::new();
    for process in &section.processes {
        let pid = process.pid;
        if pid == 0 || !pids.insert(pid) {
            lines.push(format!("process id {pid} is listed twice, or is not a valid process id"));
        }
        let mut of_process: BTreeMap<u32, u64> = BTreeMap::new();
        for one in &process.uses {
            if !indices.contains(&one.gpu) {
                lines.push(format!("process {pid} uses GPU {}, which NVML does not list", one.gpu));
            }
            if one.kind != "graphics" && one.mig_gpu_instance.is_none() {
                // A process can be in several lists of NVML, with the same memory in each list, so its memory is
                // counted only once.
                let own = of_process.entry(one.gpu).or_default();
                *own = (*own).max(one.memory_bytes.unwrap_or(0));
            }
            let instances = node.mig().into_iter().flat_map(|mig| &mig.gpus).filter(|gpu| gpu.index == one.gpu);
            let mut devices = instances.flat_map(|gpu| &gpu.devices);
            let is_instance = |device: &MigDevice| {
                device.gpu_instance == one.mig_gpu_instance && device.compute_instance == one.mig_compute_instance
            };
            if one.mig_gpu_instance.is_some() && node.mig().is_some() && !devices.any(is_instance) {
                lines.push(format!("process {pid} uses a MIG device of GPU {} that NVML does not list", one.gpu));
            }
        }
        for (gpu, bytes) in of_process {
            let sum = used.entry(gpu).or_default();
            *sum = sum.saturating_add(bytes);
        }
        for file in &process.open_device_files {
            let number = file.strip_prefix("/dev/nvidia").and_then(|number| number.parse::<u32>().ok());
            if number.is_some_and(|number| !minors.is_empty() && !minors.contains(&number)) {
                lines.push(format!("process {pid} has {} open, but no GPU has this number", evidence::data(file)));
            }
        }
    }
    for (index, bytes) in used {
        let memory = node.telemetry().and_then(|all| all.gpus.iter().find(|gpu| gpu.index == index)?.memory.used_bytes);
        // The two values are read at different moments. A program can allocate memory between them.
        if memory.is_some_and(|memory| bytes > memory.saturating_mul(3) / 2 && bytes > memory + (1 << 30)) {
            lines.push(format!(
                "the processes of GPU {index} use {} of memory, but the GPU reports only {} of used memory",
                evidence::bytes(bytes),
                evidence::bytes(memory.unwrap_or(0))
            ));
        }
    }
    lines
}

/// Limit of Linux for the number of NUMA nodes. The number of a NUMA node can exceed the number of NUMA nodes of a
/// machine, because some machines skip numbers.
const NUMA_NODES: u32 = 1024;

/// Maximum number of NVLinks of a GPU.
const MOST_LINKS: u32 = 36;

/// Checks the nearest GPUs of the network cards, and finds cards that are listed twice.
fn nics(node: &Node<'_>) -> Vec<String> {
    let Some(topology) = node.topology() else { return Vec::new() };
    let indices: BTreeSet<u32> = node.gpus.iter().filter_map(|gpu| gpu.index).collect();
    let mut lines = Vec::new();
    let mut seen = BTreeSet::new();
    for nic in &topology.nics {
        let name = evidence::data(&nic.device);
        if !seen.insert((nic.device.as_str(), nic.port)) {
            lines.push(format!("port {} of {name} is listed twice", nic.port));
        }
        if let Some(near) = nic.near.iter().find(|near| !indices.contains(&near.gpu)) {
            lines.push(format!("{name} is near GPU {}, which NVML does not list", near.gpu));
        }
        let numa = nic.numa_node.filter(|numa| *numa >= NUMA_NODES);
        if let Some(numa) = numa {
            lines.push(format!("{name} is on NUMA node {numa}, which the node does not have"));
        }
    }
    // The numbers of NUMA nodes have gaps on some machines, but the number of different values cannot exceed the number
    // of NUMA nodes.
    let gpus = topology.gpus.iter().filter_map(|gpu| gpu.numa_node);
    let numbers: BTreeSet<u32> = gpus.chain(topology.nics.iter().filter_map(|nic| nic.numa_node)).collect();
    let nodes = node.host().and_then(|host| host.numa_nodes).and_then(|nodes| usize::try_from(nodes).ok());
    if let Some(nodes) = nodes.filter(|nodes| *nodes > 0 && *nodes < numbers.len()) {
        lines.push(format!("GPUs and network cards are on {} NUMA nodes, but the node has {nodes}", numbers.len()));
    }
    for gpu in &topology.gpus {
        let mut links: Vec<u32> = gpu.nvlinks.iter().flat_map(|group| group.links.iter().copied()).collect();
        links.sort_unstable();
        if links.windows(2).any(|pair| pair[0] == pair[1]) || links.last().is_some_and(|last| *last >= MOST_LINKS) {
            lines.push(format!("an NVLink of GPU {} is listed twice, or has an impossible number", gpu.index));
        }
        let active: Vec<&NvlinkGroup> = gpu.nvlinks.iter().filter(|group| group.active == Some(true)).collect();
        // The rule `nvlink-slow` reports links that are slower than most links.
        let usual = boards::usual_link_speed(gpu);
        let is_other = |group: &&NvlinkGroup| {
            let speed = group.speed_megabytes_per_second;
            speed > usual || (speed.is_none() && usual.is_some())
        };
        if active.windows(2).any(|pair| pair[0].version != pair[1].version) || active.iter().any(is_other) {
            lines.push(format!("the NVLinks of GPU {} have different versions or speeds", gpu.index));
        }
    }
    lines
}

/// Checks the matrix of connections. It must have a row and a column for each GPU, be equal in both directions, and
/// contain NVLinks only between GPUs with links.
fn matrix(node: &Node<'_>) -> Vec<String> {
    let Some(topology) = node.topology().filter(|topology| !topology.matrix.is_empty()) else { return Vec::new() };
    let (rows, count) = (&topology.matrix, topology.gpus.len());
    let mut lines = Vec::new();
    if rows.len() != count || rows.iter().any(|row| row.len() != count) {
        lines.push(format!("the matrix of connections does not have {count} rows and columns"));
        return lines;
    }
    let is_switched = |at: usize| {
        let groups = topology.gpus.get(at).into_iter().flat_map(|gpu| &gpu.nvlinks);
        groups.into_iter().any(|group| group.active == Some(true) && group.remote_type.as_deref() == Some("switch"))
    };
    for (at, row) in rows.iter().enumerate() {
        for (other, cell) in row.iter().enumerate() {
            let back = rows.get(other).and_then(|row| row.get(at));
            if (at == other) != (cell == "X") || back != Some(cell) {
                let back = back.map(|back| evidence::data(back)).unwrap_or_default();
                lines.push(format!(
                    "the connection from GPU {at} to GPU {other} is {}, but in the other direction it is {back}",
                    evidence::data(cell)
                ));
            }
            let is_connection = cell.starts_with("NV") || cell == "?";
            if at < other && is_switched(at) && is_switched(other) && !is_connection {
                lines.push(format!(
                    "the connection of GPUs {at} and {other} is {}, but both have active NVLinks to NVSwitches",
                    evidence::data(cell)
                ));
            }
        }
    }
    lines
}

/// Checks MIG devices. The slices must match the name of the profile, each instance must exist once, and the sizes of
/// one profile must be equal.
fn mig_devices(node: &Node<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut sizes: BTreeMap<String, (Option<u64>, Option<u32>)> = BTreeMap::new();
    for gpu in node.mig().into_iter().flat_map(|mig| &mig.gpus) {
        let mut instances = BTreeSet::new();
        for device in &gpu.devices {
            let profile = device.profile.as_deref().unwrap_or_default();
            let name = evidence::data(profile);
            if !instances.insert((device.gpu_instance, device.compute_instance)) {
                lines.push(format!("two MIG devices of GPU {} are the same instance", gpu.index));
            }
            if slices(profile).zip(device.gpu_slices).is_some_and(|(named, slices)| named != slices) {
                lines.push(format!(
                    "a MIG device of GPU {} with profile {name} has {:?} slices",
                    gpu.index, device.gpu_slices
                ));
            }
            if compute_slices(profile).zip(device.compute_slices).is_some_and(|(named, slices)| named != slices) {
                lines.push(format!(
                    "a MIG device of GPU {} with profile {name} has {:?} compute slices",
                    gpu.index, device.compute_slices
                ));
            }
            if device.memory_used_bytes > device.memory_total_bytes {
                lines.push(format!("a MIG device of GPU {} uses more memory than the device has", gpu.index));
            }
            let own = (device.memory_total_bytes, device.multiprocessors);
            let product = node.gpu(gpu.index).and_then(|gpu| gpu.name.clone()).unwrap_or_default();
            let usual = *sizes.entry(format!("{product} {profile}")).or_insert(own);
            // Driver versions round the memory of a profile by some MiB.
            let near = |one: Option<u64>, other: Option<u64>| match (one, other) {
                (Some(one), Some(other)) => one.abs_diff(other) * 10 < other.max(1),
                (one, other) => one.is_none() == other.is_none(),
            };
            if usual.1 != own.1 || !near(usual.0, own.0) {
                lines.push(format!("MIG devices with profile {name} have different sizes"));
            }
        }
    }
    lines
}

/// Returns the number of slices in the name of a profile: 3 for `1c.3g.40gb`.
fn slices(profile: &str) -> Option<u32> {
    profile.split('.').find_map(|part| part.strip_suffix('g')?.parse().ok())
}

/// Returns the number of compute slices: 1 for `1c.3g.40gb`, 3 for `3g.40gb`.
fn compute_slices(profile: &str) -> Option<u32> {
    let named = profile.split('.').find_map(|part| part.strip_suffix('c')?.parse().ok());
    named.or_else(|| slices(profile))
}

/// Checks that both ends of a PCIe link have the same speed and the same number of lanes.
fn pcie_path(node: &Node<'_>, gpu: &Gpu) -> Vec<String> {
    let Some(topology) = node.topology_of(gpu) else { return Vec::new() };
    let [end, port, ..] = topology.pcie_path.as_slice() else { return Vec::new() };
    // In a virtual machine, the port is virtual and has its own width.
    if node.inventory_of(gpu).is_none_or(|gpu| gpu.virtualization_mode.as_deref() != Some("none")) {
        return Vec::new();
    }
    let mut lines = Vec::new();
    if let Some((end, port)) = end.width.zip(port.width).filter(|(end, port)| end != port) {
        lines.push(format!("PCIe link: {end} lanes at the GPU, {port} at the port above it"));
    }
    if end.pci_address.as_ref().zip(topology.pci_address.as_ref()).is_some_and(|(first, own)| first != own) {
        lines.push("the PCIe path begins at another device".to_owned());
    }
    if end.kind != "gpu" || port.kind == "gpu" {
        lines.push("the PCIe path does not lead from the GPU to its port".to_owned());
    }
    let nvml = node.telemetry_of(gpu).and_then(|now| now.pcie.width);
    if let Some((path, nvml)) = end.width.zip(nvml).filter(|(path, nvml)| path != nvml) {
        lines.push(format!("PCIe link: {path} lanes in sysfs, {nvml} in NVML"));
    }
    lines
}

/// Compares the bit mask of the clock event reasons with their names.
fn clock_reasons(node: &Node<'_>, gpu: &Gpu) -> Vec<String> {
    let Some(now) = node.telemetry_of(gpu).map(|now| &now.throttling) else { return Vec::new() };
    let Some(mask) = now.reasons_mask else { return Vec::new() };
    let texts: BTreeSet<&str> = now.reasons.iter().map(String::as_str).collect();
    let known = clock_events::REASONS.iter().filter(|reason| mask & reason.bit != 0);
    let named: BTreeSet<&str> = known.map(|reason| reason.label).collect();
    let all_known = mask & !clock_events::REASONS.iter().fold(0, |all, reason| all | reason.bit) == 0;
    // An unknown name cannot be compared.
    let is_known = |text: &&str| clock_events::REASONS.iter().any(|reason| reason.label == *text);
    let differ = texts != named && all_known && !texts.is_empty() && texts.iter().all(is_known);
    let has_fault = mask & clock_events::FAULTS != 0;
    if differ || now.active.is_some_and(|active| active != has_fault) {
        return vec![format!("clock event reasons: the mask {mask:#x} does not match the named reasons")];
    }
    Vec::new()
}
