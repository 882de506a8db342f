//! `serve`: serves version, health, API groups and resources (API discovery).

use http::{Method, Response};
use k8s_openapi::apimachinery::pkg::version::Info;
use serde_json::{Value, json};

use crate::api_error::ApiError;
use crate::cluster_state::ClusterState;
use crate::response::{self, Body};

/// A resource in discovery: name, kind, whether the resource is namespaced, and verbs.
type Resource = (&'static str, &'static str, bool, &'static [&'static str]);

const CORE: &[Resource] = &[
    ("events", "Event", true, &["get", "list", "watch"]),
    ("namespaces", "Namespace", false, &["get", "list", "watch"]),
    ("nodes", "Node", false, &["get", "list", "watch"]),
    ("pods", "Pod", true, &["create", "delete", "deletecollection", "get", "list", "patch", "watch"]),
    ("pods/ephemeralcontainers", "Pod", true, &["get", "patch", "update"]),
    ("pods/exec", "PodExecOptions", true, &["create", "get"]),
    ("pods/log", "Pod", true, &["get"]),
];
/// All API groups except the core group. Each group has one version.
const GROUPS: &[(&str, &[Resource])] = &[
    ("authorization.k8s.io", &[("selfsubjectaccessreviews", "SelfSubjectAccessReview", false, &["create"])]),
    (
        "resource.k8s.io",
        &[
            ("resourceclaims", "ResourceClaim", true, &["get", "list"]),
            ("resourceslices", "ResourceSlice", false, &["get", "list"]),
        ],
    ),
];

/// Serves a path without a resource.
pub(crate) fn serve(state: &ClusterState, method: &Method, path: &str) -> Result<Response<Body>, ApiError> {
    if method != Method::GET {
        return Err(ApiError::MethodNotAllowed);
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let found = match parts[..] {
        ["version"] => return Ok(response::json(200, &version(&state.version))),
        ["readyz" | "livez" | "healthz"] => return Ok(response::plain_text(200, "ok")),
        ["api"] => Some(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})),
        ["api", "v1"] => Some(resources("v1", CORE)),
        ["apis"] => {
            let groups: Vec<_> = groups(state).map(|(name, _)| group(name)).collect();
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["apis", name] => group_resources(state, name).map(|_| group(name)),
        ["apis", name, "v1"] => group_resources(state, name).map(|all| resources(&format!("{name}/v1"), all)),
        _ => None,
    };
    found.map(|value| response::json(200, &value)).ok_or(ApiError::NoSuchPath)
}

/// Returns the API groups of the cluster.
fn groups(state: &ClusterState) -> impl Iterator<Item = &'static (&'static str, &'static [Resource])> {
    let serves_dra = state.serves_dra;
    GROUPS.iter().filter(move |(name, _)| serves_dra || *name != "resource.k8s.io")
}

fn group_resources(state: &ClusterState, name: &str) -> Option<&'static [Resource]> {
    groups(state).find(|(group, _)| *group == name).map(|(_, resources)| *resources)
}

fn group(name: &str) -> Value {
    let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
    json!({"kind": "APIGroup", "apiVersion": "v1", "name": name, "versions": [version], "preferredVersion": version})
}

fn resources(group_version: &str, resources: &[Resource]) -> Value {
    let each: Vec<_> = resources
        .iter()
        .map(|(name, kind, namespaced, verbs)| {
            json!({"name": name, "singularName": "", "kind": kind, "namespaced": namespaced, "verbs": verbs})
        })
        .collect();
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": each})
}

/// Parses a version: `v1.36.2` has major `1` and minor `36`.
fn version(git_version: &str) -> Info {
    let mut numbers = git_version.trim_start_matches('v').split('.').map(str::to_owned);
    Info {
        major: numbers.next().unwrap_or_default(),
        minor: numbers.next().unwrap_or_default(),
        git_version: git_version.to_owned(),
        platform: "linux/amd64".to_owned(),
        git_tree_state: "clean".to_owned(),
        ..Info::default()
    }
}
