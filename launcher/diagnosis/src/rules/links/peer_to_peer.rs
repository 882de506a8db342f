//! Rule about pairs of GPUs that should have peer-to-peer access but cannot read or write each other's memory.

use std::collections::{BTreeMap, BTreeSet};

use crate::evidence;
use crate::input::node::{Gpu, Node};
use crate::rule::{Draft, NVML_DOC, Unread, rules};
use syringe_core::facts::Availability;
use syringe_core::facts::topology::{MissingP2p, Topology};
use syringe_core::section_name::SectionName;
use syringe_core::unknown::Unknown;

rules! {
    LACKING: "peer-to-peer-missing" Warning Fabric NVML_DOC, "GPUs with NVLinks between them have no peer-to-peer access",
        Watch "Check driver options and confidential computing of {node} (nvidia-smi topo -p2p r), then reset the GPUs at the next drain. \
            NCCL sends data between these GPUs through the memory of the host.",
        means "Two GPUs are connected by NVLink, but the driver does not let them read or write each other's memory: transfers between them \
            are slow.",
        reads "topology.p2p_lacking, topology.matrix";
    UNEVEN: "peer-to-peer-uneven" Info Fabric NVML_DOC, "GPUs without NVLink have no peer-to-peer access: other pairs \
        have it, or a driver option disables it",
        Watch "If transfers between these GPUs of {node} are slow, check whether a driver option (NVreg_RegistryDwords) disables \
            peer-to-peer access. Also compare the BIOS settings of their slots. Without this access, NCCL sends the data through host memory.",
        means "A driver option switches peer-to-peer access off, or pairs of GPUs lack it although other pairs with the same connection have it.",
        reads "topology.p2p_lacking, topology.matrix";
}

/// The capabilities that transfers between GPUs need.
const NEEDED: [&str; 2] = ["read", "write"];

/// Maximum number of affected GPUs that are listed. If more GPUs lack access, the finding is about the node.
const FEW: usize = 2;

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let Some(topology) = node.topology() else { return Vec::new() };
    let mut drafts: Vec<Draft> = Vec::new();
    for lacking in topology.p2p_lacking.iter().filter(|lacking| NEEDED.contains(&lacking.capability.as_str())) {
        let pairs: Vec<[u32; 2]> =
            lacking.pairs.iter().filter(|pair| is_linked(node, topology, **pair)).copied().collect();
        let Some(draft) = draft(node, lacking, &pairs) else { continue };
        // Missing read access and missing write access between the same GPUs are one fault.
        match drafts.iter_mut().find(|known: &&mut Draft| known.scope == draft.scope) {
            Some(known) => *known = known.clone().with_all_evidence(draft.evidence),
            None => drafts.push(draft),
        }
    }
    let uneven: Vec<String> = NEEDED.iter().flat_map(|capability| uneven(node, topology, capability)).collect();
    drafts.extend((!uneven.is_empty()).then(|| Draft::on_node(UNEVEN).with_all_evidence(uneven)));
    drafts
}

/// The status of access that an option of the driver disables.
const SWITCHED_OFF: &str = "disabled_by_regkey";

/// Returns the pairs without NVLink that lack a capability because of a driver option, or although other pairs with the
/// same connection have it.
fn uneven(node: &Node<'_>, topology: &Topology, capability: &str) -> Vec<String> {
    let entries = || topology.p2p_lacking.iter().filter(|lacking| lacking.capability == capability);
    let status_of = |pair: [u32; 2]| {
        let has = |lacking: &&MissingP2p| lacking.pairs.iter().any(|one| *one == pair || *one == [pair[1], pair[0]]);
        entries().find(has).map(|lacking| lacking.status.as_str())
    };
    let gpus: Vec<u32> = topology.gpus.iter().map(|gpu| gpu.index).collect();
    let pairs =
        gpus.iter().flat_map(|one| gpus.iter().filter(move |other| one < other).map(move |other| [*one, *other]));
    let mut by_cell: BTreeMap<&str, Vec<[u32; 2]>> = BTreeMap::new();
    for pair in pairs.filter(|pair| pair.iter().all(|gpu| is_whole(node, *gpu))) {
        if let Some(cell) = cell_of(topology, pair).filter(|cell| !cell.starts_with("NV")) {
            by_cell.entry(cell).or_default().push(pair);
        }
    }
    let mut lines = Vec::new();
    for (cell, pairs) in by_cell {
        let lacking: Vec<([u32; 2], &str)> = pairs.iter().filter_map(|pair| Some((*pair, status_of(*pair)?))).collect();
        let others = pairs.len() - lacking.len();
        let off = lacking.iter().any(|(_, status)| *status == SWITCHED_OFF);
        if !lacking.is_empty() && (others > 0 || off) {
            let why = evidence::data(lacking.iter().map(|(_, status)| *status).max().unwrap_or_default());
            let pairs: Vec<[u32; 2]> = lacking.into_iter().map(|(pair, _)| pair).collect();
            let rest = if others == 0 { String::new() } else { format!("; {others} with this connection have it") };
            let connection = evidence::data(cell);
            lines.push(format!("no {capability} access: {} ({why}, connection {connection}{rest})", named(&pairs)));
        }
    }
    lines
}

/// Returns a finding about the GPU that all pairs have in common, or else about the node.
fn draft(node: &Node<'_>, lacking: &MissingP2p, pairs: &[[u32; 2]]) -> Option<Draft> {
    let first = pairs.first()?;
    let of_all: Vec<&Gpu> = first
        .iter()
        .filter(|gpu| pairs.iter().all(|pair| pair.contains(gpu)))
        .filter_map(|gpu| node.gpu(*gpu))
        .collect();
    let draft = match of_all.as_slice() {
        [gpu] => Draft::on_gpu(LACKING, gpu),
        _ => Draft::on_node(LACKING),
    };
    let (capability, status) = (evidence::data(&lacking.capability), evidence::data(&lacking.status));
    Some(draft.with_evidence(format!("no {capability} access: {} ({status})", named(pairs))))
}

/// Lists a few pairs individually, or many pairs by their GPUs.
fn named(pairs: &[[u32; 2]]) -> String {
    if pairs.len() <= FEW {
        let named = pairs.iter().map(|[one, other]| format!("GPUs {one} and {other}"));
        return named.collect::<Vec<_>>().join(", ");
    }
    let gpus: Vec<u32> = pairs.iter().flatten().copied().collect::<BTreeSet<u32>>().into_iter().collect();
    format!("{} of GPUs {}", evidence::count(pairs.len(), "pair"), evidence::ranges(&gpus))
}

/// Returns whether NVLinks connect two GPUs that programs use as a whole. In MIG mode and with virtual GPUs, there is
/// no peer-to-peer access.
fn is_linked(node: &Node<'_>, topology: &Topology, pair: [u32; 2]) -> bool {
    let is_linked = cell_of(topology, pair).is_some_and(|cell| cell.starts_with("NV"));
    is_linked && pair.into_iter().all(|index| is_whole(node, index))
}

/// Returns the connection of two GPUs: `NV18`, `PIX`, `SYS`.
fn cell_of(topology: &Topology, pair: [u32; 2]) -> Option<&str> {
    let place = |index: u32| topology.gpus.iter().position(|gpu| gpu.index == index);
    let (row, column) = place(pair[0]).zip(place(pair[1]))?;
    topology.matrix.get(row)?.get(column).map(String::as_str)
}

/// Returns whether programs use the GPU as a whole.
fn is_whole(node: &Node<'_>, index: u32) -> bool {
    let gpu = node.inventory().and_then(|all| all.gpus.iter().find(|gpu| gpu.index == index));
    gpu.is_some_and(|gpu| {
        !gpu.mig_mode.is_some_and(|mode| mode.current)
            && matches!(gpu.virtualization_mode.as_deref(), Some("none" | "passthrough"))
    })
}

/// Returns an entry if the report contains no pairs with a capability and no pairs without it.
pub(super) fn unread(node: &Node<'_>) -> Vec<Unread> {
    let Some(topology) = node.topology() else { return Vec::new() };
    let is_read = |gpu: &Gpu| {
        gpu.index.is_some_and(|gpu| node.availability(SectionName::Topology, gpu, "p2p") == Availability::Read)
    };
    let is_told = |capability: &str| {
        topology.p2p_all_ok.iter().any(|word| word == capability)
            || topology.p2p_lacking.iter().any(|lacking| lacking.capability == capability)
    };
    let has_pairs = topology.matrix.iter().flatten().any(|cell| cell.starts_with("NV"));
    let problems = node.report.sections.get(SectionName::Topology).problems();
    if !has_pairs || !problems.is_empty() || !node.answering().all(is_read) {
        return Vec::new();
    }
    let silent: Vec<&str> = NEEDED.into_iter().filter(|capability| !is_told(capability)).collect();
    let why = format!("peer-to-peer access between GPUs was not read: {}", silent.join(", "));
    let entry = Unread { fact: Unknown::new(SectionName::Topology, why), decides: false };
    if silent.is_empty() { Vec::new() } else { vec![entry] }
}
