//! Tests that each answer has at most 45,000 characters, matches its schema, and counts omitted entries.

use std::collections::BTreeMap;

use demo_cluster::{Fixture, NodeFixture, workloads_of};
use futures_util::{StreamExt, stream};
use gpu_syringe::settings::Mode;
use gpu_syringe::{mcp, tools as registry};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};
use syringe_core::report::Report;

use crate::enlarge::{enlarged, lengthened};
use crate::tools::Bench;

/// Maximum length of an answer, in characters.
const MOST: usize = 45_000;
/// Tools that read one node.
const OF_A_NODE: [&str; 9] = [
    "diagnose_gpu_node",
    "describe_gpu_node",
    "get_gpu_health",
    "get_gpu_inventory",
    "get_gpu_telemetry",
    "inspect_topology",
    "snapshot_ecc",
    "analyze_xid_errors",
    "get_pod_gpu_allocation",
];

/// Returns the facts of all scenarios, by name.
fn all_facts() -> BTreeMap<String, Value> {
    scenarios::all().map(|scenario| (scenario.name.to_owned(), scenarios::in_full(&scenario.report()))).collect()
}

/// Checks an answer in the form in which a host receives it, and returns whether entries were omitted.
fn check(tool: &str, about: &str, json: &Value) -> bool {
    let entry = registry::all(Mode::Operator).into_iter().find(|entry| entry.name == tool).unwrap();
    let schema = jsonschema::draft202012::new(&entry.output_schema()).unwrap();
    let faults: Vec<_> = schema.iter_errors(json).map(|error| error.to_string()).collect();
    assert!(faults.is_empty(), "{tool} {about}: {faults:?}");
    let result = serde_json::to_value(mcp::tool_result(json.clone())).unwrap();
    assert_eq!(&result["structuredContent"], json);
    assert_eq!(serde_json::from_str::<Value>(result["content"][0]["text"].as_str().unwrap()).unwrap(), *json);
    // The text block must also be below the limit. It is longer than the structured content, because its quotation
    // marks are escaped.
    for copy in ["structuredContent", "content"] {
        let length = result[copy].to_string().chars().count();
        assert!(length <= MOST, "{tool} {about}: {copy} has {length} characters");
    }
    let Some(truncated) = json.get("truncated") else { return false };
    let lists = truncated.as_array().unwrap();
    assert!(!lists.is_empty());
    for list in lists {
        let path = list.as_str().unwrap();
        assert!(
            is_counted(json, &path.split('.').collect::<Vec<_>>()),
            "{tool} {about}: the omitted entries of {path} are not counted"
        );
    }
    assert_worst_first(tool, about, json);
    true
}

/// Returns whether `<list>_omitted` exists beside the list. If the path contains another list, it is sufficient that
/// one entry of that list has this field.
fn is_counted(value: &Value, path: &[&str]) -> bool {
    match (value, path) {
        (Value::Array(list), _) => list.iter().any(|entry| is_counted(entry, path)),
        (_, [name]) => match &value[format!("{name}_omitted")] {
            Value::Number(count) => count.as_u64() > Some(0),
            Value::Array(names) => !names.is_empty(),
            _ => false,
        },
        (_, [name, rest @ ..]) => value.get(name).is_some_and(|inner| is_counted(inner, rest)),
        _ => false,
    }
}

fn assert_worst_first(tool: &str, about: &str, json: &Value) {
    let rank = |finding: &Value| {
        let words = ["fatal", "critical", "warning", "info"];
        words.iter().position(|word| finding["severity"] == *word).unwrap()
    };
    if let Some(findings) = json["findings"].as_array() {
        assert!(findings.is_sorted_by_key(rank), "{tool} {about}: findings are not sorted");
    }
    if json["truncated"].as_array().is_some_and(|cut| cut.contains(&json!("health.gpus"))) {
        let gpus = json["health"]["gpus"].as_array().unwrap();
        let scores: Vec<_> = gpus.iter().map(|gpu| gpu["score"].as_u64().unwrap()).collect();
        let healthiest = *scores.iter().max().unwrap();
        assert!(scores[0] < 100 || healthiest == 100 && scores.iter().all(|score| *score == 100), "{tool} {about}");
    }
}

fn argument(tool: &str, node: &str) -> Value {
    match tool {
        "diagnose_gpu_node" => json!({"node_name": node, "detail": true}),
        "get_pod_gpu_allocation" => json!({"node_name": node, "resolve_devices": true}),
        _ => json!({"node_name": node}),
    }
}

/// Calls tools with arguments, several at a time. Returns the number of shortened answers by tool.
async fn call_all(bench: &Bench, calls: Vec<(&str, Value)>) -> BTreeMap<String, usize> {
    let answers =
        stream::iter(calls).map(|(tool, args)| async move { (tool, args.to_string(), bench.call(tool, args).await) });
    let mut answers = answers.buffer_unordered(8);
    let mut cut = BTreeMap::new();
    let (mut succeeded, mut failed) = (0, 0);
    while let Some((tool, args, answer)) = answers.next().await {
        match answer {
            Ok(json) => {
                succeeded += 1;
                *cut.entry(tool.to_owned()).or_default() += usize::from(check(tool, &args, &json));
            }
            Err(failure) => {
                failed += 1;
                assert!(failure.to_string().chars().count() <= MOST);
            }
        }
    }
    assert!(succeeded > failed, "{succeeded} answers, {failed} failures");
    cut
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_about_a_node_with_64_gpus_and_long_texts_fits() {
    let facts = all_facts();
    let report = |facts: &Value| enlarged(facts);
    let nodes: Vec<_> =
        facts.iter().filter_map(|(name, facts)| Some(NodeFixture::from_facts(name, report(facts)?))).collect();
    assert!(nodes.len() > 150, "{} of {} scenarios were enlarged", nodes.len(), facts.len());
    let library: Vec<_> = syringe_core::scenarios::all().iter().map(|scenario| scenario.name).collect();
    // Every tool is called for the scenarios of `syringe_core`. Of the other scenarios, a third is used with the tool
    // that has the largest answer, and a third with one of the other tools, in turn. The rest is not used.
    let calls = nodes.iter().enumerate().flat_map(|(number, node)| {
        let name = node.name.clone();
        let in_turn = 1 + number / 3 % (OF_A_NODE.len() - 1);
        let all = library.contains(&name.as_str());
        let chosen = OF_A_NODE
            .iter()
            .enumerate()
            .filter(move |(at, _)| all || number % 3 == 0 && *at == 0 || number % 3 == 1 && *at == in_turn);
        chosen.map(move |(_, tool)| (*tool, argument(tool, &name)))
    });
    let mut calls: Vec<_> = calls.collect();
    let pods: Vec<Pod> =
        nodes.iter().filter(|node| library.contains(&node.name.as_str())).flat_map(workloads_of).collect();
    calls.extend(
        pods.iter()
            .step_by(7)
            .map(|pod| ("explain_gpu_pod", json!({"pod": pod.name_any(), "namespace": pod.namespace().unwrap()}))),
    );
    let bench = Bench::with(Fixture { pods, ..Fixture::of(nodes) }, &["--call-timeout", "120"]).await;
    let cut = call_all(&bench, calls).await;
    // The test needs answers that are longer than the limit.
    for tool in ["diagnose_gpu_node", "get_gpu_inventory", "inspect_topology", "get_gpu_telemetry"] {
        assert!(cut.get(tool).is_some_and(|count| *count > 0), "no answer of {tool} was shortened: {cut:?}");
    }
    assert_eq!(bench.left_over().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_about_a_thousand_nodes_fits() {
    let facts = all_facts();
    let reports: Vec<Report> = facts.values().filter_map(lengthened).collect();
    let node = |number: usize| {
        let name = format!("ip-10-{}-{}-17.a-long-name.eu-central-1.compute.internal", number / 250, number % 250);
        let node = NodeFixture::from_facts(&name, reports[number % reports.len()].clone());
        // Every node has a different GPU model, and a problem that Kubernetes reports.
        let mut node = node.with_label("nvidia.com/gpu.product", &format!("NVIDIA-\"H100\"-{number}"));
        node.unschedulable = true;
        node.resources.entry("nvidia.com/gpu".to_owned()).or_default().0 += 8;
        node
    };
    let bench = Bench::of(Fixture::of((0..1000).map(node))).await;
    let answer = bench.ask("list_gpu_nodes", json!({})).await;
    check("list_gpu_nodes", "1000 nodes", &answer);
    let listed = answer["nodes"].as_array().unwrap().len() as u64;
    assert_eq!(listed + answer["nodes_omitted"].as_u64().unwrap(), 1000);
    assert!(answer["nodes"].as_array().unwrap().iter().all(|node| !node["problems"].as_array().unwrap().is_empty()));
    assert!(answer.to_string().len() > MOST / 2, "more than half of the limit must be used");
    let bench = Bench::with(Fixture::of((0..60).map(node)), &["--call-timeout", "300", "--concurrency", "16"]).await;
    for tool in ["get_gpu_health", "get_gpu_inventory"] {
        let answer = bench.ask(tool, json!({})).await;
        check(tool, "60 nodes", &answer);
        let count = |what: &str| answer["totals"][what].as_u64().unwrap();
        assert_eq!(count("read") + count("failed") + count("not_reached"), 60, "{}", answer["totals"]);
    }
}
