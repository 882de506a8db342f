//! Tests of findings about DaemonSets: a missing or unready pod, a node that does not match, a denied request; and of
//! the number of requests.

use demo_cluster::{Cluster, Denial, Fixture, NodeFixture, workload_pod, workloads_of};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use syringe_core::report::Report;
use syringe_core::scenarios;

use crate::tools::Bench;

const NODE: &str = "gpu-1";
const DCGM: &str = "nvcr.io/nvidia/k8s/dcgm-exporter:4.2.3";
const PLUGIN: &str = "nvcr.io/nvidia/k8s-device-plugin:v0.17.1";

fn ago(minutes: i64) -> Timestamp {
    Timestamp::now() - SignedDuration::from_mins(minutes)
}

fn facts() -> Report {
    let facts = scenarios::named("healthy-h100-8").unwrap().report();
    Report { hostname: Some(NODE.to_owned()), ..facts }
}

/// Returns a cluster that consists of a healthy node and the pods on it.
fn healthy() -> Fixture {
    let node = NodeFixture::from_facts(NODE, facts());
    Fixture { pods: workloads_of(&node), ..Fixture::of([node]) }
}

/// Starts the cluster. Its node has been Ready for ten hours.
async fn bench(fixture: Fixture) -> Bench {
    let bench = Bench::of(fixture).await;
    settle(&bench.cluster);
    bench
}

fn settle(cluster: &Cluster) {
    cluster.edit_node(NODE, |node| {
        let conditions = node.status.get_or_insert_default().conditions.get_or_insert_default();
        conditions.iter_mut().for_each(|condition| condition.last_transition_time = Some(Time(ago(600))));
    });
}

fn set(name: &str, image: &str, minutes_old: i64, template: &Value) -> Value {
    let mut spec = json!({"containers": [{"name": name, "image": image}]});
    spec.as_object_mut().unwrap().extend(template.as_object().unwrap().clone());
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": "gpu", "generation": 1, "creationTimestamp": ago(minutes_old)},
        "spec": {"selector": {}, "template": {"metadata": {"labels": {"app": name}}, "spec": spec}},
        "status": {"observedGeneration": 1, "desiredNumberScheduled": 3, "updatedNumberScheduled": 3,
            "currentNumberScheduled": 2, "numberMisscheduled": 0, "numberReady": 2},
    })
}

/// Returns the pod of a DaemonSet on the node.
fn pod_of(set: &str, ready: bool) -> Pod {
    let mut pod = workload_pod("gpu", &format!("{set}-x7k2p"), NODE, 0);
    let owner = json!([{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": set, "uid": "u", "controller": true}]);
    pod.metadata.owner_references = serde_json::from_value(owner).unwrap();
    pod.metadata.creation_timestamp = Some(Time(ago(300)));
    let state = if ready {
        json!({"running": {"startedAt": ago(300)}})
    } else {
        json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting failed container"}})
    };
    let name = &pod.spec.as_ref().unwrap().containers[0].name;
    pod.status = serde_json::from_value(json!({
        "phase": "Running", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
        "containerStatuses": [{"name": name, "ready": ready, "restartCount": 7, "image": "", "imageID": "", "state": state}],
    }))
    .unwrap();
    pod
}

fn refused(set: &str, message: &str) -> Event {
    Event {
        metadata: kube::core::ObjectMeta {
            name: Some(format!("{set}.1")),
            namespace: Some("gpu".into()),
            ..Default::default()
        },
        involved_object: ObjectReference {
            kind: Some("DaemonSet".into()),
            name: Some(set.into()),
            namespace: Some("gpu".into()),
            ..ObjectReference::default()
        },
        type_: Some("Warning".into()),
        reason: Some("FailedCreate".into()),
        message: Some(message.into()),
        last_timestamp: Some(Time(ago(1))),
        ..Event::default()
    }
}

async fn diagnosed(bench: &Bench) -> Value {
    bench.ask("diagnose_gpu_node", json!({ "node_name": NODE })).await
}

fn found<'a>(answer: &'a Value, id: &str) -> Option<&'a Value> {
    answer["findings"].as_array().unwrap().iter().find(|finding| finding["id"] == id)
}

#[tokio::test]
async fn a_missing_pod_is_found_unless_its_daemon_set_is_young_elsewhere_or_rolling_out() {
    let of_gpus = |more: Value| set("dcgm-exporter", DCGM, 300, &more);
    let rolling = || {
        let mut rolling = of_gpus(json!({}));
        rolling["status"]["updatedNumberScheduled"] = json!(1);
        rolling
    };
    let on_delete = || {
        let mut set = rolling();
        set["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
        set
    };
    let cases = [
        (of_gpus(json!({})), Some("warning"), "warning"),
        (on_delete(), Some("warning"), "warning"),
        (set("node-exporter", "quay.io/prometheus/node-exporter:v1", 300, &json!({})), Some("info"), "healthy"),
        (set("dcgm-exporter", DCGM, 3, &json!({})), None, "healthy"),
        (rolling(), None, "healthy"),
        (of_gpus(json!({"nodeSelector": {"pool": "other"}})), None, "healthy"),
    ];
    for (set, severity, verdict) in cases {
        let bench = bench(healthy()).await;
        bench.cluster.add_object(set.clone());
        let answer = diagnosed(&bench).await;
        let finding = found(&answer, "daemonset-pod-missing");
        assert_eq!(finding.map(|finding| finding["severity"].as_str().unwrap()), severity, "{set}: {answer}");
        assert_eq!(answer["verdict"], verdict, "{set}: {answer}");
    }
}

#[tokio::test]
async fn the_reason_for_a_missing_pod_is_that_of_the_controller_or_the_scheduler() {
    let message = "pods \"dcgm-exporter-\" is forbidden: exceeded quota: gpu, used: pods=10, limited: pods=10";
    let dcgm = || set("dcgm-exporter", DCGM, 300, &json!({}));
    let quota = bench(healthy()).await;
    quota.cluster.add_object(dcgm());
    quota.cluster.add_event(refused("dcgm-exporter", message));
    let answer = diagnosed(&quota).await;
    assert!(found(&answer, "daemonset-pod-missing").unwrap()["evidence"].to_string().contains("exceeded quota"));
    let mut waiting = pod_of("dcgm-exporter", false);
    let spec = waiting.spec.as_mut().unwrap();
    spec.node_name = None;
    spec.affinity = serde_json::from_value(json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [NODE]}]}]}}}))
    .unwrap();
    waiting.status = serde_json::from_value(json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: 1 Insufficient cpu"}]}))
    .unwrap();
    let full = bench(healthy().with_pod(waiting)).await;
    full.cluster.add_object(dcgm());
    let answer = diagnosed(&full).await;
    assert!(found(&answer, "daemonset-pod-missing").unwrap()["evidence"].to_string().contains("Insufficient cpu"));
}

#[tokio::test]
async fn a_pod_that_is_not_ready_is_found_with_its_message_and_a_ready_one_is_not() {
    for (name, image, ready, severity) in [
        ("dcgm-exporter", DCGM, false, Some("warning")),
        // Without the network plugin, no new pod starts.
        ("calico-node", "docker.io/calico/node:v3", false, Some("warning")),
        ("log-shipper", "docker.io/log/shipper:v3", false, Some("info")),
        ("dcgm-exporter", DCGM, true, None),
    ] {
        let fixture = healthy().with_pod(pod_of(name, ready));
        let bench = bench(fixture).await;
        bench.cluster.add_object(set(name, image, 300, &json!({})));
        let answer = diagnosed(&bench).await;
        let finding = found(&answer, "daemonset-pod-not-ready");
        assert_eq!(finding.map(|finding| finding["severity"].as_str().unwrap()), severity, "{name}: {answer}");
        assert_eq!(found(&answer, "daemonset-pod-missing"), None, "{name}");
        if let Some(finding) = finding {
            assert!(finding["evidence"].to_string().contains("back-off 5m0s restarting"), "{finding}");
        }
    }
}

#[tokio::test]
async fn a_plugin_that_does_not_fit_is_named_with_the_first_term_that_does_not_match() {
    let plugin = |more: Value| set("nvidia-device-plugin-ctr", PLUGIN, 300, &more);
    let affinity = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchExpressions": [{"key": "nvidia.com/gpu.present", "operator": "Exists"}]}]}}}});
    let cases = [
        (json!({"nodeSelector": {"accelerator": "h100"}}), "nodeSelector requires the label accelerator=h100"),
        (affinity, "node affinity requires nvidia.com/gpu.present Exists"),
        (json!({}), "does not tolerate the taint dedicated:NoSchedule"),
    ];
    for (more, words) in cases {
        let node = NodeFixture::new(NODE, facts()).with_taint("dedicated", "NoSchedule");
        let bench = bench(Fixture::of([node])).await;
        bench.cluster.add_object(plugin(more));
        let answer = diagnosed(&bench).await;
        let finding = found(&answer, "device-plugin-does-not-fit").unwrap_or_else(|| panic!("{words}: {answer}"));
        assert!(finding["evidence"].to_string().contains(words), "{words}: {finding}");
        assert_eq!(answer["verdict"], "warning");
    }
}

#[tokio::test]
async fn without_the_permission_the_answer_is_complete_except_for_the_daemon_sets() {
    let fixture = healthy().denying(Denial::of("list", "daemonsets"));
    let answer = diagnosed(&bench(fixture).await).await;
    assert_eq!(answer["verdict"], "healthy", "{answer}");
    assert!(answer["unknown"].to_string().contains("daemonsets"), "{}", answer["unknown"]);
}

#[tokio::test]
async fn a_survey_lists_the_daemon_sets_once_and_a_diagnosis_needs_one_request_more() {
    let nodes = (1..=6).map(|number| NodeFixture::from_facts(&format!("gpu-{number}"), facts()));
    let bench = bench(Fixture::of(nodes)).await;
    let lists = |word: &str| bench.cluster.requests().iter().filter(|line| line.contains(word)).count();
    bench.ask("get_gpu_health", json!({})).await;
    assert_eq!(lists("daemonsets"), 1);
    bench.ask("diagnose_gpu_node", json!({ "node_name": NODE })).await;
    assert_eq!(lists("daemonsets"), 2);
    assert_eq!(lists("leases") + lists("nodeclaims") + lists("machines"), 0);
}
