//! `inspect_topology`: how the GPUs of a node are connected to each other, to switches, NICs and CPUs.

use schemars::JsonSchema;
use serde::Serialize;
use syringe_core::facts::topology::{GpuTopology, Topology};

use crate::answer::node::NodeAnswer;
use crate::call::CallContext;
use crate::node_reading::read_node;
use crate::text::node_answer::{foot, head, push_gpus};
use crate::text::page::Page;
use crate::text::table::{Rows, cell, new_table, pci_cell};
use crate::tools::common_args::NodeArgs;
use crate::tools::tool::Tool;
use kube_read::Failure;

/// The tool.
pub struct InspectTopology;

/// The section of this tool.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TopologySection {
    /// Connections of every GPU.
    pub topology: Topology,
}

impl Tool for InspectTopology {
    const NAME: &'static str = "inspect_topology";
    const TITLE: &'static str = "GPU topology of a node";
    const DESCRIPTION: &'static str = "How the GPUs of a node are connected: NVLinks (also inactive ones) with errors, NVSwitch fabric state, \
        peer-to-peer matrix, PCIe path with speed and width, NUMA, nearby InfiniBand/RoCE ports.";
    const PROBES: bool = true;
    type Args = NodeArgs;
    type Answer = NodeAnswer<TopologySection>;

    async fn call(call: CallContext, args: NodeArgs) -> Result<Self::Answer, Failure> {
        let NodeArgs { node_name, context } = args;
        let read = read_node::read(&call, context.as_deref(), &node_name, Self::NAME, vec!["topology".into()]).await?;
        let topology = read_node::section(&read.note, "topology", read.report.sections.topology)?;
        Ok(NodeAnswer::new(read.diagnosis, TopologySection { topology }, read.note))
    }

    fn page(answer: &Self::Answer) -> Page {
        let Topology { gpus, matrix, nics, lost, .. } = &answer.section.topology;
        let rows = new_table(["gpu", "pci address", "numa", "nvlinks up", "nvlink errors", "fabric", "pcie now", "of"]);
        let mut answering = Vec::new();
        for gpu in gpus {
            let hop = gpu.pcie_path.first();
            let link = |generation: Option<u32>, width: Option<u32>| {
                cell(generation.zip(width).map(|(generation, width)| format!("gen{generation} x{width}")))
            };
            let cells = [
                gpu.index.to_string(),
                pci_cell(gpu.pci_address.as_ref()),
                cell(gpu.numa_node),
                links_up(gpu),
                link_errors(gpu),
                cell(gpu.fabric.as_ref().map(|fabric| fabric.state.clone())),
                link(hop.and_then(|hop| hop.generation), hop.and_then(|hop| hop.width)),
                link(hop.and_then(|hop| hop.max_generation), hop.and_then(|hop| hop.max_width)),
            ];
            answering.push((gpu.index, cells));
        }
        let mut text = head(answer);
        push_gpus(&mut text, rows, answering, lost);
        if matrix.len() > 1 {
            text.push_table(matrix_rows(gpus, matrix));
        }
        for port in nics {
            let rate = port.rate_gigabits_per_second.map(|rate| format!("{rate} Gb/s")).unwrap_or_default();
            let near: Vec<_> = port.near.iter().map(|near| format!("GPU {} {}", near.gpu, near.via)).collect();
            text.push_str(&format!(
                "{} port {}  {} {rate}  {}\n",
                port.device,
                port.port,
                cell(port.state.clone()),
                near.join(", ")
            ));
        }
        text.push_str(&foot(&answer.probe));
        text
    }
}

fn links_up(gpu: &GpuTopology) -> String {
    let count = |active: bool| -> usize {
        gpu.nvlinks.iter().filter(|group| !active || group.active == Some(true)).map(|group| group.links.len()).sum()
    };
    match count(false) {
        0 => "-".into(),
        all => format!("{} of {all}", count(true)),
    }
}

fn link_errors(gpu: &GpuTopology) -> String {
    let erring = gpu.nvlinks.iter().filter(|group| !group.errors.is_empty());
    let parts: Vec<_> = erring
        .map(|group| {
            let links: Vec<_> = group.links.iter().map(u32::to_string).collect();
            let errors: Vec<_> = group.errors.iter().map(|(name, count)| format!("{name} {count}")).collect();
            format!("link {}: {}", links.join(","), errors.join(", "))
        })
        .collect();
    parts.join("; ")
}

/// The matrix in the format of `nvidia-smi topo -m`.
fn matrix_rows(gpus: &[GpuTopology], matrix: &[Vec<String>]) -> Rows {
    let names: Vec<_> = gpus.iter().map(|gpu| format!("GPU{}", gpu.index)).collect();
    let mut rows = Rows::new([String::new()].into_iter().chain(names.clone()));
    for (name, cells) in names.into_iter().zip(matrix) {
        rows.add_row([name].into_iter().chain(cells.iter().cloned()));
    }
    rows
}
