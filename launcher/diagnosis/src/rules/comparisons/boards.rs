//! Rules that compare a node with the board of its product: number of GPUs and NVSwitches, fabric, number and speed
//! of the NVLinks. `refine`: lowers the severity of findings about the fabric if an NVSwitch is missing.
//!
//! These rules find faults that all GPUs of a node have. Other faults are found by comparing the GPUs with each other
//! (`peers`).

use crate::evidence;
use crate::input::boards;
use crate::input::boards::Board;
use crate::input::layers::{Layer, things};
use crate::input::node::{Gpu, Node};
use crate::rule::{DEBUG_DOC, Draft, FABRIC_DOC, InPlan, rules};
use crate::rules::comparisons::agreement::DISAGREE;
use syringe_core::classification::{Class, Severity};
use syringe_core::facts::Availability;
use syringe_core::facts::topology::GpuTopology;
use syringe_core::section_name::SectionName;

rules! {
    GPU_MISSING: "board-gpu-missing" Critical Hardware DEBUG_DOC, "The node has fewer GPUs than a board of its product",
        DrainAndReboot "Drain and power-cycle {node}. If the GPU is still missing on the PCI bus, check the hardware log (BMC) and contact \
            the vendor.",
        means "Boards of this product have 2, 4, 8 or 16 GPUs (trays of GB200 2 or 4), but NVML and the PCI bus show another number: a GPU is missing in both.",
        reads "inventory.name, inventory.module_id, host.pci_gpus", in_plan WorkContinues;
    BELOW: "board-below-specification" Warning Fabric FABRIC_DOC, "All GPUs of the node are below the specification of their product",
        UpdateSoftware "Check driver options (NVreg_NvLinkDisable), the firmware of the board and Fabric Manager of {node}, then reset \
            all GPUs. If the difference persists, contact the vendor.",
        means "All GPUs of the node lack NVLinks, the speed of NVLinks, or the fabric that boards of their product have.",
        reads "inventory.name, topology.nvlinks, topology.fabric, topology.nvswitches";
    SWITCH_MISSING: "nvswitch-missing" Critical Fabric DEBUG_DOC, "An NVSwitch is missing on the PCI bus",
        DrainAndReboot "Drain and power-cycle {node}. If the NVSwitch is still missing, contact the vendor.",
        means "NVLinks lead to an NVSwitch, or the board has an NVSwitch, that the PCI bus does not show.",
        reads "topology.nvlinks, topology.nvswitches", in_plan WorkContinues;
}

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let Some(board) = boards::of_node(node).filter(|_| !node.driver.is_broken()) else { return Vec::new() };
    let mut lines = Vec::new();
    lines.extend(links(node, board));
    lines.extend(speed(node, board));
    lines.extend(fabric(node, board));
    let mut drafts = Vec::new();
    if !lines.is_empty() {
        drafts.push(Draft::on_node(BELOW).with_all_evidence(lines));
    }
    drafts.extend(count(node, board));
    drafts.extend(switches(node, board));
    drafts
}

/// Lowers findings about the registration of the GPUs if an NVSwitch is missing, because these findings are
/// consequences of the missing NVSwitch.
pub(super) fn refine(_: &Node<'_>, drafts: &mut [Draft]) {
    let is_missing = |draft: &Draft| draft.rule == SWITCH_MISSING && draft.severity == Severity::Critical;
    if !drafts.iter().any(is_missing) {
        return;
    }
    let starts_fabric = |draft: &&mut Draft| {
        let is_first = matches!(draft.rule.in_plan, InPlan::ComesFirst | InPlan::StartsFabricManager);
        is_first && draft.rule.class == Class::Fabric && draft.severity == Severity::Critical
    };
    for draft in drafts.iter_mut().filter(starts_fabric) {
        let lowered = draft.clone().with_severity(Severity::Warning);
        *draft = lowered.with_evidence("an NVSwitch is missing on the PCI bus: the fabric cannot start without it");
    }
}

/// A node with fewer GPUs than this may have only a part of a board on purpose.
const PART_OF_A_BOARD: usize = 5;

/// Returns a finding if no board has this number of GPUs. GPUs that only the PCI bus lists are also counted.
fn count(node: &Node<'_>, board: &Board) -> Option<Draft> {
    things(node, Layer::Pci)?;
    let count = boards::count(node);
    let mut modules: Vec<u32> =
        node.answering().filter_map(|gpu| node.inventory_of(gpu)?.module_id).filter(|module| *module > 0).collect();
    modules.sort_unstable();
    let has_gap = modules.windows(2).any(|pair| pair[0].saturating_add(1) < pair[1]);
    // If there are more GPUs than a board has, a GPU was counted twice. If there are fewer GPUs and their module ids
    // have no gap, the node may have only a part of a board.
    let largest = board.switches.iter().map(|(gpus, _)| *gpus).chain(board.sizes.iter().copied()).max();
    let is_possible = match board.sizes {
        [] => count.is_power_of_two() || (count < PART_OF_A_BOARD && !has_gap),
        sizes => sizes.contains(&count),
    };
    if largest.is_none_or(|largest| count > largest) || is_possible {
        return None;
    }
    let numbers = (!modules.is_empty()).then(|| format!("module ids {}", evidence::ranges(&modules)));
    let sizes = if board.sizes.is_empty() { &[2, 4, 8, 16] } else { board.sizes };
    let sizes = sizes.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    let line = format!("{} {}, but boards of this product have {sizes}", evidence::count(count, "GPU"), board.product);
    Some(Draft::on_node(GPU_MISSING).with_evidence(line).with_all_evidence(numbers))
}

/// Returns the entries of the GPUs in `topology`, if all GPUs have an entry and this field could be read for each of
/// them.
fn all<'n>(node: &Node<'n>, field: &str) -> Option<Vec<&'n GpuTopology>> {
    let was_read =
        |gpu: &Gpu| Some(node.availability(SectionName::Topology, gpu.index?, field) != Availability::Unread);
    let entry = |gpu: &Gpu| node.topology_of(gpu).filter(|_| was_read(gpu) == Some(true));
    node.answering().map(entry).collect()
}

/// Returns whether the GPUs have other GPUs to connect to.
fn is_connected(node: &Node<'_>) -> bool {
    node.answering().count() > 1 || node.topology().is_some_and(|topology| !topology.nvswitches.is_empty())
}

fn links(node: &Node<'_>, board: &Board) -> Option<String> {
    let gpus = all(node, "nvlinks")?;
    // In MIG mode some GPUs have no NVLinks.
    let is_cut = node.answering().any(|gpu| is_mig(node, gpu));
    (is_connected(node) && !is_cut && gpus.iter().all(|gpu| gpu.nvlinks.is_empty()))
        .then(|| format!("no GPU has NVLinks, but each {} on a board has {}", board.product, board.links))
}

fn is_mig(node: &Node<'_>, gpu: &Gpu) -> bool {
    node.mig_mode(gpu).is_some_and(|mode| mode.current)
}

fn speed(node: &Node<'_>, board: &Board) -> Option<String> {
    let gpus = all(node, "nvlinks")?;
    let speeds = gpus.iter().flat_map(|gpu| &gpu.nvlinks).filter_map(|group| group.speed_megabytes_per_second);
    let best = speeds.max()?;
    (u64::from(best) * 10 < u64::from(board.link_megabytes_per_second) * 9).then(|| {
        format!(
            "NVLinks have at most {best} MB/s; the NVLinks of {} boards have {}",
            board.product, board.link_megabytes_per_second
        )
    })
}

/// Checks the fabric if the NVLinks lead to NVSwitches. Boards without NVSwitches have no fabric.
fn fabric(node: &Node<'_>, board: &Board) -> Option<String> {
    let gpus = all(node, "fabric").filter(|_| board.has_fabric)?;
    let is_on_switch =
        |gpu: &GpuTopology| gpu.nvlinks.iter().any(|group| group.remote_type.as_deref() == Some("switch"));
    let is_switched = gpus.iter().any(|gpu| is_on_switch(gpu)) || !node.topology()?.nvswitches.is_empty();
    let has_none = |gpu: &GpuTopology| gpu.fabric.as_ref().is_none_or(|fabric| fabric.state == "not_supported");
    (is_switched && gpus.iter().all(|gpu| has_none(gpu))).then(|| {
        format!(
            "the driver reports no fabric for any GPU, but the NVLinks of {} boards lead to NVSwitches",
            board.product
        )
    })
}

/// Checks the number of NVSwitches. A missing NVSwitch at the end of NVLinks is found by its address.
fn switches(node: &Node<'_>, board: &Board) -> Option<Draft> {
    let (present, linked) = (things(node, Layer::Switches)?, things(node, Layer::LinkedSwitches)?);
    let count = boards::count(node);
    let expected = board.switches_of(count).filter(|expected| present.len() < *expected)?;
    let is_present = |name: &String| present.iter().any(|switch| switch.names.contains(name));
    if !present.is_empty() && linked.iter().any(|switch| !switch.names.iter().any(is_present)) {
        return None;
    }
    let line = format!(
        "the PCI bus shows {} NVSwitches, but a board with {count} {} has {expected}",
        present.len(),
        board.product
    );
    if boards::host_serves_fabric(node) {
        return None;
    }
    // The NVLinks of a board are divided among its NVSwitches. If all NVLinks are active, all NVSwitches work.
    if has_all_links(node, board) {
        let links = format!("all {} NVLinks of every GPU are active, which need all NVSwitches", board.links);
        return Some(Draft::on_node(DISAGREE).with_evidence(line).with_evidence(links));
    }
    // If the node has no NVSwitch, another virtual machine may manage the NVSwitches.
    let severity = if present.is_empty() { Severity::Warning } else { Severity::Critical };
    Some(Draft::on_node(SWITCH_MISSING).with_severity(severity).with_evidence(line))
}

/// Returns whether every GPU has as many active NVLinks as the board has for each GPU.
fn has_all_links(node: &Node<'_>, board: &Board) -> bool {
    let active = |gpu: &GpuTopology| -> usize {
        gpu.nvlinks.iter().filter(|group| group.active == Some(true)).map(|group| group.links.len()).sum()
    };
    all(node, "nvlinks").is_some_and(|gpus| gpus.iter().all(|gpu| active(gpu) >= board.links as usize))
}
