//! `serve`: serves requests for objects that are stored as JSON: permissions, quota, policies, DaemonSets, machines.
//! The verbs are `get`, `list`, server-side apply and `delete`. `put_existing`: stores an object of a fixture.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::Response;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use serde_json::{Value, json};

use crate::api_error::ApiError;
use crate::cluster_state::ClusterState;
use crate::collection::key_of;
use crate::generated_metadata;
use crate::json_store::{JsonKey, JsonObject};
use crate::kubelet;
use crate::query::Query;
use crate::request_body::parse;
use crate::request_info::RequestInfo;
use crate::response::{self, Body};
use crate::store::Store;

/// API group, plural name and kind of the objects that are stored only as JSON.
const KINDS: [(&str, &str, &str); 16] = [
    ("apps", "daemonsets", "DaemonSet"),
    ("coordination.k8s.io", "leases", "Lease"),
    ("karpenter.sh", "nodeclaims", "NodeClaim"),
    ("cluster.x-k8s.io", "machines", "Machine"),
    ("resource.nvidia.com", "computedomains", "ComputeDomain"),
    ("kueue.x-k8s.io", "workloads", "Workload"),
    ("kueue.x-k8s.io", "localqueues", "LocalQueue"),
    ("kueue.x-k8s.io", "clusterqueues", "ClusterQueue"),
    ("", "configmaps", "ConfigMap"),
    ("", "resourcequotas", "ResourceQuota"),
    ("rbac.authorization.k8s.io", "roles", "Role"),
    ("rbac.authorization.k8s.io", "rolebindings", "RoleBinding"),
    ("rbac.authorization.k8s.io", "clusterroles", "ClusterRole"),
    ("rbac.authorization.k8s.io", "clusterrolebindings", "ClusterRoleBinding"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies", "ValidatingAdmissionPolicy"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding"),
];

/// Serves a request to one of these kinds; `None` for another kind.
pub(crate) fn serve(
    state: &Arc<ClusterState>,
    info: &RequestInfo,
    query: &Query,
    content: &str,
    body: &[u8],
) -> Option<Result<Response<Body>, ApiError>> {
    let is_namespace = info.group.is_empty() && info.resource == "namespaces";
    if info.subresource.is_some() || is_namespace && !matches!(info.verb, "patch" | "delete") {
        return None;
    }
    let kind = KINDS.iter().find(|(group, plural, _)| *group == info.group && *plural == info.resource);
    let plural = if is_namespace { "namespaces" } else { kind?.1 };
    let key = (plural, info.namespace.clone().unwrap_or_default(), info.name.clone().unwrap_or_default());
    let is_dry_run = query.get("dryRun").is_some();
    Some(match info.verb {
        "get" => find(state, &key).map(|found| response::json(200, &found.value)),
        "list" => Ok(list(state, &key, kind.map_or("Namespace", |kind| kind.2))),
        "patch" if content.contains("apply-patch") => apply(state, &key, query.flag("force"), is_dry_run, body),
        "patch" => Err(ApiError::UnsupportedMediaType("application/apply-patch+yaml")),
        "delete" => delete(state, &key, body),
        _ => Err(ApiError::MethodNotAllowed),
    })
}

/// Stores an object of a fixture, if it has metadata. The field manager of the object is not the client.
pub(crate) fn put_existing(store: &mut Store, mut value: Value) {
    if !value["metadata"].is_object() {
        return;
    }
    let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default().to_owned();
    let Some((_, plural, _)) = KINDS.iter().find(|(_, _, kind)| value["kind"] == *kind) else { return };
    let key = (*plural, text("namespace"), text("name"));
    let given = ["creationTimestamp", "uid"].map(|field| (field, value["metadata"][field].take()));
    stamp(store, &mut value, None);
    for (field, given) in given.into_iter().filter(|(_, given)| given.is_string()) {
        value["metadata"][field] = given;
    }
    store.json.insert(key, JsonObject { value, applied: BTreeSet::new() });
}

fn find(state: &ClusterState, key: &JsonKey) -> Result<JsonObject, ApiError> {
    let not_found = || ApiError::NotFound { resource: key.0, name: key.2.clone() };
    state.store(|store| read(store, key)).ok_or_else(not_found)
}

fn read(store: &Store, key: &JsonKey) -> Option<JsonObject> {
    if key.0 != "namespaces" {
        return store.json.get(key).cloned();
    }
    let namespace = store.namespaces.get(&(String::new(), key.2.clone()))?;
    let applied = store.json.get(key).map(|object| object.applied.clone()).unwrap_or_default();
    Some(JsonObject { value: serde_json::to_value(&**namespace).ok()?, applied })
}

fn list(state: &ClusterState, key: &JsonKey, kind: &str) -> Response<Body> {
    let is_listed = |of: &JsonKey| of.0 == key.0 && (key.1.is_empty() || of.1 == key.1);
    let items: Vec<_> = state.store(|store| {
        store.json.iter().filter(|(of, _)| is_listed(of)).map(|(_, object)| object.value.clone()).collect()
    });
    response::json(200, &json!({"kind": format!("{kind}List"), "apiVersion": "v1", "metadata": {}, "items": items}))
}

/// Sets the UID, the creation time and the version of a stored object.
fn stamp(store: &mut Store, value: &mut Value, before: Option<&Value>) {
    let version = store.next_version().to_string();
    let number = store.next_number();
    let metadata = &mut value["metadata"];
    metadata["resourceVersion"] = version.into();
    for (field, new) in
        [("uid", generated_metadata::uid(number)), ("creationTimestamp", generated_metadata::now().to_string())]
    {
        metadata[field] = before.map_or_else(|| new.into(), |before| before["metadata"][field].clone());
    }
}

/// Serves a server-side apply: the client becomes the field manager of the fields in the body, and fields that the
/// client no longer sends are removed. A field that another manager set to another value is a conflict.
fn apply(
    state: &ClusterState,
    key: &JsonKey,
    force: bool,
    is_dry_run: bool,
    body: &[u8],
) -> Result<Response<Body>, ApiError> {
    let sent: Value = parse(body)?;
    state.store(|store| {
        let namespace = (String::new(), key.1.clone());
        if !key.1.is_empty() && store.namespaces.get(&namespace).is_none() {
            return Err(ApiError::NotFound { resource: "namespaces", name: key.1.clone() });
        }
        let before = read(store, key);
        let mut value = before.as_ref().map_or_else(|| json!({}), |before| before.value.clone());
        let owned = before.as_ref().map(|before| before.applied.clone()).unwrap_or_default();
        let sent_leaves = leaves(&sent);
        let conflict = sent_leaves.iter().find(|(path, new)| {
            !path.starts_with("/metadata/name")
                && !owned.contains(*path)
                && value.pointer(path).is_some_and(|old| old != *new)
        });
        if let (Some((path, _)), false) = (conflict, force) {
            return Err(ApiError::ApplyConflict { field: path.replace('/', ".") });
        }
        for gone in owned.iter().filter(|path| !sent_leaves.contains_key(*path)) {
            remove(&mut value, gone);
        }
        for (path, new) in &sent_leaves {
            set(&mut value, path, new.clone());
        }
        if key.0 == "namespaces" {
            value["metadata"]["labels"]["kubernetes.io/metadata.name"] = key.2.as_str().into();
        }
        let code = if before.is_some() { 200 } else { 201 };
        if is_dry_run || before.as_ref().is_some_and(|before| before.value == value) {
            return Ok(response::json(code, &value));
        }
        stamp(store, &mut value, before.as_ref().map(|before| &before.value));
        if key.0 == "namespaces" {
            let namespace: Namespace = serde_json::from_value(value.clone())
                .map_err(|error| ApiError::BadRequest(format!("unable to parse the namespace: {error}")))?;
            store.put(namespace);
        }
        let applied = sent_leaves.into_keys().collect();
        store.json.insert(key.clone(), JsonObject { value: value.clone(), applied });
        Ok(response::json(code, &value))
    })
}

fn delete(state: &Arc<ClusterState>, key: &JsonKey, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let found = find(state, key)?;
    let options: Value = if body.is_empty() { Value::Null } else { parse(body)? };
    let uid = &options["preconditions"]["uid"];
    if uid.is_string() && *uid != found.value["metadata"]["uid"] {
        let reason = format!("Precondition failed: UID in precondition: {uid}");
        return Err(ApiError::Conflict { resource: key.0, name: key.2.clone(), reason });
    }
    if !options["dryRun"].is_null() {
        return Ok(response::json(200, &found.value));
    }
    let pods = state.store(|store| {
        store.json.remove(key);
        if key.0 != "namespaces" {
            return Vec::new();
        }
        store.remove::<Namespace>(&(String::new(), key.2.clone()));
        store.json.retain(|(_, namespace, _), _| *namespace != key.2);
        let of_namespace: Vec<_> =
            store.pods.all().filter(|pod| pod.metadata.namespace.as_ref() == Some(&key.2)).cloned().collect();
        of_namespace.iter().for_each(|pod| drop(store.remove::<Pod>(&key_of(&**pod))));
        of_namespace
    });
    pods.iter().for_each(|pod| kubelet::kill_pod(state, pod));
    Ok(response::json(200, &found.value))
}

/// Returns the leaves of an object by JSON pointer. A list is a leaf, because the lists of these kinds are atomic.
fn leaves(value: &Value) -> BTreeMap<String, Value> {
    fn walk(value: &Value, path: &str, into: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                for (name, field) in fields {
                    walk(field, &format!("{path}/{}", name.replace('~', "~0").replace('/', "~1")), into);
                }
            }
            leaf => drop(into.insert(path.to_owned(), leaf.clone())),
        }
    }
    let mut all = BTreeMap::new();
    walk(value, "", &mut all);
    all
}

fn names(path: &str) -> Vec<String> {
    path.split('/').skip(1).map(|name| name.replace("~1", "/").replace("~0", "~")).collect()
}

fn set(value: &mut Value, path: &str, new: Value) {
    let mut at = value;
    for name in names(path) {
        at = &mut at[name.as_str()];
    }
    *at = new;
}

fn remove(value: &mut Value, path: &str) {
    let Some((parent, _)) = path.rsplit_once('/') else { return };
    let last = names(path).pop().unwrap_or_default();
    if let Some(Value::Object(fields)) = value.pointer_mut(parent) {
        fields.remove(&last);
    }
}
