//! `EccSection`: description, facts and table columns of the tool `snapshot_ecc`: memory errors, remaps, retired pages.

use schemars::JsonSchema;
use serde::Serialize;
use syringe_core::facts::ecc::{Ecc, GpuEcc, RemappedRows};

use crate::answer::wire::variant_name::variant_name;
use crate::terminal::style::{Paint, paint};
use crate::terminal::table::cell;
use crate::tools::gpu_section::{Column, GpuSection, of_report};

/// The part of the answer that only this tool has.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct EccSection {
    /// Memory health of every GPU.
    pub ecc: Ecc,
}

impl GpuSection for EccSection {
    const TOOL: &'static str = "snapshot_ecc";
    const TITLE: &'static str = "GPU memory errors of a node";
    const DESCRIPTION: &'static str = "Memory errors and repairs of a node's GPUs: ECC errors since driver load and over the board's \
        lifetime, SRAM threshold, row remapping with spare rows left, retired pages, and the recovery action that the driver recommends.";
    of_report!(ecc: Ecc of GpuEcc);
    const COLUMNS: &'static [Column<GpuEcc>] = &[
        ("ecc", |gpu| cell(gpu.mode.map(|mode| if mode.current { "on" } else { "off" }))),
        ("corrected", |gpu| cell(gpu.volatile.corrected)),
        ("uncorrected", |gpu| cell(gpu.volatile.uncorrected)),
        ("lifetime corr.", |gpu| cell(gpu.aggregate.corrected)),
        ("lifetime uncorr.", |gpu| cell(gpu.aggregate.uncorrected)),
        ("rows remapped (corr. / uncorr.)", |gpu| {
            rows(gpu, |rows| format!("{} / {}", rows.correctable, rows.uncorrectable))
        }),
        ("pending", |gpu| rows(gpu, |rows| yes(rows.pending))),
        ("failed", |gpu| rows(gpu, |rows| yes(rows.failure_occurred))),
        ("driver recommends", |gpu| cell(gpu.recovery_action.map(|action| variant_name(action).replace('_', " ")))),
    ];
    const OPTIONAL: &'static [&'static str] =
        &["ecc", "lifetime corr.", "lifetime uncorr.", "rows remapped (corr. / uncorr.)"];
}

fn rows(gpu: &GpuEcc, read: fn(&RemappedRows) -> String) -> String {
    cell(gpu.remapped_rows.as_ref().map(read))
}

fn yes(flag: bool) -> String {
    if flag { paint("YES", Paint::Critical) } else { "no".to_owned() }
}
