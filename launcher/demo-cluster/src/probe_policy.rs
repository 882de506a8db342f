//! `check`: simulates the policy of `gpu-syringe setup --profile hardened`, which admits only the probe.
//! This code does not evaluate CEL, as `tests/policy.rs` does, but checks the fields that distinguish a probe from
//! other pods.

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use syringe_core::probe_command::NODE_PROBE;

use crate::api_error::ApiError;
use crate::cluster_state::ClusterState;

/// Name of the policy, without the suffix of a namespace.
const POLICY: &str = "gpu-syringe-probe-only";

/// Rejects a pod that the policy of its namespace does not admit.
pub(crate) fn check(state: &ClusterState, pod: &Pod, name: &str) -> Result<(), ApiError> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let (binding, parameter) = state.store(|store| {
        let binding = store.json.iter().find(|((plural, _, _), object)| {
            let selected = &object.value["spec"]["matchResources"]["namespaceSelector"]["matchLabels"];
            *plural == "validatingadmissionpolicybindings"
                && selected["kubernetes.io/metadata.name"] == namespace.as_str()
                && object.value["spec"]["policyName"].as_str().is_some_and(|policy| policy.starts_with(POLICY))
        });
        let binding = binding.map(|(_, object)| object.value.clone());
        let policy = binding.as_ref().and_then(|binding| binding["spec"]["policyName"].as_str()).unwrap_or_default();
        let policy = ("validatingadmissionpolicies", String::new(), policy.to_owned());
        // A binding without its policy has no effect.
        let binding = binding.filter(|_| store.json.contains_key(&policy));
        let parameter = ("configmaps", namespace.clone(), "gpu-syringe-policy".to_owned());
        (binding, store.json.get(&parameter).map(|object| object.value["data"].clone()))
    });
    let Some(binding) = binding else { return Ok(()) };
    let reason = match parameter {
        None => "no params found for policy binding with `Deny` parameterNotFoundAction",
        Some(data) => match rejection(pod, &data) {
            Some(reason) => reason,
            None => return Ok(()),
        },
    };
    let policy = binding["spec"]["policyName"].as_str().unwrap_or(POLICY);
    let bound = binding["metadata"]["name"].as_str().unwrap_or_default();
    let reason = format!("ValidatingAdmissionPolicy '{policy}' with binding '{bound}' denied request: {reason}");
    Err(ApiError::AdmissionDenied { resource: "pods", name: name.to_owned(), reason })
}

fn rejection(pod: &Pod, parameter: &Value) -> Option<&'static str> {
    let image = parameter["image"].as_str().unwrap_or_default();
    let container = pod.spec.as_ref().and_then(|spec| spec.containers.first())?;
    let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get("app.kubernetes.io/managed-by"));
    let command = container.command.as_ref().and_then(|command| command.first());
    let cases = [
        (
            !image.contains("@sha256:"),
            "no probe is admitted until ConfigMap gpu-syringe-policy of this namespace has the image in data.image: \
             REGISTRY/PATH@sha256:DIGEST",
        ),
        (
            label.is_none_or(|label| label != "gpu-syringe"),
            "only probe pods of gpu-syringe may be created in this namespace",
        ),
        (
            container.image.as_deref() != Some(image),
            "the image of a probe must be the one in data.image of ConfigMap gpu-syringe-policy, with the same registry and digest",
        ),
        (
            command.is_none_or(|command| command != NODE_PROBE),
            "a probe must run only node-probe, with arguments that the launcher sends",
        ),
    ];
    cases.into_iter().find(|(applies, _)| *applies).map(|(_, reason)| reason)
}
