//! `RequestInfo`: verb, resource and object of a request, from method, path and query as in a real API server.

use http::{Method, Uri};

use crate::query::Query;

/// A request to one resource, in the terms of RBAC rules.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RequestInfo {
    /// The verb: `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub(crate) verb: &'static str,
    /// The API group; empty for the core group.
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: Option<String>,
    pub(crate) resource: String,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
}

impl RequestInfo {
    /// Parses a request. `None` for a path without a resource (`/version`, `/apis`).
    pub(crate) fn of(method: &Method, uri: &Uri, query: &Query) -> Option<Self> {
        let parts: Vec<&str> = uri.path().split('/').filter(|part| !part.is_empty()).collect();
        let (group, version, rest) = match parts[..] {
            ["api", version, ref rest @ ..] if !rest.is_empty() => ("", version, rest),
            ["apis", group, version, ref rest @ ..] if !rest.is_empty() => (group, version, rest),
            _ => return None,
        };
        // If nothing follows, `namespaces/x` is the object x. Otherwise x is the namespace of the resource that
        // follows.
        let (namespace, rest) = match *rest {
            ["namespaces", namespace, ref inner @ ..] if !inner.is_empty() => (Some(namespace), inner),
            _ => (None, rest),
        };
        let (resource, name, subresource) = match *rest {
            [resource] => (resource, None, None),
            [resource, name] => (resource, Some(name), None),
            [resource, name, subresource] => (resource, Some(name), Some(subresource)),
            // The part after `proxy` is a path on the kubelet.
            [resource, name, "proxy", ..] => (resource, Some(name), Some("proxy")),
            _ => return None,
        };
        Some(Self {
            verb: verb(method, name.is_some(), query.flag("watch"))?,
            group: group.to_owned(),
            version: version.to_owned(),
            namespace: namespace.map(str::to_owned),
            resource: resource.to_owned(),
            name: name.map(str::to_owned),
            subresource: subresource.map(str::to_owned),
        })
    }

    /// Returns the resource and the subresource as in RBAC rules, such as `pods/exec`.
    pub(crate) fn full_resource(&self) -> String {
        match &self.subresource {
            Some(subresource) => format!("{}/{subresource}", self.resource),
            None => self.resource.clone(),
        }
    }
}

fn verb(method: &Method, named: bool, watch: bool) -> Option<&'static str> {
    Some(match (method, named) {
        (&Method::GET, true) => "get",
        (&Method::GET, false) if watch => "watch",
        (&Method::GET, false) => "list",
        (&Method::POST, _) => "create",
        (&Method::PUT, _) => "update",
        (&Method::PATCH, _) => "patch",
        (&Method::DELETE, true) => "delete",
        (&Method::DELETE, false) => "deletecollection",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(method: Method, uri: &'static str) -> Option<RequestInfo> {
        let uri = Uri::from_static(uri);
        RequestInfo::of(&method, &uri, &Query::parse(uri.query().unwrap_or_default()))
    }

    #[test]
    fn a_namespace_is_an_object_or_the_namespace_of_one() {
        let namespace = info(Method::GET, "/api/v1/namespaces/a").expect("a resource");
        assert_eq!((namespace.full_resource().as_str(), namespace.name.as_deref()), ("namespaces", Some("a")));
        let exec = info(Method::GET, "/api/v1/namespaces/a/pods/b/exec?command=x").expect("a resource");
        assert_eq!((exec.verb, exec.full_resource().as_str()), ("get", "pods/exec"));
        assert_eq!((exec.namespace.as_deref(), exec.name.as_deref()), (Some("a"), Some("b")));
        let proxy = info(Method::GET, "/api/v1/nodes/a/proxy/logs/kern.log").expect("a resource");
        assert_eq!((proxy.verb, proxy.full_resource().as_str()), ("get", "nodes/proxy"));
    }

    #[test]
    fn verbs_follow_method_name_and_watch() {
        let verb = |method, uri| info(method, uri).expect("a resource").verb;
        assert_eq!(verb(Method::GET, "/api/v1/pods?watch=true"), "watch");
        assert_eq!(verb(Method::GET, "/apis/resource.k8s.io/v1/resourceslices"), "list");
        assert_eq!(verb(Method::DELETE, "/api/v1/namespaces/a/pods"), "deletecollection");
        assert_eq!(info(Method::GET, "/version"), None);
        assert_eq!(info(Method::GET, "/apis/resource.k8s.io/v1"), None);
    }
}
