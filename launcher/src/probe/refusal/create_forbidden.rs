//! `classify`: finds the cause and the next step if the API server rejects the creation of a pod with status 403.
//! `is_missing_permission`: whether the user lacks a permission.

use crate::probe::refusal::next_steps;
use kube_read::failure::Cause;

/// Returns whether the message is from the authorizer: a permission is missing.
pub(crate) fn is_missing_permission(why: &str) -> bool {
    why.contains(" cannot ") && why.contains(" resource \"")
}

/// Returns the cause, and what an administrator or the user can change. `why` is the message of the API server.
pub(crate) fn classify(why: &str, namespace: &str) -> (Cause, String) {
    // The message of an admission plugin is `pods "NAME" is forbidden: WHY`. The texts below are from Kubernetes 1.36.
    let cases = [
        (
            "exceeded quota",
            format!(
                "The quota of namespace {namespace} is used up: raise it (see kubectl -n {namespace} describe quota), \
                    or use another namespace (--probe-namespace)."
            ),
        ),
        (
            "failed quota",
            format!(
                "The quota requires requests and limits that the probe pod does not set: create a LimitRange with defaults in \
                 namespace {namespace}, or use another namespace (--probe-namespace)."
            ),
        ),
        (
            "usage per ",
            format!(
                "A LimitRange of namespace {namespace} does not allow the resources of the probe pod: change the \
                    LimitRange, or use another namespace (--probe-namespace)."
            ),
        ),
        (
            "RuntimeClass ",
            "Use a RuntimeClass of the cluster with --runtime-class (kubectl get runtimeclass), or leave the option out."
                .to_owned(),
        ),
        (
            "being terminated",
            format!(
                "Namespace {namespace} is being deleted: wait until it is gone and create it again (gpu-syringe \
                 setup --apply), or use another namespace (--probe-namespace)."
            ),
        ),
        (
            "error looking up service account",
            format!(
                "Namespace {namespace} has no default service account yet: try again in a few seconds. If the error stays, \
                 check the kube-controller-manager."
            ),
        ),
    ];
    if let Some((_, next)) = cases.into_iter().find(|(phrase, _)| why.contains(phrase)) {
        return (Cause::Refused, next);
    }
    if is_missing_permission(why) {
        return (Cause::CreateForbidden, next_steps::permission_missing(namespace, why));
    }
    let next = format!(
        "An admission plugin of the API server rejects the pod: ask an administrator of the cluster, or use a \
            namespace other than {namespace} (--probe-namespace). To work without a probe, use --via none."
    );
    (Cause::AdmissionDenied, next)
}

#[cfg(test)]
mod tests {
    use super::classify;

    #[test]
    fn only_a_missing_permission_is_answered_with_permissions() {
        let cases = [
            (
                "pods is forbidden: User \"u\" cannot create resource \"pods\" in API group \"\" in the namespace \"ns\"",
                "grant these",
            ),
            (
                "pods \"p\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1",
                "raise it",
            ),
            ("pods \"p\" is forbidden: failed quota: q: must specify limits.cpu for: probe", "LimitRange"),
            ("pods \"p\" is forbidden: maximum memory usage per Container is 10Mi, but limit is 64Mi", "A LimitRange"),
            ("pods \"p\" is forbidden: pod rejected: RuntimeClass \"nvidia\" not found", "--runtime-class"),
            (
                "pods \"p\" is forbidden: unable to create new content in namespace ns because it is being terminated",
                "is being deleted",
            ),
            (
                "pods \"p\" is forbidden: error looking up service account ns/default: serviceaccount \"default\" not found",
                "service account",
            ),
            ("pods \"p\" is forbidden: something of the future", "admission plugin"),
        ];
        for (why, expected) in cases {
            let (_, next) = classify(why, "ns");
            assert!(next.contains(expected), "{why}: {next}");
            assert_eq!(next.contains("grant these"), expected == "grant these", "{why}: {next}");
        }
    }
}
