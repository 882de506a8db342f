//! `TopologySection`: description, facts and tables of the tool `inspect_topology`: links between GPUs, NICs and CPUs.

use schemars::JsonSchema;
use serde::Serialize;
use syringe_core::facts::topology::{GpuTopology, Topology};

use crate::terminal::page::Page;
use crate::terminal::table::{Rows, cell};
use crate::tools::get_gpu_telemetry::pcie_link;
use crate::tools::gpu_section::{Column, GpuSection, of_report};

/// The part of the answer that only this tool has.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TopologySection {
    /// Connections of every GPU.
    pub topology: Topology,
}

impl GpuSection for TopologySection {
    const TOOL: &'static str = "inspect_topology";
    const TITLE: &'static str = "GPU topology of a node";
    const DESCRIPTION: &'static str = "How the GPUs of a node are connected: NVLinks (also inactive) with errors, NVSwitch fabric state, \
        peer-to-peer matrix, PCIe path with speed and width, NUMA, nearby InfiniBand/RoCE ports.";
    of_report!(topology: Topology of GpuTopology);
    const COLUMNS: &'static [Column<GpuTopology>] = &[
        ("numa", |gpu| cell(gpu.numa_node)),
        ("nvlinks up", links_up),
        ("nvlink errors", link_errors),
        ("fabric", |gpu| cell(gpu.fabric.as_ref().map(|fabric| fabric.state.clone()))),
        ("pcie now", |gpu| cell(gpu.pcie_path.first().map(|hop| pcie_link(hop.generation, hop.width)))),
        ("max link", |gpu| cell(gpu.pcie_path.first().map(|hop| pcie_link(hop.max_generation, hop.max_width)))),
    ];

    fn after_table(&self, page: &mut Page) {
        let Topology { gpus, matrix, nics, .. } = &self.topology;
        if matrix.len() > 1 {
            page.push_table(matrix_rows(gpus, matrix));
        }
        for port in nics {
            let rate = port.rate_gigabits_per_second.map(|rate| format!("{rate} Gb/s")).unwrap_or_default();
            let near: Vec<_> = port.near.iter().map(|near| format!("GPU {} {}", near.gpu, near.via)).collect();
            page.push_str(&format!(
                "{} port {}  {} {rate}  {}\n",
                port.device,
                port.port,
                cell(port.state.clone()),
                near.join(", ")
            ));
        }
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

/// Returns the matrix in the format of `nvidia-smi topo -m`.
fn matrix_rows(gpus: &[GpuTopology], matrix: &[Vec<String>]) -> Rows {
    let names: Vec<_> = gpus.iter().map(|gpu| format!("GPU{}", gpu.index)).collect();
    let mut rows = Rows::new([String::new()].into_iter().chain(names.clone()));
    for (name, cells) in names.into_iter().zip(matrix) {
        rows.add_row([name].into_iter().chain(cells.iter().cloned()));
    }
    rows
}
