//! `apply`: applies a plan, the policy before the permissions. `check_policy`: checks whether the policy is in effect.

use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Resource};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::installed::failed;
use super::manifests::{PARAMETER, PROBE_POLICY, cluster_name};
use super::objects::{self, Mode, ObjectRef};
use super::plan::{Change, Planned};
use crate::probe;
use crate::settings::{ProbeMethod, Settings};
use kube_read::Connection;
use kube_read::Failure;

/// Time limit until a new policy is in effect, which usually takes a second.
const POLICY_TIME: Duration = Duration::from_secs(12);
/// Note about an API server that does not see the parameter of the policy.
const BLIND: &str = "The policy is in effect, but the API server does not see its ConfigMap, or sees an old one: it had such a policy before \
     and lost it (kubernetes/kubernetes#130887). Restart kube-apiserver; gpu-syringe doctor has the command.";
/// Pause between two checks of the policy.
const PAUSE: Duration = Duration::from_millis(250);
/// The policies of the hardened profile.
const POLICIES: [&str; 3] = [PROBE_POLICY, "gpu-syringe-exec-only", "gpu-syringe-nothing-else"];

/// An object and its change.
pub(crate) type Applied = (ObjectRef, Change);

/// Applies every object of a plan. Permissions come last, after the policy is in effect.
pub(super) async fn apply(
    connection: &Connection,
    planned: &[Planned],
    settings: &Settings,
    force: bool,
) -> Result<(Vec<Applied>, Option<String>), Failure> {
    let mut applied = Vec::new();
    let mut remark = None;
    let parameter = planned.iter().find(|one| one.reference.is::<ConfigMap>());
    let image = parameter.and_then(|one| one.manifest["data"]["image"].as_str()).unwrap_or_default().to_owned();
    let has_policy = planned.iter().any(|one| one.reference.is::<ValidatingAdmissionPolicyBinding>());
    let mut is_checked = false;
    for Planned { reference, manifest, change } in planned {
        let grants = reference.is::<RoleBinding>() || reference.is::<ClusterRoleBinding>();
        if has_policy && !is_checked && grants {
            remark = wait_for_policy(connection, settings, &image).await?;
            is_checked = true;
        }
        if *change != Change::Unchanged {
            let result = objects::apply(connection, reference, manifest, Mode::Real, force).await;
            result.map_err(|error| failed(&format!("Applying {reference} ({})", so_far(&applied)), &error))?;
        }
        applied.push((reference.clone(), *change));
    }
    // If the plan has no bindings, the policy was not checked yet.
    if has_policy && !is_checked {
        remark = wait_for_policy(connection, settings, &image).await?;
    }
    Ok((applied, remark))
}

fn so_far(applied: &[Applied]) -> String {
    let changed = applied.iter().filter(|(_, change)| *change != Change::Unchanged).count();
    format!("{changed} objects were applied before it")
}

/// Waits until the policy rejects a pod that is not a probe. Otherwise a user could create such a pod before the policy
/// is in effect. Returns a note if the policy rejects every pod.
async fn wait_for_policy(connection: &Connection, settings: &Settings, image: &str) -> Result<Option<String>, Failure> {
    let namespace = &settings.probe_namespace;
    let end = Instant::now() + POLICY_TIME;
    let mut answer = String::new();
    let mut without_parameter = false;
    while Instant::now() < end {
        match check_policy(connection, namespace).await {
            PolicyState::InEffect if is_current(connection, settings, image).await => return Ok(None),
            PolicyState::InEffect | PolicyState::WithoutParameter => without_parameter = true,
            PolicyState::NotInEffect(seen) => (answer, without_parameter) = (seen, false),
        }
        sleep(PAUSE).await;
    }
    if without_parameter {
        return Ok(Some(BLIND.to_owned()));
    }
    Err(Failure::new(
        format!("Waiting until the policy of namespace {namespace} is in effect"),
        format!("after {POLICY_TIME:?} the API server still answers a pod that is not a probe with: {answer}"),
        "No user was given permissions. Look at kubectl get validatingadmissionpolicybinding, then run the same command again.",
    ))
}

/// Part of the rejection message if the API server does not find the parameter of the policy.
pub(crate) const NO_PARAMS: &str = "no params found";
/// The text of [`PolicyState::NotInEffect`] if nothing rejects the pod.
pub(crate) const ADMITTED: &str = "it is admitted";

/// Returns whether the policy uses this image, and not the image of an older ConfigMap.
async fn is_current(connection: &Connection, settings: &Settings, image: &str) -> bool {
    let settings = Settings {
        via: ProbeMethod::Pod,
        image: Some(image.to_owned()),
        image_digest: None,
        registry_mirror: None,
        ..settings.clone()
    };
    let Ok(pod) = probe::printed(&settings, "gpu-node") else { return true };
    let api = Api::namespaced(connection.client.clone(), &pod.namespace);
    let answer = objects::check_admitted(&api, &pod.object).await;
    // A rejection for another reason does not show which image the policy uses.
    !answer.is_err_and(|error| error.reason().contains("data.image"))
}

/// State of the policy of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PolicyState {
    /// The policy rejects a pod that is not a probe.
    InEffect,
    /// The policy rejects every pod, because the API server does not see the parameter.
    WithoutParameter,
    /// The response was not from the policy.
    NotInEffect(String),
}

/// Sends a dry run of a pod that the policy must reject.
pub(crate) async fn check_policy(connection: &Connection, namespace: &str) -> PolicyState {
    // The pod is valid at every Pod Security level, so that nothing but the policy rejects it.
    let spec = json!({
        "spec": {
            "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "none", "image": "registry.invalid/none",
                "resources": {"limits": {"memory": "1Mi", "cpu": "1m"}},
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    });
    let resource = ApiResource::erase::<Pod>(&());
    let pod = DynamicObject::new("gpu-syringe-no-probe", &resource).within(namespace).data(spec);
    let api = Api::namespaced_with(connection.client.clone(), namespace, &resource);
    match objects::check_admitted(&api, &pod).await {
        Ok(()) => PolicyState::NotInEffect(ADMITTED.to_owned()),
        Err(error) => {
            let reason = error.reason();
            let ours = format!("ValidatingAdmissionPolicy '{}'", cluster_name(PROBE_POLICY, namespace));
            match () {
                () if reason.contains(&ours) && reason.contains(NO_PARAMS) => PolicyState::WithoutParameter,
                () if reason.contains(&ours) => PolicyState::InEffect,
                () => PolicyState::NotInEffect(reason),
            }
        }
    }
}

/// Returns a note about an API server that has lost its policy, if a policy was removed.
pub(super) fn note_of_removed_policy(applied: &[Applied]) -> Option<String> {
    let is_removed = applied
        .iter()
        .any(|(object, change)| object.is::<ValidatingAdmissionPolicyBinding>() && *change == Change::Deleted);
    is_removed.then(|| {
        "Before the hardened profile is set up again, restart kube-apiserver: an API server that lost its last policy with a \
         ConfigMap may not see a new ConfigMap (kubernetes/kubernetes#130887)."
            .to_owned()
    })
}

/// Returns the objects of the policy in the order in which they are removed. The parameter is removed first, because
/// without the parameter no pod is admitted.
pub(super) fn policy_objects(namespace: &str) -> Vec<ObjectRef> {
    let mut objects = vec![ObjectRef::new::<ConfigMap>(Some(namespace), PARAMETER)];
    objects.extend(of_each_policy::<ValidatingAdmissionPolicyBinding>(namespace));
    objects.extend(of_each_policy::<ValidatingAdmissionPolicy>(namespace));
    objects
}

/// Returns the objects of one kind that belong to the policies.
pub(crate) fn of_each_policy<K: Resource<DynamicType = ()>>(namespace: &str) -> impl Iterator<Item = ObjectRef> {
    POLICIES.iter().map(move |name| ObjectRef::new::<K>(None, &cluster_name(name, namespace)))
}
