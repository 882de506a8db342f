//! Tests of the Roles in `deploy/rbac.yaml`: the permissions of a reader, and the users who may act.

use serde_json::{Value, json};

use crate::manifests::documents;

fn named(documents: &[Value], kind: &str, name: &str) -> Value {
    let found = |document: &&Value| document["kind"] == kind && document["metadata"]["name"] == name;
    documents.iter().find(found).unwrap_or_else(|| panic!("no {kind} {name}")).clone()
}

/// Returns the permissions of a Role or ClusterRole: `verb resource`.
fn granted(role: &Value) -> Vec<String> {
    let words = |value: &Value| {
        value.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let rule = |rule: &Value| {
        let (resources, verbs) = (words(&rule["resources"]), words(&rule["verbs"]));
        resources.into_iter().flat_map(move |one| verbs.clone().into_iter().map(move |verb| format!("{verb} {one}")))
    };
    role["rules"].as_array().unwrap().iter().flat_map(rule).collect()
}

#[test]
fn a_reader_may_neither_act_nor_change_a_pod_nor_the_policy() {
    let documents = documents("rbac.yaml");
    let reader = granted(&named(&documents, "Role", "gpu-syringe-reader"));
    let expected =
        ["create pods", "get pods", "list pods", "delete pods", "get pods/exec", "create pods/exec", "get pods/log"];
    assert_eq!(reader, expected);
    let cluster = granted(&named(&documents, "ClusterRole", "gpu-syringe-read"));
    assert!(cluster.iter().all(|grant| grant.starts_with("get ") || grant.starts_with("list ")), "{cluster:?}");
    assert!(!cluster.iter().any(|grant| grant.contains("secrets") || grant.contains("proxy")), "{cluster:?}");
}

#[test]
fn only_operators_may_act_and_nobody_gets_ephemeral_containers() {
    let documents = documents("rbac.yaml");
    let operator = named(&documents, "Role", "gpu-syringe-operator");
    assert_eq!(
        operator["rules"],
        json!([{"apiGroups": ["gpu-syringe.dev"], "resources": ["actions"], "verbs": ["create"]}])
    );
    let bindings = documents.iter().filter(|document| document["roleRef"].is_object());
    let bound = |role: &str| -> Vec<String> {
        let of_role = bindings.clone().filter(|binding| binding["roleRef"]["name"] == role);
        let subjects = of_role.flat_map(|binding| binding["subjects"].as_array().unwrap().clone());
        subjects.map(|subject| subject["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(bound("gpu-syringe-operator"), ["gpu-operators"]);
    assert_eq!(bound("gpu-syringe-reader"), ["gpu-readers", "gpu-operators"]);
    assert_eq!(bound("gpu-syringe-ephemeral"), Vec::<String>::new());
}
