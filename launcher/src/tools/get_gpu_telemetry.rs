//! `get_gpu_telemetry`: current temperature, power, clocks and utilization of the GPUs of a node.

use schemars::JsonSchema;
use serde::Serialize;
use syringe_core::facts::telemetry::Telemetry;

use crate::answer::node::NodeAnswer;
use crate::call::CallContext;
use crate::node_reading::read_node;
use crate::text::node_answer::{foot, head, push_gpus};
use crate::text::page::Page;
use crate::text::table::{cell, new_table, pci_cell};
use crate::tools::common_args::NodeArgs;
use crate::tools::tool::Tool;
use kube_read::Failure;

/// The tool.
pub struct GetGpuTelemetry;

/// The section of this tool.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TelemetrySection {
    /// One reading of every GPU.
    pub telemetry: Telemetry,
}

impl Tool for GetGpuTelemetry {
    const NAME: &'static str = "get_gpu_telemetry";
    const TITLE: &'static str = "GPU telemetry of a node";
    const DESCRIPTION: &'static str = "One reading of the GPUs of a node: temperature and margin to slowdown, power and limits, clocks, \
        utilization, memory use, PCIe link, and whether and why they throttle.";
    const PROBES: bool = true;
    type Args = NodeArgs;
    type Answer = NodeAnswer<TelemetrySection>;

    async fn call(call: CallContext, args: NodeArgs) -> Result<Self::Answer, Failure> {
        let NodeArgs { node_name, context } = args;
        let read = read_node::read(&call, context.as_deref(), &node_name, Self::NAME, vec!["telemetry".into()]).await?;
        let telemetry = read_node::section(&read.note, "telemetry", read.report.sections.telemetry)?;
        Ok(NodeAnswer::new(read.diagnosis, TelemetrySection { telemetry }, read.note))
    }

    fn page(answer: &Self::Answer) -> Page {
        let rows = new_table([
            "gpu",
            "pci address",
            "P",
            "°C",
            "HBM °C",
            "margin °C",
            "W",
            "limit W",
            "SM MHz",
            "of",
            "gpu %",
            "mem %",
            "used GiB",
            "PCIe",
            "clocks limited by",
        ])
        .optional(&["P", "margin °C", "of", "mem %", "PCIe", "limit W", "HBM °C"]);
        let Telemetry { gpus, lost, .. } = &answer.section.telemetry;
        let mut answering = Vec::new();
        for gpu in gpus {
            let watts = |milliwatts: Option<u32>| cell(milliwatts.map(|milliwatts| milliwatts / 1000));
            let link = gpu.pcie.generation.zip(gpu.pcie.width);
            let cells = [
                gpu.index.to_string(),
                pci_cell(gpu.pci_address.as_ref()),
                cell(gpu.performance_state),
                cell(gpu.temperature.gpu_celsius),
                cell(gpu.temperature.memory_celsius),
                cell(gpu.temperature.margin_to_slowdown_celsius),
                watts(gpu.power.draw_milliwatts),
                watts(gpu.power.enforced_limit_milliwatts),
                cell(gpu.clocks.sm_mhz),
                cell(gpu.clocks.max_sm_mhz),
                cell(gpu.utilization.gpu_percent),
                cell(gpu.utilization.memory_percent),
                cell(gpu.memory.used_bytes.map(|bytes| bytes >> 30)),
                cell(link.map(|(generation, width)| format!("gen{generation} x{width}"))),
                gpu.throttling.reasons.join(", "),
            ];
            answering.push((gpu.index, cells));
        }
        let mut page = head(answer);
        push_gpus(&mut page, rows, answering, lost);
        page.push_str(&foot(&answer.probe));
        page
    }
}
