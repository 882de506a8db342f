//! Tests with reports of real GPUs (`tests/real`): an H200 in a virtual machine, driver 580.159.04, with identifiers
//! replaced. The second report was taken after six programs had caused faults.

use diagnosis::diagnose;
use diagnosis::finding::Verdict;
use syringe_core::classification::Severity;
use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::report::{Report, Section};

fn read(text: &str) -> Report {
    serde_json::from_str(text).expect("a report")
}

#[test]
fn an_idle_gpu_has_no_finding() {
    let report = read(include_str!("../real/h200-idle.json"));
    let processes = Section::data_of(&report.sections.processes).expect("processes");
    assert!(processes.processes.is_empty(), "the probe does not list its own process: {processes:?}");
    let diagnosis = diagnose(&report, &KubernetesFacts::default());
    // The machine has no kubelet.
    assert_eq!((diagnosis.verdict, diagnosis.findings), (Verdict::NoFaultFound, Vec::new()));
}

#[test]
fn faults_of_programs_are_one_finding_with_their_reasons() {
    let report = read(include_str!("../real/h200-after-program-faults.json"));
    let log = Section::data_of(&report.sections.xid).expect("a log");
    assert!(log.coverage.iter().all(|coverage| coverage.unread_lines == 0), "{:?}", log.coverage);
    let findings = diagnose(&report, &KubernetesFacts::default()).findings;
    let [finding] = findings.as_slice() else { panic!("{findings:?}") };
    assert_eq!((finding.id.as_str(), finding.severity), ("application-fault", Severity::Info));
    let evidence = finding.evidence.join("\n");
    for part in ["Xid 13 Misaligned Address; Out Of Range Address", "Xid 31 GRAPHICS", "Xid 43 (4)"] {
        assert!(evidence.contains(part), "{part}: {evidence}");
    }
}
