//! `validate`, `set_defaults`, `check_pod_security`: functions that check and complete a new pod before it is stored.
//! They contain only the checks of Kubernetes that a probe pod can fail.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Namespace, Pod, PodSpec, PodStatus};

use crate::api_error::{ApiError, Cause};
use crate::cluster_state::ClusterState;
use crate::generated_metadata;

/// The message of the API server for an invalid name.
const SUBDOMAIN_MESSAGE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
     and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
pub(crate) fn validate(pod: &Pod, name: &str) -> Result<(), ApiError> {
    let mut causes = Vec::new();
    let mut invalid = |reason, field: &str, message: String| {
        causes.push(Cause { reason, field: field.to_owned(), message });
    };
    if !generated_metadata::is_subdomain(name) {
        invalid("FieldValueInvalid", "metadata.name", format!("Invalid value: \"{name}\": {SUBDOMAIN_MESSAGE}"));
    }
    let containers = pod.spec.as_ref().map_or(&[][..], |spec| &spec.containers);
    if containers.is_empty() {
        invalid("FieldValueRequired", "spec.containers", "Required value".to_owned());
    }
    let mut seen = BTreeSet::new();
    for (at, container) in containers.iter().enumerate() {
        if container.image.as_ref().is_none_or(String::is_empty) {
            invalid("FieldValueRequired", &format!("spec.containers[{at}].image"), "Required value".to_owned());
        }
        if !seen.insert(&container.name) {
            let message = format!("Duplicate value: \"{}\"", container.name);
            invalid("FieldValueDuplicate", &format!("spec.containers[{at}].name"), message);
        }
    }
    if let Some(seconds) = pod.spec.as_ref().and_then(|spec| spec.active_deadline_seconds)
        && seconds < 1
    {
        let message = format!("Invalid value: {seconds}: must be between 1 and 2147483647, inclusive");
        invalid("FieldValueInvalid", "spec.activeDeadlineSeconds", message);
    }
    if causes.is_empty() {
        return Ok(());
    }
    Err(ApiError::Invalid { kind: "Pod", name: name.to_owned(), causes })
}

/// Sets the defaults of a new pod.
pub(crate) fn set_defaults(pod: &mut Pod) {
    let spec = pod.spec.get_or_insert_with(PodSpec::default);
    let text = |field: &mut Option<String>, value: &str| {
        field.get_or_insert_with(|| value.to_owned());
    };
    text(&mut spec.restart_policy, "Always");
    text(&mut spec.dns_policy, "ClusterFirst");
    text(&mut spec.scheduler_name, "default-scheduler");
    text(&mut spec.service_account_name, "default");
    spec.service_account = spec.service_account_name.clone();
    spec.termination_grace_period_seconds.get_or_insert(30);
    spec.enable_service_links.get_or_insert(true);
    spec.priority.get_or_insert(0);
    text(&mut spec.preemption_policy, "PreemptLowerPriority");
    spec.security_context.get_or_insert_default();
    for container in &mut spec.containers {
        let latest = container.image.as_deref().is_some_and(|image| image.ends_with(":latest"));
        text(&mut container.image_pull_policy, if latest { "Always" } else { "IfNotPresent" });
        text(&mut container.termination_message_path, "/dev/termination-log");
        text(&mut container.termination_message_policy, "File");
        container.resources.get_or_insert_default();
    }
    pod.status = Some(PodStatus {
        phase: Some("Pending".to_owned()),
        qos_class: Some(qos_class(pod.spec.as_ref()).to_owned()),
        ..PodStatus::default()
    });
}

fn qos_class(spec: Option<&PodSpec>) -> &'static str {
    let has_resources = |container: &Container| {
        container.resources.as_ref().is_some_and(|all| all.limits.is_some() || all.requests.is_some())
    };
    if spec.is_some_and(|spec| spec.containers.iter().any(has_resources)) { "Burstable" } else { "BestEffort" }
}

/// Returns the Pod Security level that a namespace enforces; `None` for `privileged`.
fn enforced_level(state: &ClusterState, namespace: &str) -> Option<String> {
    let namespace = state.get::<Namespace>(&(String::new(), namespace.to_owned()));
    let level = namespace
        .and_then(|namespace| namespace.metadata.labels.as_ref()?.get("pod-security.kubernetes.io/enforce").cloned());
    level.filter(|level| level != "privileged").or_else(|| state.injector.pod_security_level())
}

/// Checks that a pod meets the Pod Security level of its namespace. Only the rules of `baseline`, which `restricted`
/// includes, are checked.
pub(crate) fn check_pod_security(state: &ClusterState, pod: &Pod, name: &str) -> Result<(), ApiError> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let Some(level) = enforced_level(state, namespace) else { return Ok(()) };
    let mut violations = Vec::new();
    let namespaces = [("hostNetwork", spec.host_network), ("hostPID", spec.host_pid), ("hostIPC", spec.host_ipc)];
    let host_namespaces: Vec<_> =
        namespaces.iter().filter(|(_, set)| *set == Some(true)).map(|(field, _)| format!("{field}=true")).collect();
    if !host_namespaces.is_empty() {
        violations.push(format!("host namespaces ({})", host_namespaces.join(", ")));
    }
    let volumes = spec.volumes.iter().flatten().filter(|volume| volume.host_path.is_some());
    let volumes: Vec<_> = volumes.map(|volume| format!("volume \"{}\"", volume.name)).collect();
    if !volumes.is_empty() {
        violations.push(format!("hostPath volumes ({})", volumes.join(", ")));
    }
    let containers = spec.containers.iter().map(|container| (&container.name, &container.security_context));
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    let ephemeral = ephemeral.map(|container| (&container.name, &container.security_context));
    for (name, context) in containers.chain(ephemeral) {
        if context.as_ref().and_then(|context| context.privileged) == Some(true) {
            let message = "must not set securityContext.privileged=true";
            violations.push(format!("privileged (container \"{name}\" {message})"));
        }
    }
    if violations.is_empty() {
        return Ok(());
    }
    let reason = format!("violates PodSecurity \"{level}:latest\": {}", violations.join(", "));
    Err(ApiError::AdmissionDenied { resource: "pods", name: name.to_owned(), reason })
}
