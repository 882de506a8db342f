//! What a refused creation of a pod (403) asks for: a right, or something else that an admission step missed.

/// What an administrator or the user would change, from the API server's words.
pub(super) fn next_step(why: &str, namespace: &str) -> String {
    // Admission steps say `pods "NAME" is forbidden: WHY`; the words are those of Kubernetes 1.36.
    let cases = [
        (
            "exceeded quota",
            format!(
                "Namespace {namespace} has used up that quota: raise it (kubectl -n {namespace} describe quota), or name \
                 another namespace with --namespace."
            ),
        ),
        (
            "failed quota",
            format!(
                "That quota wants requests and limits that the probe pod does not set: give the namespace defaults (a \
                 LimitRange), exempt it, or name another one than {namespace} with --namespace."
            ),
        ),
        (
            "usage per ",
            format!(
                "A LimitRange of namespace {namespace} does not admit what the probe pod asks for: change it, or name \
                 another namespace with --namespace."
            ),
        ),
        (
            "RuntimeClass ",
            "Name a RuntimeClass that the cluster has with --runtime-class (kubectl get runtimeclass), or none."
                .to_owned(),
        ),
        (
            "being terminated",
            format!(
                "Namespace {namespace} is being deleted: wait until it is gone and create it anew (kubectl apply -f \
                 deploy/namespace.yaml), or name another one with --namespace."
            ),
        ),
        (
            "error looking up service account",
            format!(
                "Namespace {namespace} has no default service account yet: try again in a few seconds; if it stays so, look \
                 at the controller manager."
            ),
        ),
    ];
    let told = cases.into_iter().find(|(words, _)| why.contains(words));
    told.map(|(_, next)| next).unwrap_or_else(|| {
        if why.contains("cannot create resource") {
            format!(
                "Your user needs create, get and delete on pods and get and create on pods/exec in namespace {namespace}: \
                 see deploy/rbac.yaml. Without a probe: --via none."
            )
        } else {
            format!(
                "An admission step of the API server refuses the pod: ask whoever administers it, or name another \
                 namespace than {namespace} with --namespace. Without a probe: --via none."
            )
        }
    })
}

#[cfg(test)]
mod tests {
    use super::next_step;

    #[test]
    fn only_a_missing_right_is_answered_with_rights() {
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
            ("pods \"p\" is forbidden: something of the future", "admission step"),
        ];
        for (why, expected) in cases {
            let next = next_step(why, "ns");
            assert!(next.contains(expected), "{why}: {next}");
            assert_eq!(next.contains("rbac.yaml"), expected == "rbac.yaml", "{why}: {next}");
        }
    }
}
