//! The next step after a 403 answer to the creation of a pod: a missing permission, or a rejection by an admission plugin.

use super::next_steps;
use kube_read::failure::RejectionReason;

/// Why no probe can be created, if that is so. A quota, a LimitRange and a namespace that is being deleted change on their own.
pub(super) fn obstacle(why: &str) -> Option<RejectionReason> {
    const OTHER_CAUSES: [&str; 6] = [
        "exceeded quota",
        "failed quota",
        "usage per ",
        "RuntimeClass ",
        "being terminated",
        "error looking up service account",
    ];
    let has_other_cause = !is_missing_permission(why) && OTHER_CAUSES.iter().any(|phrase| why.contains(phrase));
    (!has_other_cause).then_some(RejectionReason::CreateForbidden)
}

/// Whether the message is that of the authorizer: a permission is missing.
pub(super) fn is_missing_permission(why: &str) -> bool {
    why.contains(" cannot ") && why.contains(" resource \"")
}

/// What an administrator or the user can change, from the message of the API server.
pub(super) fn next_step(why: &str, namespace: &str) -> String {
    // Admission plugins write `pods "NAME" is forbidden: WHY`. The texts are those of Kubernetes 1.36.
    let cases = [
        (
            "exceeded quota",
            format!(
                "The quota of namespace {namespace} is used up: raise it (kubectl -n {namespace} describe quota), or use \
                 another namespace (--probe-namespace)."
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
                "A LimitRange of namespace {namespace} does not allow the resources of the probe pod: change it, or use \
                 another namespace (--probe-namespace)."
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
                "Namespace {namespace} is being deleted: wait until it is gone and create it again (kubectl apply -f \
                 deploy/namespace.yaml), or use another namespace (--probe-namespace)."
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
    let known_case = cases.into_iter().find(|(phrase, _)| why.contains(phrase));
    known_case.map(|(_, next)| next).unwrap_or_else(|| {
        if is_missing_permission(why) {
            next_steps::permission_missing(namespace, why)
        } else {
            format!(
                "An admission plugin of the API server rejects the pod: ask an administrator of the cluster, or use another \
         namespace than {namespace} (--probe-namespace). Without a probe: --via none."
            )
        }
    })
}

#[cfg(test)]
mod tests {
    use super::next_step;

    #[test]
    fn only_a_missing_permission_is_answered_with_permissions() {
        let cases = [
            (
                "pods is forbidden: User \"u\" cannot create resource \"pods\" in API group \"\" in the namespace \"ns\"",
                "rbac.yaml",
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
            let next = next_step(why, "ns");
            assert!(next.contains(expected), "{why}: {next}");
            assert_eq!(next.contains("rbac.yaml"), expected == "rbac.yaml", "{why}: {next}");
        }
    }
}
