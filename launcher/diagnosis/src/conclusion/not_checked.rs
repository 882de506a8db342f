//! `list`: lists the limits of a diagnosis, which reads most values only once, and runs no test on the GPUs.

use crate::conclusion::ruled_out::FaultsRuledOut;
use crate::evidence;
use crate::input::gpu::Gpu;
use crate::input::log_window;
use crate::input::node::Node;

/// Returns the entries. The entries that apply to every node come first.
pub(crate) fn list(node: &Node<'_>, faults: &FaultsRuledOut) -> Vec<String> {
    let mut entries = Vec::new();
    if node.checked().is_empty() {
        return entries;
    }
    entries.push("no test was run on the GPUs (run dcgmi diag for that)".to_owned());
    entries.push(counters(node));
    entries.extend(transfers(node).into_iter().map(str::to_owned));
    entries.extend(under_load(node));
    entries.extend(before_the_log(node));
    entries.extend(faults.not_offered.iter().map(|fact| format!("{fact}: not checked")));
    entries
}

/// Returns the entry about counters. Two readings within a second do not show slow growth.
fn counters(node: &Node<'_>) -> String {
    let samples = node.gpus.iter().filter_map(|gpu| node.telemetry_of(gpu)?.sample.as_ref());
    match samples.max_by_key(|sample| sample.window_ms) {
        Some(sample) => {
            let window = evidence::window(sample);
            format!(
                "GPU counters that are not zero were read twice, {window} apart: it is not known whether they grow slowly"
            )
        }
        None => "counters were read once: it is not known whether they grow".to_owned(),
    }
}

/// Returns the settings that affect transfers between GPUs and to the network, but were not read.
fn transfers(node: &Node<'_>) -> Vec<&'static str> {
    let Some(topology) = node.topology() else { return Vec::new() };
    let on_pcie_alone = topology.gpus.len() > 1 && topology.gpus.iter().all(|gpu| gpu.nvlinks.is_empty());
    let mut entries = Vec::new();
    let settings = topology.gpudirect.as_ref();
    if on_pcie_alone && settings.is_none_or(|settings| settings.acs_ports_read.is_none()) {
        entries.push("PCIe ACS, which can slow down transfers between GPUs, is not checked");
    }
    if !topology.nics.is_empty() && settings.is_none_or(|settings| settings.memory_peers.is_none()) {
        entries.push("GPUDirect RDMA (nvidia_peermem, DMA-BUF) is not checked");
    }
    entries
}

/// Returns an entry about GPUs whose load is not known because NVML does not report their utilization (MIG mode). Their
/// values under load are not evaluated.
fn under_load(node: &Node<'_>) -> Option<String> {
    let without = |gpu: &&Gpu| {
        node.telemetry_of(gpu).is_some_and(|entry| entry.utilization.gpu_percent.is_none()) && node.load(gpu).is_none()
    };
    let count = node.gpus.iter().filter(without).count();
    (count > 0).then(|| format!(
            "NVML reports no utilization of {} (MIG, vGPU): clocks, power and PCIe generation under load were not judged",
            evidence::count(count, "GPU")
        ))
}

/// Returns an entry about the time before the kernel log starts. Earlier occurrences of a fault are not known.
fn before_the_log(node: &Node<'_>) -> Option<String> {
    let log = node.kernel_log()?;
    let Some(since) = log_window::covered_since(node) else {
        return Some("the start of the kernel log is not known".to_owned());
    };
    let asked = log.since.is_some_and(|asked| asked >= since);
    let older = match (log.events_before, asked) {
        (0, true) => " (the requested window)".to_owned(),
        (count, true) => format!(
            " (the requested window; {} before it omitted)",
            evidence::count(usize::try_from(count).unwrap_or(usize::MAX), "event")
        ),
        _ => String::new(),
    };
    Some(format!("kernel log before {}{older}: earlier events are not known", evidence::time(since)))
}
