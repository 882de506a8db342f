//! `GpuSection`, `SectionTool`: the tools that show one section of the report as a table with a row for each GPU.
//! `answer`, `page`: read the section, and format the answer as text for a terminal.

use std::marker::PhantomData;

use schemars::JsonSchema;
use serde::Serialize;
use syringe_core::facts::LostGpu;
use syringe_core::pci::PciAddress;
use syringe_core::report::{Section, Sections};
use syringe_core::section_name::SectionName;

use crate::answer::node::NodeAnswer;
use crate::answer::node_page::{foot, head, push_gpus};
use crate::call::CallContext;
use crate::node_reading::read_node::{self, NodeReading};
use crate::terminal::page::Page;
use crate::terminal::table::{new_table, pci_cell};
use crate::tools::common_args::NodeArgs;
use crate::tools::tool::Tool;
use kube_read::Failure;

/// The header of a column, and the function that returns the cell of a GPU.
pub(super) type Column<G> = (&'static str, fn(&G) -> String);

/// A section of the report and its table.
pub trait GpuSection: Serialize + JsonSchema + Send + Sized + 'static {
    const TOOL: &'static str;
    const TITLE: &'static str;
    const DESCRIPTION: &'static str;
    /// The section of the report.
    const SECTION: SectionName;
    /// The facts of the section.
    type Facts: Default;
    /// The facts of one GPU.
    type Gpu: 'static;
    /// The columns after the index and the PCI address. The last column shows the state of a GPU that does not respond.
    const COLUMNS: &'static [Column<Self::Gpu>];
    /// The columns that are left out on a narrow terminal, in the order in which they are left out.
    const OPTIONAL: &'static [&'static str] = &[];

    /// Takes the section out of the report.
    fn take(sections: &mut Sections) -> Option<Section<Self::Facts>>;
    /// Creates the section of the answer.
    fn new(facts: Self::Facts) -> Self;
    /// Returns the GPUs that respond, and the GPUs that do not.
    fn gpus(&self) -> (&[Self::Gpu], &[LostGpu]);
    /// Returns the NVML index and the PCI address of a GPU.
    fn identity(gpu: &Self::Gpu) -> (u32, Option<&PciAddress>);
    /// Returns the text before the table.
    fn before_table(&self) -> String {
        String::new()
    }
    /// Adds tables and text after the table.
    fn after_table(&self, _page: &mut Page) {}
}

/// The parts of a [`GpuSection`] that can be generated from the name of the report's field. The answer has a field of
/// the same name.
macro_rules! of_report {
    ($field:ident: $facts:ident of $gpu:ident) => {
        const SECTION: syringe_core::section_name::SectionName = syringe_core::section_name::SectionName::$facts;
        type Facts = $facts;
        type Gpu = $gpu;

        fn take(sections: &mut syringe_core::report::Sections) -> Option<syringe_core::report::Section<$facts>> {
            sections.$field.take()
        }

        fn new($field: $facts) -> Self {
            Self { $field }
        }

        fn gpus(&self) -> (&[$gpu], &[syringe_core::facts::LostGpu]) {
            (&self.$field.gpus, &self.$field.lost)
        }

        fn identity(gpu: &$gpu) -> (u32, Option<&syringe_core::pci::PciAddress>) {
            (gpu.index, gpu.pci_address.as_ref())
        }
    };
}
pub(super) use of_report;

/// Returns the answer about a node that was read.
pub(super) fn answer<S: GpuSection>(mut read: NodeReading) -> Result<NodeAnswer<S>, Failure> {
    let facts = read_node::section(&read.note, S::SECTION, S::take(&mut read.report.sections))?;
    Ok(NodeAnswer::new(read.diagnosis, S::new(facts), read.note))
}

pub(super) fn page<S: GpuSection>(answer: &NodeAnswer<S>) -> Page {
    let section = &answer.section;
    let heads = ["gpu", "pci address"].into_iter().chain(S::COLUMNS.iter().map(|(head, _)| *head));
    let (gpus, lost) = section.gpus();
    let row = |gpu: &S::Gpu| {
        let (index, address) = S::identity(gpu);
        let cells = S::COLUMNS.iter().map(|(_, cell)| cell(gpu));
        (index, [index.to_string(), pci_cell(address)].into_iter().chain(cells).collect())
    };
    let mut page = head(answer);
    page.push_str(&section.before_table());
    push_gpus(&mut page, new_table(heads).optional(S::OPTIONAL), gpus.iter().map(row).collect(), lost);
    section.after_table(&mut page);
    page.push_str(&foot(&answer.probe));
    page
}

/// The tool that shows one section.
pub struct SectionTool<S>(PhantomData<S>);

impl<S: GpuSection + Sync> Tool for SectionTool<S> {
    const NAME: &'static str = S::TOOL;
    const TITLE: &'static str = S::TITLE;
    const DESCRIPTION: &'static str = S::DESCRIPTION;
    const PROBES: bool = true;
    type Args = NodeArgs;
    type Answer = NodeAnswer<S>;

    async fn call(call: CallContext, args: NodeArgs) -> Result<Self::Answer, Failure> {
        let NodeArgs { node_name, context } = args;
        answer(read_node::read(&call, context.as_deref(), &node_name, S::TOOL, S::SECTION).await?)
    }

    fn page(answer: &Self::Answer) -> Page {
        page(answer)
    }
}
