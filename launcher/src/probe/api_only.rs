//! The report of a node without a probe: every section is unknown, with the reason.

use syringe_core::report::{Problem, Report, SCHEMA_VERSION, Section, Sections, Source};

use kube_read::Failure;

/// Code of the problem that every section has.
pub(crate) const CODE: &str = "no_probe";

/// A report whose sections all have this problem.
pub(crate) fn report(why: &str, next_step: &str) -> Report {
    fn failed<T>(what: &str, why: &str, next_step: &str) -> Option<Section<T>> {
        Some(Section::failed(Problem {
            what: what.to_owned(),
            why: why.to_owned(),
            next_step: next_step.to_owned(),
            code: CODE.to_owned(),
            gpu: None,
        }))
    }
    let sections = Sections {
        inventory: failed("inventory", why, next_step),
        telemetry: failed("telemetry", why, next_step),
        topology: failed("topology", why, next_step),
        ecc: failed("ecc", why, next_step),
        processes: failed("processes", why, next_step),
        mig: failed("mig", why, next_step),
        kubelet: failed("kubelet", why, next_step),
        host: failed("host", why, next_step),
        xid: failed("xid", why, next_step),
    };
    Report {
        schema_version: SCHEMA_VERSION,
        source: Source::Api,
        taken_at: Some(jiff::Timestamp::now()),
        sections,
        ..Report::default()
    }
}

/// The failure of a call that needs a probe.
pub(super) fn refusal(node: &str) -> Failure {
    Failure::new(
        format!("Probing node {node}"),
        "gpu-syringe was started with --via none, which creates no probe",
        "Start gpu-syringe with another --via.",
    )
}
