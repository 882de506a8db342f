//! `GetGpuTelemetry`: the tool `get_gpu_telemetry`, with its arguments, facts and table columns, and the growth of
//! counters between two readings. `pcie_link`: formats a PCIe link.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use syringe_core::facts::clock_events::{IDLE, REASONS};
use syringe_core::facts::rates::{Activity, Sample};
use syringe_core::facts::telemetry::{GpuTelemetry, Telemetry};
use syringe_core::probe_command::{MAX_SAMPLE_SECONDS, ReadCommand};

use crate::answer::node::NodeAnswer;
use crate::call::CallContext;
use crate::node_reading::read_node;
use crate::terminal::page::Page;
use crate::terminal::table::{cell, new_table};
use crate::tools::common_args::{NODE_HELP, node_name};
use crate::tools::gpu_section::{self, Column, GpuSection, of_report};
use crate::tools::tool::Tool;
use kube_read::Failure;

pub struct GetGpuTelemetry;

#[derive(clap::Args, Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TelemetryArgs {
    /// Kubernetes node
    #[arg(value_name = "NODE", help = NODE_HELP, value_parser = node_name)]
    #[schemars(length(max = 253))]
    pub node_name: String,
    /// Window of rates and activity
    #[arg(
        long,
        value_name = "SECONDS",
        help = "Read the counters of errors and throttled time twice, this far apart: 0 (once) to 10; by default, only those not zero. Also shows the activity of SMs, tensor cores and memory, and the traffic",
        value_parser = clap::value_parser!(u8).range(0..=i64::from(MAX_SAMPLE_SECONDS))
    )]
    #[schemars(range(max = MAX_SAMPLE_SECONDS))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_seconds: Option<u8>,
    /// Kubeconfig context; default: current
    #[arg(skip)]
    pub context: Option<String>,
}

/// The part of the answer that only this tool has.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TelemetrySection {
    /// Each GPU
    pub telemetry: Telemetry,
}

impl GpuSection for TelemetrySection {
    const TOOL: &'static str = "get_gpu_telemetry";
    const TITLE: &'static str = "GPU telemetry";
    const DESCRIPTION: &'static str =
        "A node's GPUs now: temperature, power, clocks, utilization, memory, PCIe link, throttling.";
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

    fn after_table(&self, page: &mut Page) {
        let samples = || self.telemetry.gpus.iter().filter_map(|gpu| gpu.sample.as_ref());
        let heads = ["gpu", "window", "new in this window", "activity"];
        let shown = if samples().any(|sample| sample.activity.is_some()) { heads.len() } else { heads.len() - 1 };
        let mut rows = new_table(heads.into_iter().take(shown));
        for gpu in &self.telemetry.gpus {
            let Some(sample) = &gpu.sample else { continue };
            let window = format!("{}.{} s", sample.window_ms / 1000, sample.window_ms % 1000 / 100);
            let activity = sample.activity.as_deref().map(activity).unwrap_or_default();
            rows.add_row([gpu.index.to_string(), window, growth(sample), activity].into_iter().take(shown));
        }
        page.push_table(rows);
    }
}

impl Tool for GetGpuTelemetry {
    const NAME: &'static str = TelemetrySection::TOOL;
    const TITLE: &'static str = TelemetrySection::TITLE;
    const DESCRIPTION: &'static str = TelemetrySection::DESCRIPTION;
    const PROBES: bool = true;
    type Args = TelemetryArgs;
    type Answer = NodeAnswer<TelemetrySection>;

    async fn call(call: CallContext, args: TelemetryArgs) -> Result<Self::Answer, Failure> {
        let TelemetryArgs { node_name, sample_seconds, context } = args;
        if sample_seconds.is_some_and(|seconds| seconds > MAX_SAMPLE_SECONDS) {
            let why = format!("sample_seconds is at most {MAX_SAMPLE_SECONDS}");
            return Err(Failure::usage("The arguments", &why, "Correct the argument."));
        }
        let command = ReadCommand { sample_seconds, ..TelemetrySection::SECTION.into() };
        gpu_section::answer(read_node::read(&call, context.as_deref(), &node_name, Self::NAME, command).await?)
    }

    fn page(answer: &Self::Answer) -> Page {
        gpu_section::page(answer)
    }
}

/// Returns the counters that increased, as text.
fn growth(sample: &Sample) -> String {
    let counts = [
        ("PCIe replays", sample.pcie_replays),
        ("corrected memory errors", sample.corrected_memory_errors),
        ("C2C errors", sample.c2c_errors),
    ];
    let counts = counts
        .into_iter()
        .filter_map(|(name, count)| count.filter(|count| *count > 0).map(|count| format!("{count} {name}")));
    let links = sample.nvlink_errors.iter().map(|one| {
        let links: Vec<String> = one.links.iter().map(u32::to_string).collect();
        format!("NVLink {}: {} on each of links {}", one.counter, one.added, links.join(", "))
    });
    let throttled = sample.throttled.iter().map(|one| format!("{} ms throttled: {}", one.duration_ms, one.policy));
    let all: Vec<String> = counts.chain(links).chain(throttled).collect();
    if all.is_empty() { "nothing".to_owned() } else { all.join("; ") }
}

/// Returns the activity of the GPU in the window, as text.
fn activity(activity: &Activity) -> String {
    let shares = [
        ("SM", activity.sm_percent),
        ("tensor", activity.tensor_percent),
        ("memory bandwidth", activity.memory_bandwidth_percent),
    ];
    let shares = shares.into_iter().filter_map(|(name, share)| Some(format!("{name} {:.1} %", share?)));
    let traffic = [
        ("PCIe", activity.pcie_sent_mebibytes_per_second, activity.pcie_received_mebibytes_per_second),
        ("NVLink", activity.nvlink_sent_mebibytes_per_second, activity.nvlink_received_mebibytes_per_second),
    ];
    let traffic = traffic.into_iter().filter_map(|(name, sent, received)| {
        Some(format!("{name} {:.0} MiB/s sent, {:.0} MiB/s received", sent?, received?))
    });
    shares.chain(traffic).collect::<Vec<_>>().join(", ")
}

/// Returns the reasons for lower clocks. The text marks a limit that is not a fault, because the summary contains only
/// faults.
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

#[cfg(test)]
mod tests {
    use super::{Activity, Sample, activity, growth};

    #[test]
    fn a_window_is_described_by_what_grew_and_what_the_gpu_did() {
        let sample = Sample { window_ms: 1000, pcie_replays: Some(0), c2c_errors: Some(4), ..Sample::default() };
        assert_eq!(growth(&sample), "4 C2C errors");
        let busy = Activity {
            sm_percent: Some(93.44),
            tensor_percent: Some(0.0),
            pcie_sent_mebibytes_per_second: Some(812.5),
            pcie_received_mebibytes_per_second: Some(90.1),
            nvlink_sent_mebibytes_per_second: Some(7.0),
            ..Activity::default()
        };
        assert_eq!(activity(&busy), "SM 93.4 %, tensor 0.0 %, PCIe 812 MiB/s sent, 90 MiB/s received");
    }
}
