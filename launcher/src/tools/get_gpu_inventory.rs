//! `GetGpuInventory`, `InventorySection`: the tool `get_gpu_inventory` and its table: the GPUs with identity and driver.

use schemars::JsonSchema;
use serde::Serialize;
use syringe_core::facts::inventory::{GpuInventory, Inventory};

use crate::answer::fleet_page as fleet_answer;
use crate::answer::one_or_many::OneOrMany;
use crate::call::CallContext;
use crate::terminal::page::Page;
use crate::terminal::table::cell;
use crate::tools::common_args::FleetArgs;
use crate::tools::gpu_section::{self, Column, GpuSection, of_report};
use crate::tools::one_or_many;
use crate::tools::tool::Tool;
use kube_read::Failure;

pub struct GetGpuInventory;

/// The part of the answer that only this tool has.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct InventorySection {
    /// The driver and the GPUs.
    pub inventory: Inventory,
}

impl GpuSection for InventorySection {
    const TOOL: &'static str = "get_gpu_inventory";
    const TITLE: &'static str = "GPU inventory";
    const DESCRIPTION: &'static str = "The GPUs of a node, or without node_name of all GPU nodes: model, UUID, serial, PCI address, VBIOS, driver, \
        CUDA, memory, MIG, ECC and persistence modes. For many nodes: by model, with differences (driver, count, VBIOS).";
    of_report!(inventory: Inventory of GpuInventory);
    const COLUMNS: &'static [Column<GpuInventory>] = &[
        ("name", |gpu| cell(gpu.name.clone())),
        ("uuid", |gpu| cell(gpu.uuid.clone())),
        ("serial", |gpu| cell(gpu.serial.clone())),
        ("vbios", |gpu| cell(gpu.vbios_version.clone())),
        ("ecc", |gpu| on_off(gpu.ecc_mode.map(|mode| mode.current))),
        ("mig", |gpu| on_off(gpu.mig_mode.map(|mode| mode.current))),
        ("persistence", |gpu| on_off(gpu.persistence_mode)),
        // The last column, which is always shown, has the state of a lost GPU.
        ("memory GiB", |gpu| cell(gpu.memory_total_bytes.map(|bytes| bytes >> 30))),
    ];
    const OPTIONAL: &'static [&'static str] = &["vbios", "persistence", "serial", "mig", "ecc", "name"];

    fn before_table(&self) -> String {
        let Inventory { driver_version, cuda_version, .. } = &self.inventory;
        format!("\ndriver {}, CUDA {}\n", cell(driver_version.clone()), cell(cuda_version.clone()))
    }
}

impl Tool for GetGpuInventory {
    const NAME: &'static str = InventorySection::TOOL;
    const TITLE: &'static str = InventorySection::TITLE;
    const DESCRIPTION: &'static str = InventorySection::DESCRIPTION;
    const PROBES: bool = true;
    type Args = FleetArgs;
    type Answer = OneOrMany<InventorySection>;

    async fn call(call: CallContext, args: FleetArgs) -> Result<Self::Answer, Failure> {
        one_or_many::read(&call, args, Self::NAME, InventorySection::SECTION.into(), gpu_section::answer).await
    }

    fn page(answer: &Self::Answer) -> Page {
        match answer {
            OneOrMany::One(answer) => gpu_section::page(answer),
            OneOrMany::Many(answer) => fleet_answer::page(answer),
        }
    }
}

fn on_off(mode: Option<bool>) -> String {
    cell(mode.map(|on| if on { "on" } else { "off" }))
}
