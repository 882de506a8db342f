//! `documents`, `shipped`, `with_values`, `usual`: read the files of `deploy/` and create the shipped `Policies`.

use std::path::Path;

use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use serde_json::{Value, json};

use crate::admission::Policies;

pub(crate) const NAMESPACE: &str = "gpu-syringe";
/// The image that the policy admits in these tests.
pub(crate) const IMAGE: &str =
    "registry.test/gpu/node-probe@sha256:1111111111111111111111111111111111111111111111111111111111111111";

/// Returns the documents in a file of `deploy/`.
pub(crate) fn documents(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn of_kind<T: serde::de::DeserializeOwned>(documents: &[Value], kind: &str) -> Vec<T> {
    let found = documents.iter().filter(|document| document["kind"] == kind).cloned();
    found.map(|document| serde_json::from_value(document).unwrap()).collect()
}

/// Returns the shipped policies, which contain no image.
pub(crate) fn shipped() -> Policies {
    with_variables(&json!({}))
}

/// Returns the shipped policies with an image, and with these values of other variables.
pub(crate) fn with_values(more: &Value) -> Policies {
    let mut values = json!({"image": IMAGE});
    crate::cases::merge(&mut values, more);
    with_variables(&values)
}

/// Returns the shipped policies with only an image.
pub(crate) fn usual() -> Policies {
    with_values(&json!({}))
}

fn with_variables(values: &Value) -> Policies {
    let documents = documents("admission-policy.yaml");
    let mut policies = of_kind::<ValidatingAdmissionPolicy>(&documents, "ValidatingAdmissionPolicy");
    let bindings = of_kind::<ValidatingAdmissionPolicyBinding>(&documents, "ValidatingAdmissionPolicyBinding");
    assert_eq!((policies.len(), bindings.len()), (3, 3));
    let variables = policies[0].spec.as_mut().unwrap().variables.as_mut().unwrap();
    for (name, value) in values.as_object().unwrap() {
        let variable = variables.iter_mut().find(|one| one.name == *name).unwrap_or_else(|| panic!("no {name}"));
        variable.expression = value.to_string();
    }
    Policies::new(policies, bindings)
}
