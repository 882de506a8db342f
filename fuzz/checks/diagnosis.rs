//! The body of the fuzz target `report`: checks that any report can be read and diagnosed.
//!
//! The tests of the crate run the body on the committed inputs.

use serde_json::Value;
use syringe_core::facts::kubernetes::KubernetesFacts;
use syringe_core::report::{Report, Section};

use crate::{Verdict, diagnose};
use common::{assert_clean, in_time};

#[path = "common.rs"]
mod common;

/// Maximum size of a diagnosis in bytes, in addition to the size of the report.
const MAX_DIAGNOSIS: usize = 4 << 20;

fn without_texts(value: Value) -> Value {
    match value {
        Value::String(_) => Value::Null,
        Value::Array(list) => list.into_iter().map(without_texts).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, without_texts(value))).collect(),
        other => other,
    }
}

/// Fuzz target `report`. `data` is a document that a node printed.
pub fn report(data: &[u8]) {
    let Ok(report) = in_time(|| Report::from_node(data)) else { return };
    let value = serde_json::to_value(&report).expect("a report is JSON");
    assert_clean(&value);
    let document = serde_json::to_vec(&report).expect("a report is JSON");
    for cut in [document.len() / 3, document.len() - 1] {
        assert!(Report::from_node(&document[..cut]).is_err(), "a truncated document was read");
    }
    let again = Report::from_node(&document).expect("a written report can be read");
    // Texts are not compared, because cleaning is not idempotent: the replacement of a secret joins the texts before
    // and after the secret.
    let again = without_texts(serde_json::to_value(&again).expect("a report is JSON"));
    assert_eq!(again, without_texts(value), "reading the written document gives a different report");
    let kubernetes = KubernetesFacts::default();
    let diagnosis = in_time(|| diagnose(&report, &kubernetes));
    let text = serde_json::to_vec(&diagnosis).expect("a diagnosis is JSON");
    assert!(text.len() <= MAX_DIAGNOSIS + 16 * document.len(), "a diagnosis of {} bytes", text.len());
    if diagnosis.verdict == Verdict::Healthy {
        healthy(report);
    }
}

/// Asserts that a healthy report no longer has the verdict `healthy` if one of the deciding sections is missing.
fn healthy(report: Report) {
    assert!(Section::data_of(&report.sections.inventory).is_some_and(|inventory| !inventory.gpus.is_empty()));
    let kubernetes = KubernetesFacts::default();
    for section in diagnose(&report, &kubernetes).checked {
        let mut value = serde_json::to_value(&report).expect("a report is JSON");
        value["sections"].as_object_mut().expect("sections").shift_remove(section.as_str());
        let less = Report::from_node(value.to_string().as_bytes()).expect("a report");
        assert_ne!(diagnose(&less, &kubernetes).verdict, Verdict::Healthy, "healthy without {section}");
    }
}

#[cfg(test)]
#[path = "../committed_inputs.rs"]
mod committed_inputs;

#[cfg(test)]
mod tests {
    #[test]
    fn reports_of_the_corpus_keep_the_properties() {
        super::committed_inputs::run("report", super::report);
    }
}
