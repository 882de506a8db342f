//! Tests that every probe method gives the same answers and makes the same retries, and deletes its pods after success,
//! cancellation, faults and a panic. `node_tools`: the tools that read one node.

use std::sync::Arc;
use std::time::Duration;

use demo_cluster::{Cluster, CountedFault, ExecFault, ExecRefusals, Fixture, Timing};
use gpu_syringe::probe::Phase;
use gpu_syringe::settings::Mode;
use gpu_syringe::tools;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::support::{Launcher, NAMESPACE, fixture, ours, slow};

/// The methods that start a probe on a node.
const WAYS: [&str; 4] = ["pod", "ephemeral", "inject", "logs"];

/// Returns the tools that read one node with one probe and change nothing.
pub(crate) fn node_tools() -> Vec<&'static str> {
    let takes_a_node = |entry: &&tools::ToolEntry| {
        let schema = (entry.input_schema)();
        let needs_no_more = schema["required"].as_array().is_none_or(|all| all.iter().all(|name| name == "node_name"));
        let is_about_one =
            schema["properties"].get("node_name").is_some() && schema["properties"].get("other_node").is_none();
        entry.probes && needs_no_more && is_about_one
    };
    tools::all(Mode::ReadOnly).iter().filter(takes_a_node).map(|entry| entry.name).collect()
}

/// Returns arguments with which `tool` starts a probe.
fn arguments(tool: &str) -> Value {
    let mut arguments = json!({ "node_name": "gpu-1" });
    if tool == "get_pod_gpu_allocation" {
        arguments["resolve_devices"] = json!(true);
    }
    arguments
}

/// Returns the part of an answer that does not depend on the method.
fn substance(answer: &Value) -> Value {
    let mut answer = answer.clone();
    // The note about the method is text of the probe, so `quoted` lists it.
    for part in ["probe", "quoted", "taken_at"] {
        answer.as_object_mut().unwrap().remove(part);
    }
    // Conditions contain their age, which differs between two calls.
    for condition in answer["conditions"].as_array_mut().into_iter().flatten() {
        condition.as_object_mut().unwrap().remove("for_seconds");
    }
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_tool_gives_the_same_answer_with_every_method_and_leaves_nothing() {
    let cluster = Cluster::start(fixture()).await.unwrap();
    let tools = node_tools();
    assert!(tools.len() >= 8, "{tools:?}");
    for tool in tools {
        let mut answers = Vec::new();
        for way in WAYS {
            let launcher = Launcher::start(&cluster, &["--via", way]);
            let answer = launcher.call(tool, arguments(tool)).await;
            let answer = answer.unwrap_or_else(|failure| panic!("{tool} via {way}: {failure}"));
            assert_eq!(answer["probe"]["via"], way, "{tool}");
            assert_eq!(answer["probe"]["deleted"], way != "ephemeral", "{tool} via {way}: {}", answer["probe"]);
            answers.push(substance(&answer));
            assert_eq!(ours(&cluster), 0, "{tool} via {way}");
        }
        for (way, answer) in WAYS.iter().zip(&answers) {
            assert_eq!(answer, &answers[0], "{tool} via {way}");
        }
    }
}

#[tokio::test]
async fn a_cancelled_call_leaves_nothing_with_any_method() {
    for way in WAYS {
        let cluster = Cluster::start(Fixture { timing: slow(), ..fixture() }).await.unwrap();
        let mut launcher = Launcher::start(&cluster, &["--via", way]);
        let cancel = launcher.cancel.clone();
        // The pod exists, but its container is not running yet.
        launcher.on_phase = Arc::new(move |phase| {
            if phase == Phase::Start {
                cancel.cancel();
            }
        });
        let said = launcher.failure().await;
        assert!(said.contains("cancelled"), "{way}: {said}");
        launcher.prober.settle().await;
        assert_eq!(ours(&cluster), 0, "{way}");
        assert_eq!(said.contains("Left behind"), way == "ephemeral", "{way}: {said}");
        if way == "ephemeral" {
            assert!(said.contains("has ended"), "{said}");
        }
    }
}

#[tokio::test]
async fn a_pod_that_somebody_deletes_is_no_fault_of_the_node() {
    for way in ["pod", "logs", "inject"] {
        let timing = Timing { container_start: Duration::from_secs(30), ..Timing::fast() };
        let cluster = Cluster::start(Fixture { timing, ..fixture() }).await.unwrap();
        let launcher = Launcher::start(&cluster, &["--via", way]);
        let client = launcher.contexts.connect(None).await.unwrap().client;
        let deleting = async {
            while ours(&cluster) == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let name = cluster.pods(NAMESPACE)[0].metadata.name.clone().unwrap();
            let pods: Api<Pod> = Api::namespaced(client, NAMESPACE);
            pods.delete(&name, &DeleteParams::default().grace_period(0)).await.unwrap();
        };
        let (said, ()) = tokio::join!(launcher.failure(), deleting);
        assert!(said.contains("deleted the probe pod") && !said.contains("kubelet"), "{way}: {said}");
    }
}

#[tokio::test]
async fn a_truncated_answer_is_requested_again() {
    for way in ["pod", "ephemeral"] {
        let cluster = Cluster::start(fixture()).await.unwrap();
        cluster
            .faults(|faults| faults.on("gpu-1").exec = Some(CountedFault::once(ExecFault::Cut { after_bytes: 700 })));
        let answer = Launcher::start(&cluster, &["--via", way]).inventory().await.unwrap();
        let note = answer["probe"]["note"].as_str().unwrap();
        assert!(note.contains("this is the second answer"), "{way}: {note}");
        assert_eq!(ours(&cluster), 0, "{way}");
    }
}

#[tokio::test]
async fn every_method_works_with_errors_on_the_stream_and_without_half_close() {
    let old = Fixture { half_close: false, exec_refusals: ExecRefusals::OnStatusChannel, timing: slow(), ..fixture() };
    let cluster = Cluster::start(old).await.unwrap();
    for way in WAYS {
        let answer = Launcher::start(&cluster, &["--via", way]).inventory().await;
        let answer = answer.unwrap_or_else(|failure| panic!("{way}: {failure}"));
        assert_eq!((&answer["probe"]["via"], ours(&cluster)), (&json!(way), 0));
    }
}

#[tokio::test]
async fn every_method_reports_a_pod_that_cannot_be_deleted() {
    for way in ["pod", "inject", "logs"] {
        let denial = demo_cluster::Denial::of("delete", "pods");
        let cluster = Cluster::start(fixture().denying(denial)).await.unwrap();
        let answer = Launcher::start(&cluster, &["--via", way]).inventory().await.unwrap();
        assert_eq!(answer["probe"]["deleted"], false, "{way}");
        let left = answer["probe"]["left_behind"].as_str().unwrap();
        assert!(left.contains("kubectl -n gpu-syringe delete pod gpu-syringe-"), "{way}: {left}");
        assert_eq!(ours(&cluster), 1, "{way}");
    }
}

#[tokio::test]
async fn an_action_is_refused_if_the_host_is_not_visible() {
    let cluster = Cluster::start(fixture()).await.unwrap();
    let kill = json!({ "node_name": "gpu-1", "pid": 41_210, "gpu": "GPU-0", "start_ticks": 1 });
    for blind in [&["--via", "ephemeral"][..], &["--runtime-class", "nvidia"], &["--via", "none"]] {
        let launcher = Launcher::start(&cluster, &[blind, &["--mode", "operator"]].concat());
        let said = launcher.call("kill_gpu_process", kill.clone()).await.expect_err("a refusal").to_string();
        assert!(said.contains("--via"), "{blind:?}: {said}");
    }
    assert_eq!(cluster.pods_created(), 0);
    for way in ["pod", "inject", "logs"] {
        let launcher = Launcher::start(&cluster, &["--via", way, "--mode", "operator"]);
        // The process does not exist on this node: the probe reports this with every method.
        let answer = launcher.call("kill_gpu_process", kill.clone()).await;
        let said = answer.map_or_else(|failure| failure.to_string(), |answer| answer.to_string());
        assert!(said.contains("41210") && !said.contains("not those of the host"), "{way}: {said}");
        assert_eq!(ours(&cluster), 0, "{way}");
    }
}

/// A panic in a callback of the caller or in this program must not leave a pod behind.
#[tokio::test]
async fn a_panic_in_mid_call_leaves_no_pod_and_no_gap_in_the_audit_log() {
    for way in ["pod", "inject"] {
        let cluster = Cluster::start(fixture()).await.unwrap();
        let mut launcher = Launcher::start(&cluster, &["--via", way]);
        launcher.on_phase = Arc::new(|phase| assert_ne!(phase, Phase::Read, "a defect"));
        let said = launcher.failure().await;
        assert!(said.contains("panicked") && said.contains("The probe pod was deleted"), "{way}: {said}");
        assert_eq!((ours(&cluster), cluster.pods_created()), (0, 1), "{way}");
        let lines = launcher.audit();
        assert_eq!((lines.len(), lines[0].deleted), (1, Some(true)), "{way}: {lines:?}");
        assert!(lines[0].pod.is_some() && lines[0].outcome.as_deref().unwrap().contains("panicked"), "{lines:?}");
    }
}
