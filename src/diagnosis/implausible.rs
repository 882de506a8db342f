//! Answers that cannot be true: two GPUs with one identity, shares above the whole, temperatures that no chip survives.
//!
//! A driver or a library that answers so is broken, and what else it says of the GPU is not to be relied on.

use std::collections::BTreeMap;

use super::draft::Draft;
use super::node::{Gpu, Node};
use super::quote;
use super::rules::{NVML_DOC, rules};

rules! {
    SAME_IDENTITY: "gpu-identity-ambiguous" Warning Driver NVML_DOC, "Several GPUs answer with one identity",
        UpdateSoftware "Do not act on a single GPU of {node}: NVML gives several the same name. Check driver and NVML \
            library (a mock, a wrong library, an InfoROM written twice), then ask again.";
    IMPOSSIBLE: "value-implausible" Warning Driver NVML_DOC, "NVML answers with values that cannot be",
        UpdateSoftware "Do not rely on what NVML says of {gpu} of {node}. Check that its library fits the driver, and \
            ask again.";
}

/// Temperatures of a GPU that works and whose sensor does.
pub(super) const CELSIUS: std::ops::RangeInclusive<i32> = -20..=150;

/// No board draws more: 10 kW.
const MAX_MILLIWATTS: u32 = 10_000_000;

/// PCIe has no wider link.
const MAX_LANES: u32 = 32;

/// Every GPU's identity, and every GPU's values.
pub(super) fn judge(node: &Node<'_>) -> Vec<Draft> {
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
            gpu.uuid.as_ref().map(|uuid| format!("UUID {}", quote::data(uuid))),
            gpu.pci.as_ref().map(|pci| format!("PCI address {}", pci.sysfs())),
        ];
        for name in names.into_iter().flatten() {
            holders.entry(name).or_default().push((gpu.index, gpu.label()));
        }
    }
    let shared = holders.into_iter().filter(|(_, gpus)| gpus.len() > 1);
    let lines: Vec<String> = shared.map(|(name, gpus)| format!("{}: {name}", quote::gpus(&gpus))).collect();
    (!lines.is_empty()).then(|| Draft::on_node(SAME_IDENTITY).with_all_evidence(lines))
}

/// `utilization 4294967295 %`.
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
        now.temperature.gpu_celsius.filter(|celsius| !CELSIUS.contains(celsius)).map(|celsius| format!("{celsius} °C")),
        now.power.draw_milliwatts.filter(|draw| *draw > MAX_MILLIWATTS).map(|draw| format!("draws {} W", draw / 1000)),
        now.pcie.width.filter(|width| *width > MAX_LANES).map(|width| format!("PCIe x{width}")),
        memory.map(|(used, total)| format!("{} of {} memory in use", quote::bytes(used), quote::bytes(total))),
    ];
    values.into_iter().flatten().collect()
}
