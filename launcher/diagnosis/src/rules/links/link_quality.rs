//! Rules about links: bit error rate of NVLinks, links without traffic, C2C links that are down, damaged packets on
//! PCIe links.

use std::collections::BTreeMap;

use crate::evidence;
use crate::input::node::{Gpu, Node};
use crate::rule::{DEBUG_DOC, Draft, NVML_DOC, rules};
use syringe_core::classification::Severity;

rules! {
    BIT_ERRORS: "nvlink-bit-error-rate" Warning Fabric NVML_DOC, "NVLinks have a high bit error rate",
        CheckCabling "Reset {gpu} when {node} is drained, at the latest at the next maintenance: work continues as long as the links are up. If the rate stays \
            high, check its seating, the cables and the switch at the other end of these links.",
        means "The error correction of an NVLink lets more errors through than DCGM allows (1e-12). The link sends data again or fails \
            under load.",
        reads "topology.nvlinks.bit_error_rates";
    C2C_DOWN: "c2c-link-down" Critical Fabric NVML_DOC, "Links between the GPU and its CPU are down",
        DrainAndReboot "Drain {node} and power-cycle it. If the same C2C links of {gpu} stay down, contact the vendor: GPU and CPU are one \
            module.",
        means "Some C2C links, which connect the GPU with the CPU of its module, are not active. Traffic to the memory of the CPU is slower or \
            fails.",
        reads "topology.c2c";
    C2C_ERRORS: "c2c-link-errors" Warning Fabric NVML_DOC, "The links between the GPU and its CPU count errors",
        Watch "Read the counters of {gpu} on {node} again later: only growing counters indicate a fault. If they grow, drain {node} and \
            power-cycle it; if they still grow, contact the vendor: GPU and CPU are one module.",
        means "The driver counted error interrupts of C2C links, which connect the GPU with the CPU of its module. Errors that do not \
            grow are information.",
        reads "topology.c2c.errors, telemetry.sample";
    TRAFFIC_OFF: "nvlink-traffic-disabled" Warning Fabric NVML_DOC, "The driver has disabled traffic on NVLinks that are up",
        Watch "Find out why the software of the fabric (Fabric Manager, the NVLink manager of the rack) gives {gpu} of {node} no traffic on \
            these links: jobs on several GPUs cannot use them.",
        means "The links are trained, but the driver does not allow traffic on them.",
        reads "topology.nvlinks.traffic_disabled";
    DAMAGED: "pcie-packets-damaged" Warning Fabric DEBUG_DOC, "Packets are damaged on the PCIe link of the GPU",
        CheckCabling "Check seating, riser and cables of {gpu} on {node} at the next maintenance: the link sends damaged packets again.",
        means "The GPU counts many damaged or rejected packets on its PCIe link: the quality of the link is poor.",
        reads "telemetry.pcie.errors", fault PcieLink;
}

/// Limit of DCGM for the effective bit error rate.
const MOST_BIT_ERRORS: f64 = 1e-12;

/// Rates after error correction. The raw rate is high on healthy links.
const CORRECTED_RATES: [&str; 2] = ["effective", "symbol"];

/// Counters of packets that were damaged or rejected.
const DAMAGED_COUNTERS: [&str; 7] =
    ["naks_received", "naks_sent", "bad_tlp", "bad_dllp", "lcrc", "lane_error", "receiver_error"];

/// Counters of errors that the link did not correct.
const UNCORRECTED: &str = "fatal";

/// Minimum number of damaged packets per day for a bad link. The rule about the kernel's counters uses the same number
/// of corrected errors.
const MANY_PER_DAY: u64 = 1000;

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let of_gpu = |gpu| {
        let of_c2c = [c2c_down(node, gpu), c2c_errors(node, gpu)];
        [bit_errors(node, gpu), damaged(node, gpu), traffic_off(node, gpu)].into_iter().chain(of_c2c)
    };
    node.answering().flat_map(of_gpu).flatten().collect()
}

/// Returns a finding about C2C links that are down. If no C2C link of the node is active, the board does not use them.
fn c2c_down(node: &Node<'_>, gpu: &Gpu) -> Option<Draft> {
    let is_used = |gpu: &Gpu| node.topology_of(gpu)?.c2c.as_ref().map(|links| links.down.len() < links.count as usize);
    let links = node.topology_of(gpu)?.c2c.as_ref().filter(|links| !links.down.is_empty())?;
    node.answering().find(|gpu| is_used(gpu) == Some(true))?;
    let line = format!("C2C links {} of {} are not active", evidence::ranges(&links.down), links.count);
    Some(Draft::on_gpu(C2C_DOWN, gpu).with_evidence(line))
}

/// Returns a finding about errors of C2C links. Whether few errors are normal is not documented, so only errors that grow are
/// a fault.
fn c2c_errors(node: &Node<'_>, gpu: &Gpu) -> Option<Draft> {
    let errors = node.topology_of(gpu).and_then(|gpu| Some(&gpu.c2c.as_ref()?.errors));
    let totals = errors.into_iter().flatten().filter(|(_, count)| **count > 0);
    let totals = totals.map(|(name, count)| format!("C2C {}: {count} since driver load", evidence::data(name)));
    let sample = node.telemetry_of(gpu).and_then(|now| now.sample.as_ref());
    let new = sample.and_then(|sample| Some((sample, sample.c2c_errors.filter(|count| *count > 0)?)));
    let growth =
        new.map(|(sample, count)| format!("C2C errors: {count} more in the last {}", evidence::window(sample)));
    let severity = if growth.is_some() { Severity::Warning } else { Severity::Info };
    let lines: Vec<String> = growth.into_iter().chain(totals).collect();
    (!lines.is_empty()).then(|| Draft::on_gpu(C2C_ERRORS, gpu).with_severity(severity).with_all_evidence(lines))
}

fn traffic_off(node: &Node<'_>, gpu: &Gpu) -> Option<Draft> {
    let groups = node.topology_of(gpu)?.nvlinks.iter().filter(|group| group.traffic_disabled);
    let links: Vec<u32> = groups.flat_map(|group| group.links.iter().copied()).collect();
    let line = format!("links {}: active, traffic disabled", evidence::ranges(&links));
    (!links.is_empty()).then(|| Draft::on_gpu(TRAFFIC_OFF, gpu).with_evidence(line))
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
    let fatal = errors.get(UNCORRECTED).copied().filter(|count| *count > 0).map(|count| (UNCORRECTED, count));
    let counted: Vec<(&str, u64)> = fatal.into_iter().chain(DAMAGED_COUNTERS.iter().filter_map(count)).collect();
    let most = counted.iter().map(|(_, count)| *count).max()?;
    let days = node.counted_seconds().map(|seconds| seconds.div_ceil(86_400).max(1));
    let is_many = days.is_some_and(|days| most / days >= MANY_PER_DAY);
    let severity = if is_many || fatal.is_some() { Severity::Warning } else { Severity::Info };
    let lines = counted.iter().map(|(name, count)| format!("{name}: {count} since driver load"));
    Some(Draft::on_gpu(DAMAGED, gpu).with_severity(severity).with_all_evidence(lines))
}
