use crate::bed::Bed;
use crate::cluster::{facts, from_json};
use demo_cluster::{Fixture, NodeFixture};
use serde_json::Value;
#[tokio::test]
#[ignore]
#[allow(clippy::all, clippy::print_stdout)]
async fn real() {
    let mut dirs: Vec<_> = std::fs::read_dir("/work/w/real-facts")
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.join("pods.json").exists())
        .collect();
    dirs.sort();
    let read = |dir: &std::path::Path, name: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(dir.join(name)).unwrap_or("{}".into());
        let v: Value = serde_json::from_str(&text).unwrap_or_default();
        v["items"].as_array().cloned().unwrap_or_default()
    };
    for dir in dirs {
        let name = dir.file_name().unwrap().to_string_lossy().to_string();
        let mut node = NodeFixture::from_facts("real-1", facts("l40s-4-idle"));
        for n in read(&dir, "nodes.json") {
            let a = &n["status"]["allocatable"];
            let c = &n["status"]["capacity"];
            node.unschedulable = n["spec"]["unschedulable"] == true;
            if let Some(t) = n["spec"].get("taints") {
                node.taints = from_json(t.clone());
            }
            node.resources = [("nvidia.com/gpu", ())]
                .iter()
                .filter_map(|(k, _)| {
                    Some((k.to_string(), (c[k].as_str()?.parse().ok()?, a[k].as_str()?.parse().ok()?)))
                })
                .collect();
            node.resources.insert("cpu".into(), (2, 2));
            node.resources.insert("memory".into(), (25171652608, 25171652608));
        }
        let pods: Vec<_> = read(&dir, "pods.json")
            .into_iter()
            .filter(|p| p["metadata"]["namespace"] != "kube-system")
            .map(from_json)
            .collect();
        let events = read(&dir, "events.json")
            .into_iter()
            .filter(|e| e["involvedObject"]["kind"] != "Node")
            .map(from_json)
            .collect();
        let mut names: Vec<(String, String)> = read(&dir, "pods.json")
            .iter()
            .filter(|p| p["metadata"]["namespace"] == "faults")
            .map(|p| {
                (p["metadata"]["namespace"].as_str().unwrap().into(), p["metadata"]["name"].as_str().unwrap().into())
            })
            .collect();
        if name.starts_with("06a") {
            names =
                vec![("faults".into(), "over-quota-7ff697f87f-gz2kf".into()), ("faults".into(), "over-quota".into())];
        }
        if name.starts_with("03") || names.is_empty() {
            names.extend(read(&dir, "pods.json").iter().filter(|p| p["metadata"]["namespace"] == "gpu-operator").map(
                |p| {
                    (
                        p["metadata"]["namespace"].as_str().unwrap().into(),
                        p["metadata"]["name"].as_str().unwrap().into(),
                    )
                },
            ));
        }
        let bed = Bed::of(Fixture { pods, events, ..Fixture::of([node]) }).await;
        for (ns, pod) in names {
            let words = ["explain-gpu-pod", "--pod", &pod, "--pod-namespace", &ns, "--output", "table"];
            let ended = bed.launcher().args(words).run().await;
            println!("######## {name} {ns}/{pod}\n{}{}", ended.stdout, ended.stderr);
        }
    }
}
