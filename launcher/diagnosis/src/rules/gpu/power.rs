//! Rules about power: power brake, missing power of a GPU or NIC, slowdowns, lowered limits, low clocks under load.
//!
//! A GPU at its power cap under full load works as designed. The power cap is a reason for its clocks, but never a
//! finding.

use crate::evidence;
use crate::input::node::{Gpu, Node};
use crate::rule::{DEBUG_DOC, Draft, NVML_DOC, rules};
use syringe_core::classification::Severity;
use syringe_core::facts::clock_events;
use syringe_core::facts::clock_events::{FAULTS, HARDWARE_THERMAL, POWER_BRAKE, POWER_CAP, SLOWDOWN};
use syringe_core::facts::kernel_log::KernelEventKind as Kind;
use syringe_core::facts::telemetry::{GpuTelemetry, Power};

rules! {
    BRAKE: "power-brake" Critical Power NVML_DOC, "Power brake: an external signal slows the GPU down",
        CheckCabling "Check power supplies, power cables and the power cap of the rack of {node}.",
        means "The server asserts the power brake signal, and the GPU reduces its clocks.",
        reads "telemetry.clocks";
    SLOWED: "hardware-slowdown" Warning Power NVML_DOC, "Hardware slowdown without a reported cause",
        CheckCabling "Check power and cooling of {gpu} on {node}: the board reduces the clocks because of one of them.",
        means "The GPU reduces its clocks, and the driver reports no cause.",
        reads "telemetry.clocks";
    NO_CABLE: "gpu-power-missing" Critical Power NVML_DOC, "The GPU lacks external power",
        CheckCabling "Check the power cables and power supplies of {gpu} on {node}.",
        means "The external power of the GPU is not connected or failed.",
        reads "xid: power lines";
    LIMIT_LOWERED: "power-limit-lowered" Warning Power NVML_DOC, "Power limit is below the default",
        UpdateSoftware "If this is not intended, restore the default power limit of {gpu} on {node} (nvidia-smi -pl).",
        means "The power limit is set below the default. The GPU is slower under load.",
        reads "telemetry.power";
    CLOCKS_LOW: "clocks-low-under-load" Warning Driver NVML_DOC, "Low clocks under load, and no fault explains them",
        UpdateSoftware "Check whether the clocks of {gpu} on {node} are locked (nvidia-smi -q -d CLOCK); reset them \
            with nvidia-smi -rgc and -rac.",
        means "The GPU is under load at low clocks, and the driver reports no fault or limit as the reason. Locked clocks \
            have this effect.",
        reads "telemetry.clocks, telemetry.utilization";
    NIC_POWER: "nic-power-missing" Warning Power DEBUG_DOC, "A network card gets too little power from its slot",
        CheckCabling "Check slot power and auxiliary cables of {node}. GPUs on the same power supply may be affected \
            too.",
        means "A network card reported that its slot gives it too little power.",
        reads "xid: network cards";
}

/// Minimum utilization at which a GPU counts as loaded.
pub(crate) const LOADED_PERCENT: u32 = 80;

/// Limits below this percentage of the default are a finding. Smaller reductions are usually intended.
const NOTABLE_LIMIT_PERCENT: u64 = 80;

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for gpu in &node.gpus {
        let unplugged = node.gpu_problem(gpu, &["insufficient_power"]);
        drafts.extend(
            unplugged.map(|problem| Draft::on_gpu(NO_CABLE, gpu).with_evidence(evidence::reason(&problem.why))),
        );
        let Some(now) = node.telemetry_of(gpu) else { continue };
        drafts.extend(brake(gpu, now));
        drafts.extend(limit(gpu, &now.power));
        drafts.extend(clocks(gpu, now));
    }
    let hungry =
        |event: &&syringe_core::facts::kernel_log::KernelEvent| event.sub_code.as_deref() == Some("insufficient_power");
    let cards: Vec<_> = node.timeline.of_kind(Kind::Nic).filter(hungry).collect();
    if !cards.is_empty() {
        drafts.push(Draft::on_node(NIC_POWER).with_events(cards.iter().copied()).aged_on_node(node, &cards));
    }
    drafts
}

fn brake(gpu: &Gpu, now: &GpuTelemetry) -> Option<Draft> {
    let mask = clock_events::mask_of(&now.throttling);
    let rule = if mask & POWER_BRAKE != 0 {
        BRAKE
    } else if mask & SLOWDOWN != 0 && mask & HARDWARE_THERMAL == 0 {
        SLOWED
    } else {
        return None;
    };
    Some(Draft::on_gpu(rule, gpu).with_evidence(clock_event_reasons(now)).with_all_evidence(draw(&now.power)))
}

/// Returns the reasons for which the clocks are reduced, as evidence.
pub(super) fn clock_event_reasons(now: &GpuTelemetry) -> String {
    match now.throttling.reasons.as_slice() {
        [] => format!("clock event reasons: mask {:#x}", clock_events::mask_of(&now.throttling)),
        reasons => format!("clock event reasons: {}", evidence::names(reasons, 4)),
    }
}

fn draw(power: &Power) -> Option<String> {
    let draw = power.draw_milliwatts? / 1000;
    let limit = power.enforced_limit_milliwatts.or(power.limit_milliwatts)? / 1000;
    Some(format!("power draw {draw} W of {limit} W"))
}

fn limit(gpu: &Gpu, power: &Power) -> Option<Draft> {
    let (limit, default) = (power.limit_milliwatts?, power.default_limit_milliwatts?);
    // Limits are sometimes rounded to watts.
    if limit / 1000 >= default / 1000 {
        return None;
    }
    let percent = u64::from(limit) * 100 / u64::from(default);
    let severity = if percent < NOTABLE_LIMIT_PERCENT { Severity::Warning } else { Severity::Info };
    let evidence = format!("limit {} W, default {} W ({percent} %)", limit / 1000, default / 1000);
    Some(Draft::on_gpu(LIMIT_LOWERED, gpu).with_severity(severity).with_evidence(evidence))
}

/// Returns a finding if the clock is below half of its maximum under load, and the driver reports no reason.
pub(crate) fn clocks(gpu: &Gpu, now: &GpuTelemetry) -> Option<Draft> {
    let (sm, most) = (now.clocks.sm_mhz?, now.clocks.max_sm_mhz?);
    let load = now.utilization.gpu_percent.filter(|&load| load >= LOADED_PERCENT)?;
    let explained = clock_events::mask_of(&now.throttling) & (FAULTS | POWER_CAP) != 0;
    let low = u64::from(sm) * 2 < u64::from(most);
    (low && !explained).then(|| {
        let state = now.performance_state.map(|state| format!(", P{state}")).unwrap_or_default();
        let reasons = (clock_events::mask_of(&now.throttling) != 0).then(|| clock_event_reasons(now));
        Draft::on_gpu(CLOCKS_LOW, gpu)
            .with_evidence(format!("SM clock {sm} of {most} MHz at {load} % load{state}"))
            .with_all_evidence(reasons)
    })
}
