//! Tests of parallel calls: each call has its own pod, and every pod is deleted.

use std::time::Duration;

use demo_cluster::{CountedFault, ExecFault, Fixture, Timing};
use serde_json::json;

use crate::bed::{Bed, node};
use crate::cleanup::{READ, on_gpu_1};
use crate::support::client::Client;

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

/// If a host makes many calls, the number of probe pods is limited: a new pod is created when another pod is deleted.
/// The calls wait in their order.
#[tokio::test]
async fn probes_in_flight_are_limited_and_later_calls_wait_in_order() {
    for (flags, limit) in [(&[][..], 16), (&["--max-probes", "3"], 3)] {
        let calls = 4 * limit;
        let timing = Timing { container_start: Duration::from_millis(150), ..Timing::fast() };
        let bed = Bed::of(Fixture { timing, ..Fixture::of([node("gpu-1", "healthy-h100-8")]) }).await;
        let mut client = Client::start(bed.launcher().args(flags.iter().copied())).await;
        let ids: Vec<_> = (0..calls).map(|_| client.send_call("get_gpu_inventory", on_gpu_1())).collect();
        let most = std::cell::Cell::new(0);
        let watching = async {
            loop {
                most.set(most.get().max(bed.pods().len()));
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let answering = async {
            for id in &ids {
                client.result(*id).await.deleted();
            }
        };
        tokio::select! {
            () = watching => {}
            () = answering => {}
        }
        assert_eq!(most.get(), limit, "with {flags:?}");
        bed.assert_bare(calls as u64);
        let waited: Vec<_> = ids.iter().filter_map(|id| client.progress_of(*id).first().copied().cloned()).collect();
        let waited: Vec<_> = waited.iter().filter(|note| note["progress"] == 0.0).collect();
        assert!(waited.len() >= calls - 2 * limit, "{} of {calls} calls reported that they waited", waited.len());
        let words = format!("{limit} probes are in flight (--max-probes)");
        assert!(waited.iter().all(|note| note["message"].as_str().unwrap().contains(&words)), "{waited:?}");
    }
}

#[tokio::test]
async fn a_call_that_waits_for_others_ends_with_its_time_or_its_cancellation() {
    let bed = Bed::with(|faults| faults.everywhere.exec = Some(ExecFault::Hang.into())).await;
    let flags = ["--max-probes", "1", "--call-timeout", "5"];
    let mut client = Client::start(bed.launcher().args(flags)).await;
    let first = client.send_call("get_gpu_inventory", on_gpu_1());
    client.until_progress(first, READ).await;
    let waiting = client.send_call("get_gpu_inventory", on_gpu_1());
    client.until_progress(waiting, 0).await;
    let cancelled = client.send_call("get_gpu_inventory", on_gpu_1());
    client.until_progress(cancelled, 0).await;
    client.cancel(cancelled);
    assert_eq!(bed.cluster.pods_created(), 1);
    client.result(first).await.error();
    let answer = client.result(waiting).await;
    answer.error_with(&["--max-probes", "nothing was created"]);
    bed.assert_bare(1);
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
