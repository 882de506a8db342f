//! Test that `explain_gpu_pod` finds the newest event of a pod on the last of several pages of the event list.

use demo_cluster::{Fixture, NodeFixture, workloads_of};
use k8s_openapi::api::core::v1::Event;
use serde_json::json;
use syringe_core::scenarios;

use crate::tools::Bench;

#[tokio::test]
async fn the_newest_event_of_a_pod_is_found_on_the_last_page() {
    let node = NodeFixture::from_facts("gpu-1", scenarios::named("healthy-h100-8").unwrap().report());
    let pods = workloads_of(&node);
    let pod = pods[0].clone();
    // The API lists events in the order of their names. The newest event is on the last of several pages, and its
    // repetitions are only in `series`.
    let events: Vec<Event> = (0..230)
        .map(|number| {
            let (minute, second) = (number / 60, number % 60);
            let last = format!("2026-11-21T02:{minute:02}:{second:02}.000000Z");
            let event = json!({
                "metadata": {"name": format!("event-{number:03}"), "namespace": pod.metadata.namespace},
                "involvedObject": {"kind": "Pod", "name": pod.metadata.name, "uid": pod.metadata.uid},
                "type": "Warning", "reason": "Unhealthy", "message": format!("Readiness probe failed, try {number}"),
                "eventTime": "2026-11-21T01:00:00.000000Z",
                "series": {"count": number + 1, "lastObservedTime": last},
            });
            serde_json::from_value(event).unwrap()
        })
        .collect();
    let bench = Bench::of(Fixture { pods, events, ..Fixture::of([node]) }).await;
    let args = json!({"pod": pod.metadata.name, "namespace": pod.metadata.namespace});
    let answer = bench.ask("explain_gpu_pod", args).await;
    let timeline = answer["timeline"].as_array().unwrap();
    let newest = timeline.iter().find(|moment| moment.to_string().contains("try 229")).expect("the newest event");
    assert_eq!(newest["time"], "2026-11-21T02:03:49Z", "{newest}");
    assert!(newest.to_string().contains("230"), "{newest}");
    assert!(!answer.to_string().contains("try 0\""), "the oldest event must be omitted");
}
