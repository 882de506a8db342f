//! Rules about the quality of links: the bit error rate of NVLinks, and damaged packets on the PCIe link of a GPU.

use std::collections::BTreeMap;

use crate::evidence;
use crate::input::node::{Gpu, Node};
use crate::rule::{DEBUG_DOC, Draft, NVML_DOC, rules};
use syringe_core::classification::Severity;

rules! {
    BIT_ERRORS: "nvlink-bit-error-rate" Warning Fabric NVML_DOC, "NVLinks have a high bit error rate",
        CheckCabling "Drain {node} and reset {gpu}. If the rate stays high, check its seating, the cables and the switch at the other \
            end of these links.",
        means "The error correction of an NVLink lets more errors through than DCGM allows (1e-12). The link sends data again or fails \
            under load.",
        reads "topology.nvlinks.bit_error_rates";
    DAMAGED: "pcie-packets-damaged" Warning Fabric DEBUG_DOC, "Packets are damaged on the PCIe link of the GPU",
        CheckCabling "Check seating, riser and cables of {gpu} on {node} at the next maintenance: the link sends damaged packets again.",
        means "The GPU counts many damaged or rejected packets on its PCIe link: the quality of the link is poor.",
        reads "telemetry.pcie.errors";
}

/// Limit of DCGM for the effective bit error rate.
const MOST_BIT_ERRORS: f64 = 1e-12;

/// Rates after error correction. The raw rate is high on healthy links.
const CORRECTED_RATES: [&str; 2] = ["effective", "symbol"];

/// Counters of packets that were damaged or rejected.
const DAMAGED_COUNTERS: [&str; 6] = ["naks_received", "naks_sent", "bad_tlp", "bad_dllp", "lcrc", "lane_error"];

/// Minimum number of damaged packets per day for a bad link. The rule about the kernel's counters uses the same number
/// of corrected errors.
const MANY_PER_DAY: u64 = 1000;

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    node.answering().flat_map(|gpu| bit_errors(node, gpu).into_iter().chain(damaged(node, gpu))).collect()
}

fn bit_errors(node: &Node<'_>, gpu: &Gpu) -> Option<Draft> {
    let groups = node.topology_of(gpu)?.nvlinks.iter();
    let lines = groups.filter_map(|group| {
        let is_high =
            |(name, rate): &(&String, &f64)| CORRECTED_RATES.contains(&name.as_str()) && **rate > MOST_BIT_ERRORS;
        group.bit_error_rates.iter().find(is_high)?;
        let rates = group.bit_error_rates.iter().map(|(name, rate)| format!("{} {rate:e}", evidence::data(name)));
        let rates: Vec<String> = rates.collect();
        Some(format!("links {}: bit error rate {}", evidence::ranges(&group.links), rates.join(", ")))
    });
    let lines: Vec<String> = lines.collect();
    (!lines.is_empty()).then(|| Draft::on_gpu(BIT_ERRORS, gpu).with_all_evidence(lines))
}

fn damaged(node: &Node<'_>, gpu: &Gpu) -> Option<Draft> {
    let errors: &BTreeMap<String, u64> = &node.telemetry_of(gpu)?.pcie.errors;
    let count = |name: &&'static str| {
        errors.get(*name).copied().filter(|count| *count >= MANY_PER_DAY).map(|count| (*name, count))
    };
    let counted: Vec<(&str, u64)> = DAMAGED_COUNTERS.iter().filter_map(count).collect();
    let most = counted.iter().map(|(_, count)| *count).max()?;
    let days = node.counted_seconds().map(|seconds| seconds.div_ceil(86_400).max(1));
    let is_many = days.is_some_and(|days| most / days >= MANY_PER_DAY);
    let severity = if is_many { Severity::Warning } else { Severity::Info };
    let lines = counted.iter().map(|(name, count)| format!("{name}: {count} since driver load"));
    Some(Draft::on_gpu(DAMAGED, gpu).with_severity(severity).with_all_evidence(lines))
}
