//! `get_gpu_inventory`: the GPUs of one node or of all nodes, with their identity and driver.

use schemars::JsonSchema;
use serde::Serialize;
use syringe_core::facts::inventory::Inventory;

use crate::answer::node::NodeAnswer;
use crate::answer::one_or_many::OneOrMany;
use crate::call::CallContext;
use crate::fleet;
use crate::fleet::NodeSelection;
use crate::node_reading::read_node;
use crate::text::fleet_answer;
use crate::text::node_answer::{foot, head, push_gpus};
use crate::text::page::Page;
use crate::text::table::{cell, new_table, pci_cell};
use crate::tools::common_args::FleetArgs;
use crate::tools::tool::Tool;
use kube_read::Failure;

/// The tool.
pub struct GetGpuInventory;

/// The section of this tool.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct InventorySection {
    /// The driver and the GPUs.
    pub inventory: Inventory,
}

impl Tool for GetGpuInventory {
    const NAME: &'static str = "get_gpu_inventory";
    const TITLE: &'static str = "GPU inventory";
    const DESCRIPTION: &'static str = "The GPUs of a node, or without node_name of all GPU nodes: model, UUID, serial, PCI address, VBIOS, driver, \
        CUDA, memory, MIG, ECC and persistence modes. For many nodes: by model, with differences (driver, count, VBIOS).";
    const PROBES: bool = true;
    type Args = FleetArgs;
    type Answer = OneOrMany<InventorySection>;

    async fn call(call: CallContext, args: FleetArgs) -> Result<Self::Answer, Failure> {
        args.check()?;
        let FleetArgs { node_name, selector, limit, context } = args;
        let command = vec!["inventory".to_owned()];
        let Some(node_name) = node_name else {
            let selection = NodeSelection { context: context.as_deref(), selector: selector.as_deref(), limit };
            return Ok(OneOrMany::Many(Box::new(fleet::read_fleet(&call, selection, Self::NAME, &command).await?)));
        };
        let read = read_node::read(&call, context.as_deref(), &node_name, Self::NAME, command).await?;
        let inventory = read_node::section(&read.note, "inventory", read.report.sections.inventory)?;
        Ok(OneOrMany::One(Box::new(NodeAnswer::new(read.diagnosis, InventorySection { inventory }, read.note))))
    }

    fn page(answer: &Self::Answer) -> Page {
        let answer = match answer {
            OneOrMany::One(answer) => answer,
            OneOrMany::Many(answer) => return fleet_answer::page(answer),
        };
        let Inventory { driver_version, cuda_version, gpus, lost, .. } = &answer.section.inventory;
        let rows = new_table([
            "gpu",
            "pci address",
            "name",
            "uuid",
            "serial",
            "vbios",
            "ecc",
            "mig",
            "persistence",
            // A lost GPU is named in the last column, which is always shown.
            "memory GiB",
        ])
        .optional(&["vbios", "persistence", "serial", "mig", "ecc", "name"]);
        let on = |mode: Option<bool>| cell(mode.map(|on| if on { "on" } else { "off" }));
        let mut answering = Vec::new();
        for gpu in gpus {
            let cells = [
                gpu.index.to_string(),
                pci_cell(gpu.pci_address.as_ref()),
                cell(gpu.name.clone()),
                cell(gpu.uuid.clone()),
                cell(gpu.serial.clone()),
                cell(gpu.vbios_version.clone()),
                on(gpu.ecc_mode.map(|mode| mode.current)),
                on(gpu.mig_mode.map(|mode| mode.current)),
                on(gpu.persistence_mode),
                cell(gpu.memory_total_bytes.map(|bytes| bytes >> 30)),
            ];
            answering.push((gpu.index, cells));
        }
        let versions = format!("driver {}, CUDA {}", cell(driver_version.clone()), cell(cuda_version.clone()));
        let mut page = head(answer);
        page.push_str(&format!("\n{versions}\n"));
        push_gpus(&mut page, rows, answering, lost);
        page.push_str(&foot(&answer.probe));
        page
    }
}
