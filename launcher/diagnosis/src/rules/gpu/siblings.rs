//! Rules about GPUs that differ from other GPUs of their model: faults for which no fixed threshold exists.
//!
//! Only GPUs with the same product name are compared. There must be enough of them for a majority, and GPUs under load
//! are compared with GPUs under load only.

use std::collections::BTreeMap;

use crate::evidence;
use crate::input::node::{Gpu, Node};
use crate::rule::{DEBUG_DOC, Draft, Rule, rules};
use crate::rules::gpu::power;
use crate::rules::gpu::power::LOADED_PERCENT;
use syringe_core::classification::Severity;
use syringe_core::facts::clock_events;

rules! {
    VBIOS: "sibling-vbios-differs" Info Driver DEBUG_DOC, "VBIOS differs from the other GPUs of the node",
        Watch "No action needed on its own; a board may have been replaced. If only {gpu} of {node} has problems, \
            update its VBIOS.",
        means "GPUs of one model have different firmware (VBIOS).",
        reads "inventory.vbios_version";
    MEMORY: "sibling-memory-differs" Warning Hardware DEBUG_DOC, "Memory size differs from the other GPUs of the node",
        Watch "Reset {gpu} of {node} at the next drain. If memory is still missing, run a diagnostic and contact the \
            vendor.",
        means "A GPU has less memory than others of its model.",
        reads "inventory.memory_total_bytes";
    POWER_LIMIT: "sibling-power-limit-differs" Warning Power DEBUG_DOC,
        "Power limit differs from the other GPUs of the node",
        UpdateSoftware "Set the power limit of {gpu} on {node} to that of the other GPUs (nvidia-smi -pl). Jobs wait \
            for the slowest GPU.",
        means "A GPU has a different power limit than others of its model.",
        reads "telemetry.power";
    HOT: "gpu-hotter-than-peers" Warning Thermal DEBUG_DOC, "Much hotter than the other GPUs of the node",
        CheckCooling "Check airflow, heat sink and fans of {gpu} on {node}: the other GPUs are cooler at the same \
            load.",
        means "A GPU is far hotter than others of its model under the same load: its cooling may be poor.",
        reads "telemetry.temperature, telemetry.utilization";
    SLOW: "gpu-clocks-below-peers" Warning Hardware DEBUG_DOC, "Much lower clocks than the other GPUs at the same load",
        Watch "Check why {gpu} of {node} is slow (clock event reasons, locked clocks). Jobs wait for the slowest GPU.",
        means "A GPU has far lower clocks than others of its model under the same load.",
        reads "telemetry.clocks, telemetry.utilization";
}

/// Minimum number of GPUs for a majority.
const MIN_GPUS: usize = 3;

/// Minimum temperature difference of a finding. The position in the air stream explains about 10 °C.
const HOTTER_CELSIUS: i32 = 15;

/// Minimum temperature of a finding. Lower temperatures are harmless.
const WARM_CELSIUS: i32 = 65;

/// A GPU with less than this percentage of the usual clock is slow. The clocks of identical boards differ by a few percent.
const SLOWER_PERCENT: u64 = 80;

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut groups: BTreeMap<&str, Vec<&Gpu>> = BTreeMap::new();
    for gpu in node.answering() {
        groups.entry(gpu.name.as_deref().unwrap_or_default()).or_default().push(gpu);
    }
    let mut drafts = Vec::new();
    for group in groups.into_values().filter(|group| group.len() >= MIN_GPUS) {
        let inventory = |gpu: &Gpu| node.inventory_of(gpu);
        // Several GPUs with another VBIOS are from another batch; a single GPU was replaced.
        let vbios = odd(VBIOS, &group, |gpu| inventory(gpu)?.vbios_version.as_deref().map(evidence::data));
        if let [_] = vbios.as_slice() {
            drafts.extend(vbios);
        }
        drafts.extend(odd(MEMORY, &group, |gpu| Some(evidence::bytes(inventory(gpu)?.memory_total_bytes?))));
        drafts.extend(odd(POWER_LIMIT, &group, |gpu| {
            Some(format!("{} W", node.telemetry_of(gpu)?.power.limit_milliwatts? / 1000))
        }));
        drafts.extend(hotter(node, &group));
        drafts.extend(slower(node, &group));
    }
    drafts
}

/// Returns the GPUs with a value that differs from the majority.
fn odd(rule: Rule, group: &[&Gpu], value: impl Fn(&Gpu) -> Option<String>) -> Vec<Draft> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for value in group.iter().filter_map(|gpu| value(gpu)) {
        *counts.entry(value).or_default() += 1;
    }
    let known: usize = counts.values().sum();
    let Some((usual, _)) = counts.iter().find(|(_, count)| **count * 2 > known && known >= MIN_GPUS) else {
        return Vec::new();
    };
    let odd = group.iter().filter_map(|gpu| {
        let own = value(gpu).filter(|own| own != usual)?;
        Some(Draft::on_gpu(rule, gpu).with_evidence(format!("{own}, other GPUs {usual}")))
    });
    odd.collect()
}

fn median(mut values: Vec<i64>) -> Option<i64> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

/// GPUs that are much hotter than the median without a higher power draw.
fn hotter(node: &Node<'_>, group: &[&Gpu]) -> Vec<Draft> {
    let celsius = |gpu: &Gpu| node.telemetry_of(gpu)?.temperature.gpu_celsius;
    let draw = |gpu: &Gpu| Some(i64::from(node.telemetry_of(gpu)?.power.draw_milliwatts?));
    let usual = median(group.iter().filter_map(|gpu| celsius(gpu).map(i64::from)).collect());
    let usual_draw = median(group.iter().filter_map(|gpu| draw(gpu)).collect());
    let Some(usual) = usual.and_then(|usual| i32::try_from(usual).ok()) else { return Vec::new() };
    let hot = group.iter().filter_map(|gpu| {
        let own = celsius(gpu).filter(|own| *own >= WARM_CELSIUS && own.saturating_sub(usual) >= HOTTER_CELSIUS)?;
        // `thermal` reports a thermal slowdown.
        if clock_events::mask_of(&node.telemetry_of(gpu)?.throttling) & clock_events::FAULTS != 0 {
            return None;
        }
        // A much higher power draw is different work, which explains the temperature.
        let same_work = draw(gpu).zip(usual_draw).is_none_or(|(own, usual)| own * 5 <= usual * 6);
        same_work
            .then(|| Draft::on_gpu(HOT, gpu).with_evidence(format!("{own} °C, median of the other GPUs {usual} °C")))
    });
    hot.collect()
}

fn slower(node: &Node<'_>, group: &[&Gpu]) -> Vec<Draft> {
    let loaded = |gpu: &Gpu| {
        let now = node.telemetry_of(gpu)?;
        now.utilization.gpu_percent.filter(|&load| load >= LOADED_PERCENT)?;
        now.clocks.sm_mhz.map(i64::from)
    };
    let clocks: Vec<i64> = group.iter().filter_map(|gpu| loaded(gpu)).collect();
    if clocks.len() < MIN_GPUS {
        return Vec::new();
    }
    let Some(usual) = median(clocks) else { return Vec::new() };
    let slow = group.iter().filter_map(|gpu| {
        let own = loaded(gpu)?;
        let now = node.telemetry_of(gpu)?;
        // `thermal` and `power` report the reason.
        let known =
            clock_events::mask_of(&now.throttling) & clock_events::FAULTS != 0 || power::clocks(gpu, now).is_some();
        let far_below = !known && own.unsigned_abs() * 100 < usual.unsigned_abs() * SLOWER_PERCENT;
        let evidence = format!("SM clock {own} MHz under load, median of the other GPUs {usual} MHz");
        far_below.then(|| Draft::on_gpu(SLOW, gpu).with_severity(Severity::Warning).with_evidence(evidence))
    });
    slow.collect()
}
