//! Tests of `describe_gpu_node` with data from Kubernetes and the probe, or from only one of these sources, and for
//! nodes that are not ready or do not exist.

use demo_cluster::{Denial, ExecFault, Fixture, NodeFixture, workload_pod, workloads_of};
use k8s_openapi::api::core::v1::{Event, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;
use syringe_core::scenarios;

use crate::tools::Bench;

fn healthy() -> Fixture {
    let gpu_1 = NodeFixture::from_facts("gpu-1", scenarios::named("healthy-h100-8").unwrap().report());
    let event: Event = serde_json::from_value(json!({
        "metadata": {"name": "gpu-1.1", "namespace": "default"},
        "involvedObject": {"kind": "Node", "name": "gpu-1"},
        "type": "Warning", "reason": "XidCritical\u{1b}[0m", "message": "NVRM: Xid 79", "count": 3,
        "lastTimestamp": "2026-11-21T02:31:07Z",
    }))
    .unwrap();
    Fixture { pods: workloads_of(&gpu_1), events: vec![event], ..Fixture::of([gpu_1]) }
}

#[tokio::test]
async fn api_and_probe_facts_are_one_answer() {
    let bench = Bench::of(healthy()).await;
    let answer = bench.ask("describe_gpu_node", json!({"node_name": "gpu-1"})).await;
    let summary = &answer;
    assert_eq!(
        (&summary["totals"]["total_gpus"], &summary["totals"]["allocated_gpus"], &summary["totals"]["available_gpus"]),
        (&json!(8), &json!(8), &json!(0))
    );
    assert_eq!(summary["overall_health"], "healthy", "{summary}");
    assert_eq!(answer["gpus"].as_array().unwrap().len(), 8);
    assert_eq!(answer["driver_version"], "570.124.06");
    assert_eq!((&answer["events"][0]["reason"], &answer["events"][0]["count"]), (&json!("XidCritical [0m"), &json!(3)));
    assert_eq!(answer["conditions"][0]["name"], "Ready");
    assert_eq!(answer["probe"]["deleted"], true);
    assert_eq!(bench.left_over().await, 0);
}

#[tokio::test]
async fn without_permission_to_probe_the_answer_has_only_api_facts_and_the_reason() {
    let bench = Bench::of(healthy().denying(Denial::of("create", "pods"))).await;
    let answer = bench.ask("describe_gpu_node", json!({"node_name": "gpu-1"})).await;
    assert_eq!((&answer["probe"]["via"], answer.get("gpus")), (&json!("none"), None), "{answer}");
    let note = answer["probe"]["note"].as_str().unwrap();
    assert!(note.contains("forbidden") && note.contains("setup --apply"), "{note}");
    assert_eq!(answer["overall_health"], "unknown");
    assert_eq!(answer["totals"]["allocated_gpus"], 8);
    assert_eq!(bench.cluster.pods_created(), 0);
}

#[tokio::test]
async fn without_permission_to_list_pods_the_allocation_is_unknown() {
    let bench = Bench::of(healthy().denying(Denial::of("list", "pods"))).await;
    let answer = bench.ask("describe_gpu_node", json!({"node_name": "gpu-1"})).await;
    let (summary, resource) = (&answer, &answer["resources"][0]);
    assert_eq!(
        (summary["totals"].get("allocated_gpus"), summary["totals"].get("available_gpus")),
        (None, None),
        "{summary}"
    );
    assert!(summary["summary"].as_str().unwrap().contains("8 GPUs; it is unknown how many are allocated"));
    assert_eq!((&resource["allocatable"], resource.get("allocated")), (&json!(8), None), "{resource}");
    assert!(answer["unknown"].to_string().contains("setup --apply --user"), "{}", answer["unknown"]);
}

#[tokio::test]
async fn gpus_without_a_device_plugin_are_counted() {
    let mut fixture = healthy();
    fixture.nodes[0].resources.clear();
    fixture.nodes[0].labels.clear();
    let bench = Bench::of(fixture).await;
    let answer = bench.ask("describe_gpu_node", json!({"node_name": "gpu-1"})).await;
    let summary = &answer;
    assert_eq!(
        (&summary["totals"]["total_gpus"], &summary["totals"]["available_gpus"]),
        (&json!(8), &json!(0)),
        "{summary}"
    );
    assert!(summary["summary"].as_str().unwrap().starts_with("8 of 8 GPUs allocated, 0 available."), "{summary}");
}

#[tokio::test]
async fn if_the_probe_fails_the_answer_has_api_facts_and_what_is_left_behind() {
    for (deletes_fail, removed) in [(false, true), (true, false)] {
        let bench = Bench::of(healthy()).await;
        bench.cluster.faults(|faults| {
            faults.everywhere.exec = Some(ExecFault::Forbidden.into());
            if deletes_fail {
                faults.api.failing_deletes(u32::MAX);
            }
        });
        for (tool, more) in [("describe_gpu_node", "pods"), ("get_pod_gpu_allocation", "resources")] {
            let mut arguments = json!({"node_name": "gpu-1"});
            if tool == "get_pod_gpu_allocation" {
                arguments["resolve_devices"] = json!(true);
            }
            let answer = bench.ask(tool, arguments).await;
            assert!(!answer[more].as_array().unwrap().is_empty(), "{tool}");
            assert!(answer["unknown"][0]["why"].as_str().unwrap().contains("pods/exec"), "{tool}: {answer}");
            assert_eq!(
                (&answer["probe"]["deleted"], &answer["probe"]["via"]),
                (&json!(removed), &json!("pod")),
                "{tool}"
            );
            assert_eq!(answer["probe"].get("left_behind").is_some(), !removed, "{tool}");
        }
    }
}

#[tokio::test]
async fn events_of_a_pod_that_may_not_be_read_are_unknown() {
    let bench = Bench::of(healthy().denying(Denial::of("list", "events"))).await;
    let pod = &bench.cluster.pods("workloads")[0];
    let arguments = json!({"pod": pod.metadata.name, "namespace": "workloads"});
    let answer = bench.ask("explain_gpu_pod", arguments).await;
    let unknown = answer["unknown"].as_array().unwrap();
    assert!(unknown.iter().any(|one| one["section"] == "events"), "{unknown:?}");
}

#[tokio::test]
async fn a_node_that_is_not_ready_is_described_and_not_healthy() {
    let bench = Bench::of(healthy()).await;
    bench.cluster.faults(|faults| faults.on("gpu-1").not_ready = true);
    let answer = bench.ask("describe_gpu_node", json!({"node_name": "gpu-1"})).await;
    assert_eq!(answer["ready"], false);
    assert_eq!(answer["overall_health"], "unhealthy");
    assert!(answer["unknown"].to_string().contains("nothing was created"), "{}", answer["unknown"]);
    assert_eq!(bench.cluster.pods_created(), 0);
}

#[tokio::test]
async fn a_node_that_does_not_exist_is_an_error_with_a_next_step() {
    let bench = Bench::of(healthy()).await;
    for tool in ["describe_gpu_node", "get_pod_gpu_allocation"] {
        let failure = bench.call(tool, json!({"node_name": "gpu-9"})).await.unwrap_err().to_string();
        assert!(failure.contains("no such node") && failure.contains("list_gpu_nodes"), "{failure}");
    }
}

#[tokio::test]
async fn the_warnings_of_pods_that_are_not_ready_are_in_the_description() {
    let mut waiting = workload_pod("ml", "stuck-0", "gpu-1", 1);
    waiting.status = serde_json::from_value(json!({"phase": "Pending"})).unwrap();
    let bench = Bench::of(healthy().with_pod(waiting)).await;
    let requests = |word: &str| bench.cluster.requests().iter().filter(|line| line.contains(word)).count();
    let message = "no runtime for \"nvidia\" is configured";
    bench.cluster.add_event(Event {
        metadata: ObjectMeta { name: Some("stuck-0.1".into()), namespace: Some("ml".into()), ..ObjectMeta::default() },
        involved_object: ObjectReference {
            kind: Some("Pod".into()),
            name: Some("stuck-0".into()),
            namespace: Some("ml".into()),
            ..ObjectReference::default()
        },
        type_: Some("Warning".into()),
        reason: Some("FailedCreatePodSandBox".into()),
        message: Some(message.into()),
        ..Event::default()
    });
    let answer = bench.ask("describe_gpu_node", json!({"node_name": "gpu-1"})).await;
    let events = answer["pod_events"].as_array().unwrap();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!((&events[0]["pod"], &events[0]["message"]), (&json!("ml/stuck-0"), &json!(message)));
    assert!(requests("workloads/events") == 0, "pods without a fault cost no request");
}

#[tokio::test]
async fn free_gpus_are_those_that_a_new_pod_can_get() {
    let bench = Bench::of(healthy()).await;
    let row = async || bench.ask("list_gpu_nodes", json!({})).await["nodes"][0].clone();
    let open = row().await;
    let free = open["free"]["nvidia.com/gpu"].as_u64().unwrap();
    let [allocatable, allocated] =
        ["allocatable", "allocated"].map(|name| open[name]["nvidia.com/gpu"].as_u64().unwrap());
    assert_eq!((free, open.get("takes_no_pods")), (allocatable - allocated, None));
    bench.cluster.edit_node("gpu-1", |node| node.spec.get_or_insert_default().unschedulable = Some(true));
    let cordoned = row().await;
    assert_eq!((&cordoned["free"]["nvidia.com/gpu"], &cordoned["takes_no_pods"]), (&json!(0), &json!("cordoned")));
    bench.cluster.faults(|faults| faults.on("gpu-1").not_ready = true);
    let silent = row().await;
    assert_eq!(silent["free"]["nvidia.com/gpu"], 0);
    assert!(silent["takes_no_pods"].as_str().unwrap().contains("Kubelet stopped posting node status"), "{silent}");
}
