//! `run`: runs the checks of `gpu-syringe doctor`, prints the report, and returns the outcome for the exit status.

use super::output::Output;
use crate::doctor::{self, DoctorArgs};
use crate::outcome::Outcome;
use crate::probe::Prober;
use crate::settings::Settings;
use kube_read::Contexts;
use kube_read::Failure;

pub(super) async fn run(
    args: &DoctorArgs,
    output: Output,
    settings: &Settings,
    contexts: &Contexts,
    prober: &Prober,
) -> Result<Outcome, Failure> {
    let report = doctor::run(args, settings, contexts, prober).await;
    let origin = settings.archive.as_ref().map(|archive| format!("\n{}\n", archive.line())).unwrap_or_default();
    output.print(&report.json(), &report.names(), || {
        let mut page = report.page();
        page.push_str(&origin);
        page
    })?;
    Ok(report.outcome())
}
