//! `authorize`: allows every request that the fixture does not deny. `review`: serves SelfSubjectAccessReviews.

use http::Response;
use k8s_openapi::api::authorization::v1::{SelfSubjectAccessReview, SubjectAccessReviewStatus};

use crate::api_error::ApiError;
use crate::cluster_state::ClusterState;
use crate::fixture::Denial;
use crate::request_body::parse;
use crate::request_info::RequestInfo;
use crate::response::{Body, json};

/// Returns the denial that matches. `namespace` is `None` for a request to all namespaces.
fn denial<'a>(
    denials: &'a [Denial],
    verb: &str,
    group: &str,
    resource: &str,
    namespace: Option<&str>,
) -> Option<&'a Denial> {
    let is_match = |pattern: &str, value: &str| pattern.is_empty() || pattern == "*" || pattern == value;
    denials.iter().find(|denial| {
        is_match(&denial.verb, verb)
            && denial.group.as_deref().is_none_or(|wanted| wanted == "*" || wanted == group)
            && is_match(&denial.resource, resource)
            && denial.namespace.as_deref().is_none_or(|wanted| Some(wanted) == namespace)
    })
}

/// Checks that a request is allowed.
pub(crate) fn authorize(state: &ClusterState, info: &RequestInfo) -> Result<(), ApiError> {
    let resource = info.full_resource();
    // A websocket exec is a GET. Since Kubernetes 1.35, an exec also needs the verb `create`.
    let verbs: &[&str] = match (resource.as_str(), info.verb) {
        ("pods/exec", "get") => &["get", "create"],
        (_, verb) => &[verb],
    };
    let namespace = info.namespace.as_deref();
    let mut denied =
        verbs.iter().filter_map(|verb| Some((verb, denial(&state.denied, verb, &info.group, &resource, namespace)?)));
    let Some((verb, Denial { why, .. })) = denied.next() else { return Ok(()) };
    let scope = namespace
        .map_or_else(|| "at the cluster scope".to_owned(), |namespace| format!("in the namespace \"{namespace}\""));
    let (user, group) = (&state.user, &info.group);
    let reason = format!("User \"{user}\" cannot {verb} resource \"{resource}\" in API group \"{group}\" {scope}");
    let reason = why.iter().fold(reason, |reason, why| format!("{reason}: {why}"));
    Err(ApiError::AuthorizationDenied { resource: info.resource.clone(), name: info.name.clone(), reason })
}

/// Serves `create` of `selfsubjectaccessreviews`.
pub(crate) fn review(state: &ClusterState, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let mut review: SelfSubjectAccessReview = parse(body)?;
    let denied = review.spec.resource_attributes.as_ref().is_some_and(|attributes| {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let resource = match &attributes.subresource {
            Some(subresource) if !subresource.is_empty() => format!("{}/{subresource}", text(&attributes.resource)),
            _ => text(&attributes.resource),
        };
        let namespace = attributes.namespace.as_deref().filter(|namespace| !namespace.is_empty());
        denial(&state.denied, &text(&attributes.verb), &text(&attributes.group), &resource, namespace).is_some()
    });
    review.status = Some(SubjectAccessReviewStatus { allowed: !denied, ..SubjectAccessReviewStatus::default() });
    Ok(json(201, &review))
}
