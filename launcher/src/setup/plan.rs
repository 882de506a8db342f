//! `plan`: finds the changes of a set-up (`Planned`, `Change`) by a server-side dry run of every object, before any
//! object is applied.

use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::core::{ApiResource, DynamicObject};
use serde_json::Value;

use super::access::{self, Access};
use super::installed::failed;
use super::objects::{self, Mode, ObjectRef, RequestError};
use kube_read::Connection;
use kube_read::Failure;

/// The change of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Created,
    Changed,
    Unchanged,
    Deleted,
}

impl Change {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Deleted => "deleted",
        }
    }

    pub(super) fn verb(self) -> &'static str {
        match self {
            Self::Created => "create",
            Self::Changed => "change",
            Self::Unchanged => "leave",
            Self::Deleted => "delete",
        }
    }
}

/// An object that is to be applied.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) reference: ObjectRef,
    pub(super) manifest: Value,
    pub(super) change: Change,
}

/// Checks every object with a dry run, which changes nothing. A failure names every object that is rejected.
pub(super) async fn plan(connection: &Connection, manifests: Vec<Value>, force: bool) -> Result<Vec<Planned>, Failure> {
    let checks = manifests.iter().filter_map(|manifest| Some((ObjectRef::from_manifest(manifest)?, manifest)));
    let checked = futures_util::future::join_all(checks.map(async |(reference, manifest)| {
        let change = check(connection, &reference, manifest, force).await;
        (reference, manifest.clone(), change)
    }));
    let (mut planned, mut refused) = (Vec::new(), Vec::new());
    for (reference, manifest, change) in checked.await {
        match change {
            Ok(change) => planned.push(Planned { reference, manifest, change }),
            Err(error) => refused.push((reference, error)),
        }
    }
    if refused.is_empty() { Ok(planned) } else { Err(refusal(&refused)) }
}

async fn check(
    connection: &Connection,
    reference: &ObjectRef,
    manifest: &Value,
    force: bool,
) -> Result<Change, RequestError> {
    let before = objects::get(connection, reference).await?;
    match objects::apply(connection, reference, manifest, Mode::DryRun, force).await {
        Ok(after) => Ok(compare(before.as_ref(), &after)),
        // The namespace does not exist yet. Until the namespace exists, only the permissions can be checked.
        Err(error) if error.is_without_namespace() => {
            let namespace = reference.namespace.as_deref();
            let ApiResource { group, plural, .. } = &reference.resource;
            for verb in ["create", "patch"] {
                let access = Access { verb, group, resource: plural, subresource: None, name: None, namespace };
                if !access::is_allowed(connection, &access).await? {
                    return Err(missing(verb, plural, namespace));
                }
            }
            check_escalation(connection, reference, manifest).await?;
            Ok(Change::Created)
        }
        Err(error) => Err(error),
    }
}

/// Checks that the user may create this Role: users cannot grant permissions that they do not have, unless they may
/// `escalate`.
async fn check_escalation(
    connection: &Connection,
    reference: &ObjectRef,
    manifest: &Value,
) -> Result<(), RequestError> {
    let namespace = reference.namespace.as_deref();
    let verb = match () {
        () if reference.is::<Role>() => "escalate",
        () if reference.is::<RoleBinding>() => "bind",
        () => return Ok(()),
    };
    let access =
        Access { verb, group: &reference.resource.group, resource: "roles", subresource: None, name: None, namespace };
    if access::is_allowed(connection, &access).await? || verb == "bind" {
        // The check of the role covers the permissions in the role.
        return Ok(());
    }
    let words = |value: &Value| {
        let all = value.as_array().into_iter().flatten();
        all.filter_map(|word| word.as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    for rule in manifest["rules"].as_array().into_iter().flatten() {
        for group in words(&rule["apiGroups"]) {
            for full in words(&rule["resources"]) {
                let (resource, subresource) =
                    full.split_once('/').map_or((full.as_str(), None), |(resource, sub)| (resource, Some(sub)));
                for verb in words(&rule["verbs"]) {
                    let access = Access { verb: &verb, group: &group, resource, subresource, name: None, namespace };
                    if !access::is_allowed(connection, &access).await? {
                        return Err(missing(&verb, &full, namespace));
                    }
                }
            }
        }
    }
    Ok(())
}

/// Returns the error for a missing permission.
fn missing(verb: &str, resource: &str, namespace: Option<&str>) -> RequestError {
    let place = namespace.map_or_else(|| "the cluster".to_owned(), |name| format!("namespace {name}"));
    let message = format!("you may not {verb} {resource} in {place}");
    RequestError::Kube(kube::Error::Api(Box::new(kube::core::Status::failure(&message, "Forbidden").with_code(403))))
}

/// Compares an object with the result of a dry run. Times, versions and managers are ignored, because they always differ.
fn compare(before: Option<&DynamicObject>, after: &DynamicObject) -> Change {
    let Some(before) = before else { return Change::Created };
    if content(before) == content(after) { Change::Unchanged } else { Change::Changed }
}

fn content(object: &DynamicObject) -> DynamicObject {
    let mut object = object.clone();
    let metadata = &mut object.metadata;
    metadata.managed_fields = None;
    metadata.resource_version = None;
    metadata.generation = None;
    metadata.creation_timestamp = None;
    metadata.uid = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    if let Some(fields) = object.data.as_object_mut() {
        fields.remove("status");
    }
    object
}

/// Returns one failure for all objects that were rejected.
fn refusal(refused: &[(ObjectRef, RequestError)]) -> Failure {
    let each = refused.iter().map(|(reference, error)| format!("{reference}: {}", error.reason()));
    let why = each.collect::<Vec<_>>().join("; ");
    let what = format!("Setting up (objects rejected: {}; nothing was changed)", refused.len());
    let conflicts = refused.iter().any(|(_, error)| error.code() == Some(409));
    let Some((_, first)) = refused.iter().find(|(_, error)| error.code() == Some(403)).or_else(|| refused.first())
    else {
        return Failure::new(what, why, "Run the command again.");
    };
    let next_step = if conflicts && first.code() == Some(409) {
        "Somebody else set these fields to other values. To keep these values, set them in your manifests; or take the fields \
         over with --force-conflicts."
            .to_owned()
    } else {
        failed("", first).next_step
    };
    Failure::new(what, why, next_step)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn versions_and_managers_are_not_a_change() {
        let object = |version: &str, image: &str| {
            let metadata = json!({"name": "a", "resourceVersion": version, "managedFields": [{"manager": version}]});
            let object = json!({"metadata": metadata, "data": {"image": image}});
            serde_json::from_value::<DynamicObject>(object).expect("an object")
        };
        let stored = object("1", "x");
        assert_eq!(compare(Some(&stored), &object("2", "x")), Change::Unchanged);
        assert_eq!(compare(Some(&stored), &object("1", "y")), Change::Changed);
        assert_eq!(compare(None, &stored), Change::Created);
    }
}
