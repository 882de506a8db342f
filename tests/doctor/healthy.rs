//! Tests of `doctor` on clusters that are set up correctly, of credentials in its output, and of its time limit.

use std::time::{Duration, Instant};

use demo_cluster::{AnswerFault, CountedFault, RequestFault};

use crate::cluster::{Answer, IMAGE, doctor, fixture, hardened, set_up};

#[tokio::test]
async fn a_cluster_that_is_set_up_as_hardened_has_no_problem() {
    let bed = hardened().await;
    let answer = doctor(&bed, &["--node", "gpu-1"]).await;
    assert_eq!((answer.code, &answer.json["status"]), (Some(0), &"ok".into()), "{}", answer.json);
    assert_eq!(answer.ids("failure"), [""; 0]);
    assert_eq!(answer.ids("warning"), [""; 0]);
    // The policy does not admit a shell.
    assert_eq!(answer.ids("skipped"), ["dry-run-inject", "inject"]);
    assert_eq!(answer.json["probe"]["via"], "pod");
    assert!(answer.json["probe"]["timings_ms"]["total"].as_u64().is_some_and(|time| time > 0), "{}", answer.json);
    bed.assert_bare(1);
}

/// If no image is set, the image in the policy is used.
#[tokio::test]
async fn a_cluster_that_is_set_up_as_hardened_needs_no_setting() {
    let bed = hardened().await;
    let answer = Answer::of(&bed.bare_launcher().args(["doctor", "-o", "json", "--node", "gpu-1"]).run().await);
    assert_eq!((answer.code, answer.ids("warning")), (Some(0), vec![]), "{}", answer.json);
    assert_eq!(answer.json["probe"]["via"], "pod");
    let evidence = answer.json["checks"].as_array().unwrap().iter().find(|check| check["id"] == "image").unwrap();
    assert_eq!(
        evidence["evidence"],
        format!("no image is set; the image of the policy is used: {IMAGE}"),
        "{}",
        answer.json
    );
}

#[tokio::test]
async fn without_a_node_no_pod_is_created() {
    let bed = hardened().await;
    assert_eq!(doctor(&bed, &[]).await.code, Some(0));
    assert_eq!(bed.cluster.pods_created(), 0);
    let changes = bed.cluster.requests();
    let changes: Vec<_> =
        changes.iter().filter(|request| !request.starts_with("GET") && !is_question(request)).collect();
    assert!(changes.is_empty(), "{changes:?}");
}

fn is_question(request: &str) -> bool {
    request.contains("dryRun=All") || request.contains("selfsubject")
}

/// The trial profile works without an image, and the answer contains what the profile permits.
#[tokio::test]
async fn trial_is_a_warning_about_root_and_inject_works() {
    let bed = set_up(fixture(), &["--user", "gpu-syringe"]).await;
    let answer = doctor(&bed, &["--via", "inject"]).await;
    assert_eq!((answer.code, answer.ids("failure")), (Some(0), vec![]), "{}", answer.json);
    assert_eq!(answer.ids("warning"), ["policy"]);
    assert_eq!(answer.ids("skipped"), ["image", "image-on-nodes", "policy-values"]);
    assert!(answer.fix("policy").contains("setup --apply --profile hardened"));
    assert!(answer.json["checks"][0]["evidence"].as_str().is_some_and(|text| text.contains("root on every node")));
}

#[tokio::test]
async fn the_output_never_contains_the_credentials() {
    let bed = hardened().await;
    let config: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(bed.kubeconfig()).unwrap()).unwrap();
    let token = config["users"][0]["user"]["token"].as_str().unwrap();
    for format in ["json", "table", "yaml", "name", "wide"] {
        let ended = bed.bare_launcher().args(["doctor", "-o", format]).run().await;
        assert!(!ended.stdout.contains(token) && !ended.stderr.contains(token), "{format}");
    }
}

/// If a server accepts connections but does not respond, the command still takes a limited time.
#[tokio::test]
async fn all_checks_together_have_a_limit() {
    let bed = hardened().await;
    let hang = CountedFault::always(AnswerFault::Late(Duration::from_secs(60)));
    bed.cluster.faults(|faults| {
        for resource in ["pods", "nodes", "resourcequotas", "selfsubjectaccessreviews", "pods/exec"] {
            faults.api.requests.push(RequestFault { verb: None, resource: Some(resource), answer: hang.clone() });
        }
    });
    let start = Instant::now();
    let answer = doctor(&bed, &[]).await;
    assert!(start.elapsed() < Duration::from_secs(18), "{:?}", start.elapsed());
    assert!(answer.undecided().contains(&"permission-probe-create-pods"), "{}", answer.json);
}
