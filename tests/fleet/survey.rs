//! Tests of `get_gpu_health` and `get_gpu_inventory` for all GPU nodes: outliers, failed nodes, number of requests.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use demo_cluster::{
    AnswerFault, CountedFault, Denial, ExecFault, Fixture, NodeFixture, RequestFault, StartFault, workloads_of,
};
use serde_json::{Value, json};
use syringe_core::report::Report;
use syringe_core::scenarios;

use crate::tools::Bench;

fn facts(scenario: &str) -> Report {
    scenarios::named(scenario).unwrap().report()
}

fn healthy(name: &str) -> NodeFixture {
    NodeFixture::from_facts(name, facts("healthy-h100-8"))
}

fn fleet(count: usize) -> Vec<NodeFixture> {
    (1..=count).map(|number| healthy(&format!("gpu-{number:03}"))).collect()
}

fn count(answer: &Value, what: &str) -> u64 {
    answer["totals"][what].as_u64().unwrap_or_else(|| panic!("no {what} in {answer}"))
}

#[tokio::test]
async fn nodes_with_findings_come_first_and_the_others_are_one_line() {
    let mut nodes = fleet(6);
    nodes.push(NodeFixture::from_facts("gpu-007", facts("xid79-off-bus")));
    let mut old = facts("healthy-h100-8");
    if let Some(inventory) = old.sections.inventory.as_mut().and_then(|section| section.data.as_mut()) {
        inventory.driver_version = Some("550.90.07".to_owned());
    }
    nodes.push(NodeFixture::from_facts("gpu-008", old));
    nodes.push(NodeFixture::new("cpu-1", facts("no-gpu")));
    let pods = nodes.iter().flat_map(workloads_of).collect();
    let bench = Bench::of(Fixture { pods, ..Fixture::of(nodes) }).await;
    let answer = bench.ask("get_gpu_health", json!({})).await;
    assert_eq!((&answer["verdict"], count(&answer, "gpu_nodes"), count(&answer, "read")), (&json!("fatal"), 8, 8));
    assert_eq!(answer["findings"][0]["id"], "gpu-off-bus");
    assert_eq!(answer["nodes"][0]["node"], "gpu-007");
    let outliers = answer["outliers"].as_array().unwrap();
    let driver = outliers.iter().find(|one| one["what"] == "driver_version").unwrap();
    assert_eq!((&driver["value"], &driver["nodes"]["names"]), (&json!("550.90.07"), &json!("gpu-008")));
    let gpus = outliers.iter().find(|one| one["what"] == "gpus").unwrap();
    assert_eq!(
        (&gpus["value"], &gpus["common"], &gpus["nodes"]["names"]),
        (&json!("7"), &json!("8"), &json!("gpu-007"))
    );
    assert_eq!(answer["nodes"].as_array().unwrap().len(), 2, "{}", answer["nodes"]);
    assert_eq!(answer["groups"][0]["nodes"]["names"], "gpu-[001-008]");
    assert_eq!((bench.cluster.pods_created(), bench.left_over().await), (8, 0));
}

/// Creates a node of an NVLink fabric with an Xid of GPU 0, some seconds before the facts were read.
fn in_fabric(name: &str, cluster: u8, xid: Option<(u64, &str)>) -> NodeFixture {
    let mut report = facts("healthy-h100-8");
    let topology = report.sections.topology.as_mut().and_then(|section| section.data.as_mut()).unwrap();
    for gpu in &mut topology.gpus {
        let fabric = gpu.fabric.get_or_insert_with(Default::default);
        (fabric.state, fabric.status) = ("completed".to_owned(), Some("success".to_owned()));
        fabric.cluster_uuid = Some(format!("5f2c9a31-7b64-4c0e-9b1d-0000000000{cluster:02}"));
        fabric.clique_id = Some(1);
    }
    if let Some((seconds_ago, line)) = xid {
        let (number, at) = (100 + report.kernel_log.len(), (1_036_815 - seconds_ago) * 1_000_000);
        report.kernel_log.push(format!("3,{number},{at},-;NVRM: Xid (PCI:0000:18:00): {line}"));
    }
    NodeFixture::from_facts(name, report)
}

#[tokio::test]
async fn the_first_fault_of_a_fabric_is_one_finding_with_its_echoes() {
    let down = "149, NETIR_LINK_EVT  Fatal   XC0 i0 Link 01 (0x021425c6 0x00000000 0x00000000 0x00000000 0x00000000 0x00000000)";
    let remap = "145, RLW_REMAP Nonfatal XC0 i0 Link 02";
    let spread = |answer: &Value| {
        let findings = answer["findings"].as_array().unwrap();
        findings.iter().position(|one| one["id"] == "fabric-fault-spread").map(|at| (at, findings[at].clone()))
    };
    for (fabric_of_echoes, echo_at, named) in [(1, 598, true), (1, 603, true), (2, 598, false), (1, 80_000, false)] {
        let mut nodes = vec![in_fabric("gpu-001", 1, None), in_fabric("gpu-002", 1, Some((600, down)))];
        nodes.extend(
            (3..9).map(|number| in_fabric(&format!("gpu-00{number}"), fabric_of_echoes, Some((echo_at, remap)))),
        );
        let bench = Bench::of(Fixture::of(nodes)).await;
        let found = spread(&bench.ask("get_gpu_health", json!({})).await);
        assert_eq!(found.is_some(), named, "{found:?}");
        if let Some((at, finding)) = found {
            assert_eq!((at, &finding["nodes"]["names"]), (0, &json!("gpu-002")), "{finding:#}");
            let text = finding["action_text"].as_str().unwrap();
            for words in ["GPU 0, Xid 149 at", "Xid 145 on 6 other nodes", "gpu-[003-008]"] {
                assert!(text.contains(words), "{words}: {text}");
            }
        }
    }
}

#[tokio::test]
async fn a_node_that_hangs_is_skipped_after_two_failures() {
    let bench = Bench::with(Fixture::of(fleet(5)), &["--node-timeout", "3", "--concurrency", "3"]).await;
    bench.cluster.faults(|faults| faults.on("gpu-002").exec = Some(ExecFault::Hang.into()));
    for round in 1..=3 {
        let began = Instant::now();
        let answer = bench.ask("get_gpu_inventory", json!({})).await;
        let skipped = round > 2;
        assert_eq!(count(&answer, "read"), 4, "round {round}: {answer}");
        assert_eq!((count(&answer, "failed"), count(&answer, "skipped")), if skipped { (0, 1) } else { (1, 0) });
        let row = &answer[if skipped { "skipped" } else { "failed" }][0];
        assert_eq!(row["nodes"]["names"], "gpu-002");
        assert!(
            row["why"].as_str().unwrap().contains(if skipped { "2 times in a row" } else { "did not finish" }),
            "{row}"
        );
        assert_eq!(answer["verdict"], "unknown", "a node that was not read must not be healthy");
        assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    }
    assert_eq!(bench.left_over().await, 0);
}

#[tokio::test]
async fn at_the_deadline_the_answer_has_the_results_so_far() {
    let flags = ["--call-timeout", "6", "--concurrency", "2"];
    let bench = Bench::with(Fixture::of(fleet(8)), &flags).await;
    bench.cluster.faults(|faults| faults.everywhere.start = Some(StartFault::Slow(Duration::from_millis(1800)).into()));
    let began = Instant::now();
    let answer = bench.ask("get_gpu_inventory", json!({})).await;
    assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
    let (read, not_reached) = (count(&answer, "read"), count(&answer, "not_reached"));
    assert!(read >= 2 && not_reached >= 2, "{}", answer["totals"]);
    assert_eq!(read + not_reached + count(&answer, "failed"), 8);
    assert_eq!(answer["not_reached"]["count"], not_reached);
    assert_eq!(bench.left_over().await, 0);
}

/// If the deletion of a pod takes a long time, the data of its probe is still used.
#[tokio::test]
async fn what_was_read_stays_if_the_deletion_is_slow() {
    let bench = Bench::with(Fixture::of(fleet(3)), &["--call-timeout", "8"]).await;
    let slow = RequestFault {
        verb: Some("delete"),
        resource: Some("pods"),
        answer: CountedFault::always(AnswerFault::Slow(Duration::from_secs(12))),
    };
    bench.cluster.faults(|faults| faults.api.requests.push(slow));
    let began = Instant::now();
    let answer = bench.ask("get_gpu_inventory", json!({})).await;
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    assert_eq!((count(&answer, "read"), count(&answer, "failed")), (3, 0), "{answer}");
    assert_eq!(answer["probes"]["deleted"], false);
    let left = answer["left_behind"].as_array().unwrap();
    assert!(left.len() == 3 && left[0].as_str().unwrap().contains("still being deleted"), "{left:?}");
    // The data is also used in a call about one node.
    let answer = bench.ask("get_gpu_inventory", json!({"node_name": "gpu-001"})).await;
    assert_eq!(
        (&answer["probe"]["deleted"], answer["inventory"]["gpus"].as_array().map(Vec::len)),
        (&json!(false), Some(8))
    );
}

#[tokio::test]
async fn selector_and_limit_select_nodes_and_progress_counts_them() {
    let mut nodes = fleet(4);
    nodes.push(healthy("other-1").with_label("pool", "b"));
    let bench = Bench::of(Fixture::of(nodes)).await;
    let answer = bench.ask("get_gpu_inventory", json!({"selector": "pool=b"})).await;
    assert_eq!((count(&answer, "gpu_nodes"), count(&answer, "read")), (1, 1));
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = {
        let told = told.clone();
        Arc::new(move |phase: gpu_syringe::probe::Phase| told.lock().unwrap().push(phase.position()))
    };
    let answer = bench.call_told("get_gpu_inventory", json!({"limit": 3}), tell).await.unwrap();
    assert_eq!((count(&answer, "read"), count(&answer, "not_reached")), (3, 2));
    assert_eq!(*told.lock().unwrap(), [(1, 3), (2, 3), (3, 3)]);
    let failure = bench.call("get_gpu_inventory", json!({"selector": "pool=none"})).await.unwrap_err().to_string();
    assert!(failure.contains("no GPU node") && failure.contains("list_gpu_nodes"), "{failure}");
}

#[tokio::test]
async fn a_failure_of_every_node_is_one_error_after_a_few_tries() {
    let bench = Bench::of(Fixture::of(fleet(40)).denying(Denial::of("create", "pods"))).await;
    let failure = bench.call("get_gpu_health", json!({})).await.unwrap_err().to_string();
    assert!(failure.contains("forbidden") && failure.contains("setup --apply"), "{failure}");
    let tries = bench.cluster.requests().iter().filter(|line| line.starts_with("POST")).count();
    assert!(tries < 24, "{tries} tries");
}

#[tokio::test]
async fn fifty_nodes_fit_in_ten_thousand_tokens() {
    // Half of the nodes have a problem, which is an unusually large share.
    let trouble = ["xid79-off-bus", "ecc-remap-pending", "driver-mismatch", "no-driver"];
    let node = |number: usize| {
        let scenario = if number.is_multiple_of(2) { "healthy-h100-8" } else { trouble[number / 2 % trouble.len()] };
        NodeFixture::from_facts(&format!("ip-10-0-{number}-17.eu-central-1.compute.internal"), facts(scenario))
    };
    let bench = Bench::with(Fixture::of((0..50).map(node)), &["--call-timeout", "120"]).await;
    for tool in ["get_gpu_health", "get_gpu_inventory"] {
        let answer = bench.ask(tool, json!({})).await;
        let bytes = answer.to_string().len();
        assert!(bytes <= 40_000, "{tool}: {bytes} bytes");
        assert_eq!(count(&answer, "read") + count(&answer, "failed"), 50, "{tool}");
    }
    assert_eq!(bench.left_over().await, 0);
}
