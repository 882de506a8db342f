//! `find`, `remove`: find and remove the objects of a set-up (`Removal`), for `gpu-syringe setup --uninstall`.
//! The permissions of users are removed first, then the namespace with its pods, then the policy, so that no pod exists
//! without the policy.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ResourceQuota};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::{Resource, ResourceExt};
use tokio::time::{Instant, sleep};

use super::apply::{Applied, policy_objects};
use super::installed::{failed, is_ours};
use super::objects::{self, Mode, ObjectRef};
use super::permissions::GrantedBy;
use super::plan::Change;
use crate::policy::cluster_name;
use kube_read::Connection;
use kube_read::Failure;

/// Time limit for the deletion of the namespace.
const NAMESPACE_TIME: Duration = Duration::from_secs(90);
/// Pause between two checks of the namespace.
const PAUSE: Duration = Duration::from_millis(500);
/// ConfigMaps that every namespace has.
const OF_EVERY_NAMESPACE: [&str; 2] = ["kube-root-ca.crt", "openshift-service-ca.crt"];

/// The objects to remove, and the objects that stay.
#[derive(Default)]
pub(super) struct Removal {
    /// Objects that setup created, with their UIDs, in the order of their removal.
    pub(super) ours: Vec<(ObjectRef, String)>,
    /// Objects that have the name of an object of the set-up, but were not created by setup.
    pub(super) others: Vec<ObjectRef>,
    /// Objects that setup created and that are kept to protect a namespace that stays.
    pub(super) kept: Vec<ObjectRef>,
    /// Objects in the namespace that are not part of the set-up. They are deleted with the namespace.
    pub(super) with_namespace: Vec<String>,
}

/// Returns every object of a set-up, in the order of removal.
fn all(namespace: &str) -> Vec<ObjectRef> {
    fn of_cluster<K: Resource<DynamicType = ()>>(name: &str, namespace: &str) -> ObjectRef {
        ObjectRef::new::<K>(None, &cluster_name(name, namespace))
    }
    let (reader, operator) = (GrantedBy::Reader.role(), GrantedBy::Operator.role());
    let (read, ephemeral) = (GrantedBy::ClusterRead.role(), GrantedBy::Ephemeral.role());
    let mut all = vec![
        ObjectRef::new::<RoleBinding>(Some(namespace), reader),
        ObjectRef::new::<RoleBinding>(Some(namespace), operator),
        of_cluster::<ClusterRoleBinding>(read, namespace),
        ObjectRef::new::<Role>(Some(namespace), reader),
        ObjectRef::new::<Role>(Some(namespace), operator),
        ObjectRef::new::<ResourceQuota>(Some(namespace), "gpu-syringe"),
        ObjectRef::new::<Namespace>(None, namespace),
        of_cluster::<ClusterRole>(read, namespace),
        of_cluster::<ClusterRole>(ephemeral, namespace),
    ];
    all.extend(policy_objects(namespace));
    all
}

/// Finds the objects of the set-up, and checks with dry runs that they may be deleted. Changes nothing.
pub(super) async fn find(connection: &Connection, namespace: &str) -> Result<Removal, Failure> {
    let mut removal = select(connection, all(namespace)).await?;
    // A namespace that stays would admit every privileged pod if its policy and quota were removed.
    if removal.others.iter().any(ObjectRef::is::<Namespace>) {
        let protects = |object: &ObjectRef| object.is::<ResourceQuota>() || policy_objects(namespace).contains(object);
        let (kept, ours) = removal.ours.into_iter().partition(|(object, _)| protects(object));
        removal.ours = ours;
        removal.kept = kept.into_iter().map(|(object, _): (ObjectRef, String)| object).collect();
    }
    let has_namespace = removal.ours.iter().any(|(object, _)| object.is::<Namespace>());
    let with_namespace = if has_namespace { contents(connection, namespace).await } else { Vec::new() };
    Ok(Removal { with_namespace, ..removal })
}

/// Finds the objects of the list that exist, and checks that those created by setup may be deleted.
pub(super) async fn select(connection: &Connection, objects: Vec<ObjectRef>) -> Result<Removal, Failure> {
    let mut removal = Removal::default();
    let reads = objects.iter().map(async |object| objects::get(connection, object).await);
    for (object, found) in objects.iter().zip(futures_util::future::join_all(reads).await) {
        let found = found.map_err(|error| failed(&format!("Reading {object}"), &error))?;
        match found {
            Some(found) if is_ours(&found) => {
                removal.ours.push((object.clone(), found.uid().unwrap_or_default()));
            }
            Some(_) => removal.others.push(object.clone()),
            None => {}
        }
    }
    for (object, uid) in &removal.ours {
        let checked = objects::delete(connection, object, uid, Mode::DryRun).await;
        checked.map_err(|error| failed(&format!("Deleting {object} (nothing was changed)"), &error))?;
    }
    Ok(removal)
}

/// Returns the other objects of the namespace, as far as the user may list them.
async fn contents(connection: &Connection, namespace: &str) -> Vec<String> {
    let pods = objects::names::<Pod>(connection, namespace).await.unwrap_or_default();
    let config_maps = objects::names::<ConfigMap>(connection, namespace).await.unwrap_or_default();
    let is_foreign = |name: &&String| !OF_EVERY_NAMESPACE.contains(&name.as_str());
    let config_maps = config_maps.iter().filter(is_foreign).map(|name| format!("ConfigMap {name}"));
    pods.iter().map(|name| format!("Pod {name}")).chain(config_maps).collect()
}

/// Returns a note about pods that were created before the policy, because the policy can no longer reject them.
pub(super) async fn note_of_older_pods(connection: &Connection, namespace: &str) -> Option<String> {
    let names = objects::names::<Pod>(connection, namespace).await.ok()?;
    (!names.is_empty()).then(|| {
        format!(
            "These pods are older than the policy, which does not limit them: {}. To delete them, run: kubectl --namespace {namespace} \
             delete pods --all",
            names.join(", ")
        )
    })
}

/// Deletes the objects one after the other. After deleting the namespace, waits until the namespace and its pods are gone.
pub(super) async fn remove(connection: &Connection, ours: &[(ObjectRef, String)]) -> Result<Vec<Applied>, Failure> {
    let mut removed: Vec<Applied> = Vec::new();
    for (object, uid) in ours {
        let deleted = objects::delete(connection, object, uid, Mode::Real).await;
        deleted.map_err(|error| failed(&format!("Deleting {object} ({} were deleted)", removed.len()), &error))?;
        if object.is::<Namespace>() {
            wait_until_gone(connection, object, uid).await?;
        }
        removed.push((object.clone(), Change::Deleted));
    }
    Ok(removed)
}

async fn wait_until_gone(connection: &Connection, namespace: &ObjectRef, uid: &str) -> Result<(), Failure> {
    let end = Instant::now() + NAMESPACE_TIME;
    loop {
        let found = objects::get(connection, namespace).await;
        let found = found.map_err(|error| failed(&format!("Waiting until {namespace} is gone"), &error))?;
        if found.is_none_or(|found| found.uid().as_deref() != Some(uid)) {
            return Ok(());
        }
        if Instant::now() > end {
            let name = &namespace.name;
            return Err(Failure::new(
                format!("Waiting until {namespace} is gone"),
                format!(
                    "the namespace still exists after {NAMESPACE_TIME:?}; its policy is kept until the namespace \
                    is deleted"
                ),
                format!(
                    "To see what blocks the deletion, run: kubectl get namespace {name} -o yaml (conditions), then run the setup command again."
                ),
            ));
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use crate::setup::manifests::{Parameters, Profile, Subject};

    #[test]
    fn every_object_of_the_manifests_is_removed() {
        for namespace in ["gpu-syringe", "trial"] {
            let settings = Settings::from_args(["--probe-namespace", namespace]).expect("settings");
            let operators = vec![Subject { kind: "User", name: "u".to_owned() }];
            let manifests =
                Parameters::new(&settings, Vec::new(), operators).objects(Profile::Hardened).expect("manifests");
            let applied: Vec<_> = manifests.iter().filter_map(ObjectRef::from_manifest).collect();
            let removed = all(namespace);
            assert_eq!(applied.len(), manifests.len());
            assert!(applied.iter().all(|object| removed.contains(object)), "{applied:?} {removed:?}");
            assert_eq!(applied.len(), removed.len());
        }
    }

    #[test]
    fn users_lose_their_permissions_first_and_the_policy_is_removed_last() {
        let all = all("gpu-syringe");
        let at = |kind: &str| all.iter().position(|object| object.resource.kind == kind).expect("in the list");
        assert!(all[..3].iter().all(|object| object.resource.kind.ends_with("RoleBinding")));
        assert!(at("Namespace") < at("ValidatingAdmissionPolicyBinding"));
        assert!(at("ValidatingAdmissionPolicyBinding") < at("ValidatingAdmissionPolicy"));
    }
}
