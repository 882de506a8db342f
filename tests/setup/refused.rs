//! Tests of faults of a set-up: nothing is applied partially, and the message contains the solution.

use demo_cluster::{Denial, Fixture};
use serde_json::json;

use crate::apply::{IMAGE, bare, is_change, setup};
use crate::bed::{Bed, NAMESPACE, node};

async fn denying(denials: &[(&str, &str)], namespaces: bool) -> Bed {
    let mut fixture = Fixture::of([node("gpu-1", "healthy-h100-8")]);
    if !namespaces {
        fixture.namespaces.clear();
    }
    fixture.denied = denials.iter().map(|(verb, resource)| Denial::of(verb, resource)).collect();
    Bed::of(fixture).await
}

/// Each missing permission stops the set-up before the first change, even if the permission is only needed for a later
/// step.
#[tokio::test]
async fn nothing_is_applied_where_a_permission_is_missing() {
    let cases = [
        ("patch", "namespaces", &[][..]),
        ("patch", "resourcequotas", &[]),
        ("create", "rolebindings", &["--user", "u"]),
        ("patch", "clusterrolebindings", &["--user", "u"]),
        ("patch", "validatingadmissionpolicies", &["--image", IMAGE]),
        ("get", "validatingadmissionpolicies", &[]),
    ];
    for (verb, resource, args) in cases {
        let bed = denying(&[(verb, resource)], false).await;
        let refused = setup(&bed, &[&["--apply", "--yes"], args].concat()).await;
        assert_eq!(refused.code, Some(3), "{verb} {resource}");
        let words = refused.stderr;
        assert!(
            words.contains(resource) && words.contains("An administrator of the cluster must run the setup command"),
            "{verb} {resource}: {words}"
        );
        assert!(!bed.cluster.requests().iter().any(|request| is_change(request)), "{:?}", bed.cluster.requests());
        assert_eq!(bed.cluster.objects(), [], "{verb} {resource}");
    }
}

#[tokio::test]
async fn who_may_not_remove_the_set_up_gets_the_command_for_an_administrator() {
    for (verb, resource) in [("get", "rolebindings"), ("delete", "namespaces"), ("delete", "clusterroles")] {
        let bed = denying(&[(verb, resource)], false).await;
        let applied = bed.bare_launcher().args(["--probe-namespace", "tools", "setup", "--apply", "--yes"]);
        let applied = applied.run().await.code;
        assert_eq!(applied, Some(if verb == "get" { 3 } else { 0 }), "{verb} {resource}");
        let remove = ["--probe-namespace", "tools", "setup", "--uninstall", "--yes"];
        let refused = bed.bare_launcher().args(remove).run().await;
        let words = refused.stderr;
        let command = "must run: gpu-syringe --probe-namespace tools setup --uninstall";
        assert!(refused.code == Some(3) && words.contains(command), "{verb} {resource}: {words}");
        assert!(!words.contains("apply"), "{words}");
    }
}

/// A Role must not have permissions that its author lacks. A dry run does not show this if the namespace does not exist.
#[tokio::test]
async fn permissions_that_the_user_does_not_hold_cannot_be_given() {
    let bed = denying(&[("escalate", "roles"), ("create", "pods/exec")], false).await;
    let refused = setup(&bed, &["--apply", "--yes"]).await;
    assert_eq!(refused.code, Some(3));
    assert!(refused.stderr.contains("you may not create pods/exec in namespace gpu-syringe"), "{}", refused.stderr);
    assert_eq!(bed.cluster.objects(), []);
    let held = denying(&[("escalate", "roles")], false).await;
    assert_eq!(setup(&held, &["--apply", "--yes"]).await.code, Some(0));
}

#[tokio::test]
async fn a_namespace_of_somebody_else_is_not_taken_over() {
    let bed = bare().await;
    for (name, words) in [("kube-system", "this is a system namespace"), ("default", "this is a system namespace")] {
        let refused = bed.bare_launcher().args(["--probe-namespace", name, "setup", "--apply", "--yes"]).run().await;
        assert!(refused.stderr.contains(words), "{}", refused.stderr);
    }
    let taken = denying(&[], true).await;
    taken.cluster.edit_namespace(NAMESPACE, |namespace| namespace.metadata.labels = None);
    let refused = setup(&taken, &["--apply", "--yes"]).await;
    assert_eq!(refused.code, Some(3));
    assert!(refused.stderr.contains("was not created by gpu-syringe"), "{}", refused.stderr);
    assert!(refused.stderr.contains("kubectl label namespace gpu-syringe"), "{}", refused.stderr);
    assert_eq!(taken.cluster.objects(), []);
    let invalid = bed.bare_launcher().args(["--probe-namespace", "A/../b", "setup"]).run().await;
    assert_eq!(invalid.code, Some(2), "{}", invalid.stdout);
}

#[tokio::test]
async fn a_conflict_names_the_field_and_its_manager() {
    let bed = bare().await;
    assert_eq!(setup(&bed, &["--apply", "--yes", "--image", IMAGE]).await.code, Some(0));
    bed.cluster.add_object(
        json!({"kind": "ValidatingAdmissionPolicy", "apiVersion": "admissionregistration.k8s.io/v1",
        "metadata": {"name": "gpu-syringe-probe-only", "labels": {"app.kubernetes.io/managed-by": "gpu-syringe"}},
        "spec": {"variables": [{"name": "image", "expression": "\"registry.test/other@sha256:2\""}]}}),
    );
    let refused = setup(&bed, &["--apply", "--yes", "--image", IMAGE]).await;
    assert_eq!(refused.code, Some(3));
    for words in
        ["ValidatingAdmissionPolicy gpu-syringe-probe-only", "kubectl-edit", ".spec.variables", "--force-conflicts"]
    {
        assert!(refused.stderr.contains(words), "{words}: {}", refused.stderr);
    }
    let forced = setup(&bed, &["--apply", "--yes", "--image", IMAGE, "--force-conflicts"]).await;
    assert_eq!(forced.code, Some(0), "{}", forced.stderr);
}

#[tokio::test]
async fn hardened_needs_an_image_that_is_pinned() {
    let bed = bare().await;
    for args in [&["--profile", "hardened"][..], &["--profile", "hardened", "--image", "registry.test/node-probe:1"]] {
        let refused = setup(&bed, &[&["--apply", "--yes"], args].concat()).await;
        assert_eq!(refused.code, Some(2));
        assert!(refused.stderr.contains("@sha256:DIGEST"), "{}", refused.stderr);
    }
    assert_eq!(bed.cluster.objects(), []);
}

/// If the user has no permission to remove the last object, nothing is removed.
#[tokio::test]
async fn nothing_is_removed_where_a_permission_is_missing() {
    let bed = denying(&[("delete", "validatingadmissionpolicies")], false).await;
    assert_eq!(setup(&bed, &["--apply", "--yes", "--image", IMAGE]).await.code, Some(0));
    let before = bed.cluster.objects();
    let refused = setup(&bed, &["--uninstall", "--yes"]).await;
    assert_eq!(refused.code, Some(3));
    assert!(refused.stderr.contains("validatingadmissionpolicies"), "{}", refused.stderr);
    assert_eq!(bed.cluster.objects(), before);
}

/// An image with a tag must not silently select the trial profile, which was not requested.
#[tokio::test]
async fn what_would_give_more_than_was_asked_for_is_a_usage_error() {
    let bed = bare().await;
    for (args, words) in [
        (&["--apply", "--yes", "--image", "registry.test/node-probe:1", "--user", "u"][..], "not pinned by digest"),
        (&["--apply", "--yes", "--group", "system:authenticated"], "includes too many users"),
        (&["--apply", "--yes", "--user", "system:anonymous"], "includes too many users"),
        (&["--uninstall", "--yes", "--user", "alice"], "--user"),
        (&["--uninstall", "--yes", "--profile", "trial"], "--profile"),
    ] {
        let refused = setup(&bed, args).await;
        assert_eq!(refused.code, Some(2), "{args:?}: {}", refused.stdout);
        assert!(refused.stderr.contains(words), "{args:?}: {}", refused.stderr);
    }
    assert_eq!(bed.cluster.objects(), []);
    let asked = setup(&bed, &["--apply", "--yes", "--profile", "trial", "--image", "registry.test/node-probe:1"]).await;
    assert_eq!(asked.code, Some(0), "{}", asked.stderr);
}

/// A user who may write bindings in the namespace must not get rights in the whole cluster when `setup` runs again.
#[tokio::test]
async fn subjects_of_a_binding_of_somebody_else_get_nothing() {
    let bed = bare().await;
    assert_eq!(setup(&bed, &["--apply", "--yes"]).await.code, Some(0));
    bed.cluster.add_object(json!({"kind": "RoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1",
        "metadata": {"name": "gpu-syringe-reader", "namespace": NAMESPACE},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "gpu-syringe-reader"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "mallory"}]}));
    let plan = setup(&bed, &["--apply", "--user", "alice", "--force-conflicts"]).await;
    assert!(plan.stdout.contains("alice") && !plan.stdout.contains("mallory"), "{}", plan.stdout);
}
