//! Tests that missing data from Kubernetes is listed in the diagnosis, and that a verdict does not improve without this
//! data, unless the summary reports the missing data.

use diagnosis::diagnose;
use diagnosis::finding::Verdict;
use syringe_core::facts::kubernetes::node::{KubernetesFacts, KubernetesInput};

use super::scenarios;

const WHY: &str = "the API server answered 503";

/// Returns the position of a verdict in the order from best to worst.
fn rank(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Healthy => 0,
        Verdict::NoFaultFound => 1,
        Verdict::Unknown => 2,
        Verdict::Warning => 3,
        Verdict::Critical => 4,
        Verdict::Fatal => 5,
    }
}

fn without(cluster: &KubernetesFacts, input: KubernetesInput) -> KubernetesFacts {
    let mut cluster = cluster.clone();
    cluster.forget(input, WHY.to_owned());
    cluster
}

#[test]
fn no_verdict_is_better_without_an_input_and_the_input_is_named() {
    let mut wrong = Vec::new();
    let mut lost = 0;
    for (name, (report, expected)) in scenarios() {
        let whole = diagnose(&report, &expected.cluster);
        for input in KubernetesInput::ALL {
            let part = diagnose(&report, &without(&expected.cluster, input));
            lost += usize::from(whole.findings.len() > part.findings.len());
            let named = part.unknown.iter().any(|one| one.section == input.section() && one.why.contains(WHY));
            // If an input is missing, the verdict must not be better. Exceptions: the verdict is `unknown`, or the
            // summary reports what was not read.
            let admits = part.verdict == Verdict::Unknown || part.summary.contains("Not read in Kubernetes");
            let better = rank(part.verdict) < rank(whole.verdict) && !admits;
            if better || !named || rank(part.verdict) < rank(Verdict::Unknown) {
                wrong.push(format!("{name} without {input:?}: {:?}, with it {:?}", part.verdict, whole.verdict));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(lost >= 8, "only {lost} cases lose a finding: too few for this test");
}
