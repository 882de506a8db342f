//! Tests that compare the sections and the answers of the tools with the files in `snapshots/`.
//!
//! For each scenario of the library there are snapshots of each section and each tool. For the other scenarios there are
//! snapshots of the values that are computed from the facts (kernel events and health).
//!
//! Only values that do not depend on the scenario are omitted: the time that a call took, and the version of the program.
//! After an intended change, run `INSTA_UPDATE=always cargo test -p gpu-syringe --test snapshots` and review the difference.
#![allow(clippy::unwrap_used)]

#[path = "support/bed.rs"]
mod bed;
#[path = "snapshots/pods.rs"]
mod pods;
#[path = "support/mod.rs"]
mod support;

use demo_cluster::{Fixture, Timing, demo, workloads_of};
use gpu_syringe::command_line::command_of;
use insta::{assert_json_snapshot, assert_snapshot};
use serde_json::{Value, json};
use syringe_core::report::Report;
use syringe_core::scenarios;
use syringe_core::section_name::SectionName;

use crate::bed::{Bed, node};

/// Runs `assert` with the settings that all snapshots share, for a folder of `snapshots/`.
fn bind(folder: &str, assert: impl FnOnce()) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(format!("../snapshots/{folder}"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    // The last line of a table contains the duration of the call.
    settings.add_filter(r" via pod in \d+ ms", " via pod in [time] ms");
    // The age of a condition of the demo cluster is the time since the cluster was started.
    settings.add_filter(r"(KubeletReady +)\d+ s", "$1[age]");
    settings.add_filter(r#""for_seconds": \d+"#, r#""for_seconds": "[age]""#);
    settings.bind(assert);
}

/// Returns the section that a command of node-probe prints for a scenario.
fn section(facts: &Report, name: SectionName) -> Value {
    let outcome = node_probe::run(&[name.as_str().to_owned()], Some(facts));
    let mut report: Value = serde_json::from_slice(&outcome.stdout).unwrap();
    report["sections"][name.as_str()].take()
}

#[test]
fn every_section_of_a_healthy_and_of_a_broken_node() {
    for scenario in ["healthy-h100-8", "xid79-off-bus"].map(|name| scenarios::named(name).unwrap()) {
        for name in SectionName::ALL {
            let section = section(&scenario.report(), name);
            let folder = format!("sections/{}", scenario.name);
            bind(&folder, || assert_json_snapshot!(name.as_str(), section));
        }
    }
}

/// Snapshots of two scenarios are enough, because all other sections are replayed as they were saved.
#[test]
fn every_other_section_is_replayed_unchanged() {
    for (scenario, mut facts) in ::scenarios::all().map(|scenario| (scenario.name, scenario.report())) {
        // The start of CUDA is only replayed for a command with `--deep`.
        if let Some(host) = facts.sections.host.as_mut().and_then(|section| section.data.as_mut()) {
            host.cuda = None;
        }
        let saved = serde_json::to_value(&facts.sections).unwrap();
        for name in SectionName::ALL {
            if let Some(saved) = saved.get(name.as_str())
                && name != SectionName::Xid
            {
                assert_eq!(&section(&facts, name), saved, "{scenario}: {}", name.as_str());
            }
        }
    }
}

/// Returns the answer without the values that do not depend on the scenario.
fn steady(mut answer: Value) -> Value {
    let own = answer.get("probe").map(|_| "/probe".to_owned()).into_iter();
    let others = answer["other_probes"].as_array().map_or(0, Vec::len);
    for path in own.chain((0..others).map(|at| format!("/other_probes/{at}"))) {
        let probe = &mut answer.pointer_mut(&path).expect("a probe");
        probe["timings_ms"] = json!("[timings]");
        probe["version"] = json!("[version]");
    }
    // This field contains the time at which the API was read.
    if let Some(taken_at) = answer.get_mut("taken_at") {
        *taken_at = json!("[now]");
    }
    answer
}

#[tokio::test]
async fn every_tool_for_five_nodes() {
    let names = ["healthy-h100-8", "a100-mig-8", "ecc-remap-pending", "no-driver", "xid79-off-bus"];
    let nodes: Vec<_> = names.iter().map(|name| node(name, name)).collect();
    let pods = nodes.iter().flat_map(workloads_of).collect();
    let bed = Bed::of(Fixture { pods, ..Fixture::of(nodes) }).await;
    let mut client = bed.client().await;
    let mut calls = Vec::new();
    for tool in client.tools().await {
        let tool = tool_of_one_node(&tool).map(str::to_owned);
        for name in tool.iter().flat_map(|_| names) {
            let tool = tool.clone().unwrap();
            calls.push((tool.clone(), name, client.send_call(&tool, json!({"node_name": name}))));
        }
    }
    for (tool, name, call) in calls {
        let answer = client.result(call).await;
        bind(&format!("tools/{name}"), || match answer.is_error {
            true => assert_snapshot!(tool, answer.error()),
            false => assert_json_snapshot!(tool, steady(answer.success().clone())),
        });
    }
}

/// Returns the name of a tool that accepts the name of one node.
fn tool_of_one_node(tool: &Value) -> Option<&str> {
    let schema = &tool["inputSchema"];
    let needs_no_more = schema["required"].as_array().is_none_or(|all| all.iter().all(|name| name == "node_name"));
    let takes_a_node = schema["properties"].get("node_name").is_some();
    let is_about_two = schema["properties"].get("other_node").is_some();
    (takes_a_node && needs_no_more && !is_about_two).then(|| tool["name"].as_str())?
}

#[tokio::test]
async fn every_table_of_the_demo() {
    let bed = Bed::of(Fixture { timing: Timing::fast(), ..demo() }).await;
    let mut client = bed.client().await;
    let nodes = ["gpu-1", "gpu-2", "gpu-3"];
    let mut commands = vec![("list_gpu_nodes".to_owned(), vec!["nodes".to_owned()])];
    for tool in client.tools().await {
        let Some(tool) = tool_of_one_node(&tool) else { continue };
        let words = |node: &str| [command_of(tool).to_owned(), node.to_owned()].to_vec();
        commands.extend(nodes.map(|node| (format!("{node}.{tool}"), words(node))));
    }
    for (name, words) in commands {
        let launcher =
            bed.launcher().args(["--output", "table", "--fail-on", "never"]).args(words.iter().map(String::as_str));
        let ended = launcher.run().await;
        assert_eq!(ended.code, Some(0), "{name}: {}", ended.stderr);
        bind("tables", || assert_snapshot!(name, ended.stdout));
    }
}

#[tokio::test]
async fn every_pod_of_the_demo_explained() {
    let bed = Bed::of(Fixture { timing: Timing::fast(), ..demo() }).await;
    let mut client = bed.client().await;
    let pods = [
        ("research", "finetune-0"),
        ("workloads", "gpu-1-trainer-0"),
        ("workloads", "gpu-2-trainer-0"),
        ("workloads", "gpu-3-vllm-0"),
        ("workloads", "gpu-3-vllm-5"),
        ("monitoring", "prometheus-0"),
    ];
    for (namespace, name) in pods {
        let answer = client.call("explain_gpu_pod", json!({"pod": name, "namespace": namespace})).await;
        let mut answer = steady(answer.success().clone());
        // Pods without a time in the facts are as old as the cluster.
        if namespace != "workloads" {
            let moments = answer["timeline"].as_array_mut().into_iter().flatten();
            moments.for_each(|moment| moment["time"] = json!("[start]"));
        }
        bind("explained", || assert_json_snapshot!(name, answer));
        let words = ["explain", name, "-n", namespace, "-o", "table", "--fail-on", "never"];
        let ended = bed.launcher().args(words).run().await;
        assert_eq!(ended.code, Some(0), "{name}: {}", ended.stderr);
        let started = without_times(&ended.stdout, namespace != "workloads");
        bind("explained", || assert_snapshot!(format!("{name}.table"), started));
    }
}

/// Each of these pods fails, waits or only seems healthy for a different reason.
#[tokio::test]
async fn every_kind_of_pod_explained() {
    let bed = Bed::of(pods::fixture()).await;
    for name in pods::NAMES {
        let words = ["explain", name, "-n", pods::NAMESPACE, "--output", "table"];
        let words = words.into_iter().chain(["--fail-on", "never"]);
        let ended = bed.launcher().args(words).run().await;
        assert_eq!(ended.code, Some(0), "{name}: {}", ended.stderr);
        bind("explained", || assert_snapshot!(format!("kind.{name}"), without_times(&ended.stdout, false)));
    }
}

/// Width of the age of an entry, with the blanks before it.
const AGE: usize = 9;

/// Returns the table without ages, and without its times if these depend on the start of the cluster.
fn without_times(table: &str, hide: bool) -> String {
    let dated = |line: &str| line.get(10..11) == Some("T") && line.get(19..20) == Some("Z");
    let line = |line: &str| match (dated(line), hide) {
        (true, true) => format!("[start]{}", &line[20 + AGE..]),
        (true, false) => format!("{}{}", &line[..20], &line[20 + AGE..]),
        (false, _) => line.to_owned(),
    };
    table.lines().map(line).collect::<Vec<_>>().join("\n")
}
