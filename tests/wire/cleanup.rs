//! Tests that the pod is deleted at the end of every call: success, failure, cancellation, closed input, time limit.

use std::time::Duration;

use demo_cluster::{
    AnswerFault, CountedFault, ExecFault, Invocation, NodeProbe, Process, Programs, RequestFault, StartFault, Streams,
};
use serde_json::json;

use crate::bed::{Bed, Prints, Stuck};
use crate::support::wait;

/// Number of the phase in which the probe runs.
pub(crate) const READ: u64 = 3;
/// Number of the phase that waits for the container.
pub(crate) const START: u64 = 2;
/// Start time of a container that does not start during a test.
pub(crate) const NEVER: Duration = Duration::from_secs(600);

pub(crate) fn on_gpu_1() -> serde_json::Value {
    json!({"node_name": "gpu-1"})
}

#[tokio::test]
async fn the_pod_is_gone_when_a_call_has_succeeded() {
    let bed = Bed::healthy().await;
    let mut client = bed.client().await;
    let answer = client.call("get_gpu_inventory", on_gpu_1()).await;
    // The pod must already be deleted: the answer comes after the deletion.
    bed.assert_bare(1);
    let answer = answer.deleted();
    assert_eq!(answer["inventory"]["gpus"].as_array().map(Vec::len), Some(8));
    assert_eq!(answer["probe"]["via"], "pod");
    assert_eq!(answer["probe"]["node"], "gpu-1");
    client.close().await;
}

#[tokio::test]
async fn the_pod_is_gone_when_the_image_does_not_contain_node_probe() {
    let bed = Bed::healthy().await;
    let ended =
        bed.launcher().env("GPU_SYRINGE_IMAGE", "registry.example/nginx:1").args(["inventory", "gpu-1"]).run().await;
    bed.assert_bare(1);
    assert_eq!(ended.code, Some(3));
    let error: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(error["probe"]["deleted"], true);
    assert!(error["error"].as_str().unwrap().contains("executable file not found"), "{error}");
    assert!(error["next_step"].as_str().unwrap().contains("--image"), "{error}");
    assert!(ended.stderr.contains("executable file not found"), "{}", ended.stderr);
    assert!(ended.stderr.contains("--image"), "{}", ended.stderr);
}

#[tokio::test]
async fn the_pod_is_gone_when_the_document_does_not_parse() {
    let bed = Bed::running(Prints("{\"schema_version\": 1, \"sections\": <html>\n")).await;
    let mut client = bed.client().await;
    let answer = client.call("get_gpu_inventory", on_gpu_1()).await;
    bed.assert_bare(1);
    answer.error_with(&["gpu-1", "not a complete document"]);
}

#[tokio::test]
async fn the_pod_is_gone_when_the_program_is_not_node_probe() {
    let bed = Bed::running(Prints("{\"hello\": \"world\"}\n")).await;
    let mut client = bed.client().await;
    let answer = client.call("get_gpu_inventory", on_gpu_1()).await;
    bed.assert_bare(1);
    answer.error_with(&["gpu-1", "inventory", "--image"]);
}

#[tokio::test]
async fn the_pod_is_gone_when_the_client_cancels_while_the_node_is_read() {
    let bed = Bed::with(|faults| faults.everywhere.exec = Some(CountedFault::once(ExecFault::Hang))).await;
    let mut client = bed.client().await;
    let call = client.send_call("get_gpu_inventory", on_gpu_1());
    client.until_progress(call, READ).await;
    assert_eq!(bed.pods().len(), 1);
    client.cancel(call);
    bed.until_bare().await;
    // The session continues. The cancelled call gets no answer: the next answer belongs to the next call.
    client.call("get_gpu_inventory", on_gpu_1()).await.deleted();
    bed.assert_bare(2);
    client.close().await;
}

#[tokio::test]
async fn the_pod_is_gone_when_the_client_cancels_before_the_container_runs() {
    let bed = Bed::with(|faults| faults.everywhere.start = Some(StartFault::Slow(NEVER).into())).await;
    let mut client = bed.client().await;
    let call = client.send_call("get_gpu_inventory", on_gpu_1());
    client.until_progress(call, START).await;
    client.cancel(call);
    bed.until_bare().await;
}

#[tokio::test]
async fn a_call_that_is_cancelled_before_its_pod_exists_creates_none() {
    let bed = Bed::with(|faults| faults.api.slow(Duration::from_millis(400))).await;
    let mut client = bed.client().await;
    let call = client.send_call("get_gpu_inventory", on_gpu_1());
    client.cancel(call);
    assert!(client.call("list_gpu_nodes", json!({})).await.success()["nodes"].is_array());
    client.close().await;
    bed.assert_bare(0);
}

/// A node-probe that prints its document but does not exit, as if a thread hung in the driver.
struct StuckAfterAnswer;

impl Programs for StuckAfterAnswer {
    fn start(&self, invocation: &Invocation, streams: Streams) -> Option<Process> {
        let stays = streams.stdout.clone();
        let process = NodeProbe.start(invocation, streams)?;
        let is_hold = invocation.argv.iter().any(|word| word == "hold");
        Some(Box::pin(async move {
            let code = process.await;
            if !is_hold {
                std::future::pending::<()>().await;
            }
            drop(stays);
            code
        }))
    }
}

#[tokio::test]
async fn a_process_that_stays_on_the_node_is_told_from_a_pod_that_is_deleted() {
    let bed = Bed::running(StuckAfterAnswer).await;
    let answer = bed.client().await.call("get_gpu_inventory", on_gpu_1()).await;
    let probe = &answer.success()["probe"];
    assert_eq!((&probe["deleted"], probe.get("left_behind")), (&json!(true), None), "{probe}");
    let left = probe["process_left"].as_str().unwrap_or_else(|| panic!("{probe}"));
    for words in ["on node gpu-1", "did not exit", "until the driver responds or the node is rebooted", "ps -eo"] {
        assert!(left.contains(words), "'{words}' is missing in: {left}");
    }
    bed.assert_bare(1);
}

#[tokio::test]
async fn a_cancelled_call_ends_what_it_waits_for() {
    let bed = Bed::healthy().await;
    let mut client = bed.client().await;
    client.call("get_gpu_inventory", on_gpu_1()).await.deleted();
    wait::until("the clean-up has ended", async || (bed.cluster.requests_in_service() == 0).then_some(())).await;
    let answer = AnswerFault::Slow(NEVER).into();
    let nodes = RequestFault { verb: Some("list"), resource: Some("nodes"), answer };
    bed.cluster.faults(|faults| faults.api.requests.push(nodes));
    let call = client.send_call("list_gpu_nodes", json!({}));
    wait::until("the list", async || (bed.cluster.requests_in_service() > 0).then_some(())).await;
    client.cancel(call);
    let time = Duration::from_secs(2);
    wait::within(time, "the list has ended", async || (bed.cluster.requests_in_service() == 0).then_some(())).await;
}

#[tokio::test]
async fn the_pod_is_gone_when_standard_input_ends_in_mid_call() {
    let bed = Bed::with(|faults| faults.everywhere.exec = Some(ExecFault::Hang.into())).await;
    let mut client = bed.client().await;
    let call = client.send_call("get_gpu_inventory", on_gpu_1());
    client.until_progress(call, READ).await;
    client.close().await;
    bed.assert_bare(1);
}

#[tokio::test]
async fn a_call_that_is_nearly_done_when_standard_input_ends_is_still_answered() {
    let bed =
        Bed::with(|faults| faults.everywhere.start = Some(StartFault::Slow(Duration::from_millis(500)).into())).await;
    let mut client = bed.client().await;
    let call = client.send_call("get_gpu_inventory", on_gpu_1());
    client.until_progress(call, START).await;
    client.program.close_stdin();
    client.result(call).await.deleted();
    bed.assert_bare(1);
}

#[tokio::test]
async fn the_pod_is_gone_when_the_call_s_time_is_over() {
    let bed = Bed::with(|faults| faults.everywhere.exec = Some(ExecFault::Hang.into())).await;
    let ended = bed.launcher().args(["--call-timeout", "5", "inventory", "gpu-1"]).run().await;
    bed.assert_bare(1);
    assert_eq!(ended.code, Some(3));
    assert!(ended.stderr.contains("did not finish") && ended.stderr.contains("--call-timeout"), "{}", ended.stderr);
}

#[tokio::test]
async fn the_pod_is_gone_when_its_container_does_not_start_in_time() {
    let bed = Bed::with(|faults| faults.everywhere.start = Some(StartFault::Slow(NEVER).into())).await;
    let ended = bed.launcher().args(["--start-timeout", "1", "inventory", "gpu-1"]).run().await;
    bed.assert_bare(1);
    assert_eq!(ended.code, Some(3));
    // On a busy machine, the wait can be longer than the limit.
    let waited = ended.stderr.split_once("did not start within ").expect("the message contains the waiting time").1;
    let (seconds, limit) = waited.split_once(" s (").expect("seconds");
    assert!(seconds.parse::<f64>().unwrap() >= 1.0, "{}", ended.stderr);
    assert!(limit.starts_with("--start-timeout 1"), "{}", ended.stderr);
}

#[tokio::test]
async fn the_pod_is_gone_when_its_container_is_killed_in_mid_call() {
    let bed = Bed::running(Stuck).await;
    bed.cluster.faults(|faults| faults.everywhere.main_process_killed = Some(Duration::from_millis(300).into()));
    let answer = bed.client().await.call("get_gpu_inventory", on_gpu_1()).await;
    bed.assert_bare(1);
    answer.error_with(&["gpu-1"]);
}
