//! Tests of findings about deleted pods, of pod names in evidence, and of GPUs that a node does not advertise.

use demo_cluster::{Denial, Fixture, NodeFixture, workloads_of};
use serde_json::{Value, json};
use syringe_core::scenarios;

use crate::tools::Bench;

fn of(scenario: &str) -> Fixture {
    let node = NodeFixture::from_facts("gpu-1", scenarios::named(scenario).unwrap().report());
    Fixture { pods: workloads_of(&node), ..Fixture::of([node]) }
}

fn ids(answer: &Value, list: &str) -> Vec<String> {
    let findings = answer[list].as_array().unwrap();
    findings.iter().map(|finding| finding["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn stale_allocations_of_a_deleted_pod_are_found() {
    let mut fixture = of("ecc-remap-pending");
    // One of eight pods was deleted; its process and its allocation still exist.
    let gone = fixture.pods.remove(0);
    let asked = fixture.pods[0].metadata.name.clone();
    let bench = Bench::of(fixture).await;
    let answer = bench.ask("diagnose_gpu_node", json!({"node_name": "gpu-1"})).await;
    let found = ids(&answer, "findings");
    for id in ["process-of-deleted-pod", "allocation-stale"] {
        assert_eq!(found.iter().filter(|found| *found == id).count(), 1, "{id}: {found:?}");
    }
    let said = answer["findings"].to_string();
    assert!(said.contains(gone.metadata.uid.as_deref().unwrap()), "{said}");
    let answer = bench.ask("explain_gpu_pod", json!({"pod": asked, "namespace": "workloads"})).await;
    assert!(ids(&answer, "node_findings").contains(&"process-of-deleted-pod".to_owned()), "{answer}");
}

#[tokio::test]
async fn without_the_list_of_pods_no_pod_is_reported_as_deleted() {
    let bench = Bench::of(of("ecc-remap-pending").denying(Denial::of("list", "pods"))).await;
    let answer = bench.ask("diagnose_gpu_node", json!({"node_name": "gpu-1"})).await;
    let found = ids(&answer, "findings");
    assert!(!found.iter().any(|id| id.ends_with("deleted-pod") || id == "allocation-stale"), "{found:?}");
    let unknown = answer["unknown"].as_array().unwrap();
    assert!(unknown.iter().any(|one| one["section"] == "pods"), "{unknown:?}");
}

#[tokio::test]
async fn the_pod_of_a_lost_gpu_is_named_by_namespace_and_name() {
    let bench = Bench::of(of("xid79-off-bus")).await;
    let answer = bench.ask("diagnose_gpu_node", json!({"node_name": "gpu-1"})).await;
    let evidence = answer["findings"][0]["evidence"].to_string();
    assert!(evidence.contains("pod workloads/gpu-1-trainer-0"), "{evidence}");
}

#[tokio::test]
async fn list_and_diagnosis_agree_on_what_a_node_offers() {
    // Without a device plugin the resource is missing; after the plugin has stopped, its amount is zero.
    let cases = [(false, Some("nvidia.com/gpu")), (false, None), (true, Some("nvidia.com/a100"))];
    for (offered, resource) in cases {
        let mut fixture = of("healthy-h100-8");
        let count = if offered { 8 } else { 0 };
        fixture.nodes[0].resources =
            resource.map(|resource| (resource.to_owned(), (count, count))).into_iter().collect();
        let bench = Bench::of(fixture).await;
        let listed = bench.ask("list_gpu_nodes", json!({})).await;
        let found = ids(&bench.ask("diagnose_gpu_node", json!({"node_name": "gpu-1"})).await, "findings");
        let told = listed["nodes"][0].get("problems").is_some();
        let concluded = found.contains(&"gpus-not-advertised".to_owned());
        assert_eq!((told, concluded), (!offered, !offered), "{listed} {found:?}");
    }
}
