//! `GetGpuInventory`, `InventorySection`: the tool `get_gpu_inventory` and its table: the GPUs with identity, driver
//! and MIG layout (`MigLayout`).

use schemars::JsonSchema;
use serde::Serialize;
use syringe_core::facts::LostGpu;
use syringe_core::facts::inventory::{GpuInventory, Inventory};
use syringe_core::facts::mig::GpuMig;
use syringe_core::pci::PciAddress;
use syringe_core::probe_command::ReadCommand;
use syringe_core::report::{Section, Sections};
use syringe_core::section_name::SectionName;

use crate::answer::fleet_page as fleet_answer;
use crate::answer::node::NodeAnswer;
use crate::answer::one_or_many::OneOrMany;
use crate::call::CallContext;
use crate::node_reading::read_node::NodeReading;
use crate::terminal::page::Page;
use crate::terminal::table::{cell, new_table};
use crate::tools::common_args::FleetArgs;
use crate::tools::gpu_section::{self, Column, GpuSection};
use crate::tools::one_or_many;
use crate::tools::tool::Tool;
use kube_read::Failure;
use syringe_macros::omit;

pub struct GetGpuInventory;

/// The part of the answer that only this tool has.
#[omit(Vec)]
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct InventorySection {
    /// The driver and the GPUs.
    pub inventory: Inventory,
    /// MIG devices of the GPUs with MIG on; only in the answer about one node.
    pub mig: Vec<MigLayout>,
}

/// The MIG devices of a GPU.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MigLayout {
    /// NVML index of the GPU.
    pub gpu: u32,
    /// The MIG devices, counted by profile: `2 x 3g.40gb`.
    pub devices: String,
}

impl GpuSection for InventorySection {
    const TOOL: &'static str = "get_gpu_inventory";
    const TITLE: &'static str = "GPU inventory";
    const DESCRIPTION: &'static str = "The GPUs of a node, or without node_name of all GPU nodes: model, UUID, serial, PCI address, VBIOS, driver, \
        CUDA, memory, MIG, ECC and persistence modes. Of many nodes: by model, with differences.";
    const SECTION: SectionName = SectionName::Inventory;
    type Facts = Inventory;
    type Gpu = GpuInventory;

    fn take(sections: &mut Sections) -> Option<Section<Inventory>> {
        sections.inventory.take()
    }

    fn new(inventory: Inventory) -> Self {
        Self { inventory, mig: Vec::new() }
    }

    fn gpus(&self) -> (&[GpuInventory], &[LostGpu]) {
        (&self.inventory.gpus, &self.inventory.lost)
    }

    fn identity(gpu: &GpuInventory) -> (u32, Option<&PciAddress>) {
        (gpu.index, gpu.pci_address.as_ref())
    }

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

    fn after_table(&self, page: &mut Page) {
        let mut rows = new_table(["gpu", "mig devices"]);
        for MigLayout { gpu, devices } in &self.mig {
            rows.add_row([gpu.to_string(), devices.clone()]);
        }
        page.push_table(rows);
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
        let mut command = ReadCommand::from(InventorySection::SECTION);
        // The answer about many nodes compares models and versions.
        command.sections.extend(args.node_name.as_ref().map(|_| SectionName::Mig));
        one_or_many::read(&call, args, Self::NAME, command, answer).await
    }

    fn page(answer: &Self::Answer) -> Page {
        match answer {
            OneOrMany::One(answer) => gpu_section::page(answer),
            OneOrMany::Many(answer) => fleet_answer::page(answer),
        }
    }
}

/// Returns the answer about a node that was read, with its MIG devices.
fn answer(mut read: NodeReading) -> Result<NodeAnswer<InventorySection>, Failure> {
    let mig = read.report.sections.mig.take().and_then(|section| section.data).unwrap_or_default();
    let mut answer = gpu_section::answer::<InventorySection>(read)?;
    let layout = |gpu: &GpuMig| Some(MigLayout { gpu: gpu.index, devices: gpu.layout()? });
    answer.section.mig = mig.gpus.iter().filter_map(layout).collect();
    Ok(answer)
}

fn on_off(mode: Option<bool>) -> String {
    cell(mode.map(|on| if on { "on" } else { "off" }))
}
