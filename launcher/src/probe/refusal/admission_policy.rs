//! `denial`: finds the policy of the cluster that rejected a pod, and what an administrator can change.

use crate::probe::refusal::{create_forbidden, next_steps};
use kube_read::Failure;
use kube_read::failure::{Cause, Policy, PolicyKind};

/// The policies in deploy/admission-policy.yaml.
const SHIPPED: [&str; 3] = ["gpu-syringe-probe-only", "gpu-syringe-exec-only", "gpu-syringe-nothing-else"];
/// The parameter of the policies. If a rejection names the parameter, an administrator fixes the cause there.
const PARAMETER: &str = "ConfigMap gpu-syringe-policy";

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
                "Ask an administrator to grant the privileged SCC in that namespace: oc adm policy add-scc-to-user \
                 privileged -z default -n {namespace}"
            ),
        );
    }
    if let Some(name) = between(why, "ValidatingAdmissionPolicy '", "'") {
        // If the namespace is not gpu-syringe, setup adds the namespace to the names of the policies.
        let plain = name.strip_suffix(&format!("-{namespace}")).unwrap_or(name);
        if SHIPPED.contains(&name) || SHIPPED.contains(&plain) {
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
            format!("Ask an administrator to exempt namespace {namespace} in the policy of that webhook."),
        );
    }
    None
}

/// Returns the next step after the creation of a pod was rejected, by a policy or by an admission plugin.
pub(crate) fn next_step_of_rejection(why: &str, namespace: &str) -> String {
    denial(why, namespace).map_or_else(|| create_forbidden::classify(why, namespace).1, |denial| denial.next_step)
}

/// Returns the next step after a rejection by a policy of deploy/admission-policy.yaml.
fn next_step_of_shipped(why: &str, namespace: &str) -> String {
    if why.contains("data.image") || why.contains("no params found") {
        next_steps::policy_image(namespace)
    } else if why.contains(PARAMETER) {
        format!(
            "Ask an administrator to set the value that the message names in {PARAMETER} of namespace {namespace} \
             (deploy/policy-parameters.yaml) to the value that this launcher uses."
        )
    } else if why.contains("actions.gpu-syringe.dev") {
        format!("Ask an administrator to bind Role gpu-syringe-operator of namespace {namespace} to your user.")
    } else {
        "The policy admits only the requests of --via pod and --via logs. For --via inject, use --probe-namespace with a namespace \
         that the policy does not cover."
            .into()
    }
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
            ours("no probe is admitted until ConfigMap gpu-syringe-policy of this").contains("policy-parameters.yaml")
        );
        assert!(ours("needs the right to create actions.gpu-syringe.dev").contains("gpu-syringe-operator"));
        assert!(ours("a probe container must not set args").contains("--via inject"));
        assert_eq!(who("pods is forbidden: User \"u\" cannot create resource \"pods\""), None);
    }
}
