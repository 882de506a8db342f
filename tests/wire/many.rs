//! Calls beside each other: each has its own pod, and each pod goes.

use demo_cluster::{CountedFault, ExecFault, Fixture};
use serde_json::json;

use crate::bed::{Bed, node};
use crate::cleanup::{READ, on_gpu_1};

#[tokio::test]
async fn two_calls_at_once_on_one_node_are_both_answered() {
    let bed = Bed::healthy().await;
    let mut client = bed.client().await;
    let first = client.send_call("get_gpu_inventory", on_gpu_1());
    let second = client.send_call("get_gpu_telemetry", on_gpu_1());
    assert!(client.result(second).await.deleted()["telemetry"].is_object());
    assert!(client.result(first).await.deleted()["inventory"].is_object());
    bed.assert_bare(2);
}

#[tokio::test]
async fn many_calls_at_once_are_all_answered() {
    let nodes = [("gpu-1", "healthy-h100-8"), ("gpu-2", "xid79-off-bus"), ("gpu-3", "ecc-remap-pending")];
    let bed = Bed::of(Fixture::of(nodes.map(|(name, scenario)| node(name, scenario)))).await;
    let mut client = bed.client().await;
    let calls: Vec<_> = (0..24)
        .map(|number| {
            let (name, _) = nodes[number % nodes.len()];
            (name, client.send_call("analyze_xid_errors", json!({"node_name": name})))
        })
        .collect();
    for (name, call) in calls {
        let answer = client.result(call).await;
        assert_eq!(answer.deleted()["probe"]["node"], name);
    }
    bed.assert_bare(24);
    client.close().await;
}

#[tokio::test]
async fn a_cancelled_call_does_not_affect_a_concurrent_call() {
    let bed = Bed::with(|faults| faults.everywhere.exec = Some(CountedFault::once(ExecFault::Hang))).await;
    let mut client = bed.client().await;
    let stuck = client.send_call("get_gpu_inventory", on_gpu_1());
    client.until_progress(stuck, READ).await;
    let other = client.send_call("get_gpu_telemetry", on_gpu_1());
    client.cancel(stuck);
    client.result(other).await.deleted();
    bed.until_bare().await;
}

#[tokio::test]
async fn all_concurrent_calls_are_cancelled_when_standard_input_ends() {
    let bed = Bed::with(|faults| faults.everywhere.exec = Some(ExecFault::Hang.into())).await;
    let mut client = bed.client().await;
    let calls: Vec<_> = (0..8).map(|_| client.send_call("get_gpu_inventory", on_gpu_1())).collect();
    for call in calls {
        client.until_progress(call, READ).await;
    }
    assert_eq!(bed.pods().len(), 8);
    client.close().await;
    bed.assert_bare(8);
}
