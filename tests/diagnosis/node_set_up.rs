//! Tests of properties that all rules about the container runtime, CDI and the driver load must have.

use diagnosis::diagnose;
use syringe_core::report::{Extent, Report, ReportScope, Section};

use super::scenarios;

/// Returns whether a finding is about how containers get their GPUs.
fn is_of_containers(id: &str) -> bool {
    (id.starts_with("runtime-") && id != "runtime-restarted") || id.starts_with("cdi-")
}

fn host(report: &mut Report) -> &mut syringe_core::facts::host::Host {
    report.sections.host.as_mut().and_then(|section| section.data.as_mut()).expect("the section")
}

/// Files of a container are not files of the node, regardless of their content.
#[test]
fn a_probe_in_a_container_says_nothing_of_the_nodes_runtime() {
    let mut seen = 0;
    for (name, (report, expected)) in scenarios() {
        let ids = |report: &Report| -> Vec<String> {
            let findings = diagnose(report, &expected.cluster).findings;
            findings.into_iter().map(|finding| finding.id).filter(|id| is_of_containers(id)).collect()
        };
        seen += usize::from(!ids(&report).is_empty());
        let inside = |scope| Report { scope: Some(scope), ..report.clone() };
        for scope in [
            ReportScope { files: Extent::Container, ..ReportScope::default() },
            ReportScope { files: Extent::Unknown, ..ReportScope::default() },
            ReportScope { gpus: Extent::Container, ..ReportScope::default() },
        ] {
            assert_eq!(ids(&inside(scope)), Vec::<String>::new(), "{name} {scope:?}");
        }
    }
    assert!(seen >= 12, "{seen} scenarios have such a finding");
}

/// The rules draw no conclusion from an incomplete list, or from files that were not read.
#[test]
fn what_was_not_read_is_no_reason() {
    for (name, (mut report, expected)) in scenarios() {
        if Section::data_of(&report.sections.host).is_none_or(|host| host.container_runtime.is_none()) {
            continue;
        }
        let runtime = host(&mut report).container_runtime.as_mut().expect("a runtime");
        runtime.complete = false;
        runtime.handlers.iter_mut().for_each(|handler| handler.binary_exists = None);
        (runtime.config_changed_at, runtime.toolkit) = (None, None);
        host(&mut report).cdi = None;
        let findings = diagnose(&report, &expected.cluster).findings;
        let left: Vec<String> =
            findings.into_iter().map(|finding| finding.id).filter(|id| is_of_containers(id)).collect();
        assert_eq!(left, Vec::<String>::new(), "{name}");
    }
}

/// A reason replaces the finding that it explains, and there is only one reason.
#[test]
fn an_absent_driver_has_one_finding() {
    const ABSENT: [&str; 5] = [
        "driver-not-loaded",
        "driver-wrong-kernel-module-type",
        "driver-refused-by-secure-boot",
        "driver-refused-by-selinux",
        "driver-not-built-for-kernel",
    ];
    let mut seen = 0;
    for (name, (mut report, expected)) in scenarios() {
        let findings = diagnose(&report, &expected.cluster).findings;
        let of_driver = findings.iter().filter(|finding| ABSENT.contains(&finding.id.as_str())).count();
        assert!(of_driver <= 1, "{name}");
        let is_reason = |id: &str| ABSENT[2..].contains(&id);
        if !findings.iter().any(|finding| is_reason(&finding.id)) {
            continue;
        }
        seen += 1;
        // If the driver is loaded, there is no reason why it is not loaded.
        host(&mut report).driver.loaded = Some("580.95.05".to_owned());
        let why = diagnose(&report, &expected.cluster).findings;
        assert!(!why.iter().any(|finding| is_reason(&finding.id) && !told_not_loaded(&report)), "{name}");
    }
    assert!(seen >= 5, "{seen} scenarios have a reason");
}

/// Returns whether NVML reported that the driver is not loaded.
fn told_not_loaded(report: &Report) -> bool {
    let problems = report.sections.problems();
    problems.iter().any(|(_, problem)| problem.code == "driver_not_loaded")
}
