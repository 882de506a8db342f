//! Tests of `setup --apply` and `--uninstall`: created, changed and removed objects, and when they are applied.
//! `bare`, `setup`: start a cluster without a set-up, and run the command.

use demo_cluster::{AnswerFault, CountedFault, Denial, Fixture, RequestFault};
use serde_json::{Value, json};

use crate::bed::{Bed, NAMESPACE, node};
use crate::support::launcher::Ended;

pub(crate) const IMAGE: &str =
    "registry.test/gpu/node-probe@sha256:1111111111111111111111111111111111111111111111111111111111111111";

/// Starts a cluster that never had a set-up.
pub(crate) async fn bare() -> Bed {
    Bed::of(Fixture { namespaces: Vec::new(), ..Fixture::of([node("gpu-1", "healthy-h100-8")]) }).await
}

/// Runs the command with `--output json`.
pub(crate) async fn setup(bed: &Bed, args: &[&str]) -> Ended {
    bed.bare_launcher().args(["setup", "--output", "json"]).args(args.iter().copied()).run().await
}

/// Returns the results of `--apply --yes`, by kind and name.
async fn applied(bed: &Bed, args: &[&str]) -> Vec<(String, String)> {
    let answer = setup(bed, &[&["--apply", "--yes"], args].concat()).await.json();
    results(&answer)
}

fn results(answer: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let objects = answer["objects"].as_array().unwrap_or_else(|| panic!("{answer}"));
    objects.iter().map(|one| (format!("{} {}", text(&one["kind"]), text(&one["name"])), text(&one["result"]))).collect()
}

fn only(results: &[(String, String)], result: &str) -> Vec<String> {
    results.iter().filter(|(_, found)| found == result).map(|(object, _)| object.clone()).collect()
}

#[tokio::test]
async fn a_second_run_changes_nothing_and_a_probe_works_in_between() {
    let bed = bare().await;
    let first = applied(&bed, &["--user", "alice"]).await;
    assert_eq!(only(&first, "created").len(), first.len(), "{first:?}");
    assert_eq!(first.len(), 8);
    let answer = bed.launcher().args(["health", "gpu-1"]).run().await.json();
    assert_eq!(answer["probe"]["via"], "pod", "{answer}");
    let second = applied(&bed, &["--user", "alice"]).await;
    assert_eq!(only(&second, "unchanged").len(), second.len(), "{second:?}");
}

#[tokio::test]
async fn a_second_user_is_added_and_the_first_one_stays() {
    let bed = bare().await;
    applied(&bed, &["--user", "alice"]).await;
    let second = applied(&bed, &["--group", "operators", "--operator"]).await;
    assert_eq!(only(&second, "created"), ["RoleBinding gpu-syringe-operator"]);
    assert_eq!(only(&second, "changed"), ["RoleBinding gpu-syringe-reader", "ClusterRoleBinding gpu-syringe-read"]);
    // With the same arguments, or without users and groups, no user loses a permission.
    for args in [&["--user", "alice"][..], &[]] {
        let third = applied(&bed, args).await;
        assert_eq!(only(&third, "unchanged").len(), third.len(), "{third:?}");
    }
}

#[tokio::test]
async fn hardened_admits_the_image_alone_and_keeps_its_values() {
    let bed = bare().await;
    applied(&bed, &["--image", IMAGE]).await;
    // Without a profile and an image in the arguments, the installed profile and image are kept.
    let again = applied(&bed, &[]).await;
    assert_eq!(only(&again, "unchanged").len(), again.len(), "{again:?}");
    assert!(again.iter().any(|(object, _)| object == "ValidatingAdmissionPolicy gpu-syringe-probe-only"), "{again:?}");
    let admitted = bed.bare_launcher().args(["--image", IMAGE, "health", "gpu-1"]).run().await;
    assert_eq!(admitted.json()["probe"]["via"], "pod");
    let other = IMAGE.replace('1', "2");
    let other =
        bed.bare_launcher().args(["--image", &other, "--fail-on", "never", "health", "gpu-1"]).run().await.json();
    assert_eq!(other["probe"]["via"], "none", "{other}");
    assert!(other["probe"]["note"].as_str().is_some_and(|note| note.contains("gpu-syringe-probe-only")), "{other}");
}

/// Images that podman and kind load into nodes have the registry localhost.
#[tokio::test]
async fn an_image_of_localhost_is_admitted() {
    let bed = bare().await;
    let image = format!("localhost/node-probe@sha256:{}", "1".repeat(64));
    applied(&bed, &["--image", &image]).await;
    let refused = setup(&bed, &["--apply", "--yes", "--image", &image.replace("localhost/", "")]).await;
    assert_eq!(refused.code, Some(2), "{}", refused.stdout);
    assert!(refused.stderr.contains("it has no registry"), "{}", refused.stderr);
}

/// A user without any settings gets an answer on a hardened cluster, and needs only the rights of a reader.
#[tokio::test]
async fn a_reader_without_any_setting_uses_the_image_of_the_policy() {
    let mut fixture = Fixture { namespaces: Vec::new(), ..Fixture::of([node("gpu-1", "healthy-h100-8")]) };
    fixture.denied = [("*", "namespaces"), ("*", "configmaps"), ("list", "validatingadmissionpolicies")]
        .map(|(verb, resource)| Denial::of(verb, resource))
        .into();
    let bed = Bed::of(fixture).await;
    install(&bed, &["--image", IMAGE]).await;
    for via in ["auto", "pod", "logs"] {
        let answer =
            bed.bare_launcher().args(["--via", via, "--fail-on", "never", "diagnose", "gpu-1"]).run().await.json();
        let expected = if via == "logs" { "logs" } else { "pod" };
        assert_eq!(answer["probe"]["via"], expected, "{answer}");
    }
    let reads =
        bed.cluster.requests().iter().filter(|request| request.contains("validatingadmissionpolicies/")).count();
    assert_eq!(reads, 3, "one read in each run");
    bed.assert_bare(3);
}

/// A user who may not read the policy gets the reason and the step that helps.
#[tokio::test]
async fn without_the_right_to_read_the_policy_the_next_step_is_named() {
    let mut fixture = Fixture { namespaces: Vec::new(), ..Fixture::of([node("gpu-1", "healthy-h100-8")]) };
    fixture.denied = vec![Denial::of("get", "validatingadmissionpolicies")];
    let bed = Bed::of(fixture).await;
    install(&bed, &["--image", IMAGE]).await;
    let ended = bed.bare_launcher().args(["--via", "pod", "diagnose", "gpu-1"]).run().await;
    assert_eq!(ended.code, Some(3), "{}", ended.stdout);
    for words in ["gpu-syringe takes the image from the policy", "setup --apply --profile hardened", "--user USER"] {
        assert!(ended.stdout.contains(words), "{words}: {ended:?}");
    }
}

/// An image in the policy that is not pinned by digest is not used.
#[tokio::test]
async fn an_image_of_the_policy_without_a_digest_is_not_used() {
    let bed = Bed::of(Fixture { namespaces: Vec::new(), ..Fixture::of([node("gpu-1", "healthy-h100-8")]) }).await;
    install(&bed, &["--image", IMAGE]).await;
    bed.cluster.add_object(json!({"kind": "ValidatingAdmissionPolicy", "metadata": {"name": "gpu-syringe-probe-only"},
        "spec": {"variables": [{"name": "image", "expression": "\"evil.test/node-probe:1\""}]}}));
    let answer = bed.bare_launcher().args(["--fail-on", "never", "diagnose", "gpu-1"]).run().await.json();
    assert_eq!(answer["probe"]["via"], "none", "{answer}");
    assert!(!answer.to_string().contains("evil.test"), "{answer}");
}

/// Adds the objects that `setup` prints, as an administrator.
async fn install(bed: &Bed, args: &[&str]) {
    let printed = setup(bed, args).await.json();
    for item in printed["items"].as_array().unwrap() {
        match item["kind"].as_str() {
            Some("Namespace") => bed.cluster.add_namespace(serde_json::from_value(item.clone()).unwrap()),
            _ => bed.cluster.add_object(item.clone()),
        }
    }
}

/// Permissions are granted only after the API server uses the applied policies, with their image. A cluster can have
/// several API servers, so one rejection is not sufficient.
#[tokio::test]
async fn nobody_is_granted_anything_before_all_policies_are_in_effect() {
    let old = format!(
        "ValidatingAdmissionPolicy 'gpu-syringe-probe-only' with binding 'gpu-syringe-probe-only' denied request: only probe pods \
         of gpu-syringe may be created in this namespace, with image {}",
        IMAGE.replace('1', "2")
    );
    let not_found = || AnswerFault::PlainText { code: 404, retry_after: None };
    let cases = [
        (
            "pods",
            CountedFault::always(AnswerFault::Forbidden(old)),
            "still applies an older policy, which admits registry.test",
        ),
        ("pods/exec", CountedFault::always(not_found()), "gpu-syringe-exec-only does not reject an exec"),
        ("pods/exec", CountedFault::after(1, not_found()), "gpu-syringe-exec-only does not reject an exec"),
        ("pods/attach", CountedFault::after(2, not_found()), "gpu-syringe-nothing-else does not reject an attach"),
    ];
    let runs = cases.map(async |(resource, answer, words)| {
        let bed = bare().await;
        let fault = RequestFault { verb: Some("create"), resource: Some(resource), answer };
        bed.cluster.faults(|faults| faults.api.requests.push(fault));
        let refused = setup(&bed, &["--apply", "--yes", "--image", IMAGE, "--user", "alice"]).await;
        assert_eq!(refused.code, Some(3), "{resource}: {}", refused.stdout);
        assert!(refused.stderr.contains(words), "{resource}: {}", refused.stderr);
        let bound: Vec<_> =
            bed.cluster.objects().into_iter().filter(|(kind, _)| kind.contains("RoleBinding")).collect();
        assert_eq!(bound, [], "{resource}");
    });
    futures_util::future::join_all(runs).await;
    // The command waits for an API server that needs a moment to use the policies.
    let bed = bare().await;
    let answer = CountedFault::times(not_found(), 3);
    let fault = RequestFault { verb: Some("create"), resource: Some("pods/exec"), answer };
    bed.cluster.faults(|faults| faults.api.requests.push(fault));
    applied(&bed, &["--image", IMAGE, "--user", "alice"]).await;
}

/// The policy cannot reject a pod that already exists.
#[tokio::test]
async fn pods_that_are_older_than_the_policy_are_named() {
    let bed = bare().await;
    applied(&bed, &[]).await;
    let pod = json!({"metadata": {"name": "left-over", "namespace": NAMESPACE}, "spec": {"containers": []}});
    bed.cluster.add_pod(serde_json::from_value(pod).unwrap());
    let answer = setup(&bed, &["--apply", "--yes", "--image", IMAGE]).await.json();
    assert!(answer["notes"].to_string().contains("left-over"), "{answer}");
    let again = setup(&bed, &["--apply", "--yes", "--image", IMAGE]).await.json();
    assert!(!again["notes"].to_string().contains("left-over"), "{again}");
}

#[tokio::test]
async fn the_policy_is_removed_only_when_that_is_confirmed() {
    let bed = bare().await;
    applied(&bed, &["--image", IMAGE]).await;
    let before = bed.cluster.objects();
    let refused = setup(&bed, &["--apply", "--yes", "--profile", "trial"]).await;
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("--remove-policy"), "{}", refused.stderr);
    assert_eq!(bed.cluster.objects(), before);
    let done = applied(&bed, &["--profile", "trial", "--remove-policy"]).await;
    assert_eq!(only(&done, "deleted").len(), 6, "{done:?}");
    assert!(!bed.cluster.objects().iter().any(|(kind, _)| kind.contains("Policy")), "{:?}", bed.cluster.objects());
}

#[tokio::test]
async fn nothing_is_left_after_the_removal() {
    for args in [&["--user", "alice"][..], &["--image", IMAGE, "--group", "g", "--operator"]] {
        let bed = bare().await;
        applied(&bed, args).await;
        bed.cluster.add_object(json!({"kind": "ConfigMap", "apiVersion": "v1",
            "metadata": {"name": "notes", "namespace": NAMESPACE}}));
        let removed = setup(&bed, &["--uninstall", "--yes"]).await.json();
        assert!(removed["notes"].to_string().contains("ConfigMap notes"), "{removed}");
        let order: Vec<_> = results(&removed).into_iter().map(|(object, _)| object).collect();
        assert!(order[0].starts_with("RoleBinding"), "{order:?}");
        assert_eq!(bed.cluster.objects(), []);
        let again = setup(&bed, &["--uninstall", "--yes"]).await.json();
        assert_eq!(results(&again), []);
    }
}

/// Objects with the same name that another user created are not removed.
#[tokio::test]
async fn what_somebody_else_made_stays() {
    let bed = bare().await;
    applied(&bed, &[]).await;
    bed.cluster.add_object(json!({"kind": "ClusterRole", "apiVersion": "rbac.authorization.k8s.io/v1",
        "metadata": {"name": "gpu-syringe-read"}, "rules": []}));
    let removed = setup(&bed, &["--uninstall", "--yes"]).await.json();
    assert!(
        removed["notes"].to_string().contains(
            "setup did not create them (no label app.kubernetes.io/managed-by=gpu-syringe): ClusterRole gpu-syringe-read"
        ),
        "{removed}"
    );
    assert_eq!(bed.cluster.objects(), [("ClusterRole".to_owned(), "gpu-syringe-read".to_owned())]);
}

/// Without a terminal, the program cannot ask for confirmation.
#[tokio::test]
async fn without_a_yes_nothing_is_changed() {
    let bed = bare().await;
    for args in [&["--apply"][..], &["--apply", "--image", IMAGE]] {
        let asked = setup(&bed, args).await;
        assert_eq!(asked.code, Some(1), "{}", asked.stderr);
        assert!(asked.stdout.contains("--yes"), "{}", asked.stdout);
    }
    assert_eq!(bed.cluster.objects(), []);
    assert!(!bed.cluster.requests().iter().any(|request| is_change(request)), "{:?}", bed.cluster.requests());
}

/// Returns whether a request in the log is a change.
pub(crate) fn is_change(request: &str) -> bool {
    !request.starts_with("GET") && !request.contains("dryRun=All") && !request.contains("selfsubjectaccessreviews")
}

/// A namespace that is kept needs its policy: otherwise, every privileged pod would be admitted.
#[tokio::test]
async fn the_policy_stays_with_a_namespace_that_somebody_else_took_over() {
    let bed = bare().await;
    applied(&bed, &["--image", IMAGE, "--user", "alice"]).await;
    bed.cluster.edit_namespace(NAMESPACE, |namespace| namespace.metadata.labels = None);
    let removed = setup(&bed, &["--uninstall", "--yes"]).await.json();
    let left = bed.cluster.objects();
    let kinds = |kind: &str| left.iter().filter(|(found, _)| found == kind).count();
    assert_eq!(kinds("ValidatingAdmissionPolicyBinding"), 3, "{left:?}");
    assert_eq!(kinds("ValidatingAdmissionPolicy"), 3, "{left:?}");
    assert_eq!((kinds("ConfigMap"), kinds("RoleBinding"), kinds("ClusterRoleBinding")), (0, 0, 0), "{left:?}");
    assert!(
        removed["notes"].to_string().contains("These objects are kept, because without them namespace"),
        "{removed}"
    );
}
