//! `snapshot_ecc`: memory errors, row remaps and retired pages of the GPUs of a node.

use schemars::JsonSchema;
use serde::Serialize;
use syringe_core::facts::ecc::{Ecc, RemappedRows};

use crate::answer::node::NodeAnswer;
use crate::call::CallContext;
use crate::node_reading::read_node;
use crate::text::node_answer::{foot, head, push_gpus};
use crate::text::page::Page;
use crate::text::style::{Paint, paint};
use crate::text::table::{cell, new_table, pci_cell};
use crate::tools::common_args::NodeArgs;
use crate::tools::tool::Tool;
use crate::variant_name::variant_name;
use kube_read::Failure;

/// The tool.
pub struct SnapshotEcc;

/// The section of this tool.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct EccSection {
    /// Memory health of every GPU.
    pub ecc: Ecc,
}

impl Tool for SnapshotEcc {
    const NAME: &'static str = "snapshot_ecc";
    const TITLE: &'static str = "GPU memory errors of a node";
    const DESCRIPTION: &'static str = "Memory errors and repairs of a node's GPUs: ECC errors since driver load and over the board's \
        lifetime, SRAM threshold, row remapping with spare rows left, retired pages, and the recovery action that the driver recommends.";
    const PROBES: bool = true;
    type Args = NodeArgs;
    type Answer = NodeAnswer<EccSection>;

    async fn call(call: CallContext, args: NodeArgs) -> Result<Self::Answer, Failure> {
        let NodeArgs { node_name, context } = args;
        let read = read_node::read(&call, context.as_deref(), &node_name, Self::NAME, vec!["ecc".into()]).await?;
        let ecc = read_node::section(&read.note, "ecc", read.report.sections.ecc)?;
        Ok(NodeAnswer::new(read.diagnosis, EccSection { ecc }, read.note))
    }

    fn page(answer: &Self::Answer) -> Page {
        let rows = new_table([
            "gpu",
            "pci address",
            "ecc",
            "corrected",
            "uncorrected",
            "lifetime corr.",
            "lifetime uncorr.",
            "rows remapped (corr. / uncorr.)",
            "pending",
            "failed",
            "driver recommends",
        ])
        .optional(&["ecc", "lifetime corr.", "lifetime uncorr.", "rows remapped (corr. / uncorr.)"]);
        let Ecc { gpus, lost, .. } = &answer.section.ecc;
        let mut answering = Vec::new();
        for gpu in gpus {
            let rows_of = |read: fn(&RemappedRows) -> String| cell(gpu.remapped_rows.as_ref().map(read));
            let yes = |flag: bool| if flag { paint("YES", Paint::Critical) } else { "no".to_owned() };
            let cells = [
                gpu.index.to_string(),
                pci_cell(gpu.pci_address.as_ref()),
                cell(gpu.mode.map(|mode| if mode.current { "on" } else { "off" })),
                cell(gpu.volatile.corrected),
                cell(gpu.volatile.uncorrected),
                cell(gpu.aggregate.corrected),
                cell(gpu.aggregate.uncorrected),
                rows_of(|rows| format!("{} / {}", rows.correctable, rows.uncorrectable)),
                gpu.remapped_rows.as_ref().map_or_else(|| "-".into(), |rows| yes(rows.pending)),
                gpu.remapped_rows.as_ref().map_or_else(|| "-".into(), |rows| yes(rows.failure_occurred)),
                cell(gpu.recovery_action.map(|action| variant_name(action).replace('_', " "))),
            ];
            answering.push((gpu.index, cells));
        }
        let mut page = head(answer);
        push_gpus(&mut page, rows, answering, lost);
        page.push_str(&foot(&answer.probe));
        page
    }
}
