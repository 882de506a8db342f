//! `get_gpu_inventory`: what the GPUs of a node are.

use schemars::JsonSchema;
use serde::Serialize;
use syringe_core::facts::inventory::Inventory;

use super::table::{cell, foot, head, lines, table};
use super::{Call, NodeArgs, Tool, probing};
use crate::answer::Answer;
use crate::error::Failure;

/// The tool.
pub struct GetGpuInventory;

/// Its section.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct InventorySection {
    /// The driver and the GPUs.
    pub inventory: Inventory,
}

impl Tool for GetGpuInventory {
    const NAME: &'static str = "get_gpu_inventory";
    const TITLE: &'static str = "GPU inventory of a node";
    const DESCRIPTION: &'static str = "What the GPUs of a node are, read from NVML: model, UUID, serial, PCI address, VBIOS, driver, \
        CUDA, memory, MIG, ECC and persistence modes.";
    const PROBES: bool = true;
    type Args = NodeArgs;
    type Answer = Answer<InventorySection>;

    async fn call(call: Call, args: NodeArgs) -> Result<Self::Answer, Failure> {
        let NodeArgs { node_name, context } = args;
        let read = probing::read(&call, context.as_deref(), &node_name, Self::NAME, vec!["inventory".into()]).await?;
        let inventory = probing::section(&read.note, "inventory", read.report.sections.inventory)?;
        Ok(Answer::new(read.diagnosis, InventorySection { inventory }, read.note))
    }

    fn table(answer: &Self::Answer) -> String {
        let Inventory { driver_version, cuda_version, gpus, .. } = &answer.section.inventory;
        let mut rows =
            table(["gpu", "name", "pci address", "uuid", "serial", "memory GiB", "vbios", "ecc", "mig", "persistence"]);
        let on = |mode: Option<bool>| cell(mode.map(|on| if on { "on" } else { "off" }));
        for gpu in gpus {
            rows.add_row([
                gpu.index.to_string(),
                cell(gpu.name.clone()),
                cell(gpu.pci_address.as_ref().map(|address| address.sysfs().to_owned())),
                cell(gpu.uuid.clone()),
                cell(gpu.serial.clone()),
                cell(gpu.memory_total_bytes.map(|bytes| bytes >> 30)),
                cell(gpu.vbios_version.clone()),
                on(gpu.ecc_mode.map(|mode| mode.current)),
                on(gpu.mig_mode.map(|mode| mode.current)),
                on(gpu.persistence_mode),
            ]);
        }
        let versions = format!("driver {}, CUDA {}", cell(driver_version.clone()), cell(cuda_version.clone()));
        format!("{}\n{versions}\n\n{}{}", head(answer), lines(&rows), foot(&answer.probe))
    }
}
