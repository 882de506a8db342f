//! Which policy of a cluster rejected a pod, and what an administrator can change.

use crate::probe::refusal::{create_forbidden, next_steps};

/// The policies in deploy/admission-policy.yaml.
const OURS: [&str; 3] = ["gpu-syringe-probe-only", "gpu-syringe-exec-only", "gpu-syringe-nothing-else"];
/// What follows the name of one of them.
const SHIPPED: &str = "(deploy/admission-policy.yaml)";
/// Name of the parameter of the policies. A rejection that names it is fixed there.
const PARAMETER: &str = "ConfigMap gpu-syringe-policy";

/// Names the policy behind an API server's refusal; `None` where it is none.
pub(crate) fn refused_by(why: &str, namespace: &str) -> Option<(String, String)> {
    if let Some(level) = between(why, "violates PodSecurity \"", "\"") {
        return Some((
            format!("Pod Security \"{level}\" of namespace {namespace}"),
            next_steps::pod_security(namespace),
        ));
    }
    if why.contains("GKE Warden") || why.contains("autogke") || why.contains("Autopilot") {
        return Some((
            "GKE Autopilot".into(),
            "Autopilot admits privileged pods of allowlisted partners only. Use a Standard node pool for GPU nodes that \
                 you want to probe."
                .into(),
        ));
    }
    if why.contains("security context constraint") {
        return Some((
            "OpenShift's security context constraints".into(),
            format!(
                "Ask an administrator to grant the privileged SCC in that namespace: oc adm policy add-scc-to-user \
                 privileged -z default -n {namespace}"
            ),
        ));
    }
    if let Some(name) = between(why, "ValidatingAdmissionPolicy '", "'") {
        // The set-up of another namespace than gpu-syringe has its name as a suffix.
        let plain = name.strip_suffix(&format!("-{namespace}")).unwrap_or(name);
        if OURS.contains(&name) || OURS.contains(&plain) {
            let policy = format!("ValidatingAdmissionPolicy {name} {SHIPPED}");
            return Some((policy, next_step_of_ours(why, namespace)));
        }
        return Some((
            format!("ValidatingAdmissionPolicy {name}"),
            format!("Ask an administrator to exempt namespace {namespace} or the label of probe pods."),
        ));
    }
    if let Some(name) = between(why, "admission webhook \"", "\"")
        && why.contains("denied")
    {
        return Some((
            format!("admission webhook {name}"),
            format!("Ask an administrator to exempt namespace {namespace} in the policy of that webhook."),
        ));
    }
    None
}

/// The next step after a rejected creation of a pod, whatever rejected it.
pub(crate) fn next_step_of_rejection(why: &str, namespace: &str) -> String {
    refused_by(why, namespace).map_or_else(|| create_forbidden::next_step(why, namespace), |(_, change)| change)
}

/// Whether this is a policy of deploy/admission-policy.yaml, by the name that [`refused_by`] returns.
pub(crate) fn is_ours(who: &str) -> bool {
    who.ends_with(SHIPPED)
}

/// Whether it refuses each privileged pod of the namespace, whatever its image and node.
pub(crate) fn is_for_all_pods(who: &str) -> bool {
    ["Pod Security ", "GKE Autopilot", "OpenShift"].iter().any(|name| who.starts_with(name))
}

/// The next step after a rejection by a policy of deploy/admission-policy.yaml.
fn next_step_of_ours(why: &str, namespace: &str) -> String {
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
    use super::refused_by;

    #[test]
    fn each_policy_is_named_and_rbac_is_none() {
        let who = |why: &str| refused_by(why, "ns").map(|(who, _)| who);
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
            refused_by(&why, "ns").map(|(_, change)| change).unwrap_or_default()
        };
        assert!(
            ours("no probe is admitted until ConfigMap gpu-syringe-policy of this").contains("policy-parameters.yaml")
        );
        assert!(ours("needs the right to create actions.gpu-syringe.dev").contains("gpu-syringe-operator"));
        assert!(ours("a probe container must not set args").contains("--via inject"));
        assert_eq!(who("pods is forbidden: User \"u\" cannot create resource \"pods\""), None);
    }
}
