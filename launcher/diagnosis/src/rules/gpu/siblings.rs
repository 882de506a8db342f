//! Rules about GPUs that are much hotter or slower, or draw much less power, than most GPUs of their model.
//!
//! Only GPUs with the same product name are compared, and only if there are enough of them for a majority. GPUs under
//! load are compared only with GPUs under load.

use std::collections::BTreeMap;

use crate::input::gpu::PLAUSIBLE_CELSIUS;
use crate::input::load::Load;
use crate::input::node::{Gpu, Node};
use crate::rule::{DEBUG_DOC, Draft, rules};
use crate::rules::gpu::power;
use crate::rules::gpu::power::LOADED_PERCENT;
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::clock_events::{self, CLOCK_SETTING, POWER_CAP};
use syringe_core::facts::telemetry::{Clocks, GpuTelemetry};

rules! {
    HOT: "gpu-hotter-than-peers" Warning Thermal DEBUG_DOC, "Much hotter than the other GPUs of the node",
        CheckCooling "Check airflow, heat sink and fans of {gpu} on {node}: the other GPUs are cooler at the same \
            load.",
        means "A GPU is far hotter than others of its model under the same load: its cooling may be poor.",
        reads "telemetry.temperature, telemetry.utilization", depth 1, fault Heat;
    LITTLE_POWER: "gpu-power-below-peers" Info Driver DEBUG_DOC, "Full load at a much lower power draw than the other GPUs",
        Watch "If the job of {gpu} on {node} makes no progress, look at its processes: a CUDA kernel that waits for \
            another GPU has this effect.",
        means "A GPU reports full load but draws far less power than others of its model under full load: its CUDA \
            kernel may be waiting for something.",
        reads "telemetry.power, telemetry.utilization";
    SLOW: "gpu-clocks-below-peers" Warning Hardware DEBUG_DOC, "Much lower clocks than the other GPUs at the same load",
        Watch "Check why {gpu} of {node} is slow (clock event reasons, locked clocks). Jobs wait for the slowest GPU.",
        means "A GPU has far lower clocks than others of its model under the same load.",
        reads "telemetry.clocks, telemetry.power, telemetry.utilization";
}

/// Minimum number of GPUs for a majority.
const MIN_GPUS: usize = 3;

/// Minimum temperature difference for a finding. The position in the air flow explains about 10 °C.
const HOTTER_CELSIUS: i32 = 15;

/// Minimum temperature for a finding. Lower temperatures are harmless.
const WARM_CELSIUS: i32 = 65;

/// A GPU with a clock below this percentage of the usual clock is slow. The clocks of identical boards differ by a few
/// percent.
const SLOWER_PERCENT: u64 = 80;

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut groups: BTreeMap<&str, Vec<&Gpu>> = BTreeMap::new();
    for gpu in node.answering() {
        groups.entry(gpu.name.as_deref().unwrap_or_default()).or_default().push(gpu);
    }
    let mut drafts = Vec::new();
    for group in groups.into_values().filter(|group| group.len() >= MIN_GPUS) {
        drafts.extend(hotter(node, &group));
        drafts.extend(CLOCKS.iter().flat_map(|clock| slower(node, &group, clock)));
        drafts.extend(draws_little(node, &group));
    }
    drafts
}

fn median(mut values: Vec<i64>) -> Option<i64> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

/// Finds GPUs that are much hotter than the median without a higher power draw.
fn hotter(node: &Node<'_>, group: &[&Gpu]) -> Vec<Draft> {
    let celsius = |gpu: &Gpu| {
        node.telemetry_of(gpu)?.temperature.gpu_celsius.filter(|celsius| PLAUSIBLE_CELSIUS.contains(celsius))
    };
    let draw = |gpu: &Gpu| Some(i64::from(node.telemetry_of(gpu)?.power.draw_milliwatts?));
    let usual = median(group.iter().filter_map(|gpu| celsius(gpu).map(i64::from)).collect());
    let usual_draw = median(group.iter().filter_map(|gpu| draw(gpu)).collect());
    let Some(usual) = usual.and_then(|usual| i32::try_from(usual).ok()) else { return Vec::new() };
    let hot = group.iter().filter_map(|gpu| {
        let own = celsius(gpu).filter(|own| *own >= WARM_CELSIUS && own.saturating_sub(usual) >= HOTTER_CELSIUS)?;
        // The rule `thermal` reports thermal slowdowns.
        if clock_events::mask_of(&node.telemetry_of(gpu)?.throttling) & clock_events::FAULTS != 0 {
            return None;
        }
        // A much higher power draw shows different work, which explains the temperature.
        let same_work = draw(gpu).zip(usual_draw).is_none_or(|(own, usual)| own * 5 <= usual * 6);
        same_work
            .then(|| Draft::on_gpu(HOT, gpu).with_evidence(format!("{own} °C, median of the other GPUs {usual} °C")))
    });
    hot.collect()
}

/// If a GPU at full load draws less than this percentage of the usual power, it does other work or waits.
const LITTLE_POWER_PERCENT: i64 = 30;

/// Utilization of a GPU that is never idle.
const FULL_LOAD_PERCENT: u32 = 95;

fn draws_little(node: &Node<'_>, group: &[&Gpu]) -> Vec<Draft> {
    let loaded = |gpu: &Gpu| {
        let now = node.telemetry_of(gpu)?;
        // A program in one MIG device does not cause full load.
        node.load(gpu).filter(|load| matches!(load, Load::Percent(percent) if *percent >= FULL_LOAD_PERCENT))?;
        now.power.draw_milliwatts.map(i64::from)
    };
    let draws: Vec<i64> = group.iter().filter_map(|gpu| loaded(gpu)).collect();
    let Some(usual) = median(draws.clone()).filter(|_| draws.len() >= MIN_GPUS) else { return Vec::new() };
    let little = group.iter().filter_map(|gpu| {
        let own = loaded(gpu).filter(|own| own * 100 < usual * LITTLE_POWER_PERCENT)?;
        let evidence = format!("{} W at full load, median of the other GPUs {} W", own / 1000, usual / 1000);
        Some(Draft::on_gpu(LITTLE_POWER, gpu).with_evidence(evidence))
    });
    little.collect()
}

/// A clock that is compared.
struct Clock {
    name: &'static str,
    value: fn(&Clocks) -> Option<u32>,
    /// The rule about a single GPU, which takes precedence.
    alone: fn(&Gpu, &GpuTelemetry, Option<Load>) -> Option<Draft>,
}

const CLOCKS: [Clock; 2] = [
    Clock { name: "SM", value: |clocks| clocks.sm_mhz, alone: power::clocks },
    Clock { name: "memory", value: |clocks| clocks.memory_mhz, alone: power::memory_clock },
];

fn slower(node: &Node<'_>, group: &[&Gpu], Clock { name, value, alone }: &Clock) -> Vec<Draft> {
    let loaded = |gpu: &Gpu| {
        let now = node.telemetry_of(gpu)?;
        node.load(gpu).filter(|load| load.reaches(LOADED_PERCENT))?;
        value(&now.clocks).map(i64::from)
    };
    let clocks: Vec<i64> = group.iter().filter_map(|gpu| loaded(gpu)).collect();
    if clocks.len() < MIN_GPUS {
        return Vec::new();
    }
    let Some(usual) = median(clocks) else { return Vec::new() };
    let slow = group.iter().filter_map(|gpu| {
        let own = loaded(gpu)?;
        let now = node.telemetry_of(gpu)?;
        // The rules `thermal` and `power` report the reason.
        let known = clock_events::mask_of(&now.throttling) & clock_events::FAULTS != 0
            || alone(gpu, now, node.load(gpu)).is_some();
        let far_below = !known && own.unsigned_abs() * 100 < usual.unsigned_abs() * SLOWER_PERCENT;
        let evidence = format!("{name} clock {own} MHz under load, median of the other GPUs {usual} MHz");
        // A slow state explains the memory clock.
        let state = now.performance_state.map(|state| format!("performance state P{state}"));
        far_below.then(|| {
            let draft = Draft::on_gpu(SLOW, gpu).with_severity(Severity::Warning).with_evidence(evidence);
            let draft = draft.with_all_evidence(state.filter(|_| *name == "memory"));
            match limited_by(node, group, gpu, now) {
                Some((line, advice)) => draft.with_evidence(line).with_action(ActionCode::UpdateSoftware, advice),
                None => draft,
            }
        })
    });
    slow.collect()
}

/// Moves a lower power limit into the finding about the low clocks that it causes.
pub(super) fn refine(_node: &Node<'_>, drafts: &mut Vec<Draft>) {
    let slow: Vec<Option<u32>> = drafts
        .iter()
        .filter(|draft| draft.rule.id == SLOW.id && draft.evidence.iter().any(|line| line.starts_with(CAP)))
        .map(|draft| draft.scope.gpu)
        .collect();
    drafts.retain(|draft| draft.rule.id != power::LIMIT_LOWERED.id || !slow.contains(&draft.scope.gpu));
}

/// Beginning of the evidence about a GPU whose power limit explains its clocks.
const CAP: &str = "power cap at a limit of ";

/// Returns the setting that differs from the other GPUs and that the driver reports as the reason for the clocks of the
/// GPU, and the action.
fn limited_by(node: &Node<'_>, group: &[&Gpu], gpu: &Gpu, now: &GpuTelemetry) -> Option<(String, &'static str)> {
    let mask = clock_events::mask_of(&now.throttling);
    let limit = |gpu: &Gpu| node.telemetry_of(gpu)?.power.limit_milliwatts.map(i64::from);
    let usual = median(group.iter().filter_map(|gpu| limit(gpu)).collect());
    if let Some((own, usual)) = limit(gpu).zip(usual).filter(|(own, usual)| own < usual && mask & POWER_CAP != 0) {
        let line = format!("{CAP}{} W, median of the other GPUs {} W", own / 1000, usual / 1000);
        let advice = "Set {gpu} on {node} to the power limit of the other GPUs (nvidia-smi -pl), unless the difference is intended. Jobs \
                      wait for the slowest GPU.";
        return Some((line, advice));
    }
    let advice = "Release the clocks of {gpu} on {node} (nvidia-smi -rgc and -rac), unless they are locked on purpose. Jobs wait for the slowest \
                  GPU.";
    (mask & CLOCK_SETTING != 0).then(|| ("the driver names a clock setting as the reason".to_owned(), advice))
}
