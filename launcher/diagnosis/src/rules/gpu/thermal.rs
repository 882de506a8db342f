//! Rules about temperature: thermal slowdowns, temperatures at their limits, and the time in thermal slowdown.
//!
//! A low margin alone is not a finding, because some H100 firmware reports a `T.Limit` margin of zero or below on a
//! healthy, cool GPU. A finding requires a temperature at an absolute limit, or a slowdown that the driver reports.
//! Since Ada, drivers may report only the margin. In that case, the margin counts if the GPU is warm.

use jiff::SignedDuration;

use crate::evidence;
use crate::input::gpu::PLAUSIBLE_CELSIUS;
use crate::input::node::{Gpu, Node};
use crate::rule::{DEBUG_DOC, Draft, NVML_DOC, rules};
use crate::rules::gpu::power::clock_event_reasons;
use syringe_core::classification::Severity;
use syringe_core::facts::clock_events;
use syringe_core::facts::clock_events::{HARDWARE_THERMAL, SOFTWARE_THERMAL};
use syringe_core::facts::telemetry::{GpuTelemetry, Temperature, Violation};

rules! {
    HARDWARE: "thermal-slowdown-hardware" Critical Thermal NVML_DOC, "Hardware thermal slowdown",
        CheckCooling "Check airflow, fans, coolant and inlet temperature of {node} near {gpu}. Move work to other \
            GPUs until {gpu} has cooled down.",
        means "The GPU reduces its clocks because of its temperature.",
        reads "telemetry.clocks, telemetry.temperature", fault Heat;
    SOFTWARE: "thermal-slowdown-software" Warning Thermal NVML_DOC, "Software thermal slowdown",
        CheckCooling "Check airflow, fans and inlet temperature of {node} near {gpu}. The driver reduces the clocks of \
            the GPU.",
        means "The driver reduces the clocks of the GPU because of its temperature.",
        reads "telemetry.clocks, telemetry.temperature", depth 1, fault Heat;
    TOO_HOT: "gpu-too-hot" Critical Thermal DEBUG_DOC, "GPU is at or close to its temperature limit",
        CheckCooling "Check the cooling of {gpu} on {node} now. At the shutdown limit the GPU switches itself off.",
        means "The GPU is at, above or a few degrees below the temperature at which it slows down.",
        reads "telemetry.temperature", depth 1, fault Heat;
    MEMORY_TOO_HOT: "memory-too-hot" Critical Thermal DEBUG_DOC, "GPU memory is at or close to its temperature limit",
        CheckCooling "Check the cooling of {gpu} on {node}. Hot memory causes memory errors.",
        means "The memory of the GPU is at or above its highest operating temperature.",
        reads "telemetry.temperature", depth 1, fault Heat;
    LOST_TIME: "thermal-slowdown-frequent" Warning Thermal NVML_DOC, "The GPU was often in thermal slowdown",
        CheckCooling "Check the cooling of {gpu} on {node} under load.",
        means "Thermal slowdown was active for a noticeable part of the time since the driver was loaded, or between two readings.",
        reads "telemetry.throttling.violations, telemetry.sample", depth 1, fault Heat;
}

/// A GPU is reported if it is closer than this to its slowdown temperature.
const NEAR_CELSIUS: i32 = 5;

/// A GPU that slows down counts as at its limit if it is at most this much cooler than the limit.
const AT_LIMIT: i32 = 2;

/// If a GPU is hotter than the other GPUs by this much, its cooling has a problem.
const MUCH_HOTTER: i32 = 15;

/// No data center GPU has a slowdown temperature below this. If the margin is zero at a lower temperature, the firmware
/// reports it incorrectly.
const WARM_CELSIUS: i32 = 75;

/// There is a finding if thermal slowdown is active for at least one second in this many seconds.
const NOTABLE_SHARE: u64 = 20;

/// Shorter slowdowns are normal.
const LEAST: SignedDuration = SignedDuration::from_mins(10);

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for gpu in &node.gpus {
        let Some(now) = node.telemetry_of(gpu) else { continue };
        let slowed = slowdown(node, gpu, now);
        // During a slowdown, the temperature is evidence of the slowdown, not a separate finding.
        let limits = limits(gpu, &now.temperature);
        drafts.extend(limits.into_iter().filter(|draft| slowed.is_none() || draft.rule != TOO_HOT));
        let is_slowed = slowed.is_some();
        drafts.extend(slowed);
        drafts.extend(lost_time(node, gpu, now, is_slowed));
    }
    let hot = drafts.iter().filter(|draft| draft.rule.id == HARDWARE.id && draft.severity > Severity::Info).count();
    if hot > 1 && hot == node.answering().count() {
        for draft in drafts.iter_mut().filter(|draft| draft.rule.id == HARDWARE.id) {
            draft.advice = draft.advice.replace("to other GPUs", "to other nodes");
        }
    }
    drafts
}

fn slowdown(node: &Node<'_>, gpu: &Gpu, now: &GpuTelemetry) -> Option<Draft> {
    let mask = clock_events::mask_of(&now.throttling);
    let rule = if mask & HARDWARE_THERMAL != 0 {
        HARDWARE
    } else if mask & SOFTWARE_THERMAL != 0 {
        SOFTWARE
    } else {
        return None;
    };
    let mut draft = Draft::on_gpu(rule, gpu).with_evidence(clock_event_reasons(now));
    // Near its target temperature, the driver lowers the clock of a GPU. This is normal if the GPU is not slower or
    // hotter than other GPUs, and not close to its limit.
    let Temperature { gpu_celsius, slowdown_celsius, .. } = now.temperature;
    let at_limit = gpu_celsius.zip(slowdown_celsius).is_some_and(|(celsius, limit)| celsius + AT_LIMIT >= limit);
    let is_hot = at_limit || hotter_than_others(node, gpu, now).is_some();
    if mask & HARDWARE_THERMAL == 0 && !is_hot && is_as_fast_as_others(node, gpu, now) {
        draft = draft.with_severity(Severity::Info);
    }
    let draft = draft.with_all_evidence(temperature(&now.temperature));
    let draft = draft.with_all_evidence(hotter_than_others(node, gpu, now));
    // A GPU without a fan of its own has no value.
    let draft = draft.with_all_evidence(now.fan_percent.map(|percent| match percent {
        0 => "the fan stands still (0 %)".to_owned(),
        percent => format!("fan {percent} %"),
    }));
    Some(draft.with_all_evidence(clock(node, gpu, now)))
}

/// Returns by how much the GPU is hotter than the median of the other GPUs, if it is much hotter.
fn hotter_than_others(node: &Node<'_>, gpu: &Gpu, now: &GpuTelemetry) -> Option<String> {
    let others = node.gpus.iter().filter(|other| other.index != gpu.index);
    let mut celsius: Vec<i32> = others.filter_map(|other| node.telemetry_of(other)?.temperature.gpu_celsius).collect();
    celsius.sort_unstable();
    let (own, usual) = now.temperature.gpu_celsius.zip(celsius.get(celsius.len() / 2).copied())?;
    (own - usual >= MUCH_HOTTER).then(|| format!("{} °C hotter than the other GPUs", own - usual))
}

/// Returns the SM clocks of the other GPUs of the node.
fn other_clocks(node: &Node<'_>, gpu: &Gpu) -> Vec<u32> {
    let others = node.gpus.iter().filter(|other| other.index != gpu.index);
    others.filter_map(|other| node.telemetry_of(other)?.clocks.sm_mhz).collect()
}

/// Returns whether the GPU is as fast as another GPU that is under load and has no thermal slowdown.
fn is_as_fast_as_others(node: &Node<'_>, gpu: &Gpu, now: &GpuTelemetry) -> bool {
    let others = node.gpus.iter().filter(|other| other.index != gpu.index);
    let mut cool = others.filter_map(|other| node.telemetry_of(other)).filter(|other| {
        let mask = clock_events::mask_of(&other.throttling);
        mask & (HARDWARE_THERMAL | SOFTWARE_THERMAL) == 0
            && clock_events::load_percent(other) >= now.utilization.gpu_percent
    });
    now.clocks.sm_mhz.is_some_and(|own| cool.any(|other| other.clocks.sm_mhz.is_some_and(|clock| clock <= own)))
}

/// Compares the clock with the clocks of the other GPUs of the node: `SM clock 990 MHz, other GPUs 1770 to 1830 MHz`.
fn clock(node: &Node<'_>, gpu: &Gpu, now: &GpuTelemetry) -> Option<String> {
    let own = now.clocks.sm_mhz?;
    let clocks = other_clocks(node, gpu);
    Some(match (clocks.iter().min(), clocks.iter().max()) {
        (Some(least), Some(most)) if least < most => format!("SM clock {own} MHz, other GPUs {least} to {most} MHz"),
        (Some(clock), _) => format!("SM clock {own} MHz, other GPUs {clock} MHz"),
        _ => format!("SM clock {own} of {} MHz", now.clocks.max_sm_mhz?),
    })
}

fn temperature(now: &Temperature) -> Option<String> {
    let celsius = now.gpu_celsius?;
    let limit = now.slowdown_celsius.map(|limit| format!(", slowdown at {limit} °C")).unwrap_or_default();
    let memory = now.memory_celsius.map(|memory| format!(", memory {memory} °C")).unwrap_or_default();
    Some(format!("GPU {celsius} °C{limit}{memory}"))
}

fn limits(gpu: &Gpu, now: &Temperature) -> Vec<Draft> {
    let pairs = [
        (TOO_HOT, now.gpu_celsius, now.slowdown_celsius),
        (MEMORY_TOO_HOT, now.memory_celsius, now.memory_max_celsius),
    ];
    let mut drafts = Vec::new();
    for (rule, celsius, limit) in pairs {
        let (Some(celsius), Some(limit)) = (celsius, limit) else { continue };
        if !PLAUSIBLE_CELSIUS.contains(&celsius)
            || !PLAUSIBLE_CELSIUS.contains(&limit)
            || celsius < limit - NEAR_CELSIUS
        {
            continue;
        }
        let severity = if celsius >= limit { Severity::Critical } else { Severity::Warning };
        drafts.push(
            Draft::on_gpu(rule, gpu).with_severity(severity).with_evidence(format!("{celsius} °C, limit {limit} °C")),
        );
    }
    let margin = now.tlimit_margin_celsius.filter(|margin| *margin <= 0 && now.slowdown_celsius.is_none());
    let warm = now.gpu_celsius.filter(|celsius| (WARM_CELSIUS..=*PLAUSIBLE_CELSIUS.end()).contains(celsius));
    if let (Some(margin), Some(celsius)) = (margin, warm) {
        let slowdown = now.tlimit_thresholds.as_ref().and_then(|limits| limits.slowdown_celsius);
        let reached = slowdown.is_some_and(|limit| margin <= limit);
        let limit = slowdown.map(|limit| format!(", slowdown at {limit} °C")).unwrap_or_default();
        let severity = if reached { Severity::Critical } else { Severity::Warning };
        let evidence = format!("{celsius} °C, T.Limit margin {margin} °C{limit}");
        drafts.push(Draft::on_gpu(TOO_HOT, gpu).with_severity(severity).with_evidence(evidence));
    }
    drafts
}

/// Returns the time in thermal slowdown. Drivers that do not report this time report the times of its two causes.
fn thermal_ms(times: &[Violation]) -> Option<u64> {
    let of = |policy: &str| times.iter().find(|one| one.policy == policy).map(|one| one.duration_ms);
    of("thermal").or_else(|| of("software_thermal").max(of("hardware_thermal")))
}

/// Returns a finding from the counters, which also include slowdowns between two readings. `is_slowed`: whether the GPU
/// is slowed down now, which another finding reports.
fn lost_time(node: &Node<'_>, gpu: &Gpu, now: &GpuTelemetry, is_slowed: bool) -> Option<Draft> {
    let in_window = now.sample.as_ref().filter(|_| !is_slowed).and_then(|sample| {
        let lost = thermal_ms(&sample.throttled)?;
        let line = format!("thermal slowdown for {lost} ms of the last {}", evidence::window(sample));
        // Near the target temperature, the driver lowers the clock. This is normal if the GPU is not slower than
        // others.
        let by_hardware = sample.throttled.iter().any(|one| one.policy == "hardware_thermal");
        let is_normal =
            !by_hardware && is_as_fast_as_others(node, gpu, now) && hotter_than_others(node, gpu, now).is_none();
        (lost.saturating_mul(NOTABLE_SHARE) >= sample.window_ms && !is_normal).then_some(line)
    });
    let since_load = || {
        let counted_ms = node.counted_seconds()?.saturating_mul(1000);
        let lost_ms = thermal_ms(&now.throttling.violations)?;
        let lost = SignedDuration::from_millis(i64::try_from(lost_ms).ok()?);
        let notable = lost_ms.saturating_mul(NOTABLE_SHARE) >= counted_ms;
        let line = format!("thermal slowdown for {} since driver load", evidence::span(lost));
        (lost >= LEAST && counted_ms > 0).then_some((line, notable))
    };
    let (line, notable) = since_load().unzip();
    if in_window.is_none() && line.is_none() {
        return None;
    }
    let is_warning = in_window.is_some() || notable == Some(true);
    let severity = if is_warning { Severity::Warning } else { Severity::Info };
    Some(Draft::on_gpu(LOST_TIME, gpu).with_severity(severity).with_all_evidence(in_window).with_all_evidence(line))
}
