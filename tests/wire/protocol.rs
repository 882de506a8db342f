//! Tests of the MCP protocol: both protocol versions, tool list, results that match their schemas, contexts, errors,
//! and hosts that disconnect or send invalid lines.

use std::collections::BTreeSet;

use demo_cluster::{Fixture, StartFault, workload_pod, workloads_of};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::bed::{Bed, NAMESPACE, node};
use crate::cleanup::on_gpu_1;
use crate::support::client::{Client, Era};
use crate::support::launcher::Launcher;

/// Tools that every launcher has.
const TOOLS: [&str; 4] = ["analyze_xid_errors", "get_gpu_inventory", "get_gpu_telemetry", "list_gpu_nodes"];
/// Maximum size of all tool definitions for a model, in tokens of four bytes.
const MOST_TOKENS: usize = 3_000;
/// Maximum size of `tools/list` with the schemas of the answers, in bytes.
const MOST_BYTES: usize = 25_000;
/// Maximum size of `tools/list` with the two tools of operator mode, in bytes.
const MOST_OPERATOR_BYTES: usize = 28_000;

#[tokio::test]
async fn tools_are_listed_with_no_kubeconfig_and_no_cluster_at_all() {
    let home = tempfile::tempdir().unwrap();
    for era in [Era::Initialize, Era::PerRequest] {
        let mut client = Client::start_in(era, Launcher::alone(home.path())).await;
        let tools = client.tools().await;
        let names: BTreeSet<_> = tools.iter().filter_map(|tool| tool["name"].as_str()).collect();
        assert!(names.is_superset(&TOOLS.into()), "{era:?}: {names:?}");
        let answer = client.call("list_gpu_nodes", json!({})).await;
        answer.error_with(&[
            "kubeconfig",
            "--kubeconfig",
            if cfg!(feature = "demo") { "--demo" } else { "KUBECONFIG" },
        ]);
        client.close().await;
    }
}

#[tokio::test]
async fn tools_are_called_with_both_protocols() {
    let bed = Bed::healthy().await;
    for era in [Era::Initialize, Era::PerRequest] {
        let mut client = Client::start_in(era, bed.launcher()).await;
        let nodes = client.call("list_gpu_nodes", json!({})).await;
        assert_eq!(nodes.success()["nodes"][0]["node"], "gpu-1", "{era:?}");
        client.call("get_gpu_telemetry", on_gpu_1()).await.deleted();
        client.close().await;
    }
    bed.assert_bare(2);
}

#[tokio::test]
async fn a_host_of_the_newer_protocol_can_list_the_capabilities() {
    let bed = Bed::healthy().await;
    let mut client = Client::start_in(Era::PerRequest, bed.launcher()).await;
    let answer = client.request("server/discover", json!({})).await;
    let versions = answer["result"]["supportedVersions"].as_array().cloned().unwrap_or_default();
    assert!(versions.contains(&json!("2026-07-28")), "{answer}");
    assert!(answer["result"]["capabilities"]["tools"].is_object(), "{answer}");
    client.close().await;
}

#[tokio::test]
async fn the_server_sends_instructions() {
    let bed = Bed::healthy().await;
    let mut running = bed.launcher().args(["mcp"]).start();
    let hello =
        json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "old", "version": "1"}});
    running.write(&json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}).to_string());
    let answer: Value = serde_json::from_str(&running.lines.recv().await.unwrap()).unwrap();
    let result = &answer["result"];
    assert_eq!(result["protocolVersion"], "2025-06-18", "the server must use the protocol version of an older host");
    assert_eq!(result["serverInfo"]["name"], "gpu-syringe");
    assert!(result["instructions"].as_str().unwrap().contains("list_gpu_nodes"));
}

#[tokio::test]
async fn a_request_with_wrong_parameters_is_not_an_unknown_method() {
    let home = tempfile::tempdir().unwrap();
    for era in [Era::Initialize, Era::PerRequest] {
        let mut client = Client::start_in(era, Launcher::alone(home.path())).await;
        for (method, params, code, words) in [
            ("tools/call", json!({}), -32602, "missing field `name`"),
            ("tools/call", json!({"arguments": {}}), -32602, "missing field `name`"),
            ("tools/call", json!({"name": 5}), -32602, "expected a string"),
            ("tools/call", json!({"name": "list_gpu_nodes", "arguments": []}), -32602, "expected a map"),
            ("prompts/get", json!({}), -32602, "missing field `name`"),
            ("prompts/get", json!({"name": "node_triage", "arguments": 1}), -32602, "expected a map"),
            ("resources/read", json!({"uri": []}), -32602, "expected a string"),
            ("tools/remove", json!({}), -32601, "no method 'tools/remove'; there are tools/list"),
        ] {
            let answer = client.request(method, params.clone()).await;
            let error = &answer["error"];
            assert_eq!(error["code"], code, "{era:?} {method} {params}: {answer}");
            assert!(error["message"].as_str().unwrap().contains(words), "{era:?} {method} {params}: {answer}");
        }
        client.close().await;
    }
}

#[tokio::test]
async fn progress_goes_up_and_ends_before_the_answer() {
    let slow = StartFault::Slow(std::time::Duration::from_millis(100));
    let bed = Bed::with(|faults| faults.everywhere.start = Some(slow.into())).await;
    let mut client = bed.client().await;
    let call = client.send_call("get_gpu_inventory", on_gpu_1());
    client.result(call).await.deleted();
    let notes = client.progress_of(call);
    let steps: Vec<_> = notes.iter().filter_map(|note| note["progress"].as_f64()).collect();
    assert_eq!(steps, [1.0, 2.0, 3.0, 4.0]);
    assert!(notes.iter().all(|note| note["total"] == 4.0 && note["message"].is_string()), "{notes:?}");
    // A call that did not request progress gets no notifications.
    let quiet = client.send("tools/call", json!({"name": "get_gpu_inventory", "arguments": on_gpu_1()}));
    client.result(quiet).await.deleted();
    assert!(client.progress_of(quiet).is_empty());
}

#[tokio::test]
async fn the_definitions_of_all_tools_cost_at_most_3000_tokens() {
    let home = tempfile::tempdir().unwrap();
    let mut client = Client::start(Launcher::alone(home.path())).await;
    let bytes = |tool: &Value| -> usize {
        let parts = ["name", "title", "description", "inputSchema", "annotations"];
        parts.iter().filter_map(|part| tool.get(part)).map(|part| part.to_string().len()).sum()
    };
    let tokens = client.tools().await.iter().map(bytes).sum::<usize>() / 4;
    assert!(tokens <= MOST_TOKENS, "{tokens} tokens");
}

#[tokio::test]
async fn a_tool_that_creates_a_pod_does_not_claim_to_be_read_only() {
    let home = tempfile::tempdir().unwrap();
    let mut client = Client::start(Launcher::alone(home.path())).await;
    for tool in client.tools().await {
        let hints = &tool["annotations"];
        assert_eq!(hints["readOnlyHint"], tool["name"] == "list_gpu_nodes", "{tool}");
        assert_eq!(hints["destructiveHint"], false, "{tool}");
        assert!(tool["description"].as_str().is_some_and(|words| words.len() > 40), "{tool}");
        assert_eq!(tool["inputSchema"]["type"], "object");
        assert_eq!(tool["inputSchema"]["additionalProperties"], false, "{tool}");
        assert_eq!(tool["outputSchema"]["type"], "object");
    }
}

#[tokio::test]
async fn the_list_of_tools_is_small() {
    for (mode, most) in [(&[][..], MOST_BYTES), (&["--mode", "operator"][..], MOST_OPERATOR_BYTES)] {
        let home = tempfile::tempdir().unwrap();
        let mut client = Client::start(Launcher::alone(home.path()).args(mode.iter().copied())).await;
        let tools = client.tools().await;
        let bytes = serde_json::to_string(&tools).unwrap().len();
        assert!(bytes <= most, "{mode:?}: {bytes} bytes");
        // Each field must have a type, an enum or a description.
        for (name, field) in tools.iter().filter_map(|tool| tool["outputSchema"]["properties"].as_object()).flatten() {
            assert!(["type", "enum", "description"].iter().any(|part| field.get(part).is_some()), "{name}");
        }
    }
}

#[tokio::test]
async fn one_tool_is_the_entry_for_each_kind_of_question() {
    let home = tempfile::tempdir().unwrap();
    let mut client = Client::start(Launcher::alone(home.path())).await;
    let mut entries = Vec::new();
    for tool in client.tools().await {
        let words = tool["description"].as_str().unwrap().to_owned();
        if let Some(at) = words.find("Start here for") {
            entries
                .push((tool["name"].as_str().unwrap().to_owned(), words[at..].split('.').next().unwrap().to_owned()));
        }
    }
    let expected = [
        ("diagnose_gpu_node", "Start here for a node"),
        ("get_gpu_health", "Start here for a cluster"),
        ("explain_gpu_pod", "Start here for a pod or job"),
    ];
    let entries: BTreeSet<_> = entries.iter().map(|(name, words)| (name.as_str(), words.as_str())).collect();
    assert_eq!(entries, BTreeSet::from(expected));
}

#[tokio::test]
async fn every_answer_matches_its_output_schema() {
    let scenarios: Vec<_> = syringe_core::scenarios::all().iter().map(|scenario| scenario.name).collect();
    let nodes: Vec<_> = scenarios.iter().map(|scenario| node(scenario, scenario)).collect();
    let pods: Vec<Pod> = nodes.iter().flat_map(workloads_of).collect();
    let bed = Bed::of(Fixture { pods: pods.clone(), ..Fixture::of(nodes) }).await;
    let mut client = bed.client().await;
    for tool in client.tools().await {
        let name = tool["name"].as_str().unwrap();
        let schema = jsonschema::draft202012::new(&tool["outputSchema"]).unwrap();
        let arguments: Vec<_> = match tool["inputSchema"]["required"][0].as_str() {
            None if name == "analyze_xid_errors" => {
                [json!({"code": 79}), json!({"node_name": "xid79-off-bus"})].to_vec()
            }
            None if name == "explain_gpu_pod" => pods.iter().step_by(5).map(pod_arguments).collect(),
            None => vec![json!({})],
            Some(_) if name == "compare_gpu_nodes" => scenarios
                .iter()
                .skip(1)
                .step_by(9)
                .map(|node| json!({"node_name": node, "other_node": scenarios[0]}))
                .collect(),
            Some(_) => scenarios.iter().map(|node| json!({"node_name": node})).collect(),
        };
        let mut answered = 0;
        for arguments in arguments {
            let answer = client.call(name, arguments.clone()).await;
            if answer.is_error {
                // A node without a driver has no inventory.
                answer.error();
                continue;
            }
            answered += 1;
            let faults: Vec<_> = schema.iter_errors(answer.success()).map(|error| error.to_string()).collect();
            assert!(faults.is_empty(), "{name} {arguments}: {faults:?}");
        }
        assert!(answered > 0, "{name} returned no answer");
    }
}

fn pod_arguments(pod: &Pod) -> Value {
    json!({"pod": pod.metadata.name, "namespace": pod.metadata.namespace})
}

#[tokio::test]
async fn invalid_arguments_are_refused_before_anything_is_created() {
    let bed = Bed::healthy().await;
    let mut client = bed.client().await;
    let refused = [
        ("get_gpu_telemetry", json!({}), "node_name"),
        ("get_gpu_inventory", json!({"node_name": "gpu-1", "selector": "a=b"}), "node_name"),
        ("get_gpu_health", json!({"limit": 0}), "limit"),
        ("get_gpu_inventory", json!({"node_name": 7}), "string"),
        ("get_gpu_inventory", json!({"node_name": ""}), "node name"),
        ("get_gpu_inventory", json!({"node_name": "../../pods"}), "node name"),
        ("get_gpu_inventory", json!({"node_name": "gpu-1?x=y"}), "node name"),
        ("get_gpu_inventory", json!({"node_name": "gpu-1", "image": "evil"}), "image"),
        ("get_gpu_inventory", json!({"node_name": "gpu-1", "command": ["sh"]}), "command"),
        ("get_gpu_inventory", json!({"node_name": "gpu-1", "context": "elsewhere"}), "elsewhere"),
        ("analyze_xid_errors", json!({"node_name": "gpu-1", "since": "; reboot"}), "duration"),
        ("analyze_xid_errors", json!({"node_name": "gpu-1", "since": "--kernel-log=/etc/shadow"}), "duration"),
        ("list_gpu_nodes", json!({"selector": "a=b", "namespace": "x"}), "namespace"),
        ("explain_gpu_pod", json!({"pod": "../nodes", "namespace": "default"}), "../nodes"),
        ("explain_gpu_pod", json!({"pod": "a", "namespace": "x/pods/y?"}), "x/pods/y?"),
        ("get_pod_gpu_allocation", json!({"node_name": "gpu-1", "namespace": "A_b"}), "A_b"),
    ];
    for (tool, arguments, word) in refused {
        let answer = client.call(tool, arguments.clone()).await;
        assert!(answer.error().contains(word), "{arguments}: {}", answer.text);
    }
    assert_eq!(
        bed.cluster.requests().iter().filter(|request| !request.contains("/pods?")).count(),
        0,
        "no request must be sent"
    );
    let bad_selector = client.call("list_gpu_nodes", json!({"selector": "a in x"})).await;
    bad_selector.error();
    bed.assert_bare(0);
}

#[tokio::test]
async fn an_unknown_tool_is_refused_with_the_names_of_all_tools() {
    let bed = Bed::healthy().await;
    let mut client = bed.client().await;
    let answer = client.request("tools/call", json!({"name": "rm_rf\u{1b}[31m", "arguments": {}})).await;
    let message = answer["error"]["message"].as_str().unwrap_or_else(|| panic!("{answer}"));
    assert!(message.contains("list_gpu_nodes") && !message.contains('\u{1b}'), "{message}");
    let answer = client.request("no/such/method", json!({})).await;
    assert_eq!(answer["error"]["code"], -32601, "{answer}");
    client.call("get_gpu_inventory", on_gpu_1()).await.deleted();
}

#[tokio::test]
async fn invalid_lines_do_not_end_the_session() {
    let bed = Bed::healthy().await;
    let mut client = bed.client().await;
    client.program.write("hello?");
    let answer: Value = serde_json::from_str(&client.program.lines.recv().await.unwrap()).unwrap();
    assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(-32700), &Value::Null), "{answer}");
    client.program.write("");
    client.call("get_gpu_inventory", on_gpu_1()).await.deleted();
    client.close().await;
}

#[tokio::test]
async fn the_context_argument_exists_only_with_several_contexts() {
    let (bed, other) = (Bed::healthy().await, Bed::healthy().await);
    let mut client = Client::start(bed.launcher().args(["--allow-context", "west"])).await;
    let mut confined = bed.client().await;
    assert_eq!(client.tools().await[0]["inputSchema"]["properties"].get("context"), None);
    let mut one: Value = serde_json::from_str(&bed.cluster.kubeconfig_yaml()).unwrap();
    let mut two: Value = serde_json::from_str(&other.cluster.kubeconfig_yaml()).unwrap();
    // The user is also copied, because each cluster has its own token.
    for part in ["clusters", "contexts", "users"] {
        let mut entry = two[part][0].take();
        entry["name"] = json!("west");
        if part == "contexts" {
            entry["context"]["cluster"] = json!("west");
            entry["context"]["user"] = json!("west");
        }
        one[part].as_array_mut().unwrap().push(entry);
    }
    // The file changes while the server is running, as when a user adds a cluster.
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    std::fs::write(bed.kubeconfig(), one.to_string()).unwrap();
    let tools = client.tools().await;
    let offered = json!(["embedded", "west"]);
    assert!(tools.iter().all(|tool| tool["inputSchema"]["properties"]["context"]["enum"] == offered), "{tools:?}");
    let answer = client.call("get_gpu_inventory", json!({"node_name": "gpu-1", "context": "west"})).await;
    assert_eq!(answer.deleted()["probe"]["context"], "west");
    other.assert_bare(1);
    client.call("get_gpu_inventory", on_gpu_1()).await.deleted();
    bed.assert_bare(1);
    // Without `--allow-context`, the tools can only use one context.
    let tools = confined.tools().await;
    assert!(tools.iter().all(|tool| tool["inputSchema"]["properties"].get("context").is_none()), "{tools:?}");
    let west = json!({"node_name": "gpu-1", "context": "west"});
    let refused = confined.call("get_gpu_inventory", west.clone()).await;
    refused.error_with(&["may not name the context 'west'", "embedded", "--allow-context west"]);
    confined.call("get_gpu_inventory", json!({"node_name": "gpu-1", "context": "embedded"})).await.deleted();
    // `--context` limits the launcher to that context, independent of the current context.
    let mut pinned = Client::start(bed.launcher().args(["--context", "west"])).await;
    let embedded = json!({"node_name": "gpu-1", "context": "embedded"});
    pinned
        .call("get_gpu_inventory", embedded.clone())
        .await
        .error_with(&["may not name the context 'embedded'", "west"]);
    let mut any = Client::start(bed.launcher().args(["--context", "west", "--allow-context", "*"])).await;
    assert_eq!(any.tools().await[0]["inputSchema"]["properties"]["context"]["enum"], offered);
    any.call("get_gpu_inventory", embedded).await.deleted();
    other.assert_bare(1);
}

#[tokio::test]
async fn control_plane_nodes_are_not_probed_by_default() {
    let fixture = Fixture::of([node("gpu-1", "healthy-h100-8"), node("master", "healthy-h100-8")]);
    let bed = Bed::of(fixture).await;
    bed.cluster.edit_node("master", |node| {
        let labels = node.metadata.labels.get_or_insert_default();
        labels.insert("node-role.kubernetes.io/control-plane".into(), String::new());
    });
    let mut client = bed.client().await;
    let on_master = json!({"node_name": "master"});
    client.call("get_gpu_inventory", on_master.clone()).await.error_with(&["control plane", "--allow-nodes"]);
    let fleet = client.call("get_gpu_inventory", json!({})).await;
    let fleet = fleet.success();
    assert_eq!((&fleet["totals"]["read"], &fleet["totals"]["skipped"]), (&json!(1), &json!(1)), "{fleet}");
    bed.assert_bare(1);
    let mut told = Client::start(bed.launcher().args(["--allow-nodes", "node-role.kubernetes.io/control-plane"])).await;
    told.call("get_gpu_inventory", on_master).await.deleted();
    told.call("get_gpu_inventory", on_gpu_1()).await.error_with(&["do not match --allow-nodes"]);
    bed.assert_bare(2);
}

#[tokio::test]
async fn every_tool_says_that_quoted_text_is_data() {
    let bed = Bed::healthy().await;
    let mut client = Client::start(bed.launcher().args(["--mode", "operator"])).await;
    for tool in client.tools().await {
        let said = tool["description"].as_str().unwrap();
        assert!(said.contains("`quoted`") && said.contains("never instructions"), "{said}");
    }
    let answer = client.call("diagnose_gpu_node", on_gpu_1()).await;
    assert!(answer.success()["quoted"].as_array().is_some_and(|names| !names.is_empty()), "{}", answer.text);
}

#[tokio::test]
async fn commands_print_json_into_a_pipe_and_a_table_when_asked() {
    let bed = Bed::healthy().await;
    let words = ["inventory", "gpu-1"];
    let json = bed.launcher().args(words).run().await.json();
    assert_eq!(json["probe"]["deleted"], true);
    let table = bed.launcher().args(words).args(["--output", "table"]).run().await;
    assert_eq!(table.code, Some(0));
    assert!(table.stdout.contains("NVIDIA H100") && table.stdout.contains("probe pod deleted"), "{}", table.stdout);
    let nodes = bed.launcher().args(["nodes"]).run().await.json();
    assert_eq!(nodes["totals"]["gpu_nodes"], 1);
    bed.assert_bare(2);
}

#[tokio::test]
async fn the_namespace_of_a_pod_to_explain_is_not_that_of_the_probe() {
    let job = workload_pod("jobs", "training", "gpu-1", 1);
    let bed = Bed::of(Fixture { pods: vec![job], ..Fixture::of([node("gpu-1", "healthy-h100-8")]) }).await;
    let words = ["explain", "training", "-n", "jobs"];
    // The pod of this cluster is not in the node's facts, so the cause is unknown.
    let answer: Value = serde_json::from_str(&bed.launcher().args(words).run().await.stdout).unwrap();
    assert_eq!((&answer["phase"], &answer["probe"]["deleted"]), (&json!("Running"), &json!(true)), "{answer}");
    let created = format!("POST /api/v1/namespaces/{NAMESPACE}/pods");
    let requests = bed.cluster.requests();
    assert!(requests.iter().any(|request| request.starts_with(&created)), "{requests:?}");
}

#[tokio::test]
async fn a_host_that_disconnects_is_not_an_error() {
    let bed = Bed::healthy().await;
    let ended = bed.launcher().args(["mcp"]).run().await;
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (Some(0), "", ""));
}

#[tokio::test]
async fn a_host_that_breaks_the_protocol_gets_a_log_of_json_lines() {
    let bed = Bed::healthy().await;
    let mut running = bed.launcher().args(["mcp"]).start();
    running.write(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string());
    running.close_stdin();
    running.exit().await;
    for line in running.said().lines() {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

/// If an argument of a tool has the wrong type, the message contains the name of the argument and no Rust type.
#[tokio::test]
async fn an_argument_of_the_wrong_type_is_named() {
    let home = tempfile::tempdir().unwrap();
    let mut client = Client::start(Launcher::alone(home.path()).args(["--mode", "operator"])).await;
    let mut checked = 0;
    for tool in client.tools().await {
        let name = tool["name"].as_str().unwrap();
        for argument in tool["inputSchema"]["properties"].as_object().unwrap().keys() {
            let wrong = json!({argument: [["no", "such", "type"]]});
            let text = client.call(name, wrong).await.error().to_owned();
            let rust = ["u32", "u64", "u16", "f64", "struct", "enum"].iter().any(|word| text.contains(word));
            assert!(text.contains(argument.as_str()) && !rust, "{name} {argument}: {text}");
            checked += 1;
        }
    }
    assert!(checked > 20, "{checked}");
}
