//! Tests of pods whose create request gets no response: the call reports the pods, which are deleted when they appear.

use std::time::Duration;

use demo_cluster::{AnswerFault, CountedFault, RequestFault};
use serde_json::Value;

use crate::bed::Bed;
use crate::cleanup::on_gpu_1;
use crate::support::wait;

/// Delay that is longer than the wait for a create response and the search for the pod during the call.
const LATE: Duration = Duration::from_secs(14);

async fn bed_with_late_creation() -> Bed {
    let answer = CountedFault::once(AnswerFault::Late(LATE));
    Bed::with(|faults| {
        faults.api.requests.push(RequestFault { verb: Some("create"), resource: Some("pods"), answer });
    })
    .await
}

fn assert_declared(said: &str) {
    for words in
        ["did not answer within 10s", "Left behind: pod gpu-syringe/", "may still be created", "--ignore-not-found"]
    {
        assert!(said.contains(words), "no '{words}' in: {said}");
    }
    assert!(!said.contains("was deleted"), "{said}");
}

/// Checks the lines of the audit log about the pod: one for the call, and one for the late deletion.
fn assert_audited(bed: &Bed) {
    let lines = bed.audit();
    let [call, late] = lines.as_slice() else { panic!("{lines:?}") };
    assert_eq!((&call["event"], &call["deleted"]), (&Value::from("probe"), &Value::from(false)), "{call}");
    assert_eq!((&late["event"], &late["deleted"]), (&Value::from("sweep"), &Value::from(true)), "{late}");
    assert!(call["pod"].is_string() && call["pod"] == late["pod"] && late["pod_uid"].is_string(), "{lines:?}");
}

#[tokio::test]
async fn a_session_declares_the_pod_and_deletes_it_when_it_comes() {
    let bed = bed_with_late_creation().await;
    let mut client = bed.client().await;
    let answer = client.call("get_gpu_inventory", on_gpu_1()).await;
    assert_declared(answer.error());
    assert_eq!(bed.cluster.pods_created(), 0);
    wait::until("the pod exists", async || (bed.cluster.pods_created() == 1).then_some(())).await;
    bed.until_bare().await;
    wait::until("the audit line", async || (bed.audit().len() == 2).then_some(())).await;
    assert_audited(&bed);
    client.close().await;
}

#[tokio::test]
async fn a_command_declares_the_pod_and_looks_for_it_before_it_ends() {
    let bed = bed_with_late_creation().await;
    let ended = bed.launcher().args(["inventory", "gpu-1"]).run().await;
    assert_eq!(ended.code, Some(3));
    assert_declared(&ended.stderr);
    bed.assert_bare(1);
    assert_audited(&bed);
}
