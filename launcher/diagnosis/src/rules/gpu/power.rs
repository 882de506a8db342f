//! Rules about power and clocks: power brake, missing power (also of network cards), slowdowns, lowered limits, power
//! caps, low clocks. `clocks`, `memory_clock`: the checks of the clocks of one GPU, which `siblings` also uses.
//!
//! A GPU at its power cap under full load works as designed. The power cap then explains its clocks and is not a
//! finding. If the GPU draws far less than its limit, the power cap does not explain low clocks.

use crate::evidence;
use crate::input::load::Load;
use crate::input::node::{Gpu, Node};
use crate::rule::{DEBUG_DOC, Draft, NVML_DOC, rules};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::clock_events;
use syringe_core::facts::clock_events::{
    CLOCK_SETTING, FAULTS, HARDWARE_THERMAL, IDLE, POWER_BRAKE, POWER_CAP, SLOWDOWN,
};
use syringe_core::facts::kernel_log::KernelEventKind as Kind;
use syringe_core::facts::telemetry::{GpuTelemetry, Power, Violation};

rules! {
    BRAKE: "power-brake" Critical Power NVML_DOC, "Power brake: an external signal slows the GPU down",
        CheckCabling "Check power supplies, power cables and the power cap of the rack of {node}.",
        means "The server asserts the power brake signal, and the GPU reduces its clocks.",
        reads "telemetry.clocks";
    SLOWED: "hardware-slowdown" Warning Power NVML_DOC, "Hardware slowdown without a reported cause",
        CheckCabling "Check power and cooling of {gpu} on {node}: the board reduces the clocks because of one of them.",
        means "The GPU reduces its clocks, but the driver reports no cause.",
        reads "telemetry.clocks";
    NO_CABLE: "gpu-power-missing" Critical Power NVML_DOC, "The GPU lacks external power",
        CheckCabling "Check the power cables and power supplies of {gpu} on {node}.",
        means "The external power of the GPU is disconnected or has failed.",
        reads "xid: power lines";
    LIMIT_LOWERED: "power-limit-lowered" Info Power NVML_DOC, "Power limit is below the default",
        UpdateSoftware "If this is not intended, restore the default power limit of {gpu} on {node} (nvidia-smi -pl).",
        means "The power limit is set below the default. The GPU is slower under load.",
        reads "telemetry.power";
    CAPPED_OUTSIDE: "power-limit-enforced-lower" Warning Power NVML_DOC, "The power limit in effect is below the limit that is set",
        CheckCabling "Check the power cap of the BMC of {node}, its power supplies and the power budget of the rack: \
            one of them may keep the power of {gpu} below its power limit.",
        means "The lowest of all limits that are in effect is below the limit of the administrator: the server or the board caps the power.",
        reads "telemetry.power";
    CAPPED_LOW: "power-cap-at-low-draw" Warning Power NVML_DOC, "A power cap keeps the clocks low, but the GPU draws far less than its limit",
        CheckCabling "Check the power cap of the BMC of {node}, its power supplies and power cables. If they are in order, reset {gpu} at \
            the next drain.",
        means "The GPU is under load, and a power cap keeps its clock below half of the maximum. But the GPU draws \
            much less than its power limit: another cap is in effect, or the power sensor is wrong.",
        reads "telemetry.clocks, telemetry.power, telemetry.utilization";
    OVER_LIMIT: "power-draw-above-limit" Info Power NVML_DOC, "The GPU draws more power than its limit",
        Watch "Read the power draw of {gpu} on {node} again. If the draw stays above the limit, the limit has no effect or the sensor is wrong.",
        means "The average power draw is noticeably above the limit in effect. Short peaks are normal.",
        reads "telemetry.power";
    LIMITED: "clocks-limited-long" Warning Power NVML_DOC, "The clocks were limited by the board for a long time",
        Watch "If jobs on {gpu} of {node} are slow, check power supplies and power cables, and the board limit under load.",
        means "The driver counts for each reason how long the clocks were reduced. For a noticeable part of the time, the reason was a limit of the board, a reliability limit or the power brake. The finding is a warning only if the reason is the power brake.",
        reads "telemetry.throttling.violations, telemetry.sample";
    MEMORY_CLOCK: "memory-clock-low-under-load" Warning Driver NVML_DOC, "Low memory clock under load, and no fault explains it",
        UpdateSoftware "If the memory clock of {gpu} on {node} is locked (nvidia-smi -q -d CLOCK), release it with \
            nvidia-smi -rmc and -rac. If the clock stays low, reset {gpu} at the next drain.",
        means "The GPU is under load in a fast performance state, but the memory clock is lower than the normal clock of this state.",
        reads "telemetry.clocks, telemetry.utilization";
    LOAD_WITHOUT_WORK: "utilization-while-idle" Info Driver NVML_DOC, "A GPU reports load, but the driver reports it as idle",
        Watch "Check whether a program uses {gpu} of {node} (nvidia-smi, processes of the host and in containers). If \
            no program uses the GPU, no work is slow. If the reading stays, reset {gpu} at the next drain.",
        means "The utilization of the GPU is high, but the driver reports idle as the reason of its low clocks: the reading is wrong, or a \
            context does no work.",
        reads "telemetry.clocks, telemetry.utilization";
    CLOCKS_LOW: "clocks-low-under-load" Warning Driver NVML_DOC, "Low clocks under load, and no fault explains them",
        UpdateSoftware "If the clocks of {gpu} on {node} are locked (nvidia-smi -q -d CLOCK), release them with \
            nvidia-smi -rgc and -rac.",
        means "The GPU is under load at low clocks, and the driver reports no fault or limit as the reason. Locked clocks \
            have this effect.",
        reads "telemetry.clocks, telemetry.utilization";
    NIC_POWER: "nic-power-missing" Warning Power DEBUG_DOC, "A network card gets too little power from its slot",
        CheckCabling "Check slot power and auxiliary cables of {node}. GPUs on the same power supply may be affected \
            too.",
        means "A network card reported that its slot gives it too little power.",
        reads "xid: network cards", about Network;
}

/// Minimum utilization at which a GPU counts as loaded.
pub(crate) const LOADED_PERCENT: u32 = 80;

/// Power limits below this percentage of the default are a finding. Smaller reductions are usually intended.
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
        drafts.extend(enforced(gpu, &now.power));
        drafts.extend(above_limit(gpu, &now.power));
        drafts.extend(clocks(gpu, now, node.load(gpu)).map(|draft| unlike_peers(node, gpu, draft)));
        drafts.extend(limited(node, gpu, now));
        // The clocks and the load of a virtual GPU describe the whole GPU, which other machines also use.
        let is_virtual = node.inventory_of(gpu).is_some_and(|gpu| gpu.virtualization_mode.as_deref() == Some("vgpu"));
        drafts.extend(memory_clock(gpu, now, node.load(gpu)).filter(|_| !is_virtual));
    }
    let hungry =
        |event: &&syringe_core::facts::kernel_log::KernelEvent| event.sub_code.as_deref() == Some("insufficient_power");
    let cards: Vec<_> = node.timeline.of_kind(Kind::Nic).filter(hungry).collect();
    if !cards.is_empty() {
        let lines = cards.iter().map(|event| evidence::kernel_line(event));
        let draft = Draft::on_node(NIC_POWER).with_events(cards.iter().copied()).with_all_evidence(lines);
        drafts.push(draft.aged_on_node(node, &cards));
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
    let draft = Draft::on_gpu(rule, gpu).with_evidence(clock_event_reasons(now)).with_all_evidence(draw(&now.power));
    if rule.id != SLOWED.id {
        return Some(draft);
    }
    let clock = now.clocks.sm_mhz.zip(now.clocks.max_sm_mhz).map(|(sm, most)| format!("SM clock {sm} of {most} MHz"));
    let draft = draft.with_all_evidence(clock);
    let heat = &now.temperature;
    Some(match heat.gpu_celsius.zip(heat.margin_to_slowdown_celsius) {
        Some((celsius, margin)) if margin >= COOL => draft
            .with_evidence(format!("{celsius} °C, {margin} °C below the slowdown"))
            .with_action(ActionCode::CheckCabling, NOT_HOT),
        _ => draft,
    })
}

/// If the GPU is at least this many degrees Celsius below its slowdown temperature, heat does not explain the slowdown.
const COOL: i32 = 10;

const NOT_HOT: &str = "Check the power of {gpu} on {node}: its slot, cables and power supplies. The temperature does \
    not explain the slowdown. If the power is in order, drain and power-cycle {node}. If the slowdown returns on this GPU only, return the GPU.";

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
    // Power limits are sometimes rounded to watts.
    if limit / 1000 >= default / 1000 {
        return None;
    }
    let percent = u64::from(limit) * 100 / u64::from(default);
    let evidence = format!("limit {} W, default {} W ({percent} %)", limit / 1000, default / 1000);
    Some(Draft::on_gpu(LIMIT_LOWERED, gpu).with_evidence(evidence))
}

/// Tolerance for power limits, because limits are sometimes rounded, and boards correct them by some watts.
const ROUNDING_PERCENT: u64 = 97;

/// Returns a finding if the limit in effect is not the limit that the administrator set.
fn enforced(gpu: &Gpu, power: &Power) -> Option<Draft> {
    let (enforced, limit) = (power.enforced_limit_milliwatts?, power.limit_milliwatts?);
    let percent = u64::from(enforced) * 100 / u64::from(limit).max(1);
    let severity = if percent < NOTABLE_LIMIT_PERCENT { Severity::Warning } else { Severity::Info };
    let evidence = format!("limit in effect {} W, limit set {} W ({percent} %)", enforced / 1000, limit / 1000);
    (percent < ROUNDING_PERCENT)
        .then(|| Draft::on_gpu(CAPPED_OUTSIDE, gpu).with_severity(severity).with_evidence(evidence))
}

/// If the power draw exceeds this percentage of the limit, it is more than a short peak.
const ABOVE_PERCENT: u64 = 110;

/// Returns a finding if the GPU draws more power than its limit.
fn above_limit(gpu: &Gpu, power: &Power) -> Option<Draft> {
    let limit = power.enforced_limit_milliwatts.or(power.limit_milliwatts).filter(|limit| *limit > 0)?;
    let above = u64::from(power.draw_milliwatts?) * 100 > u64::from(limit) * ABOVE_PERCENT;
    above.then(|| Draft::on_gpu(OVER_LIMIT, gpu).with_all_evidence(draw(power)))
}

/// Reasons for reduced clocks that are not part of normal operation. Thermal reasons have a separate rule (`thermal`),
/// and a power limit is normal.
const UNUSUAL_POLICIES: [&str; 3] = ["board_limit", "reliability", BRAKED];

/// The policy of the power brake, an external signal.
const BRAKED: &str = "power_brake";

/// There is a finding if the clocks are reduced for at least one second in this many seconds.
const NOTABLE_SHARE: u64 = 20;

/// Returns a finding if the clocks were reduced for a part ([`NOTABLE_SHARE`]) of the time since driver load, or of the
/// time between two readings. A power brake that is active now is left out, because another finding reports it.
fn limited(node: &Node<'_>, gpu: &Gpu, now: &GpuTelemetry) -> Option<Draft> {
    let is_braked = clock_events::mask_of(&now.throttling) & POWER_BRAKE != 0;
    let notable = |times: &[Violation], whole_ms: u64, whole: &str| -> Vec<(bool, String)> {
        let unusual = times.iter().filter(|one| UNUSUAL_POLICIES.contains(&one.policy.as_str()));
        let long = unusual.filter(|one| whole_ms > 0 && one.duration_ms.saturating_mul(NOTABLE_SHARE) >= whole_ms);
        long.filter(|one| one.policy != BRAKED || !is_braked)
            .map(|one| {
                let percent = one.duration_ms.saturating_mul(100) / whole_ms;
                (one.policy == BRAKED, format!("{}: {percent} % of {whole}", evidence::data(&one.policy)))
            })
            .collect()
    };
    let counted = node.counted_seconds().unwrap_or(0).saturating_mul(1000);
    let mut found = notable(&now.throttling.violations, counted, "the time since driver load");
    if let Some(sample) = &now.sample {
        found.extend(notable(&sample.throttled, sample.window_ms, &format!("the last {}", evidence::window(sample))));
    }
    let severity = if found.iter().any(|(braked, _)| *braked) { Severity::Warning } else { Severity::Info };
    let lines = found.into_iter().map(|(_, line)| line).collect::<Vec<_>>();
    (!lines.is_empty()).then(|| Draft::on_gpu(LIMITED, gpu).with_severity(severity).with_all_evidence(lines))
}

/// If a GPU draws less than this percentage of its limit, it is not at its power limit.
const CAPPED_PERCENT: u64 = 70;

/// Returns whether the power draw is so far below the limit that the limit does not explain a power cap.
fn draws_little(power: &Power) -> bool {
    let limit = power.enforced_limit_milliwatts.or(power.limit_milliwatts);
    power
        .draw_milliwatts
        .zip(limit)
        .is_some_and(|(draw, limit)| u64::from(draw) * 100 < u64::from(limit) * CAPPED_PERCENT)
}

/// Application clocks below this percentage of the maximum are shown.
const SET_PERCENT: u64 = 80;

/// Returns a finding if the clock is below half of its maximum under load, and no fault and no power limit explains
/// this. If the driver reports that a setting limits the clock, a smaller difference has the severity `info`.
pub(crate) fn clocks(gpu: &Gpu, now: &GpuTelemetry, load: Option<Load>) -> Option<Draft> {
    let (sm, most) = (now.clocks.sm_mhz?, now.clocks.max_sm_mhz?);
    // The utilization of an idle GPU does not count as load, but it is shown.
    let load = load.or(now.utilization.gpu_percent.map(Load::Percent)).filter(|load| load.reaches(LOADED_PERCENT))?;
    let mask = clock_events::mask_of(&now.throttling);
    let is_capped = mask & POWER_CAP != 0;
    let explained = mask & FAULTS != 0 || (is_capped && !draws_little(&now.power));
    let low = u64::from(sm) * 2 < u64::from(most);
    if low && mask & IDLE != 0 && !explained {
        let evidence = format!("SM clock {sm} of {most} MHz {load}");
        let draft = Draft::on_gpu(LOAD_WITHOUT_WORK, gpu).with_evidence(evidence);
        return Some(draft.with_evidence(clock_event_reasons(now)).with_all_evidence(draw(&now.power)));
    }
    let is_set = mask & CLOCK_SETTING != 0 && !is_capped;
    let set_low = is_set && u64::from(sm) * 100 < u64::from(most) * SET_PERCENT;
    ((low || set_low) && !explained).then(|| {
        let setting = now.clocks.application_graphics_mhz.filter(|_| is_set);
        let severity = if low { Severity::Warning } else { Severity::Info };
        let state = now.performance_state.map(|state| format!(", P{state}")).unwrap_or_default();
        let reasons = (mask != 0).then(|| clock_event_reasons(now));
        let reason = setting.map(|mhz| format!("the application clock is set to {mhz} MHz"));
        Draft { reason, ..Draft::on_gpu(if is_capped { CAPPED_LOW } else { CLOCKS_LOW }, gpu) }
            .with_evidence(format!("SM clock {sm} of {most} MHz {load}{state}"))
            .with_severity(severity)
            .with_all_evidence(reasons)
            .with_all_evidence(draw(&now.power).filter(|_| is_capped))
    })
}

/// Raises a finding about clocks that a setting keeps low if the setting of all other GPUs is higher: the others wait
/// for this GPU.
fn unlike_peers(node: &Node<'_>, gpu: &Gpu, draft: Draft) -> Draft {
    let set = |gpu: &Gpu| node.telemetry_of(gpu)?.clocks.application_graphics_mhz;
    let others: Vec<u32> = node.gpus.iter().filter(|other| other.index != gpu.index).filter_map(set).collect();
    let lowest = others.iter().min().filter(|_| others.len() >= PEERS);
    match lowest.zip(set(gpu)) {
        Some((lowest, own))
            if draft.rule.id == CLOCKS_LOW.id && u64::from(own) * 100 < u64::from(*lowest) * SET_PERCENT =>
        {
            let line = format!("application clock of the other GPUs: at least {lowest} MHz");
            draft.with_severity(Severity::Warning).with_evidence(line)
        }
        _ => draft,
    }
}

/// Minimum number of other GPUs with the same setting.
const PEERS: usize = 2;

/// Fast performance states. GeForce cards run CUDA programs in P2, with a memory clock a few percent below the maximum.
const FAST_STATES: u32 = 2;

/// A memory clock below this percentage of the maximum is low.
const MEMORY_CLOCK_PERCENT: u64 = 90;

/// Returns a finding if the memory clock is low under load. Unlike the SM clock, the memory clock does not depend on
/// the load.
pub(super) fn memory_clock(gpu: &Gpu, now: &GpuTelemetry, load: Option<Load>) -> Option<Draft> {
    let (clock, most) = (now.clocks.memory_mhz?, now.clocks.max_memory_mhz?);
    let load = load.filter(|load| load.reaches(LOADED_PERCENT))?;
    let state = now.performance_state.filter(|&state| state <= FAST_STATES)?;
    let explained = clock_events::mask_of(&now.throttling) & FAULTS != 0;
    let low = clock > 0 && u64::from(clock) * 100 < u64::from(most) * MEMORY_CLOCK_PERCENT;
    (low && !explained).then(|| {
        let evidence = format!("memory clock {clock} of {most} MHz {load}, P{state}");
        Draft::on_gpu(MEMORY_CLOCK, gpu).with_evidence(evidence)
    })
}

#[cfg(test)]
mod tests {
    use super::{Gpu, GpuTelemetry, clocks};
    use syringe_core::classification::Severity;

    #[test]
    fn a_gpu_that_the_driver_calls_idle_is_under_no_load() {
        for (mask, id, severity) in [
            (0x1, "utilization-while-idle", Severity::Info),
            (0x0, "clocks-low-under-load", Severity::Warning),
            (0x2, "clocks-low-under-load", Severity::Warning),
        ] {
            let mut now = GpuTelemetry::default();
            (now.clocks.sm_mhz, now.clocks.max_sm_mhz) = (Some(345), Some(1980));
            now.utilization.gpu_percent = Some(100);
            now.throttling.reasons_mask = Some(mask);
            let draft = clocks(&Gpu::default(), &now, None).expect("a finding");
            assert_eq!((draft.rule.id, draft.severity), (id, severity), "{mask:#x}");
        }
    }
}
