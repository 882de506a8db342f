//! `serve`: serves `get`, `update` (PUT) and `patch` of the subresource `pods/ephemeralcontainers`.

use std::sync::Arc;

use http::Response;
use k8s_openapi::api::core::v1::{EphemeralContainer, Pod, PodSpec};
use serde_json::Value;

use crate::api_error::{ApiError, Cause};
use crate::cluster_state::ClusterState;
use crate::request_body::parse;
use crate::request_info::RequestInfo;
use crate::response::{Body, json};
use crate::{admission, get_and_list, kubelet};

/// The annotation of a static pod, which a kubelet runs from a file.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Serves a request to the subresource. `content` is the request's content type.
pub(crate) fn serve(
    state: &Arc<ClusterState>,
    info: &RequestInfo,
    content: &str,
    body: &[u8],
) -> Result<Response<Body>, ApiError> {
    loop {
        let pod = get_and_list::find::<Pod>(state, info)?;
        let wanted = match info.verb {
            "get" => return Ok(json(200, &*pod)),
            "update" => {
                let new: Pod = parse(body)?;
                new.spec.and_then(|spec| spec.ephemeral_containers).unwrap_or_default()
            }
            "patch" if content.contains("strategic-merge-patch") => merge(containers(&pod), &parse(body)?)?,
            "patch" if content.contains("merge-patch") => replace(containers(&pod), &parse(body)?)?,
            "patch" => return Err(ApiError::UnsupportedMediaType("application/strategic-merge-patch+json")),
            _ => return Err(ApiError::MethodNotAllowed),
        };
        let name = get_and_list::key(info).1;
        let added = validate(&pod, &wanted, &name)?;
        let mut extended = Pod::clone(&pod);
        extended.spec.get_or_insert_with(PodSpec::default).ephemeral_containers = Some(wanted);
        admission::check_pod_security(state, &extended, &name)?;
        let new = extended.spec.and_then(|spec| spec.ephemeral_containers);
        let mut is_current = false;
        let edited = state.store(|store| {
            store.edit(&get_and_list::key(info), |now: &mut Pod| {
                is_current = containers(now) == containers(&pod);
                if is_current {
                    now.spec.get_or_insert_with(PodSpec::default).ephemeral_containers = new;
                }
            })
        });
        let edited = edited.ok_or(ApiError::NotFound { resource: "pods", name })?;
        // If another request changed the list in the meantime, try again with the new list, as an API server does.
        if is_current {
            kubelet::start_ephemeral_containers(state, &edited, added);
            return Ok(json(200, &*edited));
        }
    }
}

fn containers(pod: &Pod) -> Vec<EphemeralContainer> {
    pod.spec.as_ref().and_then(|spec| spec.ephemeral_containers.clone()).unwrap_or_default()
}

/// Returns the containers of a patch. Other fields are ignored, as in a real API server.
fn patch_containers(patch: &Value) -> Vec<Value> {
    patch["spec"]["ephemeralContainers"].as_array().cloned().unwrap_or_default()
}

fn bad_patch(error: serde_json::Error) -> ApiError {
    ApiError::BadRequest(format!("unable to parse the patch: {error}"))
}

/// Applies a strategic merge patch: changes existing containers field by field, and adds new containers.
fn merge(mut containers: Vec<EphemeralContainer>, patch: &Value) -> Result<Vec<EphemeralContainer>, ApiError> {
    for change in patch_containers(patch) {
        match containers.iter().position(|container| change["name"] == *container.name) {
            Some(at) => {
                let mut value = serde_json::to_value(&containers[at]).map_err(bad_patch)?;
                if let (Value::Object(value), Value::Object(change)) = (&mut value, change) {
                    value.extend(change);
                }
                containers[at] = serde_json::from_value(value).map_err(bad_patch)?;
            }
            None => containers.push(serde_json::from_value(change).map_err(bad_patch)?),
        }
    }
    Ok(containers)
}

/// Applies a JSON merge patch, which replaces the whole list.
fn replace(containers: Vec<EphemeralContainer>, patch: &Value) -> Result<Vec<EphemeralContainer>, ApiError> {
    if patch["spec"].get("ephemeralContainers").is_none() {
        return Ok(containers);
    }
    patch_containers(patch).into_iter().map(|one| serde_json::from_value(one).map_err(bad_patch)).collect()
}

/// Validates the new list, and returns the names of the new containers.
fn validate(pod: &Pod, wanted: &[EphemeralContainer], name: &str) -> Result<Vec<String>, ApiError> {
    let mut causes = Vec::new();
    let field = |suffix: &str| format!("spec.ephemeralContainers{suffix}");
    let forbidden = |field: String, reason: String| Cause {
        reason: "FieldValueForbidden",
        field,
        message: format!("Forbidden: {reason}"),
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
        let reason = format!("existing ephemeral containers \"{}\" may not be {verb}", old.name);
        causes.push(forbidden(field(""), reason));
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
        for (name, _) in not_allowed.iter().filter(|(_, set)| *set) {
            let reason = "cannot be set for an Ephemeral Container".to_owned();
            causes.push(forbidden(field(&format!("[{at}].{name}")), reason));
        }
        if existing.iter().all(|old| old.name != container.name) {
            added.push(container.name.clone());
        }
    }
    if causes.is_empty() { Ok(added) } else { Err(ApiError::Invalid { kind: "Pod", name: name.to_owned(), causes }) }
}
