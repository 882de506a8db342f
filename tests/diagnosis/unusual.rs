//! Test that 60 healthy but unusual nodes are diagnosed as healthy, without findings above `info`.

use ::scenarios::unusual::unusual_nodes;
use diagnosis::diagnose;
use diagnosis::finding::Verdict;
use syringe_core::classification::Severity;

use super::replayed;

#[test]
fn unusual_healthy_nodes_have_no_findings_above_info() {
    let mut failed = Vec::new();
    for node in unusual_nodes() {
        let (report, cluster) = node.read();
        let diagnosis = diagnose(&replayed(report), &cluster);
        let findings = diagnosis.findings.iter().filter(|finding| finding.severity > Severity::Info);
        let findings: Vec<String> = findings
            .map(|finding| {
                let (severity, gpu) = (finding.severity, finding.scope.gpu);
                format!("    {severity:?} {} GPU {gpu:?}: {}", finding.id, finding.evidence.join(" | "))
            })
            .collect();
        if diagnosis.verdict == Verdict::Healthy && findings.is_empty() {
            continue;
        }
        let mut lines = vec![format!("{}: verdict {:?}. {}", node.name, diagnosis.verdict, node.why)];
        lines.extend(findings);
        if diagnosis.verdict != Verdict::Healthy {
            let unknown = diagnosis.unknown.iter().map(|one| format!("    unknown: {one:?}"));
            lines.extend(unknown);
            lines.push(format!("    summary: {}", diagnosis.summary));
        }
        failed.push(lines.join("\n"));
    }
    let count = unusual_nodes().len();
    assert!(failed.is_empty(), "{} of {count} healthy nodes failed:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn unusual_nodes_have_different_names() {
    let mut names: Vec<&str> = unusual_nodes().iter().map(|node| node.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), unusual_nodes().len());
    assert!(names.len() >= 60, "{} nodes", names.len());
}
