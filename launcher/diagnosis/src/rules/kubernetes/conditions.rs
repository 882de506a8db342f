//! `refuted`: finds node conditions about GPUs that the boot time or the readings of the named GPUs contradict.

use crate::evidence;
use crate::input::node::{Gpu, Node};
use crate::input::quoted_lines::quoted_line;
use syringe_core::classification::Severity;
use syringe_core::facts::kernel_log::KernelEventKind as Kind;
use syringe_core::kernel_log::catalogue;
use syringe_core::kernel_log::line::Parsed;
use syringe_core::kernel_log::line_parser;

/// A reading that refutes a condition: lower-case words of the condition, the check of a GPU, and the text about the
/// result.
type Reading = (&'static [&'static str], fn(&Node<'_>, &Gpu) -> bool, &'static str);

const READINGS: [Reading; 2] = [
    (&["remap", "pending"], has_no_pending_remap, "NVML reports no pending remap"),
    (&["nvlink", "down"], has_all_links, "NVML reports all NVLinks as active"),
];

/// Returns the evidence for the conditions that the readings refute, and the other conditions.
pub(super) fn refuted<'a>(node: &Node<'a>) -> (Vec<String>, Vec<&'a str>) {
    let mut refuted = Vec::new();
    let mut others = Vec::new();
    for condition in &node.kubernetes.gpu_conditions {
        match contradiction(node, condition) {
            Some(why) => refuted.push(format!("{}; but {why}", evidence::reason(condition).trim_end_matches('.'))),
            None => others.push(condition.as_str()),
        }
    }
    (refuted, others)
}

/// Returns why a condition is not true now.
fn contradiction(node: &Node<'_>, condition: &str) -> Option<String> {
    let named = named_gpus(node, condition);
    let subjects: Vec<&Gpu> = if named.is_empty() { node.listed().collect() } else { named };
    if subjects.is_empty() || !subjects.iter().all(|gpu| node.is_readable(gpu)) {
        return None;
    }
    let words = condition.to_ascii_lowercase();
    let reading = READINGS.iter().find(|(parts, refutes, _)| {
        parts.iter().all(|part| words.contains(part)) && subjects.iter().all(|gpu| refutes(node, gpu))
    });
    reading.map(|(_, _, shows)| (*shows).to_owned()).or_else(|| before_boot(node, condition, &subjects))
}

/// Returns a text if a condition about the loss of a GPU is older than the boot, and no severe Xid followed the boot.
fn before_boot(node: &Node<'_>, condition: &str, subjects: &[&Gpu]) -> Option<String> {
    let name = condition.split_once(" is ").map(|(name, _)| name)?;
    let (since, booted) = node.kubernetes.gpu_conditions_since.get(name).copied().zip(node.booted())?;
    let line = quoted_line(condition).and_then(line_parser::parse);
    let is_past = matches!(line, Some(Parsed::Event(line)) if matches!(line.kind, Kind::Xid | Kind::OffBus));
    let is_severe = |code: u32| catalogue::xid(code).is_none_or(|entry| entry.severity > Severity::Info);
    let again = node.timeline.of_kind(Kind::Xid).any(|event| {
        event.boot_id.is_none()
            && event.code.is_none_or(is_severe)
            && subjects.iter().any(|gpu| gpu.pci.is_some() && gpu.pci == event.pci_address)
    });
    (is_past && since < booted && !again).then(|| {
        format!(
            "the condition changed {}, before the last boot ({}), and the GPU responds",
            evidence::time(since),
            evidence::time(booted)
        )
    })
}

/// Returns the GPUs that a condition names by its PCI address (in a kernel line) or by its index (`GPU 3`).
fn named_gpus<'n>(node: &'n Node<'_>, condition: &str) -> Vec<&'n Gpu> {
    if let Some(Parsed::Event(line)) = quoted_line(condition).and_then(line_parser::parse) {
        return node.listed().filter(|gpu| line.pci.is_some() && gpu.pci == line.pci).collect();
    }
    let indexes: Vec<u32> = condition
        .split("GPU ")
        .skip(1)
        .filter_map(|rest| rest.split(|one: char| !one.is_ascii_digit()).next()?.parse().ok())
        .collect();
    node.listed().filter(|gpu| gpu.index.is_some_and(|index| indexes.contains(&index))).collect()
}

fn has_no_pending_remap(node: &Node<'_>, gpu: &Gpu) -> bool {
    let rows = node.ecc_of(gpu).and_then(|ecc| ecc.remapped_rows.as_ref());
    rows.is_some_and(|rows| !rows.pending)
}

fn has_all_links(node: &Node<'_>, gpu: &Gpu) -> bool {
    let links = node.topology_of(gpu).map(|topology| topology.nvlinks.as_slice()).unwrap_or_default();
    !links.is_empty() && links.iter().all(|group| group.active == Some(true))
}
