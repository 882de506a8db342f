//! Reads the files of `deploy/`, and creates the shipped `Policies` with different parameters.

use std::path::Path;

use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use serde_json::{Value, json};

use crate::admission::Policies;

pub(crate) const NAMESPACE: &str = "gpu-syringe";
/// The image in the parameter in these tests.
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

/// Returns the shipped policies with the shipped parameter.
pub(crate) fn shipped() -> Policies {
    let documents = documents("admission-policy.yaml");
    let policies = of_kind::<ValidatingAdmissionPolicy>(&documents, "ValidatingAdmissionPolicy");
    let bindings = of_kind::<ValidatingAdmissionPolicyBinding>(&documents, "ValidatingAdmissionPolicyBinding");
    assert_eq!((policies.len(), bindings.len()), (3, 3));
    let mut policies = Policies::new(policies, bindings);
    for parameter in crate::manifests::documents("policy-parameters.yaml") {
        let key = |name: &str| parameter["metadata"][name].as_str().unwrap().to_owned();
        policies.config_maps.insert((key("namespace"), key("name")), parameter);
    }
    policies
}

/// Returns the shipped policies with an image and the fields of `more` in the parameter.
pub(crate) fn with_parameter(more: &Value) -> Policies {
    let mut policies = shipped();
    let parameter = policies.config_maps.values_mut().next().unwrap();
    parameter["data"]["image"] = IMAGE.into();
    crate::cases::merge(&mut parameter["data"], more);
    policies
}

/// Returns the shipped policies with only an image in the parameter.
pub(crate) fn usual() -> Policies {
    with_parameter(&json!({}))
}
