//! Changes of pods: `create`, `patch`, `delete`, `deletecollection`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::Response;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ListMeta, Time};
use serde_json::Value;

use super::answer::{Body, Refusal, json};
use super::query::Query;
use super::route::Target;
use super::shared::{Shared, pod_key};
use super::store::Key;
use super::{admission, identity, kubelet, read};

/// Reads a body as JSON.
pub(super) fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::BadRequest(format!("unable to parse the body: {error}")))
}

/// `create`.
pub(super) fn create(
    shared: &Arc<Shared>,
    target: &Target,
    query: &Query,
    body: &[u8],
) -> Result<Response<Body>, Refusal> {
    let mut pod: Pod = parse(body)?;
    let namespace = target.namespace.clone().unwrap_or_default();
    let home: Option<Arc<Namespace>> = shared.get(&(String::new(), namespace.clone()));
    let home = home.ok_or_else(|| Refusal::NotFound { resource: "namespaces", name: namespace.clone() })?;
    if pod.metadata.namespace.as_ref().is_some_and(|own| *own != namespace) {
        return Err(Refusal::BadRequest(
            "the namespace of the provided object does not match the namespace sent on the request".to_owned(),
        ));
    }
    pod.metadata.namespace = Some(namespace);
    let name = name_of(shared, &mut pod)?;
    admission::validate(&pod, &name)?;
    let level = admission::enforced(home.metadata.labels.as_ref())
        .or_else(|| shared.faults(|faults| faults.api.pod_security).then(|| "baseline".to_owned()));
    if let Some(level) = level {
        admission::pod_security(&pod, &name, &level)?;
    }
    admission::default(&mut pod);
    let metadata = &mut pod.metadata;
    (metadata.uid, metadata.creation_timestamp, metadata.resource_version) = (None, None, None);
    if query.get("dryRun").is_some() {
        return dry_run(shared, pod, &name);
    }
    let key = pod_key(&pod);
    let stored = shared.store(|store| store.pods.get(&key).is_none().then(|| store.put(pod)));
    let pod = stored.ok_or(Refusal::AlreadyExists { resource: "pods", name })?;
    shared.pods_created.fetch_add(1, Ordering::Relaxed);
    kubelet::created(shared, &pod);
    Ok(json(201, &*pod))
}

/// The pod's name: its own, or a generated one.
fn name_of(shared: &Shared, pod: &mut Pod) -> Result<String, Refusal> {
    let metadata = &mut pod.metadata;
    if metadata.name.as_ref().is_none_or(String::is_empty) {
        let Some(prefix) = metadata.generate_name.clone().filter(|prefix| !prefix.is_empty()) else {
            let message = "name or generateName is required".to_owned();
            return Err(Refusal::BadRequest(format!("Pod is invalid: metadata.name: Required value: {message}")));
        };
        let number = shared.store(|store| store.next_identity());
        metadata.name = Some(format!("{prefix}{}", identity::suffix(number)));
    }
    Ok(metadata.name.clone().unwrap_or_default())
}

/// What a creation would have stored. It gets a UID and a time, and no resource version.
fn dry_run(shared: &Shared, mut pod: Pod, name: &str) -> Result<Response<Body>, Refusal> {
    if shared.get::<Pod>(&pod_key(&pod)).is_some() {
        return Err(Refusal::AlreadyExists { resource: "pods", name: name.to_owned() });
    }
    pod.metadata.uid = Some(identity::uid(shared.store(|store| store.next_identity())));
    pod.metadata.creation_timestamp = Some(Time(identity::now()));
    Ok(json(201, &pod))
}

/// `patch` of a pod itself: JSON merge patches, and strategic ones as far as they merge the same.
pub(super) fn patch(shared: &Shared, target: &Target, content: &str, body: &[u8]) -> Result<Response<Body>, Refusal> {
    if !content.contains("merge-patch") {
        return Err(Refusal::UnsupportedMediaType("application/merge-patch+json"));
    }
    let pod = read::find::<Pod>(shared, target)?;
    let unreadable = |error: serde_json::Error| Refusal::BadRequest(error.to_string());
    let mut value = serde_json::to_value(&*pod).map_err(unreadable)?;
    merge(&mut value, parse(body)?);
    let patched: Pod = serde_json::from_value(value).map_err(unreadable)?;
    let edited = shared.store(|store| {
        store.edit(&read::key(target), |pod: &mut Pod| {
            pod.metadata.labels = patched.metadata.labels;
            pod.metadata.annotations = patched.metadata.annotations;
            if let (Some(spec), Some(new)) = (&mut pod.spec, patched.spec) {
                spec.active_deadline_seconds = new.active_deadline_seconds;
                spec.tolerations = new.tolerations;
            }
        })
    });
    let edited = edited.ok_or(Refusal::NotFound { resource: "pods", name: read::key(target).1 })?;
    Ok(json(200, &*edited))
}

/// Merges a patch as RFC 7386 says: `null` removes, objects merge, everything else replaces.
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

/// The options of a deletion, from the body or the query.
fn options(query: &Query, body: &[u8]) -> Result<DeleteOptions, Refusal> {
    let mut options: DeleteOptions = if body.is_empty() { DeleteOptions::default() } else { parse(body)? };
    if let Some(seconds) = query.number("gracePeriodSeconds") {
        options.grace_period_seconds = i64::try_from(seconds).ok();
    }
    if query.get("dryRun").is_some() {
        options.dry_run = Some(vec!["All".to_owned()]);
    }
    Ok(options)
}

/// `delete`.
pub(super) fn delete(
    shared: &Arc<Shared>,
    target: &Target,
    query: &Query,
    body: &[u8],
) -> Result<Response<Body>, Refusal> {
    let options = options(query, body)?;
    Ok(json(200, &*remove(shared, &read::key(target), &options)?))
}

/// `deletecollection`.
pub(super) fn delete_collection(
    shared: &Arc<Shared>,
    target: &Target,
    query: &Query,
    body: &[u8],
) -> Result<Response<Body>, Refusal> {
    let options = options(query, body)?;
    let selection = read::selection::<Pod>(target, query)?;
    let selected = shared.store(|store| store.pods.page(&selection, None, None).items);
    let mut deleted = Vec::new();
    for pod in selected {
        match remove(shared, &pod_key(&pod), &options) {
            Ok(pod) => deleted.push(pod),
            Err(Refusal::NotFound { .. }) => {}
            Err(refusal) => return Err(refusal),
        }
    }
    Ok(read::listing(ListMeta::default(), deleted))
}

/// Deletes a pod at once, or marks it for its kubelet to end.
fn remove(shared: &Arc<Shared>, key: &Key, options: &DeleteOptions) -> Result<Arc<Pod>, Refusal> {
    let not_found = || Refusal::NotFound { resource: "pods", name: key.1.clone() };
    let dry = options.dry_run.as_ref().is_some_and(|all| !all.is_empty());
    let (pod, gone) = shared.store(|store| {
        let pod = store.pods.get(key).cloned().ok_or_else(not_found)?;
        check(&pod, key, options)?;
        if dry {
            return Ok((pod, None));
        }
        let grace = grace(&pod, options);
        if grace == 0 {
            return Ok((store.remove::<Pod>(key).unwrap_or(pod), Some(true)));
        }
        let marked = store.edit(key, |pod: &mut Pod| {
            let seconds = jiff::SignedDuration::from_secs(grace);
            let end = identity::now().checked_add(seconds).unwrap_or_else(|_| identity::now());
            pod.metadata.deletion_timestamp.get_or_insert(Time(end));
            pod.metadata.deletion_grace_period_seconds = Some(grace);
        });
        Ok((marked.unwrap_or(pod), Some(false)))
    })?;
    match gone {
        Some(true) => kubelet::vanished(shared, &pod),
        Some(false) => kubelet::terminate(shared, &pod),
        None => {}
    }
    Ok(pod)
}

fn check(pod: &Pod, key: &Key, options: &DeleteOptions) -> Result<(), Refusal> {
    let Some(conditions) = &options.preconditions else { return Ok(()) };
    let metadata = &pod.metadata;
    let pairs = [
        ("UID", &conditions.uid, &metadata.uid),
        ("ResourceVersion", &conditions.resource_version, &metadata.resource_version),
    ];
    for (what, wanted, found) in pairs {
        if wanted.is_some() && wanted != found {
            let (wanted, found) = (wanted.as_deref().unwrap_or_default(), found.as_deref().unwrap_or_default());
            let why = format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}");
            return Err(Refusal::Conflict { resource: "pods", name: key.1.clone(), why });
        }
    }
    Ok(())
}

/// The grace of a deletion: none for a pod that has ended or that no kubelet has, whatever was asked for.
fn grace(pod: &Pod, options: &DeleteOptions) -> i64 {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let spec = pod.spec.as_ref();
    let placed = spec.is_some_and(|spec| spec.node_name.as_ref().is_some_and(|name| !name.is_empty()));
    if matches!(phase, Some("Succeeded" | "Failed")) || !placed {
        return 0;
    }
    let own = spec.and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
    options.grace_period_seconds.unwrap_or(own).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_patch_removes_what_is_null_and_keeps_what_it_does_not_name() {
        let mut value = serde_json::json!({"a": {"b": 1, "c": 2}, "d": [1]});
        merge(&mut value, serde_json::json!({"a": {"b": null, "e": {"f": 3}}, "d": [2]}));
        assert_eq!(value, serde_json::json!({"a": {"c": 2, "e": {"f": 3}}, "d": [2]}));
    }
}
