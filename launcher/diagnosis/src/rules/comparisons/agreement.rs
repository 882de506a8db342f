//! Rules about facts that have different values in several sections of a report, and about GPUs with the same identity.

use std::collections::BTreeMap;

use crate::evidence;
use crate::input::boards;
use crate::input::fields::text;
use crate::input::node::{Gpu, Node};
use crate::input::runtimes;
use crate::rule::{Draft, NVML_DOC, rules};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::ecc::LocationErrors;

rules! {
    DISAGREE: "facts-disagree" Warning Driver NVML_DOC, "Two readings of the same fact differ",
        Watch "Run the diagnosis of {node} again. If the readings still differ, do not rely on them, and check the driver and the NVML \
            library.",
        means "Two sections of the report contain the same fact with different values, so that facts cannot be assigned to a \
            GPU with certainty.",
        reads "inventory, telemetry, ecc, topology, mig, host.pci_gpus, host.container_runtime, kubernetes.runtime_version", depth 4;
    SAME_IDENTITY: "gpu-identity-ambiguous" Warning Driver NVML_DOC, "Several GPUs report the same identity",
        UpdateSoftware "Do not act on a single GPU of {node}: NVML reports the same identity for several GPUs. Check \
            the driver and the NVML library (a mock, a wrong library, an InfoROM written twice), then run the \
            diagnosis again.",
        means "Several GPUs report the same UUID, PCI address, minor number or position, so that facts cannot be \
            assigned to a single GPU.",
        reads "inventory.gpus";
}

/// Fields that contain the same fact.
const SAME: &[&[&str]] = &[
    &["inventory.uuid", "telemetry.uuid", "ecc.uuid", "topology.uuid", "mig.uuid"],
    &["inventory.pci_address", "telemetry.pci_address", "ecc.pci_address", "topology.pci_address"],
    &["inventory.memory_total_bytes", "telemetry.memory.total_bytes"],
    &["inventory.bar1_total_bytes", "telemetry.memory.bar1_total_bytes"],
    &["inventory.memory_reserved_bytes", "telemetry.memory.reserved_bytes"],
    &["inventory.ecc_mode.current", "ecc.mode.current"],
    &["inventory.ecc_mode.pending", "ecc.mode.pending"],
    &["inventory.mig_mode.current", "mig.mode.current"],
    &["inventory.mig_mode.pending", "mig.mode.pending"],
    &["inventory.pcie_max_generation", "telemetry.pcie.max_generation"],
    &["inventory.pcie_max_width", "telemetry.pcie.max_width"],
];

/// Fields that identify a GPU. Two GPUs of a node must not have the same value.
const IDENTITY: [(&str, &str); 4] = [
    ("inventory.uuid", "UUID"),
    ("inventory.pci_address", "PCI address"),
    ("inventory.minor_number", "minor number"),
    ("inventory.module_id", "module id"),
];

/// Maximum number of GPUs of a baseboard.
const GPUS_OF_A_BASEBOARD: usize = 8;

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = node.answering().filter_map(|gpu| readings(node, gpu)).collect();
    drafts.extend(same_identity(node));
    drafts.extend(runtimes(node));
    drafts
}

/// Compares the container runtime of the kubelet with the runtime whose configuration was read, because a node can have
/// several runtimes. The rules about the configuration ignore the configuration of another runtime.
fn runtimes(node: &Node<'_>) -> Option<Draft> {
    let (used, read) = runtimes::of_kubelet(node).zip(runtimes::of_configuration(node))?;
    let advice = "No action if both runtimes are intended on {node}: only the runtime of the kubelet starts pods. The configuration of this runtime was not checked.";
    (used.runtime != read.runtime && node.shows_whole_node()).then(|| {
        Draft::on_node(DISAGREE)
            .with_severity(Severity::Info)
            .with_evidence(format!("{}, but {}", used.by, read.by))
            .with_action(ActionCode::Watch, advice)
    })
}

fn readings(node: &Node<'_>, gpu: &Gpu) -> Option<Draft> {
    let fields = node.fields_of(gpu);
    let mut lines: Vec<String> = Vec::new();
    for names in SAME {
        let read: Vec<(&str, &serde_json::Value)> =
            names.iter().filter_map(|name| Some((*name, fields.get(*name)?))).collect();
        if let Some((first, value)) = read.first()
            && let Some((other, differs)) = read.iter().find(|(_, other)| other != value)
        {
            lines.push(format!("{first} is {}, but {other} is {}", text(value), text(differs)));
        }
    }
    let on_bus = node.pci_of(gpu);
    let numa = on_bus.and_then(|pci| pci.numa_node).zip(node.topology_of(gpu).and_then(|gpu| gpu.numa_node));
    if let Some((bus, topology)) = numa.filter(|(bus, topology)| bus != topology) {
        lines.push(format!("host.pci_gpus.numa_node is {bus}, but topology.numa_node is {topology}"));
    }
    if on_bus.and_then(|pci| pci.in_nvml) == Some(false) {
        lines.push("host.pci_gpus.in_nvml is false, but NVML lists the GPU".to_owned());
    }
    if on_bus.and_then(|pci| pci.answers) == Some(false) && node.is_readable(gpu) {
        lines
            .push("the PCI configuration space of the GPU returns all ones, but NVML reads its temperature".to_owned());
    }
    let device = on_bus.and_then(|pci| pci.device_id.as_deref());
    let nvml = node.inventory_of(gpu).and_then(|gpu| gpu.pci_device_id.as_deref());
    if let Some((device, nvml)) = device.zip(nvml).filter(|(device, nvml)| !nvml.starts_with(device)) {
        lines.push(format!(
            "host.pci_gpus.device_id is {}, but inventory.pci_device_id is {}",
            evidence::data(device),
            evidence::data(nvml)
        ));
    }
    lines.extend(error_counts(node, gpu));
    (!lines.is_empty()).then(|| Draft::on_gpu(DISAGREE, gpu).with_all_evidence(lines))
}

/// Compares the number of errors at each location with the total number, which must not be smaller.
fn error_counts(node: &Node<'_>, gpu: &Gpu) -> Vec<String> {
    let Some(ecc) = node.ecc_of(gpu) else { return Vec::new() };
    let mut lines = Vec::new();
    for (name, counts) in [("volatile", &ecc.volatile), ("aggregate", &ecc.aggregate)] {
        let most = |of: fn(&LocationErrors) -> u64| counts.locations.iter().map(of).max().unwrap_or(0);
        let kinds = [
            ("corrected", counts.corrected, most(|location| location.corrected)),
            ("uncorrected", counts.uncorrected, most(|location| location.uncorrected)),
        ];
        for (kind, total, at_location) in kinds {
            if let Some(total) = total.filter(|total| *total == 0 && at_location > 0) {
                lines.push(format!("ecc.{name}.{kind} is {total}, but {at_location} at one location"));
            }
        }
    }
    lines
}

fn same_identity(node: &Node<'_>) -> Option<Draft> {
    let mut holders: BTreeMap<String, Vec<(Option<u32>, String)>> = BTreeMap::new();
    for gpu in node.answering() {
        let fields = node.fields_of(gpu);
        // Each baseboard numbers its own modules. Cards without a baseboard all have the same number.
        let on_board = |gpu: &Gpu| boards::of(gpu).is_some();
        let one_board = node.answering().count() <= GPUS_OF_A_BASEBOARD;
        let own = IDENTITY
            .iter()
            .filter(|(path, _)| !path.ends_with("module_id") || (one_board && on_board(gpu)))
            .filter_map(|(path, name)| Some(format!("{name} {}", text(fields.get(*path)?))));
        for identity in own {
            holders.entry(identity).or_default().push((gpu.index, gpu.label()));
        }
    }
    let shared = holders.into_iter().filter(|(_, gpus)| gpus.len() > 1);
    let lines: Vec<String> = shared.map(|(name, gpus)| format!("{}: {name}", evidence::gpus(&gpus))).collect();
    (!lines.is_empty()).then(|| Draft::on_node(SAME_IDENTITY).with_all_evidence(lines))
}
