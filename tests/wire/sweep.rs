//! Tests of `sweep`: pods and containers of killed launchers are cleaned up, and nothing else is deleted.

use std::time::Duration;

use demo_cluster::{AnswerFault, CountedFault, Denial, ExecFault, Faults, Fixture, RequestFault, workload_pod};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::bed::{Bed, NAMESPACE, node};
use crate::cleanup::{READ, on_gpu_1};
use crate::support::client::Client;
use crate::support::launcher::Launcher;
use crate::support::wait;

/// Starts a cluster in which the first exec hangs, and a session that waits for this exec.
async fn in_mid_call() -> (Bed, Client) {
    in_mid_call_with(|_| ()).await
}

/// Like `in_mid_call`, with more faults.
async fn in_mid_call_with(faults: impl FnOnce(&mut Faults)) -> (Bed, Client) {
    let bed = Bed::with(|all| {
        all.everywhere.exec = Some(CountedFault::once(ExecFault::Hang));
        faults(all);
    })
    .await;
    let mut client = bed.client().await;
    let call = client.send_call("get_gpu_inventory", on_gpu_1());
    client.until_progress(call, READ).await;
    (bed, client)
}

/// Kills the launcher during the call with `kill -9`. Returns the cluster and the name of the pod that is left.
async fn after_kill() -> (Bed, String) {
    let (bed, mut client) = in_mid_call().await;
    client.program.signal("KILL");
    client.program.exit().await;
    assert_eq!(bed.pods().len(), 1);
    let name = bed.pods()[0].metadata.name.clone().unwrap();
    (bed, name)
}

#[tokio::test]
async fn the_next_server_sweeps_the_pod_of_one_that_was_killed() {
    let (bed, _) = after_kill().await;
    let client = bed.client().await;
    bed.until_bare().await;
    client.close().await;
}

#[tokio::test]
async fn the_next_call_sweeps_the_pod_of_one_that_was_killed() {
    let (bed, _) = after_kill().await;
    let json = bed.launcher().args(["inventory", "gpu-1"]).run().await.json();
    assert_eq!(json["probe"]["deleted"], true);
    bed.assert_bare(2);
}

#[tokio::test]
async fn the_sweep_command_says_what_it_removed() {
    let (bed, name) = after_kill().await;
    let swept = bed.launcher().args(["sweep"]).run().await.json();
    assert_eq!(swept, json!({"namespace": NAMESPACE, "deleted": [name], "kept": [], "ended": [], "failed": []}));
    bed.assert_bare(1);
    let table = bed.launcher().args(["--output", "table", "sweep"]).run().await;
    assert_eq!(table.stdout, "namespace gpu-syringe: 0 deleted, 0 in use, 0 failed\n");
}

#[tokio::test]
async fn the_sweep_command_does_not_take_the_page_of_a_proxy_for_a_deletion() {
    let (bed, name) = after_kill().await;
    let page = AnswerFault::PlainText { code: 404, retry_after: None };
    let fault = RequestFault { verb: Some("delete"), resource: Some("pods"), answer: CountedFault::always(page) };
    bed.cluster.faults(|faults| faults.api.requests.push(fault));
    let swept = bed.launcher().args(["sweep"]).run().await;
    assert_eq!(swept.code, Some(3), "{}", swept.stdout);
    let swept: Value = serde_json::from_str(&swept.stdout).unwrap();
    assert_eq!((&swept["deleted"], &swept["failed"][0][0]), (&json!([]), &json!(name)));
    assert!(swept["failed"][0][1].as_str().unwrap().contains("did not reach the API server"), "{swept}");
    assert_eq!(bed.pods().len(), 1);
}

#[tokio::test]
async fn the_pod_of_a_running_launcher_is_not_deleted() {
    let (bed, mut client) = in_mid_call().await;
    let swept = bed.launcher().args(["sweep"]).run().await.json();
    assert_eq!(swept["deleted"], json!([]));
    assert_eq!(swept["kept"].as_array().map(Vec::len), Some(1));
    // Another server also cleans up at its start and with each call.
    let mut other = bed.client().await;
    other.call("get_gpu_inventory", on_gpu_1()).await.deleted();
    assert_eq!(bed.pods().len(), 1);
    client.program.signal("TERM");
    client.program.exit().await;
    bed.assert_bare(2);
}

#[tokio::test]
async fn the_pod_of_a_launcher_on_another_machine_is_not_deleted() {
    let (bed, _client) = in_mid_call().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let launcher = Launcher::alone(elsewhere.path()).env("KUBECONFIG", bed.kubeconfig());
    let swept: Value = launcher.args(["sweep"]).run().await.json();
    assert_eq!((&swept["deleted"], swept["kept"].as_array().map(Vec::len)), (&json!([]), Some(1)));
    assert_eq!(bed.pods().len(), 1);
}

#[tokio::test]
async fn a_pod_long_after_its_deadline_is_swept_by_every_launcher() {
    let (bed, _) = after_kill().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let mut old = bed.pods().remove(0);
    let hours_ago = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(3);
    old.metadata.creation_timestamp = Some(Time(hours_ago));
    bed.cluster.add_pod(old);
    let launcher = Launcher::alone(elsewhere.path()).env("KUBECONFIG", bed.kubeconfig());
    let swept = launcher.args(["sweep"]).run().await.json();
    assert_eq!(swept["deleted"].as_array().map(Vec::len), Some(1), "{swept}");
    bed.assert_bare(1);
}

#[tokio::test]
async fn pods_that_are_not_probes_are_never_swept() {
    let (bed, _) = after_kill().await;
    let stranger: Pod = serde_json::from_value(json!({
        "metadata": {"name": "stranger", "namespace": NAMESPACE, "creationTimestamp": "2020-01-01T00:00:00Z"},
        "spec": {"nodeName": "gpu-1", "containers": [{"name": "main", "image": "x"}]},
    }))
    .unwrap();
    bed.cluster.add_pod(stranger);
    let swept = bed.launcher().args(["sweep"]).run().await.json();
    assert_eq!(swept["deleted"].as_array().map(Vec::len), Some(1));
    let left: Vec<_> = bed.pods().into_iter().filter_map(|pod| pod.metadata.name).collect();
    assert_eq!(left, ["stranger"]);
}

#[tokio::test]
async fn a_sweep_that_cannot_remove_says_why() {
    let fixture = Fixture::of([node("gpu-1", "healthy-h100-8")]).denying(Denial::of("delete", "pods"));
    let bed = Bed::of(fixture).await;
    let answer = bed.client().await.call("get_gpu_inventory", on_gpu_1()).await;
    assert_eq!(answer.success()["probe"]["deleted"], false);
    let name = bed.pods()[0].metadata.name.clone().unwrap();
    let ended = bed.launcher().args(["sweep"]).run().await;
    assert_eq!(ended.code, Some(3), "{}", ended.stdout);
    let swept: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(swept["failed"][0][0], name);
    assert!(swept["failed"][0][1].as_str().unwrap().contains("403"), "{swept}");
    assert_eq!(bed.pods().len(), 1);
}

#[tokio::test]
async fn every_swept_pod_has_an_audit_line() {
    let (bed, name) = after_kill().await;
    assert_eq!(bed.audit(), Vec::<Value>::new(), "a killed launcher must not have written a line");
    bed.launcher().args(["sweep"]).run().await.json();
    let lines = bed.audit();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let line = &lines[0];
    assert_eq!((&line["event"], &line["pod"], &line["deleted"]), (&json!("sweep"), &json!(name), &json!(true)));
    assert_eq!((&line["node"], &line["tool"]), (&json!("gpu-1"), &json!("get_gpu_inventory")));
    assert_eq!(line["outcome"], "cleaned up: the launcher that created the pod has exited");
    assert!(line["pod_uid"].is_string() && line["server"].is_string(), "{line}");
}

/// Returns a fault: deletions are served, but no response is sent.
fn unanswered_deletion() -> RequestFault {
    let answer = CountedFault::always(AnswerFault::Late(Duration::from_millis(10)));
    RequestFault { verb: Some("delete"), resource: Some("pods"), answer }
}

/// Kills the launcher after its deletion is served, before it can write the audit line.
async fn kill_after_deletion(bed: &Bed, program: &mut crate::support::launcher::Running) {
    bed.until_bare().await;
    program.signal("KILL");
    program.exit().await;
    assert_eq!(bed.audit(), Vec::<Value>::new(), "the program was killed too late");
}

/// Returns the audit lines after two further runs of `sweep`.
async fn lines_of_next_sweeps(bed: &Bed) -> Vec<Value> {
    bed.cluster.faults(|faults| faults.api.requests.clear());
    for _ in 0..2 {
        bed.launcher().args(["sweep"]).run().await.json();
    }
    bed.audit()
}

#[tokio::test]
async fn the_pod_of_a_launcher_that_was_killed_after_its_deletion_has_an_audit_line() {
    for via in ["pod", "logs"] {
        let bed = Bed::with(|faults| faults.api.requests.push(unanswered_deletion())).await;
        let mut client = Client::start(bed.launcher().args(["--via", via])).await;
        client.send_call("get_gpu_inventory", on_gpu_1());
        wait::until("the pod", async || (bed.cluster.pods_created() > 0).then_some(())).await;
        kill_after_deletion(&bed, &mut client.program).await;
        let lines = lines_of_next_sweeps(&bed).await;
        assert_eq!(lines.len(), 1, "{via}: {lines:?}");
        assert!(lines[0]["pod"].as_str().is_some_and(|name| name.starts_with("gpu-syringe-")), "{via}: {lines:?}");
        assert_eq!((&lines[0]["event"], &lines[0]["deleted"]), (&json!("sweep"), &json!(true)), "{via}: {lines:?}");
        assert_eq!((&lines[0]["node"], &lines[0]["tool"]), (&json!("gpu-1"), &json!("get_gpu_inventory")), "{lines:?}");
    }
}

#[tokio::test]
async fn a_sweep_that_is_killed_after_its_deletion_leaves_the_audit_line_to_the_next() {
    let (bed, name) = after_kill().await;
    bed.cluster.faults(|faults| faults.api.requests.push(unanswered_deletion()));
    let mut sweep = bed.launcher().args(["sweep"]).start();
    kill_after_deletion(&bed, &mut sweep).await;
    let lines = lines_of_next_sweeps(&bed).await;
    assert_eq!((lines.len(), &lines[0]["pod"], &lines[0]["deleted"]), (1, &json!(name), &json!(true)), "{lines:?}");
}

/// The second attempt finds no pod, because the first attempt has deleted it.
#[tokio::test]
async fn a_sweep_whose_deletion_succeeded_without_its_answer_writes_the_audit_line() {
    for lost in [AnswerFault::Lost, AnswerFault::ServedAndClosed] {
        let (bed, name) = after_kill().await;
        let answer = CountedFault::once(lost);
        let fault = RequestFault { verb: Some("delete"), resource: Some("pods"), answer };
        bed.cluster.faults(|faults| faults.api.requests.push(fault));
        // The session files are missing, as on another machine.
        let state = bed.home().join("state/gpu-syringe");
        for file in std::fs::read_dir(&state).unwrap().flatten() {
            if file.file_name().to_string_lossy().starts_with("session-") {
                std::fs::remove_file(file.path()).unwrap();
            }
        }
        let swept = bed.launcher().args(["sweep"]).run().await.json();
        let lines = bed.audit();
        assert_eq!((&swept["deleted"], lines.len()), (&json!([name]), 1), "{swept} {lines:?}");
        assert_eq!((&lines[0]["pod"], &lines[0]["deleted"]), (&json!(name), &json!(true)), "{lines:?}");
    }
}

/// The home directory is read-only, as in a container.
#[tokio::test]
async fn without_a_state_directory_the_next_launcher_sweeps_too() {
    let bed = Bed::with(|faults| faults.everywhere.exec = Some(CountedFault::once(ExecFault::Hang))).await;
    let temporary = tempfile::tempdir().unwrap();
    let launcher = || bed.launcher().env("XDG_STATE_HOME", "/dev/null").env("TMPDIR", temporary.path());
    let mut client = Client::start(launcher()).await;
    let call = client.send_call("get_gpu_inventory", on_gpu_1());
    client.until_progress(call, READ).await;
    let other = launcher().args(["sweep"]).run().await.json();
    assert_eq!(other["deleted"], json!([]), "the launcher of the pod is running");
    client.program.signal("KILL");
    client.program.exit().await;
    assert_eq!(bed.pods().len(), 1);
    let swept = launcher().args(["sweep"]).run().await.json();
    assert_eq!(swept["deleted"].as_array().map(Vec::len), Some(1), "{swept}");
    bed.assert_bare(1);
}

/// The clock of this machine is ahead of the clock of the API server.
#[tokio::test]
async fn a_wrong_clock_deletes_no_pod_of_a_running_launcher() {
    let (bed, mut client) = in_mid_call_with(|faults| faults.api.clock_behind = Duration::from_secs(1_200)).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let launcher = Launcher::alone(elsewhere.path()).env("KUBECONFIG", bed.kubeconfig());
    let swept: Value = launcher.args(["sweep"]).run().await.json();
    assert_eq!((&swept["deleted"], swept["kept"].as_array().map(Vec::len)), (&json!([]), Some(1)), "{swept}");
    // The session itself cleans up with each call.
    client.call("get_gpu_inventory", on_gpu_1()).await.deleted();
    assert_eq!(bed.pods().len(), 1);
    client.program.signal("TERM");
    client.program.exit().await;
    bed.assert_bare(2);
}

/// The clock of this machine is behind the clock of the API server. The age of a pod is still calculated with the clock
/// of the API server.
#[tokio::test]
async fn the_age_of_a_pod_counts_by_the_clock_of_the_api_server() {
    let (bed, _) = after_kill().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let mut old = bed.pods().remove(0);
    let hours_ago = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(3);
    old.metadata.creation_timestamp = Some(Time(hours_ago));
    bed.cluster.add_pod(old);
    let swept = async || {
        let launcher = Launcher::alone(elsewhere.path()).env("KUBECONFIG", bed.kubeconfig());
        launcher.args(["sweep"]).run().await.json()["deleted"].as_array().map(Vec::len)
    };
    bed.cluster.faults(|faults| faults.api.clock_behind = Duration::from_secs(3 * 3_600));
    assert_eq!(swept().await, Some(0), "the pod is new by the clock of the API server");
    bed.cluster.faults(|faults| faults.api.clock_behind = Duration::ZERO);
    assert_eq!(swept().await, Some(1));
}

#[tokio::test]
async fn a_pod_that_its_own_call_could_not_delete_is_swept_by_the_next_call() {
    let bed = Bed::with(|faults| faults.api.failing_deletes(100)).await;
    let mut client = bed.client().await;
    let answer = client.call("get_gpu_inventory", on_gpu_1()).await;
    assert_eq!(answer.success()["probe"]["deleted"], false);
    bed.cluster.faults(|faults| faults.api.requests.clear());
    client.call("get_gpu_inventory", on_gpu_1()).await.deleted();
    bed.until_bare().await;
}

/// An ephemeral container has no labels, and Kubernetes cannot delete it: only the session file contains its name.
#[tokio::test]
async fn the_next_sweep_ends_the_ephemeral_container_of_a_killed_launcher() {
    let pod = workload_pod("ml", "train-0", "gpu-1", 8);
    let bed = Bed::of(Fixture::of([node("gpu-1", "healthy-h100-8")]).with_pod(pod)).await;
    bed.cluster.faults(|faults| faults.everywhere.exec = Some(CountedFault::once(ExecFault::Hang)));
    let mut client = Client::start(bed.launcher().args(["--via", "ephemeral", "--ephemeral-pod", "any"])).await;
    let call = client.send_call("get_gpu_inventory", on_gpu_1());
    client.until_progress(call, READ).await;
    let running = bed.launcher().args(["sweep"]).run().await.json();
    assert_eq!((&running["ended"], &running["failed"]), (&json!([]), &json!([])), "the launcher of the pod is running");
    client.program.signal("KILL");
    client.program.exit().await;
    let swept = bed.launcher().args(["sweep"]).run().await.json();
    let name = swept["ended"][0].as_str().unwrap_or_else(|| panic!("{swept}"));
    assert!(name.starts_with("ml/train-0/gpu-syringe-"), "{name}");
    wait::until("the container has ended", async || {
        let status = bed.cluster.pods("ml").remove(0).status?;
        status.ephemeral_container_statuses?.remove(0).state?.terminated
    })
    .await;
    let lines = bed.audit();
    assert_eq!(
        (lines.len(), &lines[0]["event"], &lines[0]["pod"]),
        (1, &json!("sweep"), &json!("train-0")),
        "{lines:?}"
    );
    assert_eq!(format!("ml/train-0/{}", lines[0]["container"].as_str().unwrap()), name);
    let again = bed.launcher().args(["sweep"]).run().await.json();
    assert_eq!(again["ended"], json!([]));
}
