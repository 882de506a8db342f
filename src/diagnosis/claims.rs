//! What "nothing was found" may say, and from which facts.
//!
//! Each claim names the fact that it rests on, GPU by GPU. It is made where that fact was read on every GPU. A fact that
//! the hardware does not offer makes no claim, and is told as not checked. A fact that is missing without a reason leaves
//! the node undecided: a report that says nothing of it does not say that it is fine.

use super::node::{Gpu, Node};
use super::{implausible, quote, thermal};
use crate::facts::Availability;
use crate::facts::topology::GpuTopology;

/// What is known of one fact of one GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FactState {
    /// It was read.
    Read,
    /// The driver says that these GPUs do not have it.
    NotOffered,
    /// It is not there, and nothing says why.
    Missing,
}

/// One clause of a healthy summary.
struct Claim {
    /// The section that holds the fact.
    section: &'static str,
    /// What is claimed not to be there: `no {words}`.
    words: &'static str,
    /// Whether the fact was read.
    is_read: fn(&Node<'_>, &Gpu) -> bool,
    /// Fields of the section that hold it: any of these groups suffices, of a group every field is needed. It is not
    /// offered where each group lacks a field.
    sources: &'static [&'static [&'static str]],
}

/// The claim of the error counters.
pub(super) const UNCORRECTED: &str = "uncorrected memory error since driver load";

/// The claim of the links.
pub(super) const NVLINK_FAULT: &str = "NVLink fault";

const CLAIMS: &[Claim] = &[
    Claim {
        section: "ecc",
        words: "pending memory repair",
        is_read: |node, gpu| {
            node.ecc_of(gpu).is_some_and(|ecc| {
                ecc.remapped_rows.is_some() || ecc.retired_pages.as_ref().is_some_and(|pages| pages.pending.is_some())
            })
        },
        sources: &[&["remapped_rows"], &["retired_pages"]],
    },
    Claim {
        section: "ecc",
        words: "recovery action asked for by the driver",
        is_read: |node, gpu| node.ecc_of(gpu).is_some_and(|ecc| ecc.recovery_action.is_some()),
        sources: &[&["recovery_action"]],
    },
    Claim {
        section: "ecc",
        words: UNCORRECTED,
        is_read: |node, gpu| node.ecc_of(gpu).is_some_and(|ecc| ecc.volatile.uncorrected.is_some()),
        sources: &[&["volatile.uncorrected"]],
    },
    Claim {
        section: "telemetry",
        words: "throttling",
        is_read: |node, gpu| {
            let throttling = node.telemetry_of(gpu).map(|now| &now.throttling);
            throttling.is_some_and(|now| now.reasons_mask.is_some() || now.active.is_some())
        },
        sources: &[&["throttling.reasons_mask"]],
    },
    Claim {
        section: "telemetry",
        words: "overheating",
        is_read: |node, gpu| {
            node.telemetry_of(gpu).is_some_and(|now| {
                let now = &now.temperature;
                let limit = now.slowdown_celsius.is_some_and(|limit| thermal::PLAUSIBLE.contains(&limit));
                // A margin needs the place of the limit on its scale.
                let threshold = now.tlimit_thresholds.as_ref().and_then(|limits| limits.slowdown_celsius);
                let margin = now.tlimit_margin_celsius.is_some() && threshold.is_some();
                now.gpu_celsius.is_some_and(|celsius| implausible::CELSIUS.contains(&celsius)) && (limit || margin)
            })
        },
        sources: &[
            &["temperature.slowdown_celsius"],
            &["temperature.tlimit_margin_celsius", "temperature.tlimit_thresholds.slowdown_celsius"],
        ],
    },
    Claim {
        section: "topology",
        words: NVLINK_FAULT,
        is_read: |node, gpu| {
            node.topology_of(gpu).is_some_and(links_read)
                && gpu.index.is_some_and(|index| {
                    // The section lists each path of links that could not be read.
                    ["nvlinks", "nvlinks.active"]
                        .iter()
                        .all(|field| node.availability("topology", index, field) == Availability::Read)
                })
        },
        sources: &[&["nvlinks"]],
    },
    Claim {
        section: "topology",
        words: "lost PCIe lane",
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

/// What may be claimed, what may not, and why.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Claims that hold for every GPU that answers, in words.
    pub(super) made: Vec<&'static str>,
    /// Facts that the hardware does not offer: `throttling (not offered by GPUs 0-6)`.
    pub(super) not_offered: Vec<String>,
    /// Section and words of facts that are missing without a reason.
    pub(super) missing: Vec<(&'static str, String)>,
}

/// Every claim, against the facts of every GPU that answers.
pub(super) fn of(node: &Node<'_>) -> Claims {
    let mut claims = Claims::default();
    let gpus: Vec<&Gpu> = node.answering().collect();
    if gpus.is_empty() {
        return claims;
    }
    for claim in CLAIMS.iter().filter(|claim| node.has(claim.section)) {
        let of = |wanted: FactState| -> Vec<(Option<u32>, String)> {
            let found = gpus.iter().filter(|gpu| fact_state(node, gpu, claim) == wanted);
            found.map(|gpu| (gpu.index, gpu.label())).collect()
        };
        let (missing, not_offered) = (of(FactState::Missing), of(FactState::NotOffered));
        if missing.is_empty() && not_offered.is_empty() {
            claims.made.push(claim.words);
        }
        if !missing.is_empty() {
            claims
                .missing
                .push((claim.section, format!("{} could not be ruled out for {}", claim.words, quote::gpus(&missing))));
        }
        // That PCIe cards have no NVLink needs no word.
        let no_links_at_all = claim.words == NVLINK_FAULT && not_offered.len() == gpus.len();
        if !not_offered.is_empty() && !no_links_at_all {
            claims.not_offered.push(format!("{} (not offered by {})", claim.words, quote::gpus(&not_offered)));
        }
    }
    claims
}

fn fact_state(node: &Node<'_>, gpu: &Gpu, claim: &Claim) -> FactState {
    let lacks = |field: &str| {
        gpu.index.is_some_and(|index| node.availability(claim.section, index, field) == Availability::Unsupported)
    };
    if (claim.is_read)(node, gpu) {
        FactState::Read
    } else if claim.sources.iter().all(|fields| fields.iter().any(|field| lacks(field)))
        || has_no_links(node, gpu, claim)
    {
        FactState::NotOffered
    } else {
        FactState::Missing
    }
}

/// A GPU of which NVML names no link has none; the topology of a node without NVML says nothing of links.
fn has_no_links(node: &Node<'_>, gpu: &Gpu, claim: &Claim) -> bool {
    claim.section == "topology"
        && claim.sources == [["nvlinks"]]
        && node.topology_of(gpu).is_some_and(|topology| topology.nvlinks.is_empty())
}
