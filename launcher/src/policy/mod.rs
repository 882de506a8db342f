//! Modules for the admission policies of a set-up: the image that a policy admits, and the values that an administrator
//! sets. `cluster_name`, `is_refusal_of`, `variable`, `POLICIES`: the names of the policies and their variables.

pub(crate) mod admitted_image;
pub(crate) mod values;

/// The default namespace, for which the names of the objects have no suffix.
pub(crate) const DEFAULT_NAMESPACE: &str = "gpu-syringe";
/// Name of the policy that decides about new pods, without the suffix.
pub(crate) const PROBE_ONLY: &str = "gpu-syringe-probe-only";
/// Name of the policy that decides about execs, without the suffix.
pub(crate) const EXEC_ONLY: &str = "gpu-syringe-exec-only";
/// Name of the policy that rejects everything else, without the suffix.
pub(crate) const NOTHING_ELSE: &str = "gpu-syringe-nothing-else";
/// The policies of the hardened profile.
pub(crate) const POLICIES: [&str; 3] = [PROBE_ONLY, EXEC_ONLY, NOTHING_ELSE];

/// Returns the name of a cluster-scoped object that belongs to the set-up of this namespace.
pub(crate) fn cluster_name(name: &str, namespace: &str) -> String {
    if namespace == DEFAULT_NAMESPACE { name.to_owned() } else { format!("{name}-{namespace}") }
}

/// Returns whether the message of the API server is a rejection by this policy of the namespace.
pub(crate) fn is_refusal_of(message: &str, policy: &str, namespace: &str) -> bool {
    message.contains(&format!("ValidatingAdmissionPolicy '{}'", cluster_name(policy, namespace)))
}

/// Returns the text by which a message of the policy mentions the variable `name`.
pub(crate) fn variable(name: &str) -> String {
    format!("variable {name} of ValidatingAdmissionPolicy")
}
