//! Who may do what: everything is allowed but what the fixture denies. Answers reviews, and refuses requests.

use http::Response;
use k8s_openapi::api::authorization::v1::{SelfSubjectAccessReview, SubjectAccessReviewStatus};

use super::answer::{Body, Refusal, json};
use super::fixture::Denial;
use super::pods;
use super::route::Target;
use super::shared::Shared;

/// Whether a rule denies this. `namespace` is `None` for a request to all namespaces.
fn denied(rules: &[Denial], verb: &str, group: &str, resource: &str, namespace: Option<&str>) -> bool {
    let any = |rule: &str, value: &str| rule.is_empty() || rule == "*" || rule == value;
    rules.iter().any(|rule| {
        any(&rule.verb, verb)
            && rule.group.as_deref().is_none_or(|own| own == "*" || own == group)
            && any(&rule.resource, resource)
            && rule.namespace.as_deref().is_none_or(|own| Some(own) == namespace)
    })
}

/// Refuses a request that a rule denies.
pub(super) fn authorise(shared: &Shared, target: &Target) -> Result<(), Refusal> {
    let resource = target.full_resource();
    // A websocket exec is a GET; since 1.35 it needs `create`, too.
    let verbs: &[&str] = match (resource.as_str(), target.verb) {
        ("pods/exec", "get") => &["get", "create"],
        (_, verb) => &[verb],
    };
    let namespace = target.namespace.as_deref();
    let refused = verbs.iter().find(|verb| denied(&shared.denied, verb, &target.group, &resource, namespace));
    let Some(verb) = refused else { return Ok(()) };
    let place = namespace
        .map_or_else(|| "at the cluster scope".to_owned(), |namespace| format!("in the namespace \"{namespace}\""));
    let (user, group) = (&shared.user, &target.group);
    let why = format!("User \"{user}\" cannot {verb} resource \"{resource}\" in API group \"{group}\" {place}");
    Err(Refusal::Denied { resource: target.resource.clone(), name: target.name.clone(), why })
}

/// `selfsubjectaccessreviews` `create`.
pub(super) fn review(shared: &Shared, body: &[u8]) -> Result<Response<Body>, Refusal> {
    let mut review: SelfSubjectAccessReview = pods::parse(body)?;
    let refused = review.spec.resource_attributes.as_ref().is_some_and(|asked| {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let resource = match &asked.subresource {
            Some(subresource) if !subresource.is_empty() => format!("{}/{subresource}", text(&asked.resource)),
            _ => text(&asked.resource),
        };
        let namespace = asked.namespace.as_deref().filter(|namespace| !namespace.is_empty());
        denied(&shared.denied, &text(&asked.verb), &text(&asked.group), &resource, namespace)
    });
    review.status = Some(SubjectAccessReviewStatus { allowed: !refused, ..SubjectAccessReviewStatus::default() });
    Ok(json(201, &review))
}
