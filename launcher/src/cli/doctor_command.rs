//! `gpu-syringe doctor`.

use super::output::Output;
use crate::doctor::{self, DoctorArgs};
use crate::error::Failure;
use crate::exit_status::Outcome;
use crate::kubernetes::Contexts;
use crate::probe::Prober;
use crate::settings::Settings;
use crate::text::page::Page;

/// Runs the command.
pub(super) async fn run(
    args: &DoctorArgs,
    output: Output,
    settings: &Settings,
    contexts: &Contexts,
    prober: &Prober,
) -> Result<Outcome, Failure> {
    let report = doctor::run(args, settings, contexts, prober).await;
    output.print(&report.json(), &report.names(), || Page::from(report.text()))?;
    Ok(report.outcome())
}
