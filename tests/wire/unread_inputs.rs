//! Tests with rejected or faulty API reads: the verdict does not improve, and the answer lists the missing data.

use std::time::Duration;

use demo_cluster::{AnswerFault, CountedFault, Denial, Fixture, NodeFixture, RequestFault, workload_pod};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateWaiting, ContainerStatus, PodStatus};
use serde_json::{Value, json};

use crate::bed::{Bed, node};
use crate::cleanup::on_gpu_1;

/// Verdicts from the best to the worst.
const VERDICTS: [&str; 6] = ["healthy", "no_fault_found", "unknown", "warning", "critical", "fatal"];

fn rank(answer: &Value) -> usize {
    let verdict = answer["verdict"].as_str().unwrap_or_default();
    VERDICTS.iter().position(|one| *one == verdict).unwrap_or_else(|| panic!("the answer has no verdict: {answer}"))
}

/// Returns whether `unknown` has an entry about this section with a next step.
fn is_named(answer: &Value, section: &str) -> bool {
    let unknown = answer["unknown"].as_array().into_iter().flatten();
    unknown.filter(|one| one["section"] == section).any(|one| one["why"].as_str().is_some_and(|why| why.contains(". ")))
}

/// Returns a cluster of a node whose processes belong to pods that do not exist.
fn with_processes_of_deleted_pods() -> Fixture {
    Fixture::of([node("gpu-1", "healthy-h100-8")])
}

/// Returns a cluster of a node that advertises no GPU, with a device plugin that does not start.
fn with_broken_plugin() -> Fixture {
    let broken = NodeFixture { resources: [].into(), labels: [].into(), ..node("gpu-1", "healthy-h100-8") };
    let mut plugin = workload_pod("gpu-operator", "nvidia-device-plugin-daemonset-x7k2p", "gpu-1", 0);
    let long_ago = "2026-11-20T00:00:00Z".parse().unwrap();
    plugin.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(long_ago));
    plugin.metadata.labels = Some([("app".to_owned(), "nvidia-device-plugin-daemonset".to_owned())].into());
    let owner = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "nvidia-device-plugin-daemonset", "uid": "d", "controller": true});
    plugin.metadata.owner_references = Some(vec![serde_json::from_value(owner).unwrap()]);
    let name = plugin.spec.as_ref().unwrap().containers[0].name.clone();
    let reason = Some("CreateContainerError".to_owned());
    let waiting = Some(ContainerStateWaiting { reason, ..ContainerStateWaiting::default() });
    let state = Some(ContainerState { waiting, ..ContainerState::default() });
    let container = ContainerStatus { name, state, ..ContainerStatus::default() };
    let phase = Some("Pending".to_owned());
    plugin.status = Some(PodStatus { phase, container_statuses: Some(vec![container]), ..PodStatus::default() });
    Fixture::of([broken]).with_pod(plugin)
}

async fn diagnosed(bed: &Bed) -> Value {
    bed.client().await.call("diagnose_gpu_node", on_gpu_1()).await.success().clone()
}

/// Calls the tool with and without a fault of the list requests for `resource`. With the fault, `section` must be in
/// `unknown`.
async fn no_better(fixture: Fixture, resource: &'static str, section: &str, fault: AnswerFault) {
    let bed = Bed::of(fixture).await;
    let whole = diagnosed(&bed).await;
    let answer = CountedFault::always(fault.clone());
    bed.cluster
        .faults(|all| all.api.requests.push(RequestFault { verb: Some("list"), resource: Some(resource), answer }));
    let part = diagnosed(&bed).await;
    let told = json!({"with": whole["verdict"], "without": part["verdict"], "unknown": part["unknown"]});
    assert!(rank(&part) >= rank(&whole).min(rank(&json!({"verdict": "unknown"}))), "{resource} {fault:?}: {told:#}");
    assert!(rank(&part) >= 2 && is_named(&part, section), "{resource} {fault:?}: {told:#}");
}

fn page(code: u16) -> AnswerFault {
    AnswerFault::PlainText { code, retry_after: None }
}

#[tokio::test]
async fn refused_lists_of_pods_make_no_verdict_better() {
    let bed = Bed::of(with_processes_of_deleted_pods()).await;
    let whole = diagnosed(&bed).await;
    assert_eq!(whole["verdict"], "warning", "{whole:#}");
    assert!(whole["findings"].to_string().contains("process-of-deleted-pod"), "{whole:#}");
    let refused = |fault| no_better(with_processes_of_deleted_pods(), "pods", "pods", fault);
    tokio::join!(refused(page(403)), refused(page(404)), refused(page(504)), refused(AnswerFault::Closed));
    tokio::join!(refused(AnswerFault::InternalError), refused(AnswerFault::Slow(Duration::from_secs(7))));
}

/// The second list of pods is exact. It is only read if the report contains a pod that is not in the first list.
#[tokio::test]
async fn a_refused_second_list_of_pods_makes_no_verdict_better() {
    let bed = Bed::of(with_processes_of_deleted_pods()).await;
    let whole = diagnosed(&bed).await;
    // Both lists are read within one call. Other lists of pods belong to the clean-up.
    let lists = bed.cluster.requests().iter().filter(|request| request.contains("/api/v1/pods?")).count();
    assert_eq!(lists, 2, "{:?}", bed.cluster.requests());
    let mut passed = false;
    for skipped in 1..4 {
        bed.cluster.faults(|all| {
            let answer = CountedFault::after(skipped, page(404));
            all.api.requests = vec![RequestFault { verb: Some("list"), resource: Some("pods"), answer }];
        });
        let part = diagnosed(&bed).await;
        assert!(rank(&part) >= 2 && rank(&whole) == 3, "{skipped}: {part:#}");
        passed |= part["verdict"] == "unknown" && is_named(&part, "pods");
    }
    assert!(passed);
}

#[tokio::test]
async fn refused_lists_about_a_node_without_advertised_gpus_make_no_verdict_better() {
    let whole = diagnosed(&Bed::of(with_broken_plugin()).await).await;
    assert!(whole["findings"].to_string().contains("stack-broken-at-plugin"), "{whole:#}");
    for (resource, section) in [("events", "events"), ("nodes", "nodes"), ("pods", "pods")] {
        let refused = |fault| no_better(with_broken_plugin(), resource, section, fault);
        tokio::join!(refused(page(404)), refused(AnswerFault::Closed));
    }
}

/// If RBAC forbids a list, the API server itself rejects the request.
#[tokio::test]
async fn a_user_who_may_not_list_pods_gets_no_healthy_node() {
    let fixture = with_processes_of_deleted_pods().denying(Denial::of("list", "pods"));
    let bed = Bed::of(fixture).await;
    let answer = diagnosed(&bed).await;
    assert_eq!(answer["verdict"], "unknown", "{answer:#}");
    assert!(is_named(&answer, "pods") && answer["summary"].as_str().unwrap().contains("pods"), "{answer:#}");
    let described = bed.client().await.call("describe_gpu_node", on_gpu_1()).await.success().clone();
    assert_eq!(described["overall_health"], "unknown", "{described:#}");
    let named = described["unknown"].as_array().unwrap().iter().filter(|one| one["section"] == "pods").count();
    assert_eq!(named, 1, "{described:#}");
}
