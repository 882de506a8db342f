//! Tests of faults between the API server and a container, and of missing permissions and unusable nodes: a fast error
//! with a next step, and no pod is left.

use std::time::{Duration, Instant};

use demo_cluster::{AnswerFault, CountedFault, Denial, ExecFault, Fixture, RequestFault, StartFault};
use serde_json::json;

use crate::bed::{Bed, Fails, Prints, node};
use crate::cleanup::on_gpu_1;
use crate::support::answer::Answer;
use crate::support::client::Client;

/// Maximum time until the launcher notices that a stream was cut.
const CUT_IS_KNOWN: Duration = Duration::from_secs(5);

async fn inventory(bed: &Bed) -> Answer {
    bed.client().await.call("get_gpu_inventory", on_gpu_1()).await
}

/// Calls the tool with the method `pod` only, because another method would succeed.
async fn by_image(bed: &Bed) -> Answer {
    let mut client = Client::start(bed.launcher().args(["--via", "pod"])).await;
    client.call("get_gpu_inventory", on_gpu_1()).await
}

async fn with_exec(fault: ExecFault) -> Bed {
    Bed::with(|faults| faults.everywhere.exec = Some(fault.into())).await
}

#[tokio::test]
async fn a_websocket_that_is_cut_in_the_middle_of_the_output_is_an_error_within_five_seconds() {
    for after_bytes in [0, 1, 1_000] {
        let bed = with_exec(ExecFault::Cut { after_bytes }).await;
        let mut client = bed.client().await;
        let began = Instant::now();
        let answer = client.call("get_gpu_inventory", on_gpu_1()).await;
        assert!(began.elapsed() < CUT_IS_KNOWN, "{:?}", began.elapsed());
        answer.error_with(&["cut", "twice", "gpu-1", "websocket"]);
        bed.assert_bare(1);
    }
}

#[tokio::test]
async fn an_answer_that_is_truncated_with_status_success_is_an_error() {
    for after_bytes in [0, 1_000] {
        let bed = with_exec(ExecFault::Truncated { after_bytes }).await;
        inventory(&bed).await.error_with(&[
            "exited with code 0",
            "not a complete document",
            &format!("{after_bytes} bytes"),
        ]);
        bed.assert_bare(1);
    }
}

#[tokio::test]
async fn a_probe_that_is_killed_is_an_error_with_its_exit_code() {
    let bed = with_exec(ExecFault::Killed { after_bytes: 100 }).await;
    inventory(&bed).await.error_with(&["exited with code 137"]);
    bed.assert_bare(1);
}

#[tokio::test]
async fn the_error_output_of_a_program_that_fails_at_once_is_quoted() {
    let bed = Bed::running(Fails("node-probe: unknown command 'inventory'\n")).await;
    let answer = inventory(&bed).await;
    answer.error_with(&["exited with code 2", "unknown command 'inventory'", "--image"]);
    assert!(!answer.text.contains("proxy") && !answer.text.contains("twice"), "{}", answer.text);
    bed.assert_bare(1);
}

#[tokio::test]
async fn a_sandbox_that_cannot_be_created_is_an_error_with_the_event_of_the_pod() {
    let why = "failed to get sandbox runtime: no runtime for \"nvidia\" is configured";
    let bed = Bed::with(|faults| faults.everywhere.start = Some(StartFault::NoSandbox(why.to_owned()).into())).await;
    let launcher = bed.launcher().env("GPU_SYRINGE_START_TIMEOUT", "1");
    let ended = launcher.args(["inventory", "gpu-1"]).run().await;
    assert_eq!(ended.code, Some(3));
    assert!(ended.stderr.contains("FailedCreatePodSandBox") && ended.stderr.contains(why), "{}", ended.stderr);
    bed.assert_bare(1);
}

#[tokio::test]
async fn a_registry_that_does_not_answer_is_reported_and_a_runtime_that_hangs_is_not_taken_for_one() {
    for (fault, is_pull) in [(StartFault::HungPull, true), (StartFault::HungRuntime, false)] {
        let bed = Bed::with(|faults| faults.everywhere.start = Some(fault.into())).await;
        let launcher = bed.launcher().env("GPU_SYRINGE_START_TIMEOUT", "1");
        let ended = launcher.args(["inventory", "gpu-1"]).run().await;
        assert_eq!(ended.code, Some(3));
        assert_eq!(ended.stderr.contains("Pulling image"), is_pull, "{}", ended.stderr);
        assert_eq!(ended.stderr.contains("registry"), is_pull, "{}", ended.stderr);
        bed.assert_bare(1);
    }
}

#[tokio::test]
async fn a_rejection_by_an_admission_plugin_does_not_suggest_permissions() {
    let quota = "exceeded quota: small, requested: pods=1, used: pods=4, limited: pods=4";
    let bed = Bed::with(|faults| {
        let answer = CountedFault::always(AnswerFault::Forbidden(quota.to_owned()));
        faults.api.requests.push(RequestFault { verb: Some("create"), resource: Some("pods"), answer });
    })
    .await;
    let answer = inventory(&bed).await;
    answer.error_with(&["exceeded quota: small", "raise it", "--probe-namespace"]);
    assert!(!answer.text.contains("grant these"), "{}", answer.text);
    bed.assert_bare(0);
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_is_an_error_in_the_kubelet_s_words() {
    let bed = Bed::with(|faults| faults.everywhere.start = Some(StartFault::ImagePull.into())).await;
    let answer = by_image(&bed).await;
    answer.error_with(&["ImagePull", "node-probe@", "--image-pull-secret", "The probe pod was deleted."]);
    // The error contains the kubelet's message, not only its reason.
    assert!(
        answer.text.contains("failed to pull") || answer.text.contains("Back-off pulling image"),
        "{}",
        answer.text
    );
    bed.assert_bare(1);
}

#[tokio::test]
async fn a_node_that_has_no_room_for_a_pod_is_an_error_that_says_so() {
    let bed = Bed::with(|faults| faults.everywhere.start = Some(StartFault::out_of_pods().into())).await;
    inventory(&bed).await.error_with(&["OutOfpods", "capacity: 110", "maxPods"]);
    bed.assert_bare(1);
}

#[tokio::test]
async fn a_namespace_that_denies_privileged_pods_gives_the_api_facts_and_names_the_label() {
    let bed = Bed::with(|faults| faults.api.pod_security = true).await;
    let answer = inventory(&bed).await;
    let answer = answer.success();
    assert_eq!((&answer["verdict"], &answer["probe"]["via"]), (&json!("unknown"), &json!("none")));
    assert_eq!(answer["kubernetes"]["capacity"]["nvidia.com/gpu"], 8);
    let note = answer["probe"]["note"].as_str().unwrap();
    let remedy = "kubectl label --overwrite namespace gpu-syringe pod-security.kubernetes.io/enforce=privileged";
    assert!(note.contains("Pod Security") && note.contains(remedy), "{note}");
    bed.assert_bare(0);
}

#[tokio::test]
async fn a_missing_namespace_is_an_error_that_names_it() {
    let bed = Bed::healthy().await;
    let launcher = bed.launcher().env("GPU_SYRINGE_PROBE_NAMESPACE", "nowhere");
    let ended = launcher.args(["--via", "pod", "inventory", "gpu-1"]).run().await;
    assert_eq!(ended.code, Some(3));
    assert!(ended.stderr.contains("nowhere") && ended.stderr.contains("Next step"), "{}", ended.stderr);
    bed.assert_bare(0);
}

#[tokio::test]
async fn without_permission_to_create_pods_the_error_names_the_permission() {
    let nodes = [node("gpu-1", "healthy-h100-8")];
    let bed = Bed::of(Fixture::of(nodes).denying(Denial::of("create", "pods"))).await;
    by_image(&bed).await.error_with(&["create", "pods/exec", "namespace gpu-syringe", "setup --apply", "403"]);
    bed.assert_bare(0);
}

#[tokio::test]
async fn without_permission_to_read_nodes_nothing_is_created() {
    let nodes = [node("gpu-1", "healthy-h100-8")];
    let bed = Bed::of(Fixture::of(nodes).denying(Denial::of("get", "nodes"))).await;
    inventory(&bed).await.error_with(&["gpu-1", "403", "gpu-syringe setup --apply --user"]);
    bed.assert_bare(0);
}

#[tokio::test]
async fn without_permission_to_exec_the_error_names_the_permission() {
    let bed = with_exec(ExecFault::Forbidden).await;
    inventory(&bed).await.error_with(&["pods/exec", "403", "setup --apply"]);
    bed.assert_bare(1);
}

#[tokio::test]
async fn the_page_of_a_proxy_is_reported_as_such() {
    for (verb, resource, code) in
        [("get", "nodes", 404), ("get", "nodes", 403), ("create", "pods", 404), ("create", "pods", 403)]
    {
        let answer = CountedFault::always(AnswerFault::PlainText { code, retry_after: None });
        let fault = RequestFault { verb: Some(verb), resource: Some(resource), answer };
        let bed = Bed::with(|faults| faults.api.requests.push(fault)).await;
        let answer = inventory(&bed).await;
        answer.error_with(&["not from the API server", "proxy", &code.to_string()]);
        for words in ["Create the namespace", "admission plugin", "grant these", "no such node"] {
            assert!(!answer.text.contains(words), "{verb} {resource} {code}: {}", answer.text);
        }
        bed.assert_bare(0);
    }
}

#[tokio::test]
async fn without_permission_to_delete_the_answer_names_the_pod_that_is_left() {
    let nodes = [node("gpu-1", "healthy-h100-8")];
    let bed = Bed::of(Fixture::of(nodes).denying(Denial::of("delete", "pods"))).await;
    let answer = inventory(&bed).await;
    let probe = &answer.success()["probe"];
    assert_eq!(probe["deleted"], false);
    let left = probe["left_behind"].as_str().unwrap();
    let name = bed.pods()[0].metadata.name.clone().unwrap();
    assert!(left.contains(&format!("kubectl -n gpu-syringe delete pod {name}")) && left.contains("403"), "{left}");
}

#[tokio::test]
async fn if_a_proxy_refuses_websockets_the_log_is_read_and_the_answer_says_so() {
    for status in [200, 400, 403, 404, 501] {
        let bed = with_exec(ExecFault::UpgradeRefused(status)).await;
        let began = Instant::now();
        let answer = inventory(&bed).await;
        assert!(began.elapsed() < CUT_IS_KNOWN, "{status}: {:?}", began.elapsed());
        let probe = &answer.deleted()["probe"];
        assert_eq!(probe["via"], "logs", "{status}");
        assert!(probe["passed_over"][0].as_str().unwrap().contains("pod: websockets"), "{status}: {probe}");
        // One pod could not be reached, and the second pod responded.
        bed.assert_bare(2);
    }
}

#[tokio::test]
async fn if_a_proxy_answers_websockets_with_502_the_log_is_read_after_the_time_limit() {
    let bed = with_exec(ExecFault::UpgradeRefused(502)).await;
    let launcher = bed.launcher().args(["--start-timeout", "2", "inventory", "gpu-1"]);
    let ended = launcher.run().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let answer: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let passed = answer["probe"]["passed_over"][0].as_str().unwrap();
    assert!(passed.contains("502") && passed.contains("pod: websockets"), "{passed}");
    bed.assert_bare(2);
}

#[tokio::test]
async fn nothing_is_created_for_a_node_that_is_not_ready() {
    let bed = Bed::with(|faults| faults.on("gpu-1").not_ready = true).await;
    let mut client = bed.client().await;
    let answer = client.call("get_gpu_inventory", json!({"node_name": "gpu-1"})).await;
    let answer = answer.deleted();
    assert_eq!((&answer["verdict"], &answer["probe"]["via"]), (&json!("critical"), &json!("none")), "{answer}");
    let note = answer["probe"]["note"].to_string();
    for words in ["Kubelet stopped posting node status", "nothing was created", "Nothing was read on the node"] {
        assert!(note.contains(words), "no '{words}' in: {note}");
    }
    bed.assert_bare(0);
}

#[tokio::test]
async fn nothing_is_created_for_a_node_that_does_not_exist() {
    let bed = Bed::healthy().await;
    let mut client = bed.client().await;
    for tool in ["get_gpu_inventory", "get_gpu_telemetry", "analyze_xid_errors"] {
        let answer = client.call(tool, json!({"node_name": "gpu-9"})).await;
        answer.error_with(&["gpu-9", "no such node", "list_gpu_nodes"]);
    }
    bed.assert_bare(0);
}

#[tokio::test]
async fn a_node_without_gpus_and_one_without_a_driver_are_answers_not_crashes() {
    let bed = Bed::of(Fixture::of([node("cpu-1", "no-gpu"), node("gpu-1", "no-driver")])).await;
    let mut client = bed.client().await;
    for name in ["cpu-1", "gpu-1"] {
        let answer = client.call("analyze_xid_errors", json!({"node_name": name})).await;
        assert_eq!(answer.deleted()["events"], json!([]), "{name}");
        let answer = client.call("get_gpu_inventory", json!({"node_name": name})).await;
        answer.error_with(&[name]);
    }
    bed.assert_bare(4);
}

#[tokio::test]
async fn an_empty_variable_counts_as_not_set() {
    let bed = Bed::healthy().await;
    let empty = [
        "CONTEXT",
        "IMAGE_DIGEST",
        "NAMESPACE",
        "PROBE_NAMESPACE",
        "OUTPUT",
        "FAIL_ON",
        "VIA",
        "START_TIMEOUT",
        "MODE",
        "ALLOW_NODES",
    ];
    let launcher = empty.iter().fold(bed.launcher(), |launcher, name| launcher.env(&format!("GPU_SYRINGE_{name}"), ""));
    let launcher = launcher.env("GPU_SYRINGE_IMAGE", demo_cluster::PROBE_IMAGE_PINNED);
    let ended = launcher.args(["telemetry", "gpu-1"]).run().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    bed.assert_bare(1);
}

/// A document of another version is rejected: otherwise, renamed fields would be missing silently.
#[tokio::test]
async fn a_report_of_another_schema_version_is_an_error_that_names_it() {
    for via in ["pod", "logs"] {
        let old = r#"{"schema_version":1,"probe_version":"0.0.9","sections":{"inventory":{"status":"ok","data":{"gpus":[]}}}}"#;
        let bed = Bed::running(Prints(old)).await;
        let mut client = Client::start(bed.launcher().args(["--via", via])).await;
        let answer = client.call("get_gpu_inventory", on_gpu_1()).await;
        answer.error_with(&[
            "schema version is 1 (node-probe 0.0.9)",
            "reads version 3",
            "--image",
            "The probe pod was deleted",
        ]);
        bed.assert_bare(1);
    }
}
