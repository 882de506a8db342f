//! `denial`: returns the policy that rejected a pod (`Denial`), from the message of the API server, and the next step.
//! `next_step_of_rejection`: the next step after any rejection of a pod. `is_of_variable`: whether another value of a
//! variable would admit it.

use crate::policy::{POLICIES, cluster_name, values, variable};
use crate::probe::refusal::{create_forbidden, next_steps};
use kube_read::Failure;
use kube_read::failure::{Cause, Policy, PolicyKind};

/// A denial by a policy of the cluster.
#[derive(Debug)]
pub(crate) struct Denial {
    policy: Policy,
    /// The change that an administrator can make.
    next_step: String,
}

impl Denial {
    fn new(name: impl Into<String>, kind: PolicyKind, next_step: impl Into<String>) -> Option<Self> {
        Some(Self { policy: Policy { name: name.into(), kind }, next_step: next_step.into() })
    }

    /// Returns the failure of a denied request. `why` is the message of the API server.
    pub(crate) fn failure(self, what: String, why: &str) -> Failure {
        let Self { policy, next_step } = self;
        Failure::new(what, format!("denied by {}: {why}", policy.name), next_step).because_of(Cause::Policy(policy))
    }
}

/// Returns the policy that denied a request, from the message; `None` if no policy denied it.
pub(crate) fn denial(why: &str, namespace: &str) -> Option<Denial> {
    if let Some(level) = between(why, "violates PodSecurity \"", "\"") {
        return Denial::new(
            format!("Pod Security \"{level}\" of namespace {namespace}"),
            PolicyKind::EveryPrivilegedPod,
            next_steps::pod_security(namespace),
        );
    }
    if why.contains("GKE Warden") || why.contains("autogke") || why.contains("Autopilot") {
        return Denial::new(
            "GKE Autopilot",
            PolicyKind::EveryPrivilegedPod,
            "Autopilot admits privileged pods only from allowlisted partners. Use a Standard node pool for GPU nodes that \
             you want to probe.",
        );
    }
    if why.contains("security context constraint") {
        return Denial::new(
            "OpenShift's security context constraints",
            PolicyKind::EveryPrivilegedPod,
            format!(
                "Ask an administrator to grant the privileged SCC in the namespace of the probes: oc adm policy add-scc-to-user \
                 privileged -z default -n {namespace}"
            ),
        );
    }
    if let Some(name) = between(why, "ValidatingAdmissionPolicy '", "'") {
        if POLICIES.iter().any(|policy| name == *policy || name == cluster_name(policy, namespace)) {
            return Denial::new(
                format!("ValidatingAdmissionPolicy {name} (deploy/admission-policy.yaml)"),
                PolicyKind::Shipped,
                next_step_of_shipped(why, namespace),
            );
        }
        return Denial::new(
            format!("ValidatingAdmissionPolicy {name}"),
            PolicyKind::Unknown,
            format!("Ask an administrator to exempt namespace {namespace} or the label of probe pods."),
        );
    }
    if let Some(name) = between(why, "admission webhook \"", "\"")
        && why.contains("denied")
    {
        return Denial::new(
            format!("admission webhook {name}"),
            PolicyKind::Unknown,
            format!("Ask an administrator to exempt namespace {namespace} in the policy of the webhook."),
        );
    }
    None
}

/// Returns the next step after a policy or an admission plugin rejected the creation of a pod.
pub(crate) fn next_step_of_rejection(why: &str, namespace: &str) -> String {
    denial(why, namespace).map_or_else(|| create_forbidden::classify(why, namespace).1, |denial| denial.next_step)
}

/// Returns the next step after a rejection by a policy of deploy/admission-policy.yaml.
fn next_step_of_shipped(why: &str, namespace: &str) -> String {
    if why.contains(&variable(values::IMAGE)) {
        next_steps::policy_image(namespace)
    } else if is_of_variable(why) {
        "Ask an administrator to set the variable in the policy's message to the value that this launcher uses: \
            gpu-syringe setup --apply with the settings of this launcher."
            .to_owned()
    } else if why.contains("actions.gpu-syringe.dev") {
        format!("Ask an administrator to bind Role gpu-syringe-operator of namespace {namespace} to your user.")
    } else {
        "The policy admits only the requests of --via pod and --via logs. For --via inject, use --probe-namespace with a namespace \
         that the policy does not cover."
            .into()
    }
}

/// Returns whether the policy would admit the request with another value of a variable.
pub(crate) fn is_of_variable(why: &str) -> bool {
    why.contains(" of ValidatingAdmissionPolicy gpu-syringe-") && why.contains("variable ")
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let rest = &text[text.find(before)? + before.len()..];
    Some(&rest[..rest.find(after)?])
}

#[cfg(test)]
mod tests {
    use super::denial;

    #[test]
    fn each_policy_is_named_and_rbac_is_none() {
        let who = |why: &str| denial(why, "ns").map(|denial| denial.policy.name);
        let cases = [
            (
                "pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": privileged",
                "Pod Security \"baseline:latest\" of namespace ns",
            ),
            (
                "admission webhook \"warden-validating.common-webhooks.networking.gke.io\" denied the request: GKE Warden rejected",
                "GKE Autopilot",
            ),
            (
                "pods \"p\" is forbidden: unable to validate against any security context constraint: []",
                "OpenShift's security context constraints",
            ),
            (
                "admission webhook \"validate.kyverno.svc-fail\" denied the request: no",
                "admission webhook validate.kyverno.svc-fail",
            ),
            (
                "pods \"p\" is forbidden: ValidatingAdmissionPolicy 'no-root' with binding 'b' denied request: x",
                "ValidatingAdmissionPolicy no-root",
            ),
        ];
        for (why, expected) in cases {
            assert_eq!(who(why).as_deref(), Some(expected), "{why}");
        }
        let ours = |message: &str| {
            let why = format!(
                "ValidatingAdmissionPolicy 'gpu-syringe-probe-only' with binding 'b' denied request: {message}"
            );
            denial(&why, "ns").map(|denial| denial.next_step).unwrap_or_default()
        };
        assert!(
            ours("no probe is admitted until variable image of ValidatingAdmissionPolicy gpu-syringe-probe-only is")
                .contains("--image")
        );
        assert!(ours("needs the right to create actions.gpu-syringe.dev").contains("gpu-syringe-operator"));
        assert!(ours("a probe container must not set args").contains("--via inject"));
        assert_eq!(who("pods is forbidden: User \"u\" cannot create resource \"pods\""), None);
    }
}
