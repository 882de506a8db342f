//! `create`, `patch`, `delete`, `delete_collection`: serve these verbs for pods.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::Response;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ListMeta, Time};
use serde_json::Value;

use crate::api_error::ApiError;
use crate::cluster_state::ClusterState;
use crate::collection::{Key, key_of};
use crate::query::Query;
use crate::request_body::parse;
use crate::request_info::RequestInfo;
use crate::response::{Body, json};
use crate::{admission, generated_metadata, get_and_list, kubelet, probe_policy};

/// Serves `create`.
pub(crate) fn create(
    state: &Arc<ClusterState>,
    info: &RequestInfo,
    query: &Query,
    body: &[u8],
) -> Result<Response<Body>, ApiError> {
    let mut pod: Pod = parse(body)?;
    let namespace = info.namespace.clone().unwrap_or_default();
    if state.get::<Namespace>(&(String::new(), namespace.clone())).is_none() {
        return Err(ApiError::NotFound { resource: "namespaces", name: namespace });
    }
    if pod.metadata.namespace.as_ref().is_some_and(|given| *given != namespace) {
        return Err(ApiError::BadRequest(
            "the namespace of the provided object does not match the namespace sent on the request".to_owned(),
        ));
    }
    pod.metadata.namespace = Some(namespace);
    let name = ensure_name(state, &mut pod)?;
    admission::validate(&pod, &name)?;
    admission::check_pod_security(state, &pod, &name)?;
    admission::set_defaults(&mut pod);
    probe_policy::check(state, &pod, &name)?;
    let metadata = &mut pod.metadata;
    (metadata.uid, metadata.resource_version) = (None, None);
    metadata.creation_timestamp = Some(Time(state.now()));
    if query.get("dryRun").is_some() {
        return dry_run(state, pod, &name);
    }
    let key = key_of(&pod);
    let stored = state.store(|store| store.pods.get(&key).is_none().then(|| store.put(pod)));
    let pod = stored.ok_or(ApiError::AlreadyExists { resource: "pods", name })?;
    state.pods_created.fetch_add(1, Ordering::Relaxed);
    kubelet::start_pod(state, &pod);
    Ok(json(201, &*pod))
}

/// Returns the name of the pod, and generates the name if needed.
fn ensure_name(state: &ClusterState, pod: &mut Pod) -> Result<String, ApiError> {
    let metadata = &mut pod.metadata;
    if metadata.name.as_ref().is_none_or(String::is_empty) {
        let Some(prefix) = metadata.generate_name.clone().filter(|prefix| !prefix.is_empty()) else {
            let message = "name or generateName is required".to_owned();
            return Err(ApiError::BadRequest(format!("Pod is invalid: metadata.name: Required value: {message}")));
        };
        let number = state.store(|store| store.next_number());
        metadata.name = Some(format!("{prefix}{}", generated_metadata::suffix(number)));
    }
    Ok(metadata.name.clone().unwrap_or_default())
}

/// Returns the pod as a creation would store it: with UID and creation time, but without a resource version.
fn dry_run(state: &ClusterState, mut pod: Pod, name: &str) -> Result<Response<Body>, ApiError> {
    if state.get::<Pod>(&key_of(&pod)).is_some() {
        return Err(ApiError::AlreadyExists { resource: "pods", name: name.to_owned() });
    }
    pod.metadata.uid = Some(generated_metadata::uid(state.store(|store| store.next_number())));
    pod.metadata.creation_timestamp = Some(Time(state.now()));
    Ok(json(201, &pod))
}

/// Serves `patch`: JSON merge patches, and strategic merge patches that have the same result.
pub(crate) fn patch(
    state: &ClusterState,
    info: &RequestInfo,
    content: &str,
    body: &[u8],
) -> Result<Response<Body>, ApiError> {
    if !content.contains("merge-patch") {
        return Err(ApiError::UnsupportedMediaType("application/merge-patch+json"));
    }
    let pod = get_and_list::find::<Pod>(state, info)?;
    let bad_request = |error: serde_json::Error| ApiError::BadRequest(error.to_string());
    let mut value = serde_json::to_value(&*pod).map_err(bad_request)?;
    merge(&mut value, parse(body)?);
    let patched: Pod = serde_json::from_value(value).map_err(bad_request)?;
    let edited = state.store(|store| {
        store.edit(&get_and_list::key(info), |pod: &mut Pod| {
            pod.metadata.labels = patched.metadata.labels;
            pod.metadata.annotations = patched.metadata.annotations;
            if let (Some(spec), Some(new)) = (&mut pod.spec, patched.spec) {
                spec.active_deadline_seconds = new.active_deadline_seconds;
                spec.tolerations = new.tolerations;
            }
        })
    });
    let edited = edited.ok_or(ApiError::NotFound { resource: "pods", name: get_and_list::key(info).1 })?;
    Ok(json(200, &*edited))
}

/// Applies a JSON merge patch (RFC 7386): `null` removes a value, objects are merged, other values are replaced.
fn merge(into: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *into = patch;
        return;
    };
    if !into.is_object() {
        *into = Value::Object(serde_json::Map::new());
    }
    let Value::Object(fields) = into else { return };
    for (key, value) in patch {
        if value.is_null() {
            fields.remove(&key);
        } else {
            merge(fields.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// Returns the options of a deletion, from the body or the query.
fn delete_options(query: &Query, body: &[u8]) -> Result<DeleteOptions, ApiError> {
    let mut options: DeleteOptions = if body.is_empty() { DeleteOptions::default() } else { parse(body)? };
    if let Some(seconds) = query.number("gracePeriodSeconds") {
        options.grace_period_seconds = i64::try_from(seconds).ok();
    }
    if query.get("dryRun").is_some() {
        options.dry_run = Some(vec!["All".to_owned()]);
    }
    Ok(options)
}

/// Serves `delete`.
pub(crate) fn delete(
    state: &Arc<ClusterState>,
    info: &RequestInfo,
    query: &Query,
    body: &[u8],
) -> Result<Response<Body>, ApiError> {
    let options = delete_options(query, body)?;
    Ok(json(200, &*remove(state, &get_and_list::key(info), &options)?))
}

/// Serves `deletecollection`.
pub(crate) fn delete_collection(
    state: &Arc<ClusterState>,
    info: &RequestInfo,
    query: &Query,
    body: &[u8],
) -> Result<Response<Body>, ApiError> {
    let options = delete_options(query, body)?;
    let selection = get_and_list::selection::<Pod>(info, query)?;
    let selected = state.store(|store| store.pods.page(&selection, None, None).items);
    let mut deleted = Vec::new();
    for pod in selected {
        match remove(state, &key_of(&*pod), &options) {
            Ok(pod) => deleted.push(pod),
            Err(ApiError::NotFound { .. }) => {}
            Err(refusal) => return Err(refusal),
        }
    }
    Ok(get_and_list::list_response(ListMeta::default(), deleted))
}

/// Removes a pod, or marks it for termination by its kubelet.
fn remove(state: &Arc<ClusterState>, key: &Key, options: &DeleteOptions) -> Result<Arc<Pod>, ApiError> {
    let not_found = || ApiError::NotFound { resource: "pods", name: key.1.clone() };
    let is_dry_run = options.dry_run.as_ref().is_some_and(|all| !all.is_empty());
    let (pod, removed) = state.store(|store| {
        let pod = store.pods.get(key).cloned().ok_or_else(not_found)?;
        check_preconditions(&pod, key, options)?;
        if is_dry_run {
            return Ok((pod, None));
        }
        let grace = grace_seconds(&pod, options);
        if grace == 0 {
            return Ok((store.remove::<Pod>(key).unwrap_or(pod), Some(true)));
        }
        let marked = store.edit(key, |pod: &mut Pod| {
            let seconds = jiff::SignedDuration::from_secs(grace);
            let end = state.now().checked_add(seconds).unwrap_or_else(|_| state.now());
            pod.metadata.deletion_timestamp.get_or_insert(Time(end));
            pod.metadata.deletion_grace_period_seconds = Some(grace);
        });
        Ok((marked.unwrap_or(pod), Some(false)))
    })?;
    match removed {
        Some(true) => kubelet::kill_pod(state, &pod),
        Some(false) => kubelet::terminate_pod(state, &pod),
        None => {}
    }
    Ok(pod)
}

fn check_preconditions(pod: &Pod, key: &Key, options: &DeleteOptions) -> Result<(), ApiError> {
    let Some(conditions) = &options.preconditions else { return Ok(()) };
    let metadata = &pod.metadata;
    let pairs = [
        ("UID", &conditions.uid, &metadata.uid),
        ("ResourceVersion", &conditions.resource_version, &metadata.resource_version),
    ];
    for (field, wanted, found) in pairs {
        if wanted.is_some() && wanted != found {
            let (wanted, found) = (wanted.as_deref().unwrap_or_default(), found.as_deref().unwrap_or_default());
            let reason =
                format!("Precondition failed: {field} in precondition: {wanted}, {field} in object meta: {found}");
            return Err(ApiError::Conflict { resource: "pods", name: key.1.clone(), reason });
        }
    }
    Ok(())
}

/// Returns the grace period of a deletion: zero if the pod has terminated or has no node.
fn grace_seconds(pod: &Pod, options: &DeleteOptions) -> i64 {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let spec = pod.spec.as_ref();
    let has_node = spec.is_some_and(|spec| spec.node_name.as_ref().is_some_and(|name| !name.is_empty()));
    if matches!(phase, Some("Succeeded" | "Failed")) || !has_node {
        return 0;
    }
    let default = spec.and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
    options.grace_period_seconds.unwrap_or(default).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_patch_removes_null_fields_and_keeps_fields_that_it_does_not_contain() {
        let mut value = serde_json::json!({"a": {"b": 1, "c": 2}, "d": [1]});
        merge(&mut value, serde_json::json!({"a": {"b": null, "e": {"f": 3}}, "d": [2]}));
        assert_eq!(value, serde_json::json!({"a": {"c": 2, "e": {"f": 3}}, "d": [2]}));
    }
}
