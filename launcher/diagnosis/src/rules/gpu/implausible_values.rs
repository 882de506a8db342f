//! Rules about values that cannot be true: two GPUs with one identity, percentages above 100, impossible temperatures.
//!
//! A driver or library that returns such values is broken, and its other values are not reliable.

use std::collections::BTreeMap;

use crate::evidence;
use crate::input::gpu::POSSIBLE_CELSIUS;
use crate::input::node::{Gpu, Node};
use crate::rule::{Draft, NVML_DOC, rules};

rules! {
    SAME_IDENTITY: "gpu-identity-ambiguous" Warning Driver NVML_DOC, "Several GPUs report the same identity",
        UpdateSoftware "Do not act on a single GPU of {node}: NVML reports the same identity for several GPUs. Check \
            the driver and the NVML library (a mock, a wrong library, an InfoROM written twice), then run the \
            diagnosis again.",
        means "Several GPUs report the same UUID or PCI address, so that facts cannot be assigned to one of them.",
        reads "inventory.gpus";
    IMPOSSIBLE: "sensor-value-implausible" Warning Driver NVML_DOC, "NVML returns implausible values",
        UpdateSoftware "Do not rely on the NVML values of {gpu} on {node}. Check that the NVML library matches the \
            driver, then run the diagnosis again.",
        means "NVML returned values that are physically impossible. They are not used.",
        reads "telemetry, ecc (problems)";
}

/// Maximum plausible power draw of a board: 10 kW.
const MAX_MILLIWATTS: u32 = 10_000_000;

/// Maximum number of lanes of a PCIe link.
const MAX_LANES: u32 = 32;

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = same_identity(node).into_iter().collect();
    for gpu in &node.gpus {
        let values = impossible(node, gpu);
        if !values.is_empty() {
            drafts.push(Draft::on_gpu(IMPOSSIBLE, gpu).with_evidence(values.join(", ")));
        }
    }
    drafts
}

fn same_identity(node: &Node<'_>) -> Option<Draft> {
    let mut holders: BTreeMap<String, Vec<(Option<u32>, String)>> = BTreeMap::new();
    for gpu in node.listed() {
        let names = [
            gpu.uuid.as_ref().map(|uuid| format!("UUID {}", evidence::data(uuid))),
            gpu.pci.as_ref().map(|pci| format!("PCI address {}", pci.sysfs())),
        ];
        for name in names.into_iter().flatten() {
            holders.entry(name).or_default().push((gpu.index, gpu.label()));
        }
    }
    let shared = holders.into_iter().filter(|(_, gpus)| gpus.len() > 1);
    let lines: Vec<String> = shared.map(|(name, gpus)| format!("{}: {name}", evidence::gpus(&gpus))).collect();
    (!lines.is_empty()).then(|| Draft::on_node(SAME_IDENTITY).with_all_evidence(lines))
}

/// Returns the implausible values of a GPU: `utilization 4294967295 %`.
fn impossible(node: &Node<'_>, gpu: &Gpu) -> Vec<String> {
    let Some(now) = node.telemetry_of(gpu) else { return Vec::new() };
    let share = |name: &str, value: Option<u32>| {
        value.filter(|percent| *percent > 100).map(|percent| format!("{name} {percent} %"))
    };
    let use_of = &now.utilization;
    let memory = now.memory.used_bytes.zip(now.memory.total_bytes).filter(|(used, total)| used > total);
    let values = [
        share("utilization", use_of.gpu_percent),
        share("memory utilization", use_of.memory_percent),
        share("encoder", use_of.encoder_percent),
        share("decoder", use_of.decoder_percent),
        share("JPEG engine", use_of.jpeg_percent),
        share("optical flow engine", use_of.ofa_percent),
        now.temperature
            .gpu_celsius
            .filter(|celsius| !POSSIBLE_CELSIUS.contains(celsius))
            .map(|celsius| format!("{celsius} °C")),
        now.power
            .draw_milliwatts
            .filter(|draw| *draw > MAX_MILLIWATTS)
            .map(|draw| format!("power draw {} W", draw / 1000)),
        now.pcie.width.filter(|width| *width > MAX_LANES).map(|width| format!("PCIe x{width}")),
        memory.map(|(used, total)| format!("{} of {} memory in use", evidence::bytes(used), evidence::bytes(total))),
    ];
    values.into_iter().flatten().collect()
}
