//! The `pods/ephemeralcontainers` subresource: `get`, `update` (PUT) and `patch`.

use std::sync::Arc;

use http::Response;
use k8s_openapi::api::core::v1::{EphemeralContainer, Pod, PodSpec};
use serde_json::Value;

use super::answer::{Body, Cause, Refusal, json};
use super::route::Target;
use super::shared::Shared;
use super::{admission, kubelet, pods, read};

/// The annotation of a pod that a kubelet runs from a file: the API server only mirrors it.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Serves a request to the subresource. `content` is the request's content type.
pub(super) fn serve(
    shared: &Arc<Shared>,
    target: &Target,
    content: &str,
    body: &[u8],
) -> Result<Response<Body>, Refusal> {
    let pod = read::find::<Pod>(shared, target)?;
    let wanted = match target.verb {
        "get" => return Ok(json(200, &*pod)),
        "update" => {
            let new: Pod = pods::parse(body)?;
            new.spec.and_then(|spec| spec.ephemeral_containers).unwrap_or_default()
        }
        "patch" if content.contains("strategic-merge-patch") => merge(containers(&pod), &pods::parse(body)?)?,
        "patch" if content.contains("merge-patch") => replace(containers(&pod), &pods::parse(body)?)?,
        "patch" => return Err(Refusal::UnsupportedMediaType("application/strategic-merge-patch+json")),
        _ => return Err(Refusal::MethodNotAllowed),
    };
    let name = read::key(target).1;
    let added = check(&pod, &wanted, &name)?;
    let mut extended = Pod::clone(&pod);
    extended.spec.get_or_insert_with(PodSpec::default).ephemeral_containers = Some(wanted);
    if let Some(level) = level(shared, target) {
        admission::pod_security(&extended, &name, &level)?;
    }
    let containers = extended.spec.and_then(|spec| spec.ephemeral_containers);
    let edited = shared.store(|store| {
        store.edit(&read::key(target), |pod: &mut Pod| {
            pod.spec.get_or_insert_with(PodSpec::default).ephemeral_containers = containers;
        })
    });
    let edited = edited.ok_or(Refusal::NotFound { resource: "pods", name })?;
    kubelet::extended(shared, &edited, added);
    Ok(json(200, &*edited))
}

fn level(shared: &Shared, target: &Target) -> Option<String> {
    let namespace = target.namespace.clone().unwrap_or_default();
    let home = shared.get::<k8s_openapi::api::core::v1::Namespace>(&(String::new(), namespace));
    let own = home.and_then(|home| admission::enforced(home.metadata.labels.as_ref()));
    own.or_else(|| shared.faults(|faults| faults.api.pod_security).then(|| "baseline".to_owned()))
}

fn containers(pod: &Pod) -> Vec<EphemeralContainer> {
    pod.spec.as_ref().and_then(|spec| spec.ephemeral_containers.clone()).unwrap_or_default()
}

/// The patch's own list; other fields of a patch are dropped, as the real subresource drops them.
fn patched(patch: &Value) -> Vec<Value> {
    patch["spec"]["ephemeralContainers"].as_array().cloned().unwrap_or_default()
}

fn unreadable(error: serde_json::Error) -> Refusal {
    Refusal::BadRequest(format!("unable to parse the patch: {error}"))
}

/// A strategic merge: containers of a known name are changed field by field, others are added.
fn merge(mut containers: Vec<EphemeralContainer>, patch: &Value) -> Result<Vec<EphemeralContainer>, Refusal> {
    for change in patched(patch) {
        match containers.iter().position(|container| change["name"] == *container.name) {
            Some(at) => {
                let mut value = serde_json::to_value(&containers[at]).map_err(unreadable)?;
                if let (Value::Object(value), Value::Object(change)) = (&mut value, change) {
                    value.extend(change);
                }
                containers[at] = serde_json::from_value(value).map_err(unreadable)?;
            }
            None => containers.push(serde_json::from_value(change).map_err(unreadable)?),
        }
    }
    Ok(containers)
}

/// A JSON merge: a list is replaced as a whole.
fn replace(containers: Vec<EphemeralContainer>, patch: &Value) -> Result<Vec<EphemeralContainer>, Refusal> {
    if patch["spec"].get("ephemeralContainers").is_none() {
        return Ok(containers);
    }
    patched(patch).into_iter().map(|one| serde_json::from_value(one).map_err(unreadable)).collect()
}

/// Checks the new list against the old one; returns the names that are new.
fn check(pod: &Pod, wanted: &[EphemeralContainer], name: &str) -> Result<Vec<String>, Refusal> {
    let mut causes = Vec::new();
    let field = |rest: &str| format!("spec.ephemeralContainers{rest}");
    let forbidden = |field: String, why: String| Cause {
        reason: "FieldValueForbidden",
        field,
        message: format!("Forbidden: {why}"),
    };
    if pod.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(MIRROR)) {
        causes.push(forbidden("spec".to_owned(), "static pods do not support ephemeral containers".to_owned()));
    }
    let existing = containers(pod);
    for old in &existing {
        let new = wanted.iter().find(|container| container.name == old.name);
        let verb = match new {
            Some(new) if new == old => continue,
            Some(_) => "changed",
            None => "removed",
        };
        let why = format!("existing ephemeral containers \"{}\" may not be {verb}", old.name);
        causes.push(forbidden(field(""), why));
    }
    let mut taken: Vec<&str> = pod.spec.iter().flat_map(|spec| &spec.containers).map(|one| one.name.as_str()).collect();
    let mut added = Vec::new();
    for (at, container) in wanted.iter().enumerate() {
        if taken.contains(&container.name.as_str()) {
            let message = format!("Duplicate value: \"{}\"", container.name);
            causes.push(Cause { reason: "FieldValueDuplicate", field: field(&format!("[{at}].name")), message });
        }
        taken.push(&container.name);
        let not_allowed = [
            ("ports", container.ports.is_some()),
            ("resources", container.resources.is_some()),
            ("lifecycle", container.lifecycle.is_some()),
            ("livenessProbe", container.liveness_probe.is_some()),
            ("readinessProbe", container.readiness_probe.is_some()),
            ("startupProbe", container.startup_probe.is_some()),
        ];
        for (what, _) in not_allowed.iter().filter(|(_, set)| *set) {
            let why = "cannot be set for an Ephemeral Container".to_owned();
            causes.push(forbidden(field(&format!("[{at}].{what}")), why));
        }
        if existing.iter().all(|old| old.name != container.name) {
            added.push(container.name.clone());
        }
    }
    if causes.is_empty() { Ok(added) } else { Err(Refusal::Invalid { kind: "Pod", name: name.to_owned(), causes }) }
}
