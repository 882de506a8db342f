//! Tests of GPU allocation by pod requests: whole GPUs, shares, MIG, filters, and devices that a probe adds.
//! `node`, `pod`, `container`, `used`: create the objects, and read the amounts in an answer.

use demo_cluster::{Denial, Fixture, NodeFixture, workloads_of};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use syringe_core::report::Report;
use syringe_core::scenarios;

use crate::tools::Bench;

const GPU: &str = "nvidia.com/gpu";

pub(crate) fn node(name: &str) -> NodeFixture {
    NodeFixture::new(name, Report::default()).with_label("nvidia.com/gpu.present", "true")
}

/// Returns a container that requests these resources. Only the limits are set, as is usual.
pub(crate) fn container(name: &str, gpus: &[(&str, u64)]) -> Value {
    let limits: serde_json::Map<_, _> =
        gpus.iter().map(|(name, count)| ((*name).to_owned(), json!(count.to_string()))).collect();
    json!({"name": name, "image": "i", "resources": {"limits": limits}})
}

pub(crate) fn pod(namespace: &str, name: &str, phase: &str, spec: Value) -> Pod {
    let mut spec = spec;
    spec["nodeName"] = json!("gpu-1");
    let metadata = json!({"namespace": namespace, "name": name, "uid": format!("uid-{name}")});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": {"phase": phase}})).unwrap()
}

fn simple(name: &str, phase: &str, gpus: u64) -> Pod {
    pod("jobs", name, phase, json!({"containers": [container("main", &[(GPU, gpus)])]}))
}

fn sidecar(name: &str, gpus: u64) -> Value {
    let mut sidecar = container(name, &[(GPU, gpus)]);
    sidecar["restartPolicy"] = json!("Always");
    sidecar
}

/// Returns the allocated and the available amount of a resource in an answer.
pub(crate) fn used(answer: &Value, resource: &str) -> (u64, u64) {
    let row = answer["resources"].as_array().unwrap().iter().find(|row| row["resource"] == resource);
    let row = row.unwrap_or_else(|| panic!("no {resource} in {answer}"));
    (row["allocated"].as_u64().unwrap(), row["available"].as_u64().unwrap())
}

#[tokio::test]
async fn pods_have_the_allocation_of_kubernetes() {
    let with_init = |init: Vec<Value>, main: u64| {
        pod("jobs", "p", "Running", json!({"initContainers": init, "containers": [container("main", &[(GPU, main)])]}))
    };
    let cases: Vec<(&str, Vec<Pod>, u64)> = vec![
        ("nothing", vec![], 0),
        ("one pod", vec![simple("a", "Running", 2)], 2),
        ("a starting pod already holds its GPUs", vec![simple("a", "Pending", 2), simple("b", "Running", 1)], 3),
        ("a Completed pod holds nothing", vec![simple("a", "Succeeded", 8), simple("b", "Running", 1)], 1),
        ("a Failed pod holds nothing", vec![simple("a", "Failed", 8)], 0),
        ("init larger than main", vec![with_init(vec![container("i", &[(GPU, 4)])], 1)], 4),
        ("init smaller than main", vec![with_init(vec![container("i", &[(GPU, 1)])], 4)], 4),
        ("a sidecar adds to main", vec![with_init(vec![sidecar("s", 1)], 2)], 3),
        ("an init beside a sidecar", vec![with_init(vec![sidecar("s", 1), container("i", &[(GPU, 4)])], 2)], 5),
        ("more GPUs than the node has", vec![simple("a", "Running", 8), simple("b", "Running", 1)], 9),
    ];
    for (case, pods, held) in cases {
        let fixture = Fixture { pods, ..Fixture::of([node("gpu-1").with_resource(GPU, 8)]) };
        let bench = Bench::of(fixture).await;
        let answer = bench.ask("get_pod_gpu_allocation", json!({"node_name": "gpu-1"})).await;
        assert_eq!(used(&answer, GPU), (held, 8_u64.saturating_sub(held)), "{case}");
        let list = bench.ask("list_gpu_nodes", json!({})).await;
        assert_eq!(list["nodes"][0]["allocated"].get(GPU).and_then(Value::as_u64).unwrap_or(0), held, "{case}");
        assert_eq!(bench.cluster.pods_created(), 0, "{case}");
    }
}

#[tokio::test]
async fn mig_devices_are_counted_by_profile() {
    let (small, large) = ("nvidia.com/mig-1g.10gb", "nvidia.com/mig-3g.40gb");
    let gpu_1 = node("gpu-1").with_resource(GPU, 4).with_resource(small, 14).with_resource(large, 2);
    let two = json!({"containers": [container("a", &[(small, 1)]), container("b", &[(small, 1), (large, 1)])]});
    let fixture = Fixture::of([gpu_1]).with_pod(pod("jobs", "p", "Running", two)).with_pod(simple("q", "Running", 1));
    let answer = Bench::of(fixture).await.ask("get_pod_gpu_allocation", json!({"node_name": "gpu-1"})).await;
    assert_eq!((used(&answer, GPU), used(&answer, small), used(&answer, large)), ((1, 3), (2, 12), (1, 1)));
    assert_eq!(answer["pods"][0]["holds"], json!({small: 2, large: 1}));
}

#[tokio::test]
async fn shares_of_time_slicing_are_not_gpus() {
    let gpu_1 = node("gpu-1").with_label("nvidia.com/gpu.count", "8").with_label("nvidia.com/gpu.replicas", "4");
    for resource in [GPU, "nvidia.com/gpu.shared"] {
        let asks = json!({"containers": [container("a", &[(resource, 5)])]});
        let fixture =
            Fixture::of([gpu_1.clone().with_resource(resource, 32)]).with_pod(pod("jobs", "p", "Running", asks));
        let bench = Bench::of(fixture).await;
        let answer = bench.ask("get_pod_gpu_allocation", json!({"node_name": "gpu-1"})).await;
        assert_eq!(used(&answer, resource), (5, 27));
        assert_eq!(
            (&answer["resources"][0]["unit"], &answer["resources"][0]["replicas"]),
            (&json!("share"), &json!(4))
        );
        let described = bench.ask("describe_gpu_node", json!({"node_name": "gpu-1"})).await;
        let summary = &described;
        // With four shares for each GPU, five shares need at least two GPUs.
        assert_eq!(
            (&summary["totals"]["total_gpus"], &summary["totals"]["allocated_gpus"]),
            (&json!(8), &json!(2)),
            "{summary}"
        );
    }
}

#[tokio::test]
async fn a_renamed_resource_is_a_gpu_and_a_network_card_is_not() {
    let gpu_1 = node("gpu-1").with_resource("nvidia.com/a100", 4).with_resource("nvidia.com/hostdev", 2);
    let asks = json!({"containers": [container("a", &[("nvidia.com/a100", 1), ("nvidia.com/hostdev", 1)])]});
    let fixture = Fixture::of([gpu_1]).with_pod(pod("jobs", "p", "Running", asks));
    let answer = Bench::of(fixture).await.ask("get_pod_gpu_allocation", json!({"node_name": "gpu-1"})).await;
    assert_eq!(used(&answer, "nvidia.com/a100"), (1, 3));
    assert_eq!(answer["resources"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_namespace_narrows_the_pods_and_not_the_totals() {
    let other = pod("other", "b", "Running", json!({"containers": [container("main", &[(GPU, 3)])]}));
    let mut annotated = simple("a", "Running", 1);
    let uuid = "GPU-f632d18c-0e6a-418b-a0c2-b2d54a0e1ddd";
    let text = format!("{uuid},NVIDIA,8000,30:;");
    annotated.metadata.annotations = Some([("hami.io/vgpu-devices-allocated".to_owned(), text)].into());
    let fixture = Fixture::of([node("gpu-1").with_resource(GPU, 8)]).with_pod(other).with_pod(annotated);
    let bench = Bench::of(fixture).await;
    let answer = bench.ask("get_pod_gpu_allocation", json!({"node_name": "gpu-1", "namespace": "jobs"})).await;
    assert_eq!(used(&answer, GPU), (4, 4));
    assert_eq!(answer["pods"].as_array().unwrap().len(), 1);
    assert_eq!(answer["pods"][0]["annotated_uuids"], json!([uuid]));
    assert_eq!(answer["pods_in_other_namespaces"], 1);
    // The pods of one node are requested with a field selector, not selected from all pods.
    let lists: Vec<_> = bench.cluster.requests().into_iter().filter(|line| line.contains("/api/v1/pods")).collect();
    assert!(lists.iter().all(|line| line.contains("spec.nodeName%3Dgpu-1")), "{lists:?}");
}

#[tokio::test]
async fn resolve_devices_shows_the_gpu_and_processes_of_each_container() {
    let facts = scenarios::named("healthy-h100-8").unwrap().report();
    let gpu_1 = NodeFixture::from_facts("gpu-1", facts);
    let pods = workloads_of(&gpu_1);
    let bench = Bench::of(Fixture { pods, ..Fixture::of([gpu_1]) }).await;
    let answer = bench.ask("get_pod_gpu_allocation", json!({"node_name": "gpu-1", "resolve_devices": true})).await;
    let devices = answer["pods"][0]["containers"][0]["devices"].as_array().unwrap();
    assert_eq!(devices.len(), 8);
    for (place, device) in devices.iter().enumerate() {
        assert_eq!((&device["source"], &device["gpu"]), (&json!("kubelet"), &json!(place)));
        assert_eq!(device["processes"][0]["pid"], 41210 + place);
    }
    assert_eq!((&answer["probe"]["deleted"], answer.get("leftovers")), (&json!(true), None));
    assert_eq!(bench.left_over().await, 0);
}

#[tokio::test]
async fn no_pod_is_reported_as_deleted_if_pods_cannot_be_read() {
    let gpu_1 = NodeFixture::from_facts("gpu-1", scenarios::named("healthy-h100-8").unwrap().report());
    let fixture = Fixture { pods: workloads_of(&gpu_1), ..Fixture::of([gpu_1]) };
    let bench = Bench::of(fixture.denying(Denial::of("list", "pods"))).await;
    let answer = bench.ask("get_pod_gpu_allocation", json!({"node_name": "gpu-1", "resolve_devices": true})).await;
    assert_eq!(answer["leftovers"].get("allocated_to_deleted_pods"), None, "{}", answer["leftovers"]);
    assert_eq!(answer["unknown"][0]["section"], "pods");
}

#[tokio::test]
async fn a_static_pod_is_identified_by_the_uid_of_the_kubelet() {
    // The UID of a static pod is an MD5, without dashes.
    let mut facts = serde_json::to_string(&scenarios::named("healthy-h100-8").unwrap().report()).unwrap();
    let of_api = NodeFixture::from_facts("gpu-1", scenarios::named("healthy-h100-8").unwrap().report());
    for pod in workloads_of(&of_api) {
        let uid = pod.metadata.uid.unwrap();
        facts = facts.replace(&uid, &uid.replace('-', ""));
    }
    let gpu_1 = NodeFixture::from_facts("gpu-1", serde_json::from_str(&facts).unwrap());
    let mut pods = workloads_of(&gpu_1);
    for pod in &mut pods {
        let hash = pod.metadata.uid.replace(format!("mirror-{}", pod.metadata.name.clone().unwrap())).unwrap();
        let annotations = ["kubernetes.io/config.hash", "kubernetes.io/config.mirror"];
        pod.metadata.annotations = Some(annotations.map(|name| (name.to_owned(), hash.clone())).into());
    }
    let bench = Bench::of(Fixture { pods, ..Fixture::of([gpu_1]) }).await;
    let answer = bench.ask("get_pod_gpu_allocation", json!({"node_name": "gpu-1", "resolve_devices": true})).await;
    assert_eq!((answer.get("leftovers"), answer.get("findings")), (None, None), "{answer}");
    let devices = answer["pods"][0]["containers"][0]["devices"].as_array().unwrap();
    assert_eq!((devices.len(), &devices[0]["processes"][0]["pid"]), (8, &json!(41210)));
}

/// A tenant writes the UID of another pod into an annotation. The tenant's pod must not get the processes or devices of
/// the other pod.
#[tokio::test]
async fn no_annotation_takes_over_the_processes_of_another_pod() {
    let gpu_1 = NodeFixture::from_facts("gpu-1", scenarios::named("healthy-h100-8").unwrap().report());
    let mut pods = workloads_of(&gpu_1);
    let uid = pods[0].metadata.uid.clone().unwrap();
    let mut evil = simple("aaa-leftover", "Running", 0);
    let annotations = ["kubernetes.io/config.hash", "kubernetes.io/config.mirror"];
    evil.metadata.annotations = Some(annotations.map(|name| (name.to_owned(), uid.clone())).into());
    pods.insert(0, evil);
    let bench = Bench::of(Fixture { pods, ..Fixture::of([gpu_1]) }).await;
    let answer = bench.ask("get_pod_gpu_allocation", json!({"node_name": "gpu-1", "resolve_devices": true})).await;
    let victim = answer["pods"].as_array().unwrap().iter().find(|pod| pod["name"] == "gpu-1-trainer-0").unwrap();
    assert_eq!(victim["containers"][0]["devices"][0]["processes"][0]["pid"], json!(41210), "{answer}");
    assert!(!answer["leftovers"].to_string().contains("aaa-leftover"), "{answer}");
}

#[tokio::test]
async fn mig_devices_are_resolved_to_their_processes() {
    let facts = scenarios::named("a100-mig-8").unwrap().report();
    let gpu_1 = NodeFixture::from_facts("gpu-1", facts);
    let pods = workloads_of(&gpu_1);
    let bench = Bench::of(Fixture { pods, ..Fixture::of([gpu_1]) }).await;
    let answer = bench.ask("get_pod_gpu_allocation", json!({"node_name": "gpu-1", "resolve_devices": true})).await;
    let containers = answer["pods"].as_array().unwrap().iter().flat_map(|pod| pod["containers"].as_array().unwrap());
    let devices: Vec<_> = containers.flat_map(|container| container["devices"].as_array().unwrap()).collect();
    let parts: Vec<_> = devices.iter().filter(|device| device["uuid"].as_str().unwrap().starts_with("MIG-")).collect();
    assert!(
        !parts.is_empty() && parts.iter().all(|device| device["mig_profile"].is_string() && device["gpu"].is_number())
    );
    assert!(
        parts.iter().any(|device| device["processes"][0]["pid"].is_number()),
        "no process was assigned to a device"
    );
}

#[tokio::test]
async fn unreadable_amounts_are_unknown_and_not_zero() {
    let fixture = Fixture::of([node("gpu-1").with_resource(GPU, 8)]).with_pod(simple("a", "Running", 2));
    let bench = Bench::of(fixture.denying(Denial::of("list", "pods"))).await;
    let list = bench.ask("list_gpu_nodes", json!({})).await;
    assert_eq!((list["nodes"][0].get("allocated"), list["totals"].get("allocated")), (None, None));
    assert_eq!(list["unknown"][0]["section"], "pods");
    let answer = bench.ask("get_pod_gpu_allocation", json!({"node_name": "gpu-1"})).await;
    assert!(answer["summary"].as_str().unwrap().contains("unknown"), "{answer}");
}

/// Returns a pod in this phase that has this owner.
fn owned(name: &str, phase: &str, kind: &str, owner: &str, labels: &Value) -> Pod {
    let mut pod = simple(name, phase, 1);
    let reference = json!([{"apiVersion": "batch/v1", "kind": kind, "name": owner, "uid": "u", "controller": true}]);
    pod.metadata.owner_references = serde_json::from_value(reference).unwrap();
    pod.metadata.labels = serde_json::from_value(labels.clone()).unwrap();
    pod
}

#[tokio::test]
async fn an_owner_leads_to_its_worst_pod() {
    let hash = json!({"pod-template-hash": "6d5f"});
    let pods = vec![
        owned("train-a", "Running", "Job", "train", &json!({})),
        owned("train-b", "Failed", "Job", "train", &json!({})),
        owned("train-c", "Running", "Job", "train", &json!({})),
        owned("serve-6d5f-x", "Running", "ReplicaSet", "serve-6d5f", &hash),
        simple("alone", "Running", 1),
    ];
    let fixture = Fixture { pods, ..Fixture::of([node("gpu-1").with_resource(GPU, 8)]) };
    let bench = Bench::of(fixture).await;
    for (text, expected, phases) in
        [("deploy/serve", "serve-6d5f-x", json!({"Running": 1})), ("serve", "serve-6d5f-x", json!({"Running": 1}))]
    {
        let answer = bench.ask("explain_gpu_pod", json!({"pod": text, "namespace": "jobs"})).await;
        assert_eq!(answer["selected_of"]["phases"], phases, "{text}: {answer}");
        assert!(answer["summary"].as_str().unwrap().contains(expected), "{text}: {answer}");
    }
    // The pods of an owner with several pods are compared.
    for text in ["job/train", "train"] {
        let answer = bench.ask("explain_gpu_pod", json!({"pod": text, "namespace": "jobs"})).await;
        assert_eq!(answer["phases"], json!({"Failed": 1, "Running": 2}), "{text}: {answer}");
        assert!(answer["summary"].as_str().unwrap().contains("train-b"), "{text}: {answer}");
    }
    // The text before the slash is a namespace or a kind. A namespace can have the name of a kind (`jobs`).
    for text in ["jobs/alone", "pod/alone", "alone"] {
        let namespace = if text.starts_with("jobs/") { Value::Null } else { json!("jobs") };
        let answer = bench.ask("explain_gpu_pod", json!({"pod": text, "namespace": namespace})).await;
        assert!(answer["selected_of"].is_null() && answer["phase"] == "Running", "{text}: {answer}");
    }
    let failure = bench.call("explain_gpu_pod", json!({"pod": "job/absent", "namespace": "jobs"})).await.unwrap_err();
    assert!(failure.to_string().contains("job/absent"), "{failure}");
}

/// A user without permission on nodes can list the pods with GPUs of a namespace.
#[tokio::test]
async fn without_a_node_the_pods_of_a_namespace_are_listed() {
    let mut other = simple("other", "Running", 1);
    other.metadata.namespace = Some("web".to_owned());
    let pods = vec![simple("a", "Running", 2), simple("b", "Succeeded", 1), other, simple("no-gpu", "Running", 0)];
    let mut fixture = Fixture { pods, ..Fixture::of([node("gpu-1").with_resource(GPU, 8)]) };
    fixture.denied = vec![Denial::of("*", "nodes")];
    let bench = Bench::of(fixture).await;
    let names = |answer: &Value| {
        let rows = answer["pods"].as_array().unwrap().clone();
        rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let answer = bench.ask("get_pod_gpu_allocation", json!({"namespace": "jobs"})).await;
    assert_eq!(names(&answer), ["a", "b"], "{answer}");
    assert_eq!((&answer["pods"][0]["node"], &answer["node"]), (&json!("gpu-1"), &Value::Null));
    let all = bench.ask("get_pod_gpu_allocation", json!({"all_namespaces": true})).await;
    assert_eq!(names(&all), ["a", "other", "b"], "{all}");
    let args = json!({"namespace": "jobs", "resolve_devices": true});
    let failure = bench.call("get_pod_gpu_allocation", args).await.unwrap_err();
    assert!(failure.to_string().contains("Specify the node"), "{failure}");
}
