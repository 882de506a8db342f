//! `check`, `check_connection`: simulate the admission policies of `gpu-syringe setup --profile hardened`.
//! This code does not evaluate CEL (`tests/policy.rs` does). It compares the fields that distinguish a probe from other
//! pods, and the commands of an exec.

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use syringe_core::probe_command::NODE_PROBE;

use crate::api_error::ApiError;
use crate::cluster_state::ClusterState;
use crate::query::Query;
use crate::request_info::RequestInfo;

/// Names of the policies, without the suffix for the namespace.
const PROBE_ONLY: &str = "gpu-syringe-probe-only";
const EXEC_ONLY: &str = "gpu-syringe-exec-only";
const NOTHING_ELSE: &str = "gpu-syringe-nothing-else";

/// A policy that is bound to a namespace.
struct Bound {
    policy: Value,
    binding: String,
}

impl Bound {
    /// Returns the policy with this name that applies to a namespace. A binding without its policy has no effect.
    fn find(state: &ClusterState, policy: &str, namespace: &str) -> Option<Self> {
        state.store(|store| {
            let mut bindings = store.json.iter().filter(|((plural, _, _), object)| {
                let selected = &object.value["spec"]["matchResources"]["namespaceSelector"]["matchLabels"];
                *plural == "validatingadmissionpolicybindings"
                    && selected["kubernetes.io/metadata.name"] == namespace
                    && object.value["spec"]["policyName"].as_str().is_some_and(|name| name.starts_with(policy))
            });
            let (_, binding) = bindings.next()?;
            let name = binding.value["spec"]["policyName"].as_str()?.to_owned();
            let policy = store.json.get(&("validatingadmissionpolicies", String::new(), name))?.value.clone();
            Some(Self { policy, binding: binding.value["metadata"]["name"].as_str().unwrap_or_default().to_owned() })
        })
    }

    fn denied(&self, pod: &str, reason: &str) -> ApiError {
        let (policy, binding) = (self.policy["metadata"]["name"].as_str().unwrap_or_default(), &self.binding);
        let reason = format!("ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request: {reason}");
        ApiError::AdmissionDenied { resource: "pods", name: pod.to_owned(), reason }
    }

    /// Returns the image from the variable `image` of the policy. The expression of this variable is a string literal
    /// in JSON syntax.
    fn image(&self) -> String {
        let variables = self.policy["spec"]["variables"].as_array().into_iter().flatten();
        let image = variables.filter(|one| one["name"] == "image").find_map(|one| one["expression"].as_str());
        image.and_then(|literal| serde_json::from_str(literal).ok()).unwrap_or_default()
    }
}

/// Rejects a pod that the policy of its namespace does not admit.
pub(crate) fn check(state: &ClusterState, pod: &Pod, name: &str) -> Result<(), ApiError> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let Some(bound) = Bound::find(state, PROBE_ONLY, &namespace) else { return Ok(()) };
    match rejection(pod, &bound.image()) {
        Some(reason) => Err(bound.denied(name, &reason)),
        None => Ok(()),
    }
}

/// Rejects a connection to a pod that the policies of its namespace do not admit. An API server
/// calls admission before it checks whether the pod exists, so the pod may not exist.
pub(crate) fn check_connection(state: &ClusterState, info: &RequestInfo, query: &Query) -> Result<(), ApiError> {
    let namespace = info.namespace.clone().unwrap_or_default();
    let subresource = info.subresource.as_deref().unwrap_or_default();
    let (policy, reason) = match subresource {
        "exec" if query.all("command").first().is_none_or(|command| command != NODE_PROBE) => {
            (EXEC_ONLY, "exec may run only node-probe, with arguments that the launcher sends")
        }
        "attach" => (NOTHING_ELSE, "attach to a probe pod is not allowed"),
        _ => return Ok(()),
    };
    match Bound::find(state, policy, &namespace) {
        Some(bound) => Err(bound.denied(info.name.as_deref().unwrap_or_default(), reason)),
        None => Ok(()),
    }
}

fn rejection(pod: &Pod, image: &str) -> Option<String> {
    const POLICY: &str = "ValidatingAdmissionPolicy gpu-syringe-probe-only";
    let container = pod.spec.as_ref().and_then(|spec| spec.containers.first())?;
    let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get("app.kubernetes.io/managed-by"));
    let command = container.command.as_ref().and_then(|command| command.first());
    let cases = [
        (
            !image.contains("@sha256:"),
            format!("no probe is admitted until variable image of {POLICY} is REGISTRY/PATH@sha256:DIGEST"),
        ),
        (
            label.is_none_or(|label| label != "gpu-syringe"),
            format!("only probe pods of gpu-syringe may be created in this namespace, with image {image}"),
        ),
        (
            container.image.as_deref() != Some(image),
            format!(
                "the image of a probe must be the one in variable image of {POLICY}, with the same registry and digest"
            ),
        ),
        (
            command.is_none_or(|command| command != NODE_PROBE),
            "a probe must run only node-probe, with arguments that the launcher sends".to_owned(),
        ),
    ];
    cases.into_iter().find(|(applies, _)| *applies).map(|(_, reason)| reason)
}
