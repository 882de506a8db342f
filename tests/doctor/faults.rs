//! Tests of `doctor` with faults: for each fault, the failing checks, the warnings, and the command that fixes it.

use demo_cluster::{AnswerFault, CountedFault, Fixture, RequestFault, StartFault};
use serde_json::json;

use crate::bed::{Bed, NAMESPACE};
use crate::cluster::{Answer, IMAGE, denying, doctor, fixture, hardened, hardened_of, set_up};

/// Asserts which checks fail or warn, and that the first failing check contains this command.
fn check(fault: &str, answer: &Answer, failures: &[&str], warnings: &[&str], command: &str) {
    assert_eq!(answer.ids("failure"), failures, "{fault}: {}", answer.json);
    assert_eq!(answer.ids("warning"), warnings, "{fault}: {}", answer.json);
    let code = if failures.is_empty() { 0 } else { 1 };
    assert_eq!(answer.code, Some(code), "{fault}");
    let first = failures.first().or(warnings.first()).expect("a problem");
    assert!(answer.fix(first).contains(command), "{fault}: {}", answer.fix(first));
    for id in failures.iter().chain(warnings) {
        assert!(!answer.fix(id).is_empty(), "{fault}: {id} names no command");
    }
}

/// Makes the cluster respond with this fault to requests with this verb and resource.
fn answering(bed: &Bed, verb: &'static str, resource: &'static str, answer: AnswerFault) {
    let fault = RequestFault { verb: Some(verb), resource: Some(resource), answer: CountedFault::always(answer) };
    bed.cluster.faults(|faults| faults.api.requests.push(fault));
}

/// Returns the policy with another image.
fn policy(image: &str) -> serde_json::Value {
    let expression = serde_json::Value::from(image).to_string();
    json!({"kind": "ValidatingAdmissionPolicy", "metadata": {"name": "gpu-syringe-probe-only"},
           "spec": {"variables": [{"name": "image", "expression": expression}]}})
}

#[tokio::test]
async fn without_a_connection_one_check_says_why() {
    let bed = hardened().await;
    let absent = bed.home().join("absent");
    let run = async |kubeconfig: &str, args: &[&str]| {
        let launcher = bed.bare_launcher().env("KUBECONFIG", kubeconfig).args(["doctor", "-o", "json"]);
        Answer::of(&launcher.args(args.iter().copied()).run().await)
    };
    let none = run(absent.to_str().unwrap(), &[]).await;
    check("no kubeconfig", &none, &["kubeconfig"], &[], "kubectl config get-contexts");
    let good = bed.kubeconfig();
    let context = run(good.to_str().unwrap(), &["--context", "nowhere"]).await;
    check("no such context", &context, &["kubeconfig"], &[], "kubectl config get-contexts");
    let text = std::fs::read_to_string(&good).unwrap();
    let changed = async |name: &str, text: &str| {
        let file = bed.home().join(name);
        std::fs::write(&file, text).unwrap();
        run(file.to_str().unwrap(), &[]).await
    };
    let broken = changed("broken", "contexts: [").await;
    check("broken kubeconfig", &broken, &["kubeconfig"], &[], "kubectl config get-contexts");
    let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
    let token = parsed["users"][0]["user"]["token"].as_str().unwrap();
    let rejected = changed("rejected", &text.replace(token, "wrong-token")).await;
    check("wrong token", &rejected, &["credentials"], &[], "kubectl get nodes");
    let closed = changed("closed", &text.replace(&bed.cluster.url(), "http://127.0.0.1:9")).await;
    check("server is down", &closed, &["server"], &[], "curl -vk http://127.0.0.1:9/version");
    let plugin = json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/false", "interactiveMode": "Never"}});
    let mut with_plugin = parsed.clone();
    with_plugin["users"][0]["user"] = plugin;
    let failing = changed("plugin", &with_plugin.to_string()).await;
    check("failing plugin", &failing, &["credentials"], &[], "kubectl get nodes");
}

#[tokio::test]
async fn what_stands_before_the_server_is_told_from_it() {
    let bed = hardened().await;
    answering(&bed, "get", "", AnswerFault::PlainText { code: 403, retry_after: None });
    check("page of a proxy", &doctor(&bed, &[]).await, &["server"], &[], "curl -vk");
    let bed = hardened().await;
    answering(&bed, "get", "pods/exec", AnswerFault::PlainText { code: 400, retry_after: None });
    check("no websockets", &doctor(&bed, &["--via", "pod"]).await, &["exec-websocket"], &[], "--via logs");
    check("no websockets: auto uses the log", &doctor(&bed, &[]).await, &[], &["exec-websocket"], "--via logs");
    let logs = doctor(&bed, &["--via", "logs"]).await;
    check("no websockets, and none needed", &logs, &[], &["exec-websocket"], "--via logs");
}

#[tokio::test]
async fn server_version_and_clock() {
    let old = hardened_of(Fixture { kubernetes_version: "v1.29.4".to_owned(), ..fixture() }).await;
    check("old server", &doctor(&old, &[]).await, &[], &["server-version"], "setup --apply --profile trial");
    let bed = hardened().await;
    bed.cluster.faults(|faults| faults.api.clock_behind = std::time::Duration::from_secs(400));
    check("clock", &doctor(&bed, &[]).await, &[], &["clock"], "timedatectl");
}

#[tokio::test]
async fn each_permission_that_is_missing_is_named() {
    const GRANT: &str = "gpu-syringe setup --apply --user gpu-syringe";
    let cases: [(&str, &str, &[&str], &[&str]); 11] = [
        ("create", "pods", &["permission-probe-create-pods"], &[]),
        ("delete", "pods", &["permission-probe-delete-pods"], &[]),
        ("list", "pods", &["permission-probe-list-pods"], &["permission-cluster-list-pods"]),
        ("get", "pods/exec", &["permission-probe-get-pods-exec"], &[]),
        ("create", "pods/exec", &["permission-probe-create-pods-exec"], &[]),
        ("get", "pods/log", &[], &["permission-probe-get-pods-log"]),
        ("get", "nodes", &["permission-cluster-get-nodes"], &[]),
        ("list", "nodes", &["permission-cluster-list-nodes"], &[]),
        ("list", "resourceslices", &[], &["permission-cluster-list-resourceslices"]),
        ("list", "daemonsets", &[], &["permission-cluster-list-daemonsets"]),
        ("get", "validatingadmissionpolicies", &[], &["permission-cluster-get-validatingadmissionpolicies"]),
    ];
    for (verb, resource, failures, warnings) in cases {
        let bed = hardened_of(denying(&[(verb, resource)])).await;
        check(&format!("{verb} {resource}"), &doctor(&bed, &[]).await, failures, warnings, GRANT);
    }
    let operator = hardened_of(denying(&[("create", "actions")])).await;
    check(
        "reader",
        &doctor(&operator, &["--mode", "operator"]).await,
        &["permission-probe-create-actions"],
        &[],
        "--operator",
    );
    assert_eq!(doctor(&operator, &[]).await.code, Some(0), "a reader does not need this permission");
}

/// If the user has no permissions, the command lists the missing ones and does not abort.
#[tokio::test]
async fn without_any_permission_every_one_is_named() {
    let mut fixture = fixture();
    fixture.denied = ["", "apps", "rbac.authorization.k8s.io", "admissionregistration.k8s.io", "resource.k8s.io"]
        .map(|group| demo_cluster::Denial { group: Some(group.to_owned()), ..demo_cluster::Denial::of("*", "*") })
        .into();
    let bed = hardened_of(fixture).await;
    let answer = doctor(&bed, &[]).await;
    assert_eq!(answer.code, Some(1));
    let (failures, warnings) = (answer.ids("failure"), answer.ids("warning"));
    assert_eq!((failures.len(), warnings.len()), (8, 11), "{failures:?} {warnings:?}");
    assert!(failures.iter().chain(&warnings).all(|id| id.starts_with("permission-")), "{failures:?} {warnings:?}");
    assert_eq!(answer.undecided(), [""; 0]);
    assert_eq!(answer.json["status"], "failure");
}

#[tokio::test]
async fn the_namespace_and_what_it_admits() {
    let bare = Bed::of(fixture()).await;
    check("no namespace", &doctor(&bare, &[]).await, &["namespace"], &["image-on-nodes"], "gpu-syringe setup --apply");
    let bed = hardened().await;
    bed.cluster.edit_namespace(NAMESPACE, |namespace| {
        namespace.metadata.deletion_timestamp = serde_json::from_value(json!("2026-11-22T00:00:00Z")).unwrap();
    });
    check("deleted namespace", &doctor(&bed, &[]).await, &["namespace"], &[], "kubectl wait --for=delete");
    let bed = hardened().await;
    bed.cluster.edit_namespace(NAMESPACE, |namespace| {
        let labels = namespace.metadata.labels.as_mut().unwrap();
        labels.insert("pod-security.kubernetes.io/enforce".to_owned(), "baseline".to_owned());
    });
    let label = "kubectl label --overwrite namespace gpu-syringe pod-security.kubernetes.io/enforce=privileged";
    check("label baseline", &doctor(&bed, &[]).await, &["pod-security"], &[], label);
    let bed = hardened().await;
    bed.cluster.faults(|faults| faults.api.pod_security = true);
    check("cluster is baseline", &doctor(&bed, &[]).await, &["pod-security"], &[], label);
    let bed = hardened().await;
    let full = "exceeded quota: gpu-syringe, requested: pods=1, used: pods=64, limited: pods=64";
    answering(&bed, "create", "pods", AnswerFault::Forbidden(full.to_owned()));
    let of_pods = doctor(&bed, &[]).await;
    check("full quota", &of_pods, &["quota"], &[], "kubectl --namespace gpu-syringe describe quota");
    let bed = hardened().await;
    let limits = "failed quota: compute: must specify limits.cpu for: probe; limits.memory for: probe";
    answering(&bed, "create", "pods", AnswerFault::Forbidden(limits.to_owned()));
    let of_limits = doctor(&bed, &[]).await;
    check("quota of limits", &of_limits, &["quota"], &[], "kubectl --namespace gpu-syringe describe quota");
    assert!(of_pods.json.to_string().contains("gpu-syringe sweep"), "{}", of_pods.json);
    assert!(of_limits.json.to_string().contains("create a LimitRange"), "{}", of_limits.json);
    let bed = hardened().await;
    let webhook = "admission webhook \"validate.kyverno.svc-fail\" denied the request: no";
    answering(&bed, "create", "pods", AnswerFault::Forbidden(webhook.to_owned()));
    let answer = doctor(&bed, &[]).await;
    check("webhook", &answer, &["dry-run-inject", "dry-run-logs", "dry-run-pod"], &[], "gpu-syringe");
}

#[tokio::test]
async fn the_policy_and_its_values() {
    let trial = set_up(fixture(), &["--user", "gpu-syringe"]).await;
    check(
        "trial",
        &doctor(&trial, &[]).await,
        &[],
        &["policy"],
        &format!("setup --apply --profile hardened --image {IMAGE}"),
    );
    let tag = doctor(&trial, &["--image", "registry.test/gpu/node-probe:1"]).await;
    check("a tag", &tag, &[], &["image", "image-on-nodes", "policy"], "setup --apply --profile hardened");
    for kind in ["ValidatingAdmissionPolicyBinding", "ValidatingAdmissionPolicy"] {
        let bed = hardened().await;
        bed.cluster.remove_object(kind, "gpu-syringe-probe-only");
        check(kind, &doctor(&bed, &[]).await, &["policy"], &[], "setup --apply --profile hardened");
    }
    // The other policies limit what runs in a probe. A successful probe does not show that these policies exist.
    for name in ["gpu-syringe-exec-only", "gpu-syringe-nothing-else"] {
        let bed = hardened().await;
        bed.cluster.remove_object("ValidatingAdmissionPolicyBinding", name);
        check(name, &doctor(&bed, &[]).await, &["policy"], &[], "setup --apply --profile hardened");
    }
    let other =
        "registry.test/other/node-probe@sha256:2222222222222222222222222222222222222222222222222222222222222222";
    for image in ["", other] {
        let bed = hardened().await;
        bed.cluster.add_object(policy(image));
        check(image, &doctor(&bed, &[]).await, &["policy-values"], &[], &format!("--image {IMAGE}"));
    }
    let bed = hardened().await;
    let answer = doctor(&bed, &["--image", "registry.test/gpu/node-probe:1"]).await;
    let expected = format!("export GPU_SYRINGE_IMAGE={IMAGE}");
    check("no digest", &answer, &["policy-values"], &["image-on-nodes"], &expected);
    let inject = doctor(&bed, &["--via", "inject"]).await;
    check("inject with the policy", &inject, &["dry-run-inject"], &[], "gpu-syringe");
    let bed = hardened().await;
    bed.cluster.remove_object("ResourceQuota", "gpu-syringe");
    check("no quota", &doctor(&bed, &[]).await, &[], &["quota"], "setup --apply");
}

#[tokio::test]
async fn nodes_and_image() {
    let bed = hardened_of(Fixture { nodes: Vec::new(), ..fixture() }).await;
    check("no node", &doctor(&bed, &[]).await, &[], &["gpu-nodes"], "kubectl get nodes");
    let bed = hardened().await;
    bed.cluster.faults(|faults| faults.on("gpu-1").not_ready = true);
    check("no node is Ready", &doctor(&bed, &[]).await, &[], &["gpu-nodes"], "kubectl get nodes");
    let bed = hardened().await;
    bed.cluster.edit_node("gpu-1", |node| node.status.as_mut().unwrap().images = None);
    check("no image", &doctor(&bed, &[]).await, &[], &["image-on-nodes"], "--via inject");
    let trial = set_up(fixture(), &[]).await;
    trial.cluster.edit_node("gpu-1", |node| node.status.as_mut().unwrap().images = None);
    let upload = doctor(&trial, &["--via", "inject"]).await;
    check(
        "no base image",
        &upload,
        &["inject"],
        &["policy"],
        "gpu-syringe --via inject --base-image IMAGE diagnose gpu-1",
    );
    let bed = hardened().await;
    check("unknown node", &doctor(&bed, &["--node", "gpu-9"]).await, &["node"], &[], "gpu-syringe nodes");
    bed.cluster.faults(|faults| faults.on("gpu-1").start = Some(CountedFault::always(StartFault::ImagePull)));
    let pull = doctor(&bed, &["--node", "gpu-1", "--start-timeout", "2"]).await;
    check("image cannot be pulled", &pull, &["probe"], &[], "gpu-syringe");
}

#[tokio::test]
async fn an_answer_that_says_nothing_is_neither_good_nor_bad() {
    let bed = hardened().await;
    answering(&bed, "create", "pods", AnswerFault::InternalError);
    let answer = doctor(&bed, &[]).await;
    assert_eq!((answer.code, answer.ids("failure")), (Some(3), vec![]), "{}", answer.json);
    assert!(answer.undecided().contains(&"dry-run-pod"), "{}", answer.json);
    assert_eq!(answer.json["status"], "unknown");
}
