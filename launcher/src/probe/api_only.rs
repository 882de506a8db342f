//! `report`: creates a report without a probe, whose sections are unknown. `refusal`: the failure if a probe is needed.

use jiff::Timestamp;
use syringe_core::report::{Problem, Report, SCHEMA_VERSION, Sections, Source};
use syringe_core::section_name::SectionName;

use kube_read::Failure;

/// Code of the problem in every section.
pub(crate) const CODE: &str = "no_probe";

/// Returns a report in which every section has this problem.
pub(crate) fn report(why: &str, next_step: &str, now: Timestamp) -> Report {
    let mut sections = Sections::default();
    for name in SectionName::ALL {
        sections.get_mut(name).fail(Problem {
            what: name.to_string(),
            why: why.to_owned(),
            next_step: next_step.to_owned(),
            code: CODE.to_owned(),
            gpu: None,
        });
    }
    Report { schema_version: SCHEMA_VERSION, source: Source::Api, taken_at: Some(now), sections, ..Report::default() }
}

/// Returns the failure of a call that needs a probe.
pub(super) fn refusal(node: &str) -> Failure {
    Failure::new(
        format!("Probing node {node}"),
        "gpu-syringe was started with --via none, which creates no probe",
        "Start gpu-syringe with another --via.",
    )
}
