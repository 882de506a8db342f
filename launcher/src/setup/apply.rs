//! `apply`: applies a plan: policies first, permissions last. `check_policy`: checks whether the policy is in effect
//! (`PolicyState`). `policy_objects`, `of_each_policy`: the objects of the policies.

use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Resource};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::installed::failed;
use super::objects::{self, Mode, ObjectRef};
use super::plan::{Change, Planned};
use crate::policy::values::Values;
use crate::policy::{EXEC_ONLY, NOTHING_ELSE, POLICIES, PROBE_ONLY, cluster_name, is_refusal_of};
use kube_read::Connection;
use kube_read::Failure;

/// Time limit until a new policy is in effect, which usually takes a second.
const POLICY_TIME: Duration = Duration::from_secs(12);
/// Pause between two checks of the policy.
const PAUSE: Duration = Duration::from_millis(250);
/// Number of consecutive checks in which the policies must be in effect: a cluster can have several API servers, and each
/// request of a check has its own connection.
const ROUNDS: u32 = 4;
/// Name of a pod that does not exist.
const NO_POD: &str = "gpu-syringe-no-probe";

/// An object and its change.
pub(crate) type Applied = (ObjectRef, Change);

/// Applies every object of a plan. Permissions come last, after the policies are in effect.
pub(super) async fn apply(
    connection: &Connection,
    planned: &[Planned],
    namespace: &str,
    force: bool,
) -> Result<Vec<Applied>, Failure> {
    let mut applied = Vec::new();
    let of_policy = planned.iter().find(|one| one.reference.name == cluster_name(PROBE_ONLY, namespace));
    let image = of_policy.map(|one| Values::of_policy(&one.manifest["spec"]).image().to_owned());
    let mut is_checked = false;
    for Planned { reference, manifest, change } in planned {
        let grants = reference.is::<RoleBinding>() || reference.is::<ClusterRoleBinding>();
        if let Some(image) = &image
            && !is_checked
            && grants
        {
            wait_for_policy(connection, namespace, image).await?;
            is_checked = true;
        }
        if *change != Change::Unchanged {
            let result = objects::apply(connection, reference, manifest, Mode::Real, force).await;
            result.map_err(|error| failed(&format!("Applying {reference} ({})", so_far(&applied)), &error))?;
        }
        applied.push((reference.clone(), *change));
    }
    // If the plan has no bindings, the policy was not checked yet.
    if let Some(image) = &image
        && !is_checked
    {
        wait_for_policy(connection, namespace, image).await?;
    }
    Ok(applied)
}

fn so_far(applied: &[Applied]) -> String {
    let changed = applied.iter().filter(|(_, change)| *change != Change::Unchanged).count();
    format!("{changed} objects were applied before this object")
}

/// Waits until the three policies are in effect, with this image. Before that, a user could create any other pod.
async fn wait_for_policy(connection: &Connection, namespace: &str, image: &str) -> Result<(), Failure> {
    let end = Instant::now() + POLICY_TIME;
    let mut rounds = 0;
    let mut answer = String::new();
    while Instant::now() < end {
        match missing_effect(connection, namespace, image).await {
            None => rounds += 1,
            Some(why) => (rounds, answer) = (0, why),
        }
        if rounds == ROUNDS {
            return Ok(());
        }
        sleep(PAUSE).await;
    }
    Err(Failure::new(
        format!("Waiting until the policies of namespace {namespace} are in effect"),
        format!("after {POLICY_TIME:?}: {answer}"),
        "No user was given permissions. Check the policies (kubectl get \
            validatingadmissionpolicies,validatingadmissionpolicybindings), then run the setup command again.",
    ))
}

/// Returns why a policy is not in effect: a request that it does not reject, or another image that it admits. `None` if
/// all policies are in effect.
async fn missing_effect(connection: &Connection, namespace: &str, image: &str) -> Option<String> {
    let (pod, exec, attach) = tokio::join!(
        check_policy(connection, namespace),
        objects::connect(connection, namespace, NO_POD, "exec?container=probe&command=sh&stdout=true"),
        objects::connect(connection, namespace, NO_POD, "attach?container=probe&stdout=true"),
    );
    match pod {
        PolicyState::InEffect { image: found } if found.as_deref() == Some(image) => {}
        PolicyState::InEffect { image: found } => {
            let found = found.unwrap_or_else(|| "no image".to_owned());
            return Some(format!("the API server still applies an older policy, which admits {found}"));
        }
        PolicyState::NotInEffect(answer) => {
            return Some(format!("the API server's response to the creation of a pod that is not a probe: {answer}"));
        }
    }
    [(exec, EXEC_ONLY, "an exec of a shell"), (attach, NOTHING_ELSE, "an attach to a pod")].into_iter().find_map(
        |(answer, policy, what)| {
            let answer = answer.map_or_else(|error| error.reason(), |()| ADMITTED.to_owned());
            let is_refused = is_refusal_of(&answer, policy, namespace);
            (!is_refused).then(|| format!("{policy} does not reject {what}; the API server answers: {answer}"))
        },
    )
}

/// The text of [`PolicyState::NotInEffect`] if nothing rejects the pod.
pub(crate) const ADMITTED: &str = "the pod is admitted";

/// State of the policy of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PolicyState {
    /// The policy rejects a pod that is not a probe.
    InEffect {
        /// The image that the policy admits.
        image: Option<String>,
    },
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
    let pod = DynamicObject::new(NO_POD, &resource).within(namespace).data(spec);
    let api = Api::namespaced_with(connection.client.clone(), namespace, &resource);
    match objects::check_admitted(&api, &pod).await {
        Ok(()) => PolicyState::NotInEffect(ADMITTED.to_owned()),
        Err(error) => {
            let reason = error.reason();
            if !is_refusal_of(&reason, PROBE_ONLY, namespace) {
                return PolicyState::NotInEffect(reason);
            }
            let image =
                reason.split_once("with image ").map(|(_, rest)| rest.split_whitespace().next().unwrap_or_default());
            PolicyState::InEffect { image: image.map(str::to_owned) }
        }
    }
}

/// Returns the objects of the policy in the order in which they are removed.
pub(super) fn policy_objects(namespace: &str) -> Vec<ObjectRef> {
    let bindings = of_each_policy::<ValidatingAdmissionPolicyBinding>(namespace);
    bindings.chain(of_each_policy::<ValidatingAdmissionPolicy>(namespace)).collect()
}

/// Returns the objects of one kind that belong to the policies.
pub(crate) fn of_each_policy<K: Resource<DynamicType = ()>>(namespace: &str) -> impl Iterator<Item = ObjectRef> {
    POLICIES.iter().map(move |name| ObjectRef::new::<K>(None, &cluster_name(name, namespace)))
}
