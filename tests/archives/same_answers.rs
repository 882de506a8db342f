//! Tests that the answers from an archive, also from a redacted archive, are the same as those of the cluster, except
//! for lists that could not be saved.

use std::io::Read;
use std::path::{Path, PathBuf};

use demo_cluster::{Denial, Fixture, workloads_of};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use syringe_core::scenarios;

use crate::bed::{Bed, node};
use crate::pods;
use crate::support::client::Client;
use crate::support::launcher::Launcher;

/// Returns a cluster with a node for each scenario, their pods, the pods of the snapshots, and DaemonSets, Leases and
/// machines.
async fn cluster() -> Bed {
    let nodes: Vec<_> = scenarios::all().iter().map(|scenario| node(scenario.name, scenario.name)).collect();
    let of_pods = pods::fixture();
    let mut all = of_pods.pods.clone();
    all.extend(nodes.iter().flat_map(workloads_of));
    let bed = Bed::of(Fixture { nodes: [nodes, of_pods.nodes.clone()].concat(), pods: all, ..of_pods }).await;
    let now = jiff::Timestamp::now();
    bed.cluster.add_object(json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "nvidia-device-plugin-daemonset", "namespace": "gpu-operator", "creationTimestamp": "2026-10-01T00:00:00Z"},
        "spec": {"selector": {}, "template": {"metadata": {"labels": {"app": "nvidia-device-plugin-daemonset"}},
            "spec": {"containers": [{"name": "plugin", "image": "nvcr.io/nvidia/k8s-device-plugin:v0.17.1", "args": ["--secret=hunter2"]}]}}},
        "status": {"currentNumberScheduled": 1, "desiredNumberScheduled": 1, "numberMisscheduled": 0, "numberReady": 0},
    }));
    bed.cluster.add_object(json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "gpu-1", "namespace": "kube-node-lease"}, "spec": {"renewTime": now.to_string()},
    }));
    bed.cluster.add_object(json!({
        "apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "metadata": {"name": "pool-x7k2p"},
        "status": {"conditions": [{"type": "Registered", "status": "Unknown", "reason": "NodeNotFound"}]},
    }));
    bed.cluster.edit_node("l40s-4-idle", |node| {
        let conditions = node.status.as_mut().unwrap().conditions.as_mut().unwrap();
        conditions[0].status = "Unknown".to_owned();
        conditions[0].last_transition_time = Some(Time(now - jiff::SignedDuration::from_mins(200)));
    });
    bed
}

/// Saves the nodes to an archive in the home directory. Returns the path and the output of the command.
async fn save(bed: &Bed, arguments: &[&str]) -> (PathBuf, Value) {
    let file = bed.home().join("archive.tar.gz");
    let path = file.to_str().unwrap().to_owned();
    let words = ["save", "-f", &path, "--fail-on", "never"].into_iter().chain(arguments.iter().copied());
    let ended = bed.launcher().args(words).run().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    (file, serde_json::from_str(&ended.stdout).unwrap())
}

/// Returns a session whose cluster is an archive.
async fn from(home: &Path, file: &Path) -> Client {
    Client::start(Launcher::alone(home).args(["--from", file.to_str().unwrap()])).await
}

/// Stands for the log of a container, or for the command that reads it.
const LOG: &str = "(LOG)";

/// Returns the answer without values that differ in each call: the probe, the origin and the age of the answer.
fn steady(mut answer: Value) -> Value {
    fn walk(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for name in ["probe", "other_probes", "probes", "archive", "for_seconds", "taken_at"] {
                    fields.remove(name);
                }
                // The marker of the archive has a version and a note. Both are untrusted texts.
                if let Some(quoted) = fields.get_mut("quoted").and_then(Value::as_array_mut) {
                    quoted.retain(|field| field != "version" && field != "note");
                }
                fields.values_mut().for_each(walk);
            }
            Value::Array(entries) => entries.iter_mut().for_each(walk),
            // An archive has the logs of failed components only. The answer then has the command that reads the log.
            Value::String(text) => {
                *text = text.replace("(its log is empty)", LOG);
                if let Some((before, (_, after))) =
                    text.split_once("(kubectl logs ").and_then(|(before, rest)| Some((before, rest.split_once(')')?)))
                {
                    *text = format!("{before}{LOG}{after}");
                }
            }
            _ => {}
        }
    }
    walk(&mut answer);
    answer
}

/// Asserts that two answers are the same. If they differ, the message contains the first difference.
fn assert_same(one: &Value, two: &Value, path: &str) {
    match (one, two) {
        (Value::Object(fields), Value::Object(others)) => {
            for name in fields.keys().chain(others.keys()) {
                assert_same(&one[name], &two[name], &format!("{path} / {name}"));
            }
        }
        (Value::Array(entries), Value::Array(others)) if entries.len() == others.len() => {
            let pairs = entries.iter().zip(others).enumerate();
            pairs.for_each(|(at, (one, two))| assert_same(one, two, &format!("{path} / {at}")));
        }
        _ => assert_eq!(one, two, "{path}"),
    }
}

/// Returns calls of all read-only tools for these nodes.
fn calls(nodes: &[String]) -> Vec<(&'static str, Value)> {
    let mut calls = vec![
        ("list_gpu_nodes", json!({})),
        ("get_gpu_health", json!({})),
        ("get_gpu_inventory", json!({})),
        ("get_pod_gpu_allocation", json!({"all_namespaces": true})),
        ("get_pod_gpu_allocation", json!({"namespace": pods::NAMESPACE})),
        ("diagnose_gpu_node", json!({"node_name": "nosuch"})),
        ("diagnose_gpu_node", json!({"node_name": "pool-x7k2p"})),
        ("explain_gpu_pod", json!({"pod": "nosuch", "namespace": "workloads"})),
    ];
    for node in nodes {
        let of_node = [
            "describe_gpu_node",
            "get_gpu_health",
            "get_gpu_inventory",
            "get_gpu_telemetry",
            "analyze_xid_errors",
            "snapshot_ecc",
            "inspect_topology",
        ];
        calls.extend(of_node.map(|tool| (tool, json!({"node_name": node}))));
        calls.push(("analyze_xid_errors", json!({"node_name": node, "since": "24h"})));
        calls.push(("diagnose_gpu_node", json!({"node_name": node, "detail": true})));
        calls.push(("get_pod_gpu_allocation", json!({"node_name": node, "resolve_devices": true})));
    }
    for pod in pods::NAMES {
        calls.push(("explain_gpu_pod", json!({"pod": pod, "namespace": pods::NAMESPACE})));
    }
    calls
}

async fn answer(client: &mut Client, tool: &str, arguments: &Value) -> Value {
    let answer = client.call(tool, arguments.clone()).await;
    match answer.is_error {
        true => json!(answer.error()),
        false => answer.success().clone(),
    }
}

#[tokio::test]
async fn every_tool_answers_from_an_archive_as_from_the_cluster() {
    let bed = cluster().await;
    let names: Vec<String> = bed.cluster.node_names();
    let words: Vec<&str> = names.iter().map(String::as_str).collect();
    let (file, saved) = save(&bed, &words).await;
    assert_eq!(saved["nodes"].as_array().unwrap().len(), names.len() - 1, "{saved}");
    assert!(saved["unread"].to_string().contains("l40s-4-idle"), "{saved}");
    let (mut live, mut archived) = (bed.client().await, from(bed.home(), &file).await);
    let mut compared = 0;
    for (tool, arguments) in calls(&names) {
        let (here, there) = tokio::join!(answer(&mut live, tool, &arguments), answer(&mut archived, tool, &arguments));
        if there.is_object() {
            assert_eq!(there["archive"]["version"], env!("CARGO_PKG_VERSION"), "{tool} {arguments}");
            assert!(here.get("archive").is_none());
            assert!(there["quoted"].as_array().unwrap().contains(&json!("version")), "{tool} {arguments}");
        }
        let [here, there] = [here, there].map(|answer| match answer {
            // A report has the total number of records, but not the number of records in each window.
            answer if arguments.get("since").is_some() => {
                let mut answer = steady(answer);
                let logs = answer["coverage"]["kernel_log"].as_array_mut().into_iter().flatten();
                logs.for_each(|log| log["records"] = Value::Null);
                answer
            }
            // The failure contains the address of the server.
            Value::String(text) => json!(text.split("(http").next()),
            answer => steady(answer),
        });
        assert_same(&here, &there, &format!("{tool} {arguments}"));
        compared += 1;
    }
    assert!(compared > 100, "{compared}");
}

/// Returns the unpacked content of all files in an archive.
fn unpacked(file: &Path) -> String {
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(std::fs::File::open(file).unwrap()));
    let mut all = String::new();
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        all += &entry.path().unwrap().display().to_string();
        entry.read_to_string(&mut all).unwrap();
    }
    all
}

#[tokio::test]
async fn a_redacted_archive_has_the_same_verdicts_and_no_identifier() {
    let bed = cluster().await;
    let names: Vec<String> = bed.cluster.node_names();
    let words: Vec<&str> = names.iter().map(String::as_str).collect();
    let (plain, saved_plain) = save(&bed, &words).await;
    let kept = bed.home().join("plain.tar.gz");
    std::fs::rename(plain, &kept).unwrap();
    let (redacted, saved) = save(&bed, &[&words[..], &["--redact"]].concat()).await;
    assert_eq!(saved["redacted"], true);
    let (before, after) = (unpacked(&kept), unpacked(&redacted).to_lowercase());
    let uuid = regex::Regex::new("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}").unwrap();
    let serial = regex::Regex::new("\"1[68][0-9]{11}\"").unwrap();
    for pattern in [uuid, serial] {
        let found: std::collections::BTreeSet<_> = pattern.find_iter(&before).map(|found| found.as_str()).collect();
        assert!(found.len() > 20, "{}", found.len());
        let left: Vec<_> = found.iter().filter(|text| after.contains(**text)).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    // The name of a GPU model or of a host can be a part of another text. This does not apply to `gpu-1` and the names
    // of scenarios.
    for name in names.iter().map(String::as_str).chain(["gb200-a07-t06", "train-x7k2p", "registry.example"]) {
        assert!(!after.contains(&format!("\"{name}\"")), "{name}");
    }
    // The pseudonyms have the same order as the names.
    let read = |saved: &Value| saved["nodes"].as_array().unwrap().clone();
    let pairs: Vec<_> = read(&saved_plain).into_iter().zip(read(&saved)).collect();
    assert!(pairs.len() > 5, "{pairs:?}");
    let (mut one, mut two) = (from(bed.home(), &kept).await, from(bed.home(), &redacted).await);
    for (name, pseudonym) in pairs {
        let verdict = |answer: Value| {
            let ids = |list: &str| -> Vec<Value> {
                let entries = answer[list].as_array().into_iter().flatten();
                entries.map(|finding| json!([finding["id"], finding["severity"]])).collect()
            };
            json!([answer["verdict"], ids("findings"), answer["health"]["score"]])
        };
        let ours = answer(&mut one, "get_gpu_health", &json!({"node_name": name})).await;
        let theirs = answer(&mut two, "get_gpu_health", &json!({"node_name": pseudonym})).await;
        assert_eq!(verdict(theirs), verdict(ours), "{name}");
    }
}

#[tokio::test]
async fn a_list_that_could_not_be_saved_is_missing_in_the_answers_with_its_reason() {
    let fixture = Fixture::of([node("gpu-1", "healthy-h100-8")]).denying(Denial::of("list", "events"));
    let bed = Bed::of(fixture).await;
    let (file, saved) = save(&bed, &[]).await;
    assert!(saved["unread"].to_string().contains("events"), "{saved}");
    let mut client = from(bed.home(), &file).await;
    let answer = answer(&mut client, "describe_gpu_node", &json!({"node_name": "gpu-1"})).await;
    assert!(answer["unknown"].to_string().contains("it is not in the archive"), "{answer}");
}

#[tokio::test]
async fn the_demo_is_the_archive_in_the_program() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("demo.tar.gz");
    std::fs::write(&file, demo_cluster::DEMO).unwrap();
    let mut demo = Client::start(Launcher::alone(home.path()).args(["--demo"])).await;
    let mut archived = from(home.path(), &file).await;
    for (tool, arguments) in [
        ("list_gpu_nodes", json!({})),
        ("get_gpu_health", json!({})),
        ("diagnose_gpu_node", json!({"node_name": "gpu-2"})),
        ("describe_gpu_node", json!({"node_name": "gpu-3"})),
        ("explain_gpu_pod", json!({"pod": "finetune-0", "namespace": "research"})),
    ] {
        let [one, two] = [answer(&mut demo, tool, &arguments).await, answer(&mut archived, tool, &arguments).await];
        assert!(one["archive"]["note"].as_str().unwrap().contains("demo data"), "{one}");
        assert_eq!(one["archive"], two["archive"]);
        assert!(two["quoted"].as_array().unwrap().contains(&json!("note")), "{two}");
        assert_eq!(steady(one), steady(two), "{tool}");
    }
    // The file has the same content, but only the archive in the program is labelled as a demo.
    let page = |arguments: [&str; 2]| {
        let words: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        let launcher =
            Launcher::alone(home.path()).args(words.iter().map(String::as_str).filter(|word| !word.is_empty()));
        launcher.args(["nodes", "-o", "table"])
    };
    let demo = page(["--demo", ""]).run().await.stdout;
    assert!(demo.contains("\nThis is demo data, not a real cluster."), "{demo}");
    let archived = page(["--from", file.to_str().unwrap()]).run().await.stdout;
    let (origin, says) = ("From an archive of 20", "The archive says: \"This is demo data, not a real cluster.\"");
    assert!(archived.contains(origin) && archived.replace('\n', " ").contains(says), "{archived}");
}

#[tokio::test]
async fn a_report_is_an_archive_of_one_node() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("node.json");
    std::fs::write(&file, scenarios::named("xid79-off-bus").unwrap().json).unwrap();
    let mut client = from(home.path(), &file).await;
    let nodes = answer(&mut client, "list_gpu_nodes", &json!({})).await;
    let name = nodes["nodes"][0]["node"].as_str().unwrap().to_owned();
    let answer = answer(&mut client, "diagnose_gpu_node", &json!({"node_name": name})).await;
    assert_eq!(answer["findings"][0]["id"], "gpu-off-bus", "{answer}");
    assert_eq!(answer["archive"]["taken_at"], "2026-11-21T02:45:10Z");
    let findings = answer["findings"].as_array().unwrap();
    let about_kubernetes =
        |finding: &&Value| finding["reference"].as_str().is_some_and(|url| url.contains("kubernetes.io"));
    assert_eq!(findings.iter().find(about_kubernetes), None, "nothing follows from objects that are unknown");
}
