//! `TelemetrySection`: the description, the facts and the table columns of the tool `get_gpu_telemetry`.

use schemars::JsonSchema;
use serde::Serialize;
use syringe_core::facts::clock_events::{IDLE, REASONS};
use syringe_core::facts::telemetry::{GpuTelemetry, Telemetry};

use crate::terminal::table::cell;
use crate::tools::gpu_section::{Column, GpuSection, of_report};

/// The part of the answer that only this tool has.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TelemetrySection {
    /// One reading of every GPU.
    pub telemetry: Telemetry,
}

impl GpuSection for TelemetrySection {
    const TOOL: &'static str = "get_gpu_telemetry";
    const TITLE: &'static str = "GPU telemetry of a node";
    const DESCRIPTION: &'static str = "One reading of the GPUs of a node: temperature and margin to slowdown, power and limits, clocks, \
        utilization, memory use, PCIe link, and why GPUs throttle.";
    of_report!(telemetry: Telemetry of GpuTelemetry);
    const COLUMNS: &'static [Column<GpuTelemetry>] = &[
        ("PState", |gpu| cell(gpu.performance_state)),
        ("°C", |gpu| cell(gpu.temperature.gpu_celsius)),
        ("HBM °C", |gpu| cell(gpu.temperature.memory_celsius)),
        ("margin °C", |gpu| cell(gpu.temperature.margin_to_slowdown_celsius)),
        ("W", |gpu| watts(gpu.power.draw_milliwatts)),
        ("limit W", |gpu| watts(gpu.power.enforced_limit_milliwatts)),
        ("SM MHz", |gpu| cell(gpu.clocks.sm_mhz)),
        ("max MHz", |gpu| cell(gpu.clocks.max_sm_mhz)),
        ("gpu %", |gpu| cell(gpu.utilization.gpu_percent)),
        ("mem %", |gpu| cell(gpu.utilization.memory_percent)),
        ("used GiB", |gpu| cell(gpu.memory.used_bytes.map(|bytes| bytes >> 30))),
        ("PCIe", |gpu| pcie_link(gpu.pcie.generation, gpu.pcie.width)),
        ("clocks limited by", |gpu| clock_limits(&gpu.throttling.reasons)),
    ];
    const OPTIONAL: &'static [&'static str] = &["PState", "margin °C", "max MHz", "mem %", "PCIe", "limit W", "HBM °C"];
}

/// Returns the reasons for lower clocks. A limit that is no fault says so, because the summary speaks only of faults.
fn clock_limits(reasons: &[String]) -> String {
    let is_normal =
        |reason: &&String| REASONS.iter().any(|one| !one.is_fault && one.bit != IDLE && one.label == reason.as_str());
    let each = reasons.iter().map(|reason| match Some(reason).filter(is_normal) {
        Some(limit) => format!("{limit} (no fault)"),
        None => reason.clone(),
    });
    each.collect::<Vec<_>>().join(", ")
}

fn watts(milliwatts: Option<u32>) -> String {
    cell(milliwatts.map(|milliwatts| milliwatts / 1000))
}

/// Returns the generation and width of a PCIe link as text.
pub(super) fn pcie_link(generation: Option<u32>, width: Option<u32>) -> String {
    cell(generation.zip(width).map(|(generation, width)| format!("gen{generation} x{width}")))
}
