//! What the API server checks and fills in before it stores a pod: names, required fields, defaults, Pod Security.
//!
//! The checks are those that a probe pod can meet, not the whole of Kubernetes' validation.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus};

use super::answer::{Cause, Refusal};
use super::identity;

/// What RFC 1123 demands of a name, in the words of the API server.
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
     and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
/// The phase of a pod that no kubelet has started.
pub(super) const PENDING: &str = "Pending";

/// Checks the fields of a new pod.
pub(super) fn validate(pod: &Pod, name: &str) -> Result<(), Refusal> {
    let mut causes = Vec::new();
    let mut fault = |reason, field: &str, message: String| {
        causes.push(Cause { reason, field: field.to_owned(), message });
    };
    if !identity::is_subdomain(name) {
        fault("FieldValueInvalid", "metadata.name", format!("Invalid value: \"{name}\": {SUBDOMAIN}"));
    }
    let containers = pod.spec.as_ref().map_or(&[][..], |spec| &spec.containers);
    if containers.is_empty() {
        fault("FieldValueRequired", "spec.containers", "Required value".to_owned());
    }
    let mut seen = BTreeSet::new();
    for (at, container) in containers.iter().enumerate() {
        if container.image.as_ref().is_none_or(String::is_empty) {
            fault("FieldValueRequired", &format!("spec.containers[{at}].image"), "Required value".to_owned());
        }
        if !seen.insert(&container.name) {
            let message = format!("Duplicate value: \"{}\"", container.name);
            fault("FieldValueDuplicate", &format!("spec.containers[{at}].name"), message);
        }
    }
    if let Some(seconds) = pod.spec.as_ref().and_then(|spec| spec.active_deadline_seconds)
        && seconds < 1
    {
        let message = format!("Invalid value: {seconds}: must be between 1 and 2147483647, inclusive");
        fault("FieldValueInvalid", "spec.activeDeadlineSeconds", message);
    }
    if causes.is_empty() {
        return Ok(());
    }
    Err(Refusal::Invalid { kind: "Pod", name: name.to_owned(), causes })
}

/// Fills in what a client may leave out.
pub(super) fn default(pod: &mut Pod) {
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
        phase: Some(PENDING.to_owned()),
        qos_class: Some(quality(pod.spec.as_ref()).to_owned()),
        ..PodStatus::default()
    });
}

fn quality(spec: Option<&PodSpec>) -> &'static str {
    let asks = |container: &Container| {
        container.resources.as_ref().is_some_and(|all| all.limits.is_some() || all.requests.is_some())
    };
    if spec.is_some_and(|spec| spec.containers.iter().any(asks)) { "Burstable" } else { "BestEffort" }
}

/// The Pod Security level that a namespace enforces, from its labels; `None` for `privileged`.
pub(super) fn enforced(labels: Option<&BTreeMap<String, String>>) -> Option<String> {
    let level = labels?.get("pod-security.kubernetes.io/enforce")?;
    (level != "privileged").then(|| level.clone())
}

/// Refuses a pod that violates `level`. Only the rules of `baseline` are known; `restricted` includes them.
pub(super) fn pod_security(pod: &Pod, name: &str, level: &str) -> Result<(), Refusal> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    let mut violations = Vec::new();
    let namespaces = [("hostNetwork", spec.host_network), ("hostPID", spec.host_pid), ("hostIPC", spec.host_ipc)];
    let host: Vec<_> =
        namespaces.iter().filter(|(_, set)| *set == Some(true)).map(|(field, _)| format!("{field}=true")).collect();
    if !host.is_empty() {
        violations.push(format!("host namespaces ({})", host.join(", ")));
    }
    let volumes = spec.volumes.iter().flatten().filter(|volume| volume.host_path.is_some());
    let volumes: Vec<_> = volumes.map(|volume| format!("volume \"{}\"", volume.name)).collect();
    if !volumes.is_empty() {
        violations.push(format!("hostPath volumes ({})", volumes.join(", ")));
    }
    let own = spec.containers.iter().map(|container| (&container.name, &container.security_context));
    let added = spec.ephemeral_containers.iter().flatten();
    let added = added.map(|container| (&container.name, &container.security_context));
    for (name, context) in own.chain(added) {
        if context.as_ref().and_then(|context| context.privileged) == Some(true) {
            let must = "must not set securityContext.privileged=true";
            violations.push(format!("privileged (container \"{name}\" {must})"));
        }
    }
    if violations.is_empty() {
        return Ok(());
    }
    let why = format!("violates PodSecurity \"{level}:latest\": {}", violations.join(", "));
    Err(Refusal::Forbidden { resource: "pods", name: name.to_owned(), why })
}
