//! `is_allowed`: checks a permission of the user (`Access`) with a SelfSubjectAccessReview, which every user may
//! create.

use std::time::Duration;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;
use tokio::time::timeout;

use super::objects::RequestError;
use kube_read::Connection;

/// Time limit of one review.
const TIME: Duration = Duration::from_secs(9);

/// An action on a resource.
pub(crate) struct Access<'a> {
    pub(crate) verb: &'a str,
    pub(crate) group: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) subresource: Option<&'a str>,
    /// Name of the object; `None` for all objects.
    pub(crate) name: Option<&'a str>,
    /// Namespace; `None` for all namespaces, and for objects without a namespace.
    pub(crate) namespace: Option<&'a str>,
}

/// Returns `true` if the user has the permission.
pub(crate) async fn is_allowed(connection: &Connection, access: &Access<'_>) -> Result<bool, RequestError> {
    let Access { verb, group, resource, subresource, name, namespace } = access;
    let attributes = ResourceAttributes {
        verb: Some((*verb).to_owned()),
        group: Some((*group).to_owned()),
        resource: Some((*resource).to_owned()),
        subresource: subresource.map(str::to_owned),
        name: name.map(str::to_owned),
        namespace: namespace.map(str::to_owned),
        ..ResourceAttributes::default()
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() },
        ..SelfSubjectAccessReview::default()
    };
    let api = Api::<SelfSubjectAccessReview>::all(connection.client.clone());
    match timeout(TIME, api.create(&PostParams::default(), &review)).await {
        Ok(Ok(review)) => Ok(review.status.is_some_and(|status| status.allowed)),
        Ok(Err(error)) => Err(RequestError::Kube(error)),
        Err(_) => Err(RequestError::Timeout),
    }
}
