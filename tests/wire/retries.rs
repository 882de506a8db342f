//! Tests of temporary faults: the launcher tries again, and the answer has a note about the second attempt.

use std::time::{Duration, Instant};

use demo_cluster::{AnswerFault, CountedFault, ExecFault, ExecRefusals, Fixture, RequestFault, Timing};

use crate::bed::{Bed, node};
use crate::cleanup::on_gpu_1;
use crate::support::wait;

#[tokio::test]
async fn a_websocket_that_closes_once_is_opened_again_and_the_answer_says_so() {
    let bed =
        Bed::with(|faults| faults.everywhere.exec = Some(CountedFault::once(ExecFault::Cut { after_bytes: 1_000 })))
            .await;
    let answer = bed.client().await.call("get_gpu_inventory", on_gpu_1()).await;
    let note = answer.deleted()["probe"]["note"].as_str().unwrap();
    assert!(note.contains("the connection was cut after 1000 bytes") && note.contains("second"), "{note}");
    bed.assert_bare(1);
}

#[tokio::test]
async fn an_answer_that_is_truncated_once_is_requested_again() {
    let fault = ExecFault::Truncated { after_bytes: 70 };
    let bed = Bed::with(|faults| faults.everywhere.exec = Some(CountedFault::once(fault))).await;
    let answer = bed.client().await.call("get_gpu_inventory", on_gpu_1()).await;
    assert!(answer.deleted()["probe"]["note"].is_string());
    bed.assert_bare(1);
}

/// Returns a fault for the next `times` requests of this kind.
fn fault(verb: &'static str, resource: &'static str, answer: AnswerFault, times: u32) -> RequestFault {
    RequestFault { verb: Some(verb), resource: Some(resource), answer: CountedFault::times(answer, times) }
}

async fn survives(faults: impl IntoIterator<Item = RequestFault>) {
    let bed = Bed::with(|all| all.api.requests.extend(faults)).await;
    bed.client().await.call("get_gpu_inventory", on_gpu_1()).await.deleted();
    bed.assert_bare(1);
}

#[tokio::test]
async fn retry_after_of_too_many_requests_is_honored() {
    for (verb, resource) in [("get", "nodes"), ("create", "pods"), ("get", "pods/exec"), ("delete", "pods")] {
        let began = Instant::now();
        survives([fault(verb, resource, AnswerFault::TooManyRequests(1), 1)]).await;
        assert!(began.elapsed() >= Duration::from_secs(1), "{verb} {resource}: {:?}", began.elapsed());
    }
}

/// The filters of an API server respond with 429 and 503 in plain text, with the waiting time in a header.
#[tokio::test]
async fn retry_after_of_an_answer_in_plain_text_is_honored() {
    for code in [429, 503] {
        let busy = AnswerFault::PlainText { code, retry_after: Some(1) };
        for (verb, resource) in [("get", "nodes"), ("create", "pods"), ("get", "pods/exec"), ("delete", "pods")] {
            let bed = Bed::with(|all| all.api.requests.push(fault(verb, resource, busy.clone(), 1))).await;
            let mut client = bed.client().await;
            let began = Instant::now();
            let answer = client.call("get_gpu_inventory", on_gpu_1()).await;
            assert!(began.elapsed() >= Duration::from_secs(1), "{code} {verb} {resource}: {:?}", began.elapsed());
            assert_eq!(answer.deleted()["probe"]["via"], "pod", "{code} {verb} {resource}");
            bed.assert_bare(1);
        }
    }
}

#[tokio::test]
async fn a_read_waits_for_a_burst_of_too_many_requests() {
    let busy = AnswerFault::PlainText { code: 429, retry_after: Some(1) };
    let began = Instant::now();
    survives([fault("get", "nodes", busy, 6)]).await;
    assert!(began.elapsed() >= Duration::from_secs(6), "{:?}", began.elapsed());
}

#[tokio::test]
async fn failed_requests_to_the_api_server_are_repeated() {
    let broken = AnswerFault::InternalError;
    survives([
        fault("get", "nodes", broken.clone(), 2),
        fault("create", "pods", broken.clone(), 2),
        fault("get", "pods/exec", broken.clone(), 2),
        fault("delete", "pods", broken, 2),
    ])
    .await;
}

/// Returns a fault with a plain-text response of a proxy instead of a response of the API server.
fn page(code: u16) -> AnswerFault {
    AnswerFault::PlainText { code, retry_after: None }
}

#[tokio::test]
async fn the_page_of_a_proxy_is_no_proof_that_the_pod_is_deleted() {
    for code in [401, 403, 404, 409] {
        survives([fault("delete", "pods", page(code), 2)]).await;
    }
}

#[tokio::test]
async fn the_page_of_a_proxy_is_no_proof_that_the_pod_does_not_exist() {
    // The start is slow enough that the pod is read before its container is running.
    let timing = Timing { container_start: Duration::from_millis(900), ..Timing::fast() };
    let bed = Bed::of(Fixture { timing, ..Fixture::of([node("gpu-1", "healthy-h100-8")]) }).await;
    bed.cluster.faults(|faults| faults.api.requests.push(fault("get", "pods", page(404), 3)));
    bed.client().await.call("get_gpu_inventory", on_gpu_1()).await.deleted();
    bed.assert_bare(1);
}

#[tokio::test]
async fn connections_that_are_closed_without_an_answer_are_opened_again() {
    let closed = AnswerFault::Closed;
    survives([
        fault("get", "nodes", closed.clone(), 1),
        fault("create", "pods", closed.clone(), 2),
        fault("get", "pods/exec", closed.clone(), 2),
        fault("delete", "pods", closed, 2),
    ])
    .await;
}

#[tokio::test]
async fn a_creation_that_succeeded_without_its_answer_is_used() {
    for lost in [AnswerFault::Lost, AnswerFault::ServedAndClosed] {
        survives([fault("create", "pods", lost, 1)]).await;
    }
}

/// The pod is deleted, but the launcher gets no response. Only the response NotFound of the API server proves the
/// deletion.
#[tokio::test]
async fn a_deletion_that_succeeded_without_its_answer_is_one() {
    for lost in [AnswerFault::Lost, AnswerFault::ServedAndClosed] {
        survives([fault("delete", "pods", lost, 1)]).await;
    }
}

/// If two calls use the same ResourceQuota at the same time, the API server rejects one of them.
#[tokio::test]
async fn a_conflict_of_a_quota_is_repeated() {
    survives([fault("create", "pods", AnswerFault::Conflict, 3)]).await;
}

/// A proxy forwards the request late, and returns no response. The launcher must find the created pod.
#[tokio::test]
async fn a_creation_whose_answer_never_comes_is_found() {
    let gone = AnswerFault::Late(Duration::from_secs(2));
    survives([fault("create", "pods", gone, 1)]).await;
}

#[tokio::test]
async fn a_later_refusal_does_not_hide_an_earlier_creation() {
    let lost = fault("create", "pods", AnswerFault::Lost, 1);
    let busy = fault("create", "pods", AnswerFault::TooManyRequests(5), u32::MAX);
    let bed = Bed::with(|faults| faults.api.requests.extend([lost, busy])).await;
    let mut client = bed.client().await;
    let call = client.send_call("get_gpu_inventory", on_gpu_1());
    let creations = || bed.cluster.requests().iter().filter(|request| request.starts_with("POST")).count();
    wait::until("the refusal", async || (creations() > 1).then_some(())).await;
    assert_eq!(bed.pods().len(), 1);
    client.cancel(call);
    bed.until_bare().await;
}

#[tokio::test]
async fn a_slow_api_server_is_awaited() {
    let bed = Bed::with(|faults| faults.api.slow(Duration::from_millis(300))).await;
    bed.client().await.call("get_gpu_inventory", on_gpu_1()).await.deleted();
    bed.assert_bare(1);
}

#[tokio::test]
async fn a_failed_deletion_is_repeated() {
    let bed = Bed::with(|faults| faults.api.failing_deletes(3)).await;
    bed.client().await.call("get_gpu_inventory", on_gpu_1()).await.deleted();
    bed.assert_bare(1);
}

/// Each of these tests waits for all attempts of a deletion. The tests run in parallel, so the waiting time is not
/// added up.
#[tokio::test]
async fn a_failed_deletion_is_reported_with_the_command_to_delete_the_pod() {
    tokio::join!(
        a_good_answer_says_what_is_left(),
        an_error_says_what_is_left(),
        a_section_that_is_missing_says_what_is_left(),
    );
}

async fn a_good_answer_says_what_is_left() {
    let bed = Bed::with(|faults| faults.api.failing_deletes(u32::MAX)).await;
    let answer = bed.client().await.call("get_gpu_inventory", on_gpu_1()).await;
    let probe = &answer.success()["probe"];
    let name = bed.pods()[0].metadata.name.clone().unwrap();
    assert_eq!(probe["deleted"], false);
    let left = probe["left_behind"].as_str().unwrap();
    assert!(left.contains(&format!("kubectl -n gpu-syringe delete pod {name}")) && left.contains("500"), "{left}");
}

async fn an_error_says_what_is_left() {
    let bed = Bed::with(|faults| {
        faults.everywhere.exec = Some(ExecFault::Forbidden.into());
        faults.api.failing_deletes(u32::MAX);
    })
    .await;
    let answer = bed.client().await.call("get_gpu_inventory", on_gpu_1()).await;
    answer.error_with(&["pods/exec", "Left behind: pod gpu-syringe/", "kubectl -n gpu-syringe delete pod"]);
}

async fn a_section_that_is_missing_says_what_is_left() {
    let bed = Bed::of(Fixture::of([node("gpu-1", "no-driver")])).await;
    bed.cluster.faults(|faults| faults.api.failing_deletes(u32::MAX));
    let answer = bed.client().await.call("get_gpu_inventory", on_gpu_1()).await;
    answer.error_with(&["Driver Not Loaded", "Left behind: pod gpu-syringe/"]);
}

#[tokio::test]
async fn a_slow_container_start_is_awaited_on_old_and_new_clusters() {
    for exec_refusals in [ExecRefusals::BeforeUpgrade, ExecRefusals::OnStatusChannel] {
        let nodes = [node("gpu-1", "healthy-h100-8")];
        let bed = Bed::of(Fixture { exec_refusals, timing: Timing::default(), ..Fixture::of(nodes) }).await;
        let answer = bed.client().await.call("get_gpu_inventory", on_gpu_1()).await;
        assert_eq!(answer.deleted()["probe"].get("note"), None, "{exec_refusals:?}");
        bed.assert_bare(1);
    }
}
