//! `check`: finds the faults that a healthy summary rules out (`FaultsRuledOut`), because their facts were read on all
//! GPUs. `THROTTLING`, `NVLINK_FAULT` and the other constants: the names of these faults.
//!
//! A fault is ruled out if its fact was read on every GPU. If the hardware does not support the fact, the fault is
//! listed as not checked. If the fact is missing without a reason, the verdict is `unknown`, because a report without
//! the fact does not show that the GPU is healthy.

use crate::evidence;
use crate::input::boards;
use crate::input::gpu::{PLAUSIBLE_CELSIUS, POSSIBLE_CELSIUS};
use crate::input::node::{Gpu, Node};
use syringe_core::facts::Availability;
use syringe_core::facts::topology::GpuTopology;
use syringe_core::section_name::SectionName;

/// Availability of one fact of one GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FactState {
    Read,
    /// The driver does not support the fact on this GPU.
    NotOffered,
    /// The fact is missing, and no reason is given.
    Missing,
}

/// A fault that a healthy summary can rule out.
struct Fault {
    /// The section that contains the fact.
    section: SectionName,
    /// Name of the fault in the summary: `no {words}`.
    words: &'static str,
    is_read: fn(&Node<'_>, &Gpu) -> bool,
    /// Groups of fields that contain the fact. One group is sufficient, but all its fields are needed. The fact is not
    /// supported if each group has an unsupported field.
    sources: &'static [&'static [&'static str]],
}

/// The fault that the error counters show.
pub(crate) const UNCORRECTED: &str = "uncorrected memory error since driver load";

pub(crate) const PENDING_REPAIR: &str = "pending memory repair";
pub(crate) const RECOVERY_ACTION: &str = "recovery action recommended by the driver";
pub(crate) const THROTTLING: &str = "throttling";
pub(crate) const OVERHEATING: &str = "overheating";

/// The fault that the links show.
pub(crate) const NVLINK_FAULT: &str = "NVLink fault";

const FAULTS: &[Fault] = &[
    Fault {
        section: SectionName::Ecc,
        words: PENDING_REPAIR,
        is_read: |node, gpu| {
            node.ecc_of(gpu).is_some_and(|ecc| {
                ecc.remapped_rows.is_some() || ecc.retired_pages.as_ref().is_some_and(|pages| pages.pending.is_some())
            })
        },
        sources: &[&["remapped_rows"], &["retired_pages"]],
    },
    Fault {
        section: SectionName::Ecc,
        words: RECOVERY_ACTION,
        is_read: |node, gpu| node.ecc_of(gpu).is_some_and(|ecc| ecc.recovery_action.is_some()),
        sources: &[&["recovery_action"]],
    },
    Fault {
        section: SectionName::Ecc,
        words: UNCORRECTED,
        is_read: |node, gpu| node.ecc_of(gpu).is_some_and(|ecc| ecc.volatile.uncorrected.is_some()),
        sources: &[&["volatile.uncorrected"]],
    },
    Fault {
        section: SectionName::Telemetry,
        words: THROTTLING,
        is_read: |node, gpu| {
            let throttling = node.telemetry_of(gpu).map(|now| &now.throttling);
            throttling.is_some_and(|now| now.reasons_mask.is_some() || now.active.is_some())
        },
        sources: &[&["throttling.reasons_mask"]],
    },
    Fault {
        section: SectionName::Telemetry,
        words: OVERHEATING,
        is_read: |node, gpu| {
            node.telemetry_of(gpu).is_some_and(|now| {
                let now = &now.temperature;
                let limit = now.slowdown_celsius.is_some_and(|limit| PLAUSIBLE_CELSIUS.contains(&limit));
                // The T.Limit margin is useful only if the slowdown threshold on the T.Limit scale was also read.
                let threshold = now.tlimit_thresholds.as_ref().and_then(|limits| limits.slowdown_celsius);
                let margin = now.tlimit_margin_celsius.is_some() && threshold.is_some();
                now.gpu_celsius.is_some_and(|celsius| POSSIBLE_CELSIUS.contains(&celsius)) && (limit || margin)
            })
        },
        sources: &[
            &["temperature.slowdown_celsius"],
            &["temperature.tlimit_margin_celsius", "temperature.tlimit_thresholds.slowdown_celsius"],
        ],
    },
    Fault {
        section: SectionName::Topology,
        words: NVLINK_FAULT,
        is_read: |node, gpu| {
            node.topology_of(gpu).is_some_and(links_read)
                && gpu.index.is_some_and(|index| {
                    // The section lists paths of links that could not be read.
                    ["nvlinks", "nvlinks.active"]
                        .iter()
                        .all(|field| node.availability(SectionName::Topology, index, field) == Availability::Read)
                })
        },
        sources: &[&["nvlinks"]],
    },
    Fault {
        section: SectionName::Topology,
        words: MISSING_LANE,
        is_read: |node, gpu| {
            let hop = node.topology_of(gpu).and_then(|topology| topology.pcie_path.first());
            let link = node.telemetry_of(gpu).map(|now| &now.pcie);
            hop.is_some_and(|hop| hop.width.is_some() && hop.max_width.is_some())
                || link.is_some_and(|link| link.width.is_some() && link.max_width.is_some())
        },
        sources: &[&["pcie_path"]],
    },
];

fn links_read(topology: &GpuTopology) -> bool {
    !topology.nvlinks.is_empty() && topology.nvlinks.iter().all(|group| group.active.is_some())
}

const MISSING_LANE: &str = "missing PCIe lane";

/// The faults that were checked on a node: ruled out, not supported, or with missing facts.
#[derive(Debug, Default)]
pub(crate) struct FaultsRuledOut {
    /// Faults that no responding GPU has.
    pub(crate) ruled_out: Vec<&'static str>,
    /// Facts that the hardware does not support: `throttling (not offered by GPUs 0-6)`.
    pub(crate) not_offered: Vec<String>,
    /// Section and text of facts that are missing without a reason.
    pub(crate) missing: Vec<(SectionName, String)>,
}

/// Checks every fault for every GPU that responds.
pub(crate) fn check(node: &Node<'_>) -> FaultsRuledOut {
    let mut faults = FaultsRuledOut::default();
    let gpus: Vec<&Gpu> = node.answering().collect();
    if gpus.is_empty() {
        return faults;
    }
    // An integrated GPU has no PCIe link.
    let applies = |fault: &&Fault| fault.words != MISSING_LANE || !boards::is_integrated(node);
    for fault in FAULTS.iter().filter(|fault| node.has(fault.section)).filter(applies) {
        let of = |wanted: FactState| -> Vec<(Option<u32>, String)> {
            let found = gpus.iter().filter(|gpu| fact_state(node, gpu, fault) == wanted);
            found.map(|gpu| (gpu.index, gpu.label())).collect()
        };
        let (missing, not_offered) = (of(FactState::Missing), of(FactState::NotOffered));
        if missing.is_empty() && not_offered.is_empty() {
            faults.ruled_out.push(fault.words);
        }
        if !missing.is_empty() {
            faults.missing.push((
                fault.section,
                format!("{} could not be ruled out for {}", fault.words, evidence::gpus(&missing)),
            ));
        }
        // Many PCIe cards have no NVLink.
        let no_links_at_all = fault.words == NVLINK_FAULT && not_offered.len() == gpus.len();
        if !not_offered.is_empty() && !no_links_at_all {
            faults.not_offered.push(format!("{} (not offered by {})", fault.words, evidence::gpus(&not_offered)));
        }
    }
    faults
}

fn fact_state(node: &Node<'_>, gpu: &Gpu, fault: &Fault) -> FactState {
    let lacks = |field: &str| {
        gpu.index.is_some_and(|index| node.availability(fault.section, index, field) == Availability::Unsupported)
    };
    if (fault.is_read)(node, gpu) {
        FactState::Read
    } else if fault.sources.iter().all(|fields| fields.iter().any(|field| lacks(field)))
        || has_no_links(node, gpu, fault)
    {
        FactState::NotOffered
    } else {
        FactState::Missing
    }
}

/// Returns whether a GPU has no NVLink, because NVML lists no link. The topology of a node without NVML contains no
/// links.
fn has_no_links(node: &Node<'_>, gpu: &Gpu, fault: &Fault) -> bool {
    fault.section == SectionName::Topology
        && fault.sources == [["nvlinks"]]
        && node.topology_of(gpu).is_some_and(|topology| topology.nvlinks.is_empty())
}
